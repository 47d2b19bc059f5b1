"""`--method factors`: the average of A and of B, each by itself, as the paper's code takes it; not the soup."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rsoup.errors import IncompatibleError, Problem, show
from rsoup.lora.algebra import Core, middle
from rsoup.lora.blocks import weighted
from rsoup.lora.design import Design, Module

if TYPE_CHECKING:
    import torch


def check_factors(design: Design) -> None:
    """Raise IncompatibleError E0349 where factors have no average: other ranks, scalings, targets, kinds, or Σλ ≠ 1."""
    wrong: list[Problem] = []
    recipe = design.recipe
    used = set(design.used)
    for module in design.modules:
        updates = [share.update for share in module.shares]
        if {share.adapter for share in module.shares} != used:
            wrong.append(Problem(show(module.name), "not every adapter changes it"))
        elif len({(update.rank, update.scaling) for update in updates}) > 1:
            wrong.append(Problem(show(module.name), "other ranks or scalings"))
        elif any(update.keys.magnitude for update in updates) or any(map(design.began, module.shares)):
            wrong.append(Problem(show(module.name), "DoRA, PiSSA or OLoRA"))
        elif module.total != 1:
            wrong.append(Problem(show(module.name), "λ that do not sum to 1"))
    if recipe.rank is not None or recipe.max_error is not None:
        wrong.append(Problem("", "an average of factors is not truncated"))
    if wrong:
        raise IncompatibleError(
            "E0349",
            "the factors of these adapters have no average",
            details=tuple(wrong[:5]),
            hint="leave out --method factors: the soup itself takes any ranks, scalings and targets",
        )


def factor_average(design: Design, module: Module) -> tuple[torch.Tensor, torch.Tensor]:
    """(Σλᵢ·s·Bᵢ, ΣλᵢAᵢ) of a module, float64; s is the scaling they share."""
    import torch

    b = torch.zeros(module.like.rows, module.like.rank * module.like.experts, dtype=torch.float64)
    a = torch.zeros(module.like.rank * module.like.experts, module.like.columns, dtype=torch.float64)
    for share in module.shares:
        adapter = design.adapters[share.adapter]
        b = b + adapter.b(share.update) * float(share.mix)
        a = a + adapter.a(share.update) * float(share.mix)
    return b * module.like.scaling, a


def distance_from_soup(design: Design) -> float:
    """‖average of the factors − soup‖ / ‖soup‖ over all modules; the gap is Σ_{i<j} λᵢλⱼ(Bᵢ−Bⱼ)(Aᵢ−Aⱼ).

    From Gram matrices of the factors, no product formed. Source: Ramé et al. 2023, the code for LLaMA.
    """
    import torch

    gap, norm = [], []
    for module in design.modules:
        found = weighted(design, module, None)
        mixes = torch.cat(
            [
                torch.full((share.update.rank,), float(share.mix), dtype=torch.float64)
                for share in module.shares
            ]
        )
        for small in found.blocks.cores():
            soup = middle(small, found.coefficients)
            average = _average(small, mixes, module.like.scaling, len(module.shares))
            gap.append(float(torch.linalg.matrix_norm(average - soup)) ** 2)
            norm.append(float(torch.linalg.matrix_norm(soup)) ** 2)
    total = math.fsum(norm)
    return math.sqrt(math.fsum(gap) / total) if total else 0.0


def _average(small: Core, mixes: torch.Tensor, scaling: float, shares: int) -> torch.Tensor:
    """The average of the factors in the bases of their stack: every block of R_B and R_A mixed by itself."""
    b = (small.b * mixes).reshape(small.b.shape[0], shares, -1).sum(1)
    a = (small.a * mixes).reshape(small.a.shape[0], shares, -1).sum(1)
    return scaling * (b @ a.T)
