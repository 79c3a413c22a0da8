"""What `scripts/stress` runs: scenarios over four nodes and a Redis, each of which checks itself."""
