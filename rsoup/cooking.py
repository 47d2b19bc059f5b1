"""Plans → staged files: the measuring pass where a method asks for one, then the block loop, resumed where it was."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from rsoup import plan as plans
from rsoup import pot
from rsoup.gram import Gram, grouped
from rsoup.plan import Block, Plan
from rsoup.pot import BlockRecord
from rsoup.prepare import Prepared, measuring_nbytes
from rsoup.progress import Meter, OnProgress
from rsoup.remote.marks import Notebook, catch_up, recalled
from rsoup.storage.protocols import Source
from rsoup.storage.staging import Staging
from rsoup.tally import Tally, from_json, to_json
from rsoup.tensors import Header

_LARGE_BYTES = 1 << 18
"""Fewer bytes than these wait for their neighbours: threads that write to one file wait for each other."""

_TOGETHER_BYTES = 1 << 22
"""So many bytes wait in a thread at most, those of all soups that it makes together."""


def measured(ready: Prepared, threads: int | None, progress: OnProgress | None) -> Plan:
    """The plan with the coefficients of a method that needs the angles between the deltas first."""
    return measured_together([ready], threads, progress)[0]


def measured_together(
    ready: Sequence[Prepared], threads: int | None, progress: OnProgress | None
) -> list[Plan]:
    """`measured` for several plans over the same checkpoints: one pass for all that ask for the same tensors."""
    passes: dict[frozenset[str], dict[str, Gram]] = {}
    found = []
    for one in ready:
        asked = frozenset(tensor.name for tensor in one.plan.tensors if one.plan.needs_gram(tensor))
        if asked not in passes:
            passes[asked] = _grams(one, threads, progress)
        found.append(plans.with_gram(one.plan, one.sources, passes[asked]))
    return found


def _grams(ready: Prepared, threads: int | None, progress: OnProgress | None) -> dict[str, Gram]:
    plan = ready.plan
    tally = Tally(plan)
    meter = Meter("measuring", measuring_nbytes(plan, ready.sources), progress)

    def on_block(block: Block, record: BlockRecord) -> None:
        tally.add(block, record)
        meter.add(
            sum(
                s.header[plan.tensors[r.tensor].name].dtype.itemsize * (r.stop - r.start)
                for r in block.runs
                for s in ready.sources
                if plan.needs_gram(plan.tensors[r.tensor])
            )
        )

    pot.measure(plan, ready.sources, on_block=on_block, threads=threads)
    grams = {name: grouped(gram, plan.groups) for name, gram in tally.grams().items()}
    if plan.recipe.level == "global" and grams:
        size = range(len(plan.groups))
        total = [[math.fsum(gram[i][j] for gram in grams.values()) for j in size] for i in size]
        grams = dict.fromkeys(grams, total)
    return grams


def cook_staged(
    plans: Sequence[Plan],
    sources: Sequence[Source],
    stagings: Sequence[Staging],
    tallies: Sequence[Tally],
    threads: int | None,
    progress: OnProgress | None,
) -> int:
    """Fill the staged files of every plan from one reading of `sources`; how many blocks were there already."""
    headers = [source.header for source in sources]
    most = max(_LARGE_BYTES, _TOGETHER_BYTES // len(plans))
    sinks = [_Together(plan, staging, most) for plan, staging in zip(plans, stagings, strict=True)]
    sizes = _Sizes(plans, headers)
    meter = Meter("mixing", sizes.total, progress)
    done = _finished(plans, stagings, tallies)
    notebook = Notebook()
    if done:
        catch_up()
    for block in plans[0].blocks() if done else ():
        if block.index in done:
            meter.add(sizes.of(block))

    def on_block(block: Block, records: Sequence[BlockRecord]) -> None:
        for sink in sinks:
            sink.flush()  # in the thread that cooked it
        if (marks := notebook.fresh()) is not None:  # before the blocks that are made of what they mark
            for staging in stagings:
                staging.note(marks)
        for tally, staging, record in zip(tallies, stagings, records, strict=True):
            tally.add(block, record)
            staging.note(to_json(record))
        meter.add(sizes.of(block))

    pot.cook_many(plans, sources, sinks, on_block=on_block, done=done, threads=threads)
    return len(done)


def _finished(plans: Sequence[Plan], stagings: Sequence[Staging], tallies: Sequence[Tally]) -> set[int]:
    """The blocks that earlier runs wrote to all of the files; what is known of them goes to the tallies."""
    if not all(staging.resumes for staging in stagings):
        return set()
    blocks = {block.index: block for block in plans[0].blocks()}
    done = set(blocks)
    for staging in stagings:
        done &= {found.index for line in staging.finished() if (found := from_json(line)) is not None}
    for staging, tally in zip(stagings, tallies, strict=True):
        waiting = set(done)
        for line in staging.finished():
            recalled(line)
            record = from_json(line)
            if record is not None and record.index in waiting:
                tally.add(blocks[record.index], record)
                waiting.remove(record.index)
    return done


class _Sizes:
    """Bytes read and written for a block of several plans."""

    def __init__(self, plans: Sequence[Plan], headers: Sequence[Header]) -> None:
        self._bits = []
        for tensors in zip(*(plan.tensors for plan in plans), strict=True):
            readers = {i for plan, tensor in zip(plans, tensors, strict=True) for i in plan.readers(tensor)}
            name = tensors[0].name
            self._bits.append(
                sum(headers[i][name].dtype.bits for i in readers) + sum(t.spec.dtype.bits for t in tensors)
            )
        self.total = sum(
            bits * tensor.spec.numel // 8 for bits, tensor in zip(self._bits, plans[0].tensors, strict=True)
        )

    def of(self, block: Block) -> int:
        return sum(self._bits[run.tensor] * (run.stop - run.start) // 8 for run in block.runs)


class _FileSink:
    """A Sink over a staging folder: tensor and byte → file and byte."""

    def __init__(self, plan: Plan, staging: Staging) -> None:
        self._staging = staging
        self._where: dict[str, tuple[str, int, int]] = {}
        header = plan.header
        for file in plan.files:
            for name, at in zip(file.tensors, file.offsets, strict=True):
                self._where[name] = (file.name, at, header[name].nbytes)

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Put `data` at byte `start` of the tensor, in the file where it belongs."""
        file, at, nbytes = self._where[tensor]
        if start < 0 or start + len(data) > nbytes:
            msg = f"bytes {start} to {start + len(data)} are not all in {tensor}, which has {nbytes}"
            raise ValueError(msg)
        self._put(file, at + start, data)

    def _put(self, file: str, at: int, data: memoryview) -> None:
        self._staging.write(file, at, data)


class _Together(_FileSink):
    """A Sink that writes what is small and lies side by side together: all of a thread's once it calls `flush`."""

    def __init__(self, plan: Plan, staging: Staging, most_bytes: int = _LARGE_BYTES) -> None:
        super().__init__(plan, staging)
        self._waiting, self._most_bytes = _Waiting(), most_bytes

    def _put(self, file: str, at: int, data: memoryview) -> None:
        if len(data) >= _LARGE_BYTES:
            self._staging.write(file, at, data)
            return
        waiting = self._waiting
        if file != waiting.file or at != waiting.at + len(waiting.data):
            self.flush()
            waiting.file, waiting.at = file, at
        waiting.data += data
        if len(waiting.data) >= self._most_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what waits in this thread."""
        waiting = self._waiting
        if waiting.data:
            data, waiting.data = waiting.data, bytearray()
            at, waiting.at = waiting.at, waiting.at + len(data)
            self._staging.write(waiting.file, at, memoryview(data))


class _Waiting(threading.local):
    """Bytes of one file that lie side by side from byte `at` on and are not written yet."""

    def __init__(self) -> None:
        self.file, self.at, self.data = "", 0, bytearray()
