"""The clients this node holds; nothing here waits for one."""

__all__ = ["budget", "connection", "counters", "expiry", "fanout", "heartbeat", "hub", "limits", "outbox", "websocket"]
