"""Training: loop, moving average, checkpoints, log. It knows the contract in `jensen.model`, but no model family."""
