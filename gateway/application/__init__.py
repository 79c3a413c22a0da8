"""What an application writes, and what it is given."""
