"""How a node talks to Redis."""
