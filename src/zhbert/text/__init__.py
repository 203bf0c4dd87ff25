"""Normalisation, tokenization, word segmentation and vocabularies; nothing here imports torch."""
