"""Fine-tuning: seeds and grids of one task, and predicting with what they made."""
