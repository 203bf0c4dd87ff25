"""Asking a model: rows packed side by side, scores in the order of the examples."""
