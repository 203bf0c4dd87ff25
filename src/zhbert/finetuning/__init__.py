"""Fine-tuning for a task, with several seeds and grids of settings, and prediction."""
