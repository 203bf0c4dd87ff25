"""How a model learns each kind of task: the part of a kind that needs torch."""
