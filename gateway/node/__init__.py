"""One node: where the parts meet."""
