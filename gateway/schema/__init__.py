"""What the typed commands of a handler take and answer, written for others: JSON Schema and TypeScript."""

from gateway.schema.document import describe
from gateway.schema.typescript import typescript

__all__ = ["describe", "typescript"]
