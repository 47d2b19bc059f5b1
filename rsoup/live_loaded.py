"""What a module holds of a soup since it was last loaded: what need not be written again."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsoup.live_model import Targets
from rsoup.plan import TensorPlan

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class _Written:
    plan: TensorPlan
    tensor: weakref.ref[torch.Tensor]
    mark: tuple[int, int]


class Loaded:
    """What a model holds of a soup since it was last loaded, as long as nobody else changes it."""

    def __init__(self, plans: Sequence[TensorPlan], found: Targets, *, cast: bool) -> None:
        self.cast = cast
        self._written = {
            plan.name: _Written(plan, weakref.ref(found[plan.name]), mark)
            for plan in plans
            if plan.copy_from is not None and (mark := _mark(found[plan.name])) is not None
        }

    def has(self, plan: TensorPlan, tensor: torch.Tensor) -> bool:
        """Whether `tensor` holds the copy that `plan` asks for."""
        known = self._written.get(plan.name)
        return (
            known is not None
            and known.plan == plan
            and known.tensor() is tensor
            and known.mark == _mark(tensor)
        )


def _mark(tensor: torch.Tensor) -> tuple[int, int] | None:
    """What another writer changes: the memory a tensor has, autograd's count of its changes; None without a count."""
    return None if tensor.is_inference() else (tensor.data_ptr(), tensor._version)
