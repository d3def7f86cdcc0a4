"""Evaluation: bounds on a test set with their errors, as numbers. This chapter knows `model`, but no family of models.

Reading order: `settings`, `measure` (a mean with its error), `units` (from x to the raw data), `scores` (one row per
example), `engine` (all estimators on the same examples), `claims` (relations that should hold between estimates),
`profile` (the bound by noise level), `evaluation` and `referee` (two views of the engine), `saved` (their files). Then
the mean alone, to a wanted error: `survey` (the estimate and its error), `source` (draws of a model's parts),
`controls` (cheap codelengths), `until` (the rule that ends the draws), `mean_bound` (the record).
"""
