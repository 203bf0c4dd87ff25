"""Optimisers, the training loop, checkpoints and logs; knows neither BERT nor Chinese."""
