"""The formats of model files: what is in one by name, and how one is written."""
