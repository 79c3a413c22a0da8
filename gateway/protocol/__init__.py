"""What is said, as plain data: no wait, no log, no clock."""

__all__ = ["codec", "deflate", "envelope", "frames", "json_values", "message"]
