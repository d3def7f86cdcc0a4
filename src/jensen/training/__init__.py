"""Training: the loop, its moving average, its checkpoints and its log. Knows `model`, never a family of models."""
