"""Evaluation: bounds on a test set with their errors, as numbers. This chapter knows `model`, but no family of models.

Reading order: `settings`, `measure` (a mean with its error), `units` (from x to the raw data), `scores` (one row per
example), `engine` (all estimators on the same examples), `claims` (relations that should hold between estimates),
`profile` (the bound by noise level), `evaluation` and `referee` (two views of the engine), `saved` (their files).
"""
