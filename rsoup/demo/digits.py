"""1797 handwritten digits that come with the package: the UCI test set, as in scikit-learn."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SIDE = 8
DARKEST = 16
CLASSES = 10
_ROW = SIDE * SIDE + 1


@dataclass(frozen=True, slots=True)
class Digits:
    """Images and their labels: `pixels` (n, 64) float32 in 0..1, `labels` (n,) int64 in 0..9."""

    pixels: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: torch.Tensor) -> Digits:
        return Digits(self.pixels[chosen], self.labels[chosen])


def load() -> Digits:
    """All 1797 digits in their published order; pixels are multiples of 1/16, 1 is black.

    Source: Alpaydin and Kaynak (1998), doi 10.24432/C50P49, CC BY 4.0; see `DATA-LICENSE.md`.
    """
    import torch

    packed = resources.files("rsoup.demo").joinpath("digits.gz").read_bytes()
    table = torch.frombuffer(bytearray(gzip.decompress(packed)), dtype=torch.uint8).reshape(-1, _ROW)
    return Digits(table[:, :-1].to(torch.float32) / DARKEST, table[:, -1].to(torch.int64))


def split(digits: Digits, *, held_out: int, generator: torch.Generator) -> tuple[Digits, Digits]:
    """`digits` in random order, cut in two: those to learn from, and the last `held_out` of them.

    Both halves come from the same 13 writers.
    """
    import torch

    order = torch.randperm(len(digits), generator=generator)
    return digits[order[:-held_out]], digits[order[-held_out:]]
