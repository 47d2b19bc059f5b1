"""A module of the soup as weighted blocks Σ cᵢ·BᵢAᵢ, read from the files: LoRA, DoRA's closed form, PiSSA's beginnings.

DoRA: with Dᵢ = diag(mᵢ/‖θ₀ + sᵢBᵢAᵢ‖) (the identity for plain LoRA) and G = (1 − Σλ)·I + Σ λᵢDᵢ, the soup of the
full weights is G·(θ₀ + Σ λᵢsᵢ·G⁻¹DᵢBᵢAᵢ): a DoRA module again, whose magnitude is diag(G)·‖θ₀ + B'A'‖.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsoup.errors import IncompatibleError, show
from rsoup.gram import Gram
from rsoup.lora.algebra import Bases, Core, Stack, bases, core, inner_products
from rsoup.lora.beginning import beginning
from rsoup.lora.design import Design, Module, Share
from rsoup.lora.ground import Ground

if TYPE_CHECKING:
    import torch

_SMALLEST_GAIN = 1e-6


@dataclass(slots=True)
class Blocks:
    """The stacks of a module, one per expert, and their QR decompositions once they are asked for: all without λ."""

    stacks: tuple[Stack, ...]
    _cores: tuple[Core, ...] | None = None
    _bases: tuple[Bases, ...] | None = None
    _products: list[Gram] | None = None

    def cores(self) -> tuple[Core, ...]:
        """The triangular parts of the decompositions."""
        if self._cores is None:
            self._cores = tuple(core(stack) for stack in self.stacks)
        return self._cores

    def bases(self) -> tuple[Bases, ...]:
        """The decompositions, whole."""
        if self._bases is None:
            self._bases = tuple(bases(stack) for stack in self.stacks)
        return self._bases

    def products(self, scalings: Sequence[float], shares: int) -> list[Gram]:
        """⟨sᵢBᵢAᵢ, sⱼBⱼAⱼ⟩ of the shares, for each expert."""
        if self._products is None:
            self._products = [inner_products(small, scalings, shares) for small in self.cores()]
        return self._products


Shared = dict[Hashable, Blocks]
"""What the designs of one module have in common, by `support`; filled as they come."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """Σ cᵢBᵢAᵢ of one module; `coefficients` and `scalings` have a number per column of its stacks.

    `gain` is DoRA's diag(G). `plain`: the blocks are the files' own, each with one coefficient.
    """

    blocks: Blocks
    coefficients: torch.Tensor
    scalings: tuple[float, ...]
    gain: torch.Tensor | None = None
    plain: bool = True


def support(design: Design, module: Module) -> Hashable:
    """What two designs have in common if the blocks of one module serve both; None for none."""
    if module.dora:
        return None
    return tuple((share.adapter, design.began(share)) for share in module.shares)


def weighted(design: Design, module: Module, ground: Ground | None, shared: Shared | None = None) -> Weighted:
    """The blocks of a module with their coefficients. Raises IncompatibleError E0348 where a DoRA soup's gain vanishes."""
    import torch

    gain, scales = _gain(design, module, ground) if module.dora else (None, None)
    key = support(design, module)
    found = shared.get(key) if shared is not None and key is not None else None
    if found is None:
        found = Blocks(_stacks(design, module, ground, scales))
        if shared is not None and key is not None:
            shared[key] = found
    began = [share for share in module.shares if design.began(share) is not None]
    signed = [*((share, 1.0) for share in module.shares), *((share, -1.0) for share in began)]
    coefficients = [c for share, sign in signed for c in [sign * share.coefficient] * share.update.rank]
    scalings = [s for share, sign in signed for s in [sign * share.update.scaling] * share.update.rank]
    return Weighted(
        found,
        torch.tensor(coefficients, dtype=torch.float64),
        tuple(scalings),
        gain,
        plain=scales is None and not began,
    )


def _stacks(
    design: Design, module: Module, ground: Ground | None, scales: list[torch.Tensor] | None
) -> tuple[Stack, ...]:
    """The factors of every share, then what PiSSA took out of the base, read and put side by side."""
    import torch

    b_parts: list[torch.Tensor] = []
    a_parts: list[torch.Tensor] = []
    owner: list[int] = []
    rows = [torch.ones(1, dtype=torch.float64)] * len(module.shares) if scales is None else scales
    for number, share in enumerate(module.shares):
        adapter = design.adapters[share.adapter]
        b_parts.append(adapter.b(share.update) * rows[number][:, None])
        a_parts.append(adapter.a(share.update))
        owner += [number] * share.update.rank
    for number, share in enumerate(module.shares):
        if (init := design.began(share)) is None:
            continue
        assert ground is not None
        update = share.update
        b0, a0 = beginning(init, ground.matrix(share.adapter, update), update.rank, update.scaling)
        b_parts.append(b0 * rows[number][:, None])
        a_parts.append(a0)
        owner += [number] * update.rank
    return tuple(
        Stack(torch.cat(bs, 1), torch.cat(as_), tuple(owner))
        for bs, as_ in _by_expert(module, b_parts, a_parts)
    )


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
