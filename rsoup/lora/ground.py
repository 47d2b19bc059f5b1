"""What adapters lie on, as far as their soup needs it: a base's tensors by the names the adapters use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rsoup.compat.tied import EMBEDDING, HEAD, is_tied
from rsoup.errors import IncompatibleError, show
from rsoup.lora.adapted import AdaptedSource
from rsoup.lora.adapter import Adapter, LowRank
from rsoup.lora.effective import Factors, adapted_norms, factors_of, matrix
from rsoup.lora.placed import Placed
from rsoup.lora.product import Product
from rsoup.storage.protocols import Source

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Ground:
    """A base under adapters that all fit it: `seen` is each adapter on it, in order."""

    base: Source = field(repr=False)
    seen: tuple[AdaptedSource, ...] = field(repr=False)
    _norms: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict, repr=False)

    def place(self, adapter: int, update: LowRank) -> Placed:
        """Where an update lies in the base."""
        return self.seen[adapter].places[update.module][0]

    def matrix(self, adapter: int, update: LowRank) -> torch.Tensor:
        """The base's weight under an update, rows × columns, float64."""
        return matrix(self.seen[adapter].ground, self.place(adapter, update))

    def norms(self, adapter: int, update: LowRank) -> torch.Tensor:
        """‖θ₀ + s·B·A‖ of every output of an update's module, float64; taken once, for both passes and every λ."""
        key = (adapter, update.module)
        if key not in self._norms:
            where, source = self.place(adapter, update), self.seen[adapter]
            factors = factors_of(source.adapter, where, source.ground)
            self._norms[key] = adapted_norms(where, source.ground, factors)
        return self._norms[key]

    def norms_with(self, adapter: int, update: LowRank, b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """‖θ₀ + B·A‖ of every output for other factors (rows × r, r × columns) in that place."""
        where, source = self.place(adapter, update), self.seen[adapter]
        left, right = (a.T.contiguous(), b.T.contiguous()) if where.transposed else (b, a)
        return adapted_norms(where, source.ground, Factors((Product(left, right),), 1.0))

    def where(self, name: str, shape: tuple[int, ...]) -> tuple[Source, str]:
        """(source, name there) of the base's own tensor of this name; a tied head is the embeddings.

        Raises IncompatibleError E0345 where the base has none of this shape (its rows, for shape[0] = −1).
        """
        mapped = next((s.names[name] for s in self.seen if name in s.names), name)
        if mapped not in self.base.header and mapped == HEAD and is_tied(self.base):
            mapped = next((n for n in self.base.header if EMBEDDING.search(n)), mapped)
        spec = self.base.header.get(mapped)
        if spec is None or spec.shape[1:] != shape[1:] or shape[0] not in (-1, spec.shape[0]):
            raise IncompatibleError(
                "E0345",
                f"the base has no '{show(name)}' of that shape, so that only a soup with Σλ = 1 of it is defined, "
                "and only if all adapters with λ ≠ 0 have it",
                hint=f"leave out --affine and --scale, or --drop '{show(name)}'",
            )
        return self.base, mapped


def ground(base: Source, adapters: Sequence[Adapter]) -> Ground:
    """The adapters on their base. Raises IncompatibleError E0342, E0343 where one does not fit."""
    return Ground(base, tuple(AdaptedSource(base, adapter) for adapter in adapters))
