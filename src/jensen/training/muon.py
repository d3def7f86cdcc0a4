"""Muon: an optimiser for weight matrices, whose steps have the same length in every direction."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jensen.processes import own_part, whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # a, b, c of the odd quintic that pushes singular values towards 1
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """w <- w - lr 0.2 sqrt(max(rows, columns)) U V', where U S V' is the moving average of the gradient.

    Weights of more than two dimensions are flattened to (outputs, everything else). The factor 0.2 sqrt(max(...)) gives
    the steps the root mean square of Adam's, so that both share a learning rate. `momentum` is Nesterov's. The
    optimiser equals `torch.optim.Muon(adjust_lr_fn="match_rms_adamw", weight_decay=0)`, except that torch's Muon
    accepts only matrices and orthogonalises in bfloat16. The average of a sharded matrix is sharded, too; each process
    orthogonalises the full matrix. Source: Jordan et al. 2024; Liu et al. 2025 (the factor).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closures
        """Move all parameters that have a gradient; parameters of equal shape are orthogonalised as one batch."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                directions = torch.stack([whole(self._direction(p, group["momentum"])).flatten(1) for p in parameters])
                steps = orthogonal_factor(directions).view(-1, *shape)
                length = 0.2 * max(directions.shape[1:]) ** 0.5
                own = [own_part(step, parameter) for step, parameter in zip(steps, parameters, strict=True)]
                torch._foreach_add_(parameters, own, alpha=-group["lr"] * length)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """The moving average of the gradient, with Nesterov's look-ahead."""
        state = self.state[parameter]
        gradient: Tensor = parameter.grad  # type: ignore[assignment]  # `step` has checked it
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return average.lerp(gradient, 1 - momentum)


def orthogonal_factor(matrices: Float[Tensor, " batch rows columns"]) -> Float[Tensor, " batch rows columns"]:
    """Approximately U V' of each matrix U S V' (singular values in 0.7..1.2), by five Newton-Schulz iterations.

    The iteration is X <- (a + b X X' + c (X X')^2) X. All iterates are X_k = Q_k X_0, where Q_k is a polynomial in
    A_0 = X_0 X_0'. So the code iterates on the smaller Gram matrix, A <- P A P with P = a + b A + c A^2, and uses X_0
    only at the beginning and at the end.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal_factor(matrices.mT).mT
    gram = matrices @ matrices.mT
    # The clamp keeps a gradient of zero from becoming nan
    norm = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt().clamp(min=1e-7)[:, None, None]
    gram = gram / norm**2  # all singular values of X_0 = M / |M| are below 1
    factor = polynomial = _polynomial(gram)
    for _ in range(ITERATIONS - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _polynomial(gram)
        factor = polynomial @ factor
    return (factor / norm) @ matrices


def _polynomial(gram: Tensor) -> Tensor:
    """a + b A + c A^2."""
    a, b, c = COEFFICIENTS
    polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    polynomial.diagonal(dim1=1, dim2=2).add_(a)
    return polynomial
