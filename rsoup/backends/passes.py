"""What a backend does: passes over stored elements, in an arithmetic and an order that leave no bit open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


CODES: Final[Mapping[str, int]] = {"F64": 0, "F32": 1, "F16": 2, "BF16": 3}
"""The dtypes that the compiled passes know, and what they call them."""

CHUNK_NBYTES: Final = 136
"""Bytes in which `Gather` keeps what it knows of one chunk."""

SHORT_NBYTES: Final = 240
"""The digest of a chunk of so few bytes is left to the hash's own library."""


def space_nbytes(checkpoints: int) -> int:
    """Bytes that `GatherMix` needs for pieces of so many rows, which stay within the processor's second cache."""
    return max(1 << 20, checkpoints * 8 * BLOCK) + checkpoints * 192


class Gather(Protocol):
    """Reads rows from files and digests them on the way, all in one call."""

    def __call__(
        self,
        stop: bytearray,
        places: Places,
        start: int,
        count: int,
        chunks: bytearray | None,
        last: bool,
        itemsizes: bytes,
        rows: list[memoryview],
        /,
    ) -> list[bytes]:
        """Fill the rows with `count` elements from `start` on of tensors that begin at `places`.

        Returns for each the XXH3-128 digests of the chunks (rsoup-digest/1) that are complete by now, but for those of
        at most `SHORT_NBYTES`; `last`: the last chunk ends here, too. `chunks` holds what is known of the others, zeros
        before the first bytes; with None nothing is digested, and nothing returned. Raises OSError, EOFError, and
        InterruptedError where `stop` (one byte) is not zero; then `chunks` is as it was, and the rows hold anything.
        """


class GatherMix(Protocol):
    """`Gather` and `mix` in one call: piece by piece, while the elements are in the processor's cache."""

    def __call__(
        self,
        stop: bytearray,
        places: Places,
        start: int,
        count: int,
        chunks: bytearray | None,
        last: bool,
        codes: bytes,
        coefficients: list[float],
        space: memoryview,
        code: int,
        out: memoryview,
        /,
    ) -> tuple[list[bytes], float]:
        """out = Σ cᵢ·xᵢ, rounded once; returns what `Gather` does, and the largest |Σ|.

        `codes` are the rows' dtypes and `code` the soup's (see CODES), `space` is room for pieces (`space_nbytes`).
        """


class Backend(Protocol):
    """Passes over a slice of elements; every operation is rounded by itself, sums are by `BLOCK` and `LANES`."""

    @property
    def name(self) -> Kind:
        """Which of them it is."""

    @property
    def gather(self) -> Gather | None:
        """Reads rows from files, where it can."""

    @property
    def gather_mix(self) -> GatherMix | None:
        """Mixes rows of files, where it can."""

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
