"""Muon: an optimiser for weight matrices, whose steps have the same length in every direction."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jensen.processes import own_part, whole
from jensen.training.compilation import compiled

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # a, b, c of the odd quintic that pushes singular values towards 1
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """w <- w - lr 0.2 sqrt(max(rows, columns)) U V', where U S V' is the moving average of the gradient.

    Weights of more than two dimensions are flattened to (outputs, everything else). The factor 0.2 sqrt(max(...)) gives
    the steps the root mean square of Adam's steps, so that both optimisers work with the same learning rate. `momentum`
    is Nesterov's. The optimiser equals `torch.optim.Muon(adjust_lr_fn="match_rms_adamw", weight_decay=0)`, except that
    torch's Muon accepts only matrices and orthogonalises in bfloat16. The average of a sharded matrix is sharded, too;
    each process orthogonalises the full matrix. Source: Jordan et al. 2024; Liu et al. 2025 (the factor).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, compile: str = "none"
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        self._factors = compiled(orthogonal_factors, compile)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closures
        """Move all parameters that have a gradient; all are orthogonalised together."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            alike: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
            for parameter, direction in zip(parameters, self._directions(parameters, group["momentum"]), strict=True):
                alike.setdefault(parameter.shape, []).append((parameter, whole(direction).flatten(1)))
            stacks = [torch.stack([direction for _, direction in pairs]) for pairs in alike.values()]
            for (shape, pairs), factors in zip(alike.items(), self._factors(stacks), strict=True):
                length = 0.2 * max(factors.shape[1:]) ** 0.5
                moved: list[Tensor] = [parameter for parameter, _ in pairs]
                own = [own_part(step, moved[0]) for step in factors.view(-1, *shape)]
                torch._foreach_add_(moved, own, alpha=-group["lr"] * length)

    def _directions(self, parameters: list[nn.Parameter], momentum: float) -> list[Tensor]:
        """The moving averages of the gradients, with Nesterov's look-ahead."""
        if not parameters:
            return []
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        averages = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        gradients: list[Tensor] = [parameter.grad for parameter in parameters]  # type: ignore[misc]  # none is None
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        directions = torch._foreach_mul(averages, 1.0)  # a copy; sharded tensors have no `_foreach_lerp`
        torch._foreach_lerp_(directions, gradients, 1 - momentum)
        return list(directions)


def orthogonal_factor(matrices: Float[Tensor, " batch rows columns"]) -> Float[Tensor, " batch rows columns"]:
    """Approximately U V' of each matrix U S V' (singular values in 0.7..1.2), by five Newton-Schulz iterations."""
    return orthogonal_factors([matrices])[0]


def orthogonal_factors(stacks: Sequence[Tensor]) -> list[Tensor]:
    """`orthogonal_factor` of each stack of matrices (batch, rows, columns).

    The iteration is X <- (a + b X X' + c (X X')^2) X. All iterates are X_k = Q_k X_0, where Q_k is a polynomial in A_0
    = X_0 X_0'. So the code updates only the Gram matrix A of the shorter side: A <- P A P with P = a + b A + c A^2. It
    uses X_0 only to form A_0 and for the final product Q X_0. Gram matrices of equal size are iterated together: a GPU
    computes a few large batches faster than many small ones.
    """
    wide = [stack.mT if stack.shape[1] > stack.shape[2] else stack for stack in stacks]
    grams = [matrices @ matrices.mT for matrices in wide]
    # The clamp keeps a gradient of zero from becoming nan
    norms = [gram.diagonal(dim1=1, dim2=2).sum(1).sqrt().clamp(min=1e-7)[:, None, None] for gram in grams]
    factors: list[Tensor] = [stack.new_empty(0) for stack in stacks]
    for size in dict.fromkeys(len(gram[0]) for gram in grams):
        members = [i for i, gram in enumerate(grams) if len(gram[0]) == size]
        # All singular values of X_0 = M / |M| are below 1
        together = _factor(torch.cat([grams[i] / norms[i] ** 2 for i in members]))
        for i, factor in zip(members, together.split([len(grams[i]) for i in members]), strict=True):
            factors[i] = (factor / norms[i]) @ wide[i]
    return [f.mT if s.shape[1] > s.shape[2] else f for f, s in zip(factors, stacks, strict=True)]


def _factor(gram: Tensor) -> Tensor:
    """Q_5 for the Gram matrices A_0."""
    factor = polynomial = _polynomial(gram)
    for _ in range(ITERATIONS - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _polynomial(gram)
        factor = polynomial @ factor
    return factor


def _polynomial(gram: Tensor) -> Tensor:
    """a + b A + c A^2."""
    a, b, c = COEFFICIENTS
    polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    polynomial.diagonal(dim1=1, dim2=2).add_(a)
    return polynomial
