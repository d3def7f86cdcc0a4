"""Features: a small classifier of the data of a run, and metrics of samples by sets of features.

Reading order: `settings`, `classifier` (the network, its features, its labels), `fit` (its training), `store` (its
folder), `jackknife` (intervals), `frechet_distance`, `distance` (samplers against steps), `neighbours`, `two_sample`,
`precision_recall`, `copies`, `sample_metrics` (all metrics at once).
"""
