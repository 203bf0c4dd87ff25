"""Pretraining: its objective, data, starting points, runs and results."""
