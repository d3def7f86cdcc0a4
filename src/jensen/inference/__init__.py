"""Inference: the question (1.4) put to a trained model. x observed, y to predict; or x partly observed, the rest asked.

prediction    p(y|x) for a set of examples: labels, probabilities, how good and how well calibrated they are
imputation    the missing entries of x given the observed ones
"""
