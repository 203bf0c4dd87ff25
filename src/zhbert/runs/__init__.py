"""What every training run's folder has, whatever is trained: a claim, a lock, and provenance."""
