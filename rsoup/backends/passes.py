"""What a backend does: passes over stored elements, in an arithmetic and an order that leave no bit open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

from rsoup.tensors import DType

Kind = Literal["numpy", "compiled"]

Row = tuple[DType, memoryview]
"""Stored elements of one checkpoint: their dtype and their bytes, aligned to their size."""

Places = tuple[tuple[int, int], ...]
"""(open file, byte at which a tensor begins in it) of each checkpoint."""

BLOCK: Final = 512
LANES: Final = 32
"""A sum: every block of elements is folded in halves (the second added to the first) until so many are left, these
are added block after block, and folded. Zeros fill the last block."""

VERSION: Final = 2
"""What the compiled passes must call themselves to be those of this source."""


CHUNK_NBYTES: Final = 136
"""Bytes in which `Gather` keeps what it knows of one chunk."""


class Gather(Protocol):
    """Reads rows from files and digests them on the way, all in one call."""

    def __call__(
        self,
        places: Places,
        start: int,
        count: int,
        buffers: list[memoryview],
        chunks: bytearray | None,
        last: bool,
        /,
    ) -> list[bytes]:
        """Fill the buffers with `count` elements from `start` on of tensors that begin at `places`.

        Returns for each the XXH3-128 digests of the chunks (rsoup-digest/1) that are complete by now, but for those of
        at most 240 bytes; `last`: the last chunk ends here, too. `chunks` holds what is known of the others, zeros
        before the first bytes; with None nothing is digested. Raises OSError, EOFError; then `chunks` is as it was,
        and the buffers hold anything.
        """


class Backend(Protocol):
    """Passes over a slice of elements; every operation is rounded by itself, sums are by `BLOCK` and `LANES`."""

    @property
    def name(self) -> Kind:
        """Which of them it is."""

    @property
    def gather(self) -> Gather | None:
        """Reads rows from files, where it can."""

    def mix(
        self,
        rows: Sequence[Row],
        coefficients: Sequence[float],
        dtype: DType,
        out: memoryview,
        *,
        measured: bool = False,
    ) -> tuple[float, float]:
        """out = Σ cᵢ·xᵢ in the order of the rows, rounded to `dtype` (rsoup-arith/1).

        Returns (the largest |Σ| before rounding, NaN where there is any; Σ (rounded − unrounded)², if `measured`).
        What is too large for the dtype may become anything.
        """

    def largest(self, row: Row) -> float:
        """The largest magnitude; NaN where there is any."""

    def products(self, rows: Sequence[Row]) -> list[float]:
        """⟨rᵢ, rⱼ⟩ for i ≤ j of the float64 rows (θᵢ − θ₀ …, θ₀), where θ₀ is the last of `rows`, row by row."""

    def counts(self, rows: Sequence[memoryview], itemsize: int, *, signed: bool) -> list[int]:
        """[changed…, unique…, moved, shared, conflicts] against the last row, by the stored bits.

        A conflict is an element that some rows raise and others lower, in the order of IEEE 754's totalOrder, in
        which −0 comes before +0; where the elements are not `signed` floats there is none.
        """
