"""Asking a model: rows in batches of like length, and the [MASK]s of a text."""
