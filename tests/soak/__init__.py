"""The parts of `scripts/soak`: a cluster under load, faults, and what must hold afterwards."""
