"""Tasks: a card describes the data and the metrics, a kind how a model learns and predicts."""
