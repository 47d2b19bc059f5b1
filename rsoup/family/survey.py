"""survey(sources): one streaming pass over checkpoints that are not written anywhere: what moved, how far, which way.

Stored bits where they are exact (what changed, in which direction), float64 for the inner products. Sums are
taken slice by slice in a fixed order: the number of threads does not change a bit of them.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rsoup.backends import make
from rsoup.family.kernel import Kernel, Piece, Sum
from rsoup.reading import FEW_TENSORS, taking_turns
from rsoup.storage.protocols import Source
from rsoup.storage.views import is_made
from rsoup.tensors import Header
from rsoup.workers import alone, default_threads, each, torch_threads

BLOCK_ELEMENTS = 1 << 20
BLOCK_TENSORS = 256
_AHEAD = 8


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """What was learnt of one tensor; i counts the checkpoints but for the reference, which is the last one.

    `products` is the upper triangle of ⟨·,·⟩ over (δ₁ … δₙ, θ₀), empty for tensors that are no floats.
    `changed[i]` elements have other bits than the reference's, `unique[i]` of them in this checkpoint alone;
    `moved` changed in any, `shared` in all, `conflicts` in opposite directions. `nonfinite` counts NaN and
    infinities, the reference's last, `carried` those that have the same bits everywhere. `rounding[i]`: some
    element differs, and none does once both are rounded to the narrower dtype of the two.
    """

    name: str
    numel: int
    products: tuple[float, ...] = ()
    changed: tuple[int, ...] = ()
    unique: tuple[int, ...] = ()
    moved: int = 0
    shared: int = 0
    conflicts: int = 0
    nonfinite: tuple[int, ...] = ()
    carried: int = 0
    rounding: tuple[bool, ...] = ()


def comparable(headers: Sequence[Header]) -> tuple[list[str], list[str]]:
    """(measured, left out): tensors of the last header that all have alike, and every other name there is.

    Alike: the same shape, and all of them floats of any dtype, or all of one other dtype of whole bytes.
    """
    *others, reference = headers
    measured = []
    for name, spec in reference.items():
        specs = [header.get(name) for header in others]
        floats = spec.dtype.kind == "float"
        if all(
            other is not None
            and other.shape == spec.shape
            and (other.dtype.kind == "float" if floats else other.dtype == spec.dtype)
            for other in specs
        ) and (floats or spec.dtype.bits % 8 == 0):
            measured.append(name)
    known = set(measured)
    every = dict.fromkeys(name for header in (reference, *others) for name in header)
    return measured, [name for name in every if name not in known]


def survey(
    sources: Sequence[Source],
    names: Sequence[str],
    *,
    moved: bool = True,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[TensorRecord]:
    """One record per tensor of `names`, read once from every source; the last source is the reference θ₀.

    `names` must be `comparable`. With `moved` False nothing is counted but what is not finite. `progress`
    gets the bytes of each finished block, under a lock. Memory: some 10 MB a thread, whatever the model.
    """
    header = sources[-1].header
    blocks = list(_blocks(header, names))
    found: dict[str, dict[int, Sum]] = {name: {} for name in names}
    done: dict[str, TensorRecord] = {}

    def on_block(item: tuple[list[Piece], list[Piece]], sums: Sequence[Sum]) -> None:
        block, _ = item
        for piece, part in zip(block, sums, strict=True):
            parts = found[piece.name]
            parts[piece.start] = part
            if len(parts) == math.ceil(header[piece.name].numel / BLOCK_ELEMENTS):
                done[piece.name] = _record(piece.name, header[piece.name].numel, found.pop(piece.name))
        if progress is not None:
            progress(
                sum(
                    (piece.stop - piece.start) * s.header[piece.name].dtype.itemsize
                    for piece in block
                    for s in sources
                )
            )

    def worker(_: threading.Event) -> Callable[[tuple[list[Piece], list[Piece]]], list[Sum]]:
        alone()
        kernel = Kernel(sources, make(), moved=moved)

        def work(item: tuple[list[Piece], list[Piece]]) -> list[Sum]:
            block, later = item
            _prefetch(sources, later)
            with taking_turns(turn, sources, [piece.name for piece in block]):
                return [kernel.piece(piece) for piece in block]

        return work

    turn = threading.Lock()
    with torch_threads(load=any(map(is_made, sources))):
        count = min(threads or default_threads(), len(blocks))
        ahead: list[list[Piece]] = [*blocks[_AHEAD * count :], *([] for _ in blocks)]
        each(zip(blocks, ahead, strict=False), worker, on_block, threads=count)
    return [done[name] if name in done else _record(name, 0, {}) for name in names]


def _prefetch(sources: Sequence[Source], block: Sequence[Piece]) -> None:
    for piece in block if len(block) <= FEW_TENSORS else ():
        for source in sources:
            size = source.header[piece.name].dtype.itemsize
            with contextlib.suppress(OSError):  # only advice
                source.prefetch(piece.name, piece.start * size, (piece.stop - piece.start) * size)


def _blocks(header: Header, names: Sequence[str]) -> Iterator[list[Piece]]:
    waiting: list[Piece] = []
    elements = 0
    for name in names:
        for start in range(0, header[name].numel, BLOCK_ELEMENTS):
            waiting.append(Piece(name, start, min(start + BLOCK_ELEMENTS, header[name].numel)))
            elements += waiting[-1].stop - start
            if elements >= BLOCK_ELEMENTS or len(waiting) == BLOCK_TENSORS:
                yield waiting
                waiting, elements = [], 0
    if waiting:
        yield waiting


def _record(name: str, numel: int, parts: dict[int, Sum]) -> TensorRecord:
    total = Sum()
    for start in sorted(parts):
        total.add(parts[start])
    *each, moved, shared, conflicts = total.counts or [0, 0, 0]
    changed, unique = each[: len(each) // 2], each[len(each) // 2 :]
    rounding = tuple(some > 0 and not apart for some, apart in zip(changed, total.apart, strict=False))
    return TensorRecord(
        name, numel, tuple(total.products), tuple(changed), tuple(unique), moved, shared, conflicts,
        tuple(total.nonfinite), total.carried, rounding,
    )  # fmt: skip
