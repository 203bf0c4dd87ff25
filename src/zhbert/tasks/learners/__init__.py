"""Learners: the part of each task kind that needs torch."""
