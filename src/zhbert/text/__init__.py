"""Text to words and pieces; nothing here imports torch."""
