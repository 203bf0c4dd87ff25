"""Optimisers, the training loop, checkpoints and logs; independent of BERT and of Chinese."""
