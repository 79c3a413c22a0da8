"""What the typed commands of a handler take and answer, written for others: JSON Schema and TypeScript."""

from gateway.application.schema.document import describe
from gateway.application.schema.typescript import typescript

__all__ = ["describe", "typescript"]
