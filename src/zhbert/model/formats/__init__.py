"""The formats of model files: readers of named tensors, and writers."""
