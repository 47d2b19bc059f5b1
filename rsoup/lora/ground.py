"""What adapters lie on, as far as their soup needs it: a base's tensors by the names the adapters use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rsoup.lora.adapted import AdaptedSource
from rsoup.lora.adapter import Adapter, LowRank, read_float64
from rsoup.lora.effective import adapted_norms, factors_of, matrix
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

    def place(self, adapter: int, update: LowRank) -> Placed:
        """Where an update lies in the base."""
        found = self.seen[adapter].place(update)
        assert found is not None
        return found

    def matrix(self, adapter: int, update: LowRank) -> torch.Tensor:
        """The base's weight under an update, rows × columns, float64."""
        return matrix(self.seen[adapter].ground, self.place(adapter, update))

    def norms(self, adapter: int, update: LowRank) -> torch.Tensor:
        """‖θ₀ + s·B·A‖ of every output of an update's module, float64."""
        where, source = self.place(adapter, update), self.seen[adapter]
        return adapted_norms(where, source.ground, factors_of(source.adapter, where, source.ground))

    def norms_with(self, adapter: int, update: LowRank, b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """‖θ₀ + B·A‖ of every output for other factors (rows × r, r × columns) in that place."""
        from rsoup.lora.effective import Factors

        where, source = self.place(adapter, update), self.seen[adapter]
        left, right = (a.T.contiguous(), b.T.contiguous()) if where.transposed else (b, a)
        return adapted_norms(where, source.ground, Factors((left,), (Product(right),), 1.0))

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor of the base by the name the adapters have for it, float64."""
        return read_float64(self.base, self.names([name])[name], "base")

    def names(self, wanted: Sequence[str]) -> Mapping[str, str]:
        """The adapters' names of tensors → the base's."""
        found: dict[str, str] = {}
        for source in self.seen:
            found |= {name: seen for name, seen in source.names.items() if name in wanted}
        return {name: found.get(name, name) for name in wanted}

    def has(self, name: str) -> bool:
        """Whether the base has a tensor of this name."""
        return self.names([name])[name] in self.base.header


def ground(base: Source, adapters: Sequence[Adapter]) -> Ground:
    """The adapters on their base. Raises IncompatibleError E0342, E0343 where one does not fit."""
    return Ground(base, tuple(AdaptedSource(base, adapter) for adapter in adapters))
