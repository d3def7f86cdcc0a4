"""Evaluation: bounds on a test set with their errors, as numbers. Knows `model`, never a family of models.

Reading order: `settings`, `scores` (one row per example), `measure` (a mean in two units), `profile` (where the bits
go), `evaluation` (means, gaps, contradictions), `referee` (every estimate beside the others), `saved` (their files).
"""
