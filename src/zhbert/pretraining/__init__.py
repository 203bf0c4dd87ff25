"""Pretraining: what is learnt, from what, where a run starts, and what it writes."""
