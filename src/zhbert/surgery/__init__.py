"""Models made smaller, longer, or with more pieces."""
