"""cook(plan, sources, sink): the block loop, on any number of threads, in memory that never grows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rsoup.backends import make
from rsoup.errors import TargetError
from rsoup.kernel import measure_run, mix_run
from rsoup.mixture import RunRecord
from rsoup.plan import Block, Plan
from rsoup.reading import FEW_TENSORS, taking_turns
from rsoup.scratch import Scratch
from rsoup.storage.protocols import Sink, Source
from rsoup.storage.views import is_made
from rsoup.workers import alone, default_threads, each, torch_threads

_AHEAD = 8

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """What was learnt while a block was cooked, one record per run; with it a block need not be cooked again."""

    index: int
    runs: tuple[RunRecord, ...]


OnBlock = Callable[[Block, BlockRecord], None]


def cook(
    plan: Plan,
    sources: Sequence[Source],
    sink: Sink,
    *,
    on_block: OnBlock,
    done: Collection[int] = (),
    threads: int | None = None,
    digests: bool = True,
) -> None:
    """Write every block of `plan` that is not in `done` to `sink`; the bytes depend on nothing but plan and sources.

    `on_block` is called once per block, under a lock, after the block's bytes were written. The first
    error in any thread stops all of them and is raised; KeyboardInterrupt does the same. Without `digests`,
    nothing is digested and the records hold none.
    """

    def on_records(block: Block, records: Sequence[BlockRecord]) -> None:
        on_block(block, records[0])

    cook_many([plan], sources, [sink], on_block=on_records, done=done, threads=threads, digests=digests)


def cook_many(
    plans: Sequence[Plan],
    sources: Sequence[Source],
    sinks: Sequence[Sink],
    *,
    on_block: Callable[[Block, Sequence[BlockRecord]], None],
    done: Collection[int] = (),
    threads: int | None = None,
    digests: bool = True,
) -> None:
    """`cook` for several plans over the same sources and tensors: each is read once, each gets what it would alone."""
    shape = _shape(plans[0])
    if any(_shape(plan) != shape for plan in plans[1:]):
        msg = "these plans do not have the same tensors in the same order"
        raise ValueError(msg)

    def work(block: Block, scratch: Scratch) -> list[BlockRecord]:
        runs = [mix_run(plans, run, sources, sinks, scratch, digests=digests) for run in block.runs]
        return [BlockRecord(block.index, records) for records in zip(*runs, strict=True)]

    blocks = [block for block in plans[0].blocks() if block.index not in done]
    _run(plans[0], blocks, sources, work, on_block, threads)


def _shape(plan: Plan) -> list[tuple[str, int, bool]]:
    """What decides the blocks of a plan."""
    return [(t.name, t.spec.numel, t.spec.dtype.bits % 8 == 0) for t in plan.tensors]


def measure(plan: Plan, sources: Sequence[Source], *, on_block: OnBlock, threads: int | None = None) -> None:
    """Take the products of the deltas of every mixed tensor, for methods that need them before they mix."""

    def work(block: Block, scratch: Scratch) -> BlockRecord:
        return BlockRecord(block.index, tuple(measure_run(plan, run, sources, scratch) for run in block.runs))

    _run(plan, list(plan.blocks()), sources, work, on_block, threads)


def _run(
    plan: Plan,
    blocks: Sequence[Block],
    sources: Sequence[Source],
    work: Callable[[Block, Scratch], Result],
    on_block: Callable[[Block, Result], None],
    threads: int | None,
) -> None:
    def worker(_: threading.Event) -> Callable[[tuple[int, Block]], Result]:
        alone()
        scratch = _scratch(len(sources))

        def cooked(numbered: tuple[int, Block]) -> Result:
            ahead = numbered[0] + _AHEAD * count
            _prefetch(plan, blocks[ahead : ahead + 1], sources)
            names = [plan.tensors[run.tensor].name for run in numbered[1].runs]
            with taking_turns(turn, sources, names):
                return work(numbered[1], scratch)

        return cooked

    turn = threading.Lock()
    count = max(1, min(threads or default_threads(), len(blocks)))
    with torch_threads(load=any(map(is_made, sources))):
        each(enumerate(blocks), worker, lambda numbered, record: on_block(numbered[1], record), threads=count)


def _scratch(checkpoints: int) -> Scratch:
    """One thread's buffers, all of them made now. Raises TargetError E0608 where there is no memory for them."""
    try:
        return Scratch(checkpoints, make())
    except MemoryError as error:
        message = "there is not enough memory for a thread's buffers"
        raise TargetError("E0608", message, hint="fewer threads need less: --threads 1") from error


def _prefetch(plan: Plan, blocks: Sequence[Block], sources: Sequence[Source]) -> None:
    for run, source in _reads(plan, blocks, sources):
        tensor = plan.tensors[run[0]]
        size = source.header[tensor.name].dtype.bits
        with contextlib.suppress(OSError):  # only advice
            source.prefetch(tensor.name, run[1] * size // 8, (run[2] - run[1]) * size // 8)


def _reads(
    plan: Plan, blocks: Sequence[Block], sources: Sequence[Source]
) -> Iterator[tuple[tuple[int, int, int], Source]]:
    for block in blocks:
        if len(block.runs) > FEW_TENSORS:
            continue
        for run in block.runs:
            for reader in plan.readers(plan.tensors[run.tensor]):
                yield (run.tensor, run.start, run.stop), sources[reader]
