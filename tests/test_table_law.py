"""The closed-form check of tables: a model of classes with the laws of `jensen.likelihood`, against the exact law."""

import numpy as np
import pytest
import torch
from latent_classes import LatentClasses, gap

from jensen.data.table_preparation import fit_table_preparation
from jensen.likelihood import Codes, ColumnsLikelihood, Count, Real, Whole
from jensen.monotone import fit_curve_to_levels

COMPONENTS, ITERATIONS = 5, 100


def likelihood_of(preparation, missing):
    """The law of each field."""
    laws = {
        "codes": lambda field: Codes(field.levels, missing),
        "whole": lambda field: Whole(field.levels, field.curve, COMPONENTS, missing),
        "count": lambda field: Count(field.mean, missing),
        "real": lambda field: Real(field.images, COMPONENTS, missing=missing),
    }
    return ColumnsLikelihood([laws[field.law](field) for field in preparation.fields]).double()


def by_class(likelihood, outputs, x, observed_only):
    """log p(x | class), (classes, rows), for the outputs (classes, 1, outputs) of each class."""
    by_dimension = likelihood(outputs).log_prob_by_dimension(x.nan_to_num() if observed_only else x)
    return torch.where(x.isnan(), 0, by_dimension).sum(-1) if observed_only else by_dimension.sum(-1)


def fitted(law, rows, generated):
    """The preparation, the likelihood, and the outputs of each class by maximum likelihood given the true classes."""
    matrix, classes = law.sample_with_classes(rows, seed=1)
    preparation, _ = fit_table_preparation(matrix, law.table.fields, 2.0**-52)
    likelihood = likelihood_of(preparation, missing=generated)
    x, classes = preparation(torch.from_numpy(matrix)).double(), torch.from_numpy(classes)
    outputs = torch.nn.Parameter(0.3 * torch.randn(3, 1, likelihood.outputs, dtype=torch.float64))
    optimiser = torch.optim.LBFGS([outputs], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = -by_class(likelihood, outputs[classes, 0], x, not generated).mean()
        value.backward()
        return value

    optimiser.step(loss)
    return preparation, likelihood, outputs.detach()


@pytest.mark.parametrize("generated", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_model_of_classes_reaches_the_exact_law_of_a_mixed_table(generated):
    # Held-out rows: the mean of log p - log model is a KL divergence, so it is not negative; the model can represent
    # the law up to the shape of two real columns. A false alarm needs 4 standard errors: 6e-5.
    law = LatentClasses()
    preparation, likelihood, outputs = fitted(law, 3000, generated)
    rows = law.sample(10_000, seed=2)
    raw = torch.from_numpy(rows)
    log_joint = by_class(likelihood, outputs, preparation(raw).double(), not generated)
    log_prob = (torch.from_numpy(law.weights).log()[:, None] + log_joint).logsumexp(0) + preparation.log_volume_of(raw)
    difference, error = gap(log_prob.numpy(), law.log_prob(rows, generated=generated))
    assert difference > -4 * error
    assert difference < 0.1


def test_the_mean_of_a_single_level_is_zero():
    curve = fit_curve_to_levels(np.zeros(9))
    likelihood = ColumnsLikelihood([Whole(1, curve, COMPONENTS)])
    assert likelihood(torch.zeros(1, likelihood.outputs)).mean.item() == 0


def test_the_exact_law_sums_and_integrates_to_one():
    # Each column on its own: the others are missing, and missing cells add nothing.
    law = LatentClasses()
    alone = [
        (0, np.arange(4.0), None),
        (1, np.arange(10.0), None),
        (2, np.arange(3000.0), None),
        (3, np.sinh(np.linspace(-18, 18, 20_001)), None),
        (4, np.exp(np.linspace(-12, 14, 20_001)), 0.0),
        (5, 1e6 + np.linspace(-30, 30, 20_001), None),
    ]
    for column, points, atom in alone:
        x = np.full((len(points), 6), np.nan)
        x[:, column] = points
        p = np.exp(law.log_prob(x, generated=False))
        total = p.sum() if column < 3 else np.trapezoid(p, points)
        if atom is not None:
            x[0, column] = atom
            total += np.exp(law.log_prob(x[:1], generated=False))[0]
        assert abs(total - 1) < 1e-6, column


def test_the_sample_follows_the_exact_law():
    # E[p(x + d) / p(x)] = ∫ p(x + d) dx = 1 for samples x of p. 3,000 rows, 5 standard errors: a false alarm has
    # probability 6e-7.
    law = LatentClasses(missing=0.0)
    rows = law.sample(3000, seed=3)
    changed = rows.copy()
    changed[:, 5] += 0.1  # height: a shift that keeps the support
    ratio = np.exp(law.log_prob(changed, generated=True) - law.log_prob(rows, generated=True))
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / len(ratio) ** 0.5
