"""A module of the soup as weighted blocks Σ cᵢ·BᵢAᵢ, read from the files: LoRA, DoRA's closed form, PiSSA's beginnings.

DoRA: with Dᵢ = diag(mᵢ/‖θ₀ + sᵢBᵢAᵢ‖) (the identity for plain LoRA) and G = (1 − Σλ)·I + Σ λᵢDᵢ, the soup of the
full weights is G·(θ₀ + Σ λᵢsᵢ·G⁻¹DᵢBᵢAᵢ): a DoRA module again, whose magnitude is diag(G)·‖θ₀ + B'A'‖.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsoup.errors import IncompatibleError, show
from rsoup.lora.algebra import Stack
from rsoup.lora.beginning import beginning
from rsoup.lora.design import Design, Module, Share
from rsoup.lora.ground import Ground

if TYPE_CHECKING:
    import torch

_SMALLEST_GAIN = 1e-6


@dataclass(frozen=True, slots=True)
class Weighted:
    """Σ cᵢBᵢAᵢ of one module, one stack per expert; `coefficients` and `scalings` have a number per column.

    `gain` is DoRA's diag(G). `plain`: the blocks are the files' own, each with one coefficient.
    """

    stacks: tuple[Stack, ...]
    coefficients: torch.Tensor
    scalings: tuple[float, ...]
    gain: torch.Tensor | None = None
    plain: bool = True


def support(design: Design, module: Module) -> Hashable:
    """What two designs have in common if the QR decompositions of one module serve both; None for none."""
    if module.dora:
        return None
    return tuple((share.adapter, design.began(share)) for share in module.shares)


def weighted(design: Design, module: Module, ground: Ground | None) -> Weighted:
    """The blocks of a module. Raises IncompatibleError E0348 where a DoRA soup's gain vanishes."""
    import torch

    b_parts: list[torch.Tensor] = []
    a_parts: list[torch.Tensor] = []
    owner: list[int] = []
    coefficients: list[float] = []
    scalings: list[float] = []
    gain, scales = _gain(design, module, ground) if module.dora else (None, None)
    for number, share in enumerate(module.shares):
        adapter = design.adapters[share.adapter]
        b, a = adapter.b(share.update), adapter.a(share.update)
        if scales is not None:
            b = b * scales[number][:, None]
        b_parts.append(b)
        a_parts.append(a)
        owner += [number] * share.update.rank
        coefficients += [share.coefficient] * share.update.rank
        scalings += [share.update.scaling] * share.update.rank
    plain = scales is None
    for number, share in enumerate(module.shares):
        if (init := design.began(share)) is None:
            continue
        assert ground is not None
        update = share.update
        b0, a0 = beginning(init, ground.matrix(share.adapter, update), update.rank, update.scaling)
        b_parts.append(b0 if scales is None else b0 * scales[number][:, None])
        a_parts.append(a0)
        owner += [number] * update.rank
        coefficients += [-share.coefficient] * update.rank
        scalings += [-update.scaling] * update.rank
        plain = False
    stacks = tuple(
        Stack(torch.cat(bs, 1), torch.cat(as_), tuple(owner))
        for bs, as_ in _by_expert(module, b_parts, a_parts)
    )
    return Weighted(stacks, torch.tensor(coefficients, dtype=torch.float64), tuple(scalings), gain, plain)


def _by_expert(
    module: Module, b_parts: list[torch.Tensor], a_parts: list[torch.Tensor]
) -> list[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    experts = module.like.experts
    if experts == 1:
        return [(b_parts, a_parts)]
    bs = [b.reshape(b.shape[0], -1, experts) for b in b_parts]
    as_ = [a.reshape(experts, -1, a.shape[1]) for a in a_parts]
    return [([b[:, :, e] for b in bs], [a[e] for a in as_]) for e in range(experts)]


def _gain(design: Design, module: Module, ground: Ground | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(diag(G), diag(G⁻¹Dᵢ) of every share)."""
    import torch

    assert ground is not None
    scales = [_scale(design, share, ground) for share in module.shares]
    present = sum((share.mix for share in module.shares), start=module.total * 0)
    gain = torch.full((module.like.rows,), float(1 - present), dtype=torch.float64)
    for share, scale in zip(module.shares, scales, strict=True):
        gain = gain + float(share.mix) * scale
    if not bool((gain.abs() > _SMALLEST_GAIN).all()):
        raise IncompatibleError(
            "E0348",
            f"with these λ the magnitude of an output of '{show(module.name)}' vanishes: no DoRA adapter is that soup",
            hint="--fold makes full weights of it; or choose λ ≥ 0",
        )
    return gain, [scale / gain for scale in scales]


def _scale(design: Design, share: Share, ground: Ground) -> torch.Tensor:
    import torch

    key = share.update.keys.magnitude
    if key is None:
        return torch.ones(share.update.rows, dtype=torch.float64)
    magnitude = design.adapters[share.adapter].read(key).reshape(-1)
    return magnitude / ground.norms(share.adapter, share.update)
