"""Handlers that come with the gateway."""
