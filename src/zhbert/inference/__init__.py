"""Inference: scores for rows, in batches of similar length, and filling the [MASK]s of a text."""
