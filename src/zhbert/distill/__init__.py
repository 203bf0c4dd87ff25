"""Training of a small model with a large one: losses between two models, and teachers."""
