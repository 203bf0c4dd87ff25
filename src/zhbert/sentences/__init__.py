"""Sentence models: one vector for a text, and what is computed with such vectors."""
