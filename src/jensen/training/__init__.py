"""Training: loop, moving average, checkpoints, log. This chapter knows `jensen.model`, but no model family."""
