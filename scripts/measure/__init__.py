"""What scripts/bench is made of: the workloads, the servers they are run against, and what is made of the figures."""
