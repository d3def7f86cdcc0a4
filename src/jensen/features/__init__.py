"""Features: a small classifier of the run's own data, and what sets of features say of samples.

Reading order: `settings`, `classifier` (the network, its features, what it recognises), `fit` (how it is trained),
`store` (its folder), `jackknife` (intervals), `frechet_distance`, `distance` (samplers against steps), `neighbours`,
`two_sample`, `precision_recall`, `copies`, `sample_metrics` (all of them at once).
"""
