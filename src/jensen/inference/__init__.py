"""Inference by a trained model (1.4): prediction of y from x, and imputation of missing entries of x.

prediction    p(y|x) for a set of examples, with its accuracy and calibration
imputation    draws of the missing entries of x given the observed entries
"""
