"""The arithmetic rsoup-arith/1 on one run of elements: read, widen, multiply, add, round once, write.

Float64 throughout, multiply and add as separate operations, no reduction across elements: the result of an
element depends on that element of the inputs and on nothing else. Slices are large enough that the arithmetic,
not the calls and the interpreter's lock, takes the time. Any number of soups
of the same checkpoints are made of one reading; each is what it would be alone, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rsoup.backends import Row
from rsoup.digests import ChunkHasher, fingerprint_hasher
from rsoup.gram import finite_products
from rsoup.mixture import Mixture, RunRecord
from rsoup.plan import Plan, Run, TensorPlan
from rsoup.reading import Reading
from rsoup.scratch import Scratch
from rsoup.storage.protocols import Sink, Source
from rsoup.workers import go_on


def mix_run(
    plans: Sequence[Plan],
    run: Run,
    sources: Sequence[Source],
    sinks: Sequence[Sink],
    scratch: Scratch,
    *,
    digests: bool = True,
) -> list[RunRecord]:
    """Write θ = Σ cᵢθᵢ of one run of every plan to its sink, and return what was learnt on the way.

    The plans are over the same `sources` and tensors. Without `digests`, the records hold none.
    Raises IncompatibleError E0304 (a checkpoint holds NaN or infinity), E0305 (the sum leaves the dtype).
    """
    tensors = [plan.tensors[run.tensor] for plan in plans]
    if len(plans) == 1 and tensors[0].copy_from is None:  # by far the most, and many may be small
        return _Loop(plans, run, sources, sinks, scratch, digests).run()
    groups: dict[int, list[int]] = {}
    for i, tensor in enumerate(tensors):
        alone = len(plans) == 1 or tensor.spec.dtype.kind != "float"
        copied = tensor.copy_from is not None and not tensor.measured and alone
        groups.setdefault(tensor.copy_from if copied and tensor.copy_from is not None else -1, []).append(i)
    records: dict[int, RunRecord] = {}
    for checkpoint, members in groups.items():
        if checkpoint >= 0:
            copied_to = [sinks[i] for i in members]
            record = _copy_run(run, tensors[members[0]], sources[checkpoint], copied_to, scratch, digests)
            records |= dict.fromkeys(members, record)
        else:
            loop = _Loop(
                [plans[i] for i in members], run, sources, [sinks[i] for i in members], scratch, digests
            )
            records |= dict(zip(members, loop.run(), strict=True))
    return [records[i] for i in range(len(plans))]


def _copy_run(
    run: Run, tensor: TensorPlan, source: Source, sinks: Sequence[Sink], scratch: Scratch, digests: bool
) -> RunRecord:
    dtype, kept = tensor.spec.dtype, 0
    hasher, fingerprints = ChunkHasher(), ChunkHasher(fingerprint_hasher)
    stop = run.stop * dtype.bits // 8
    step = scratch.slice_elements * 8
    for start in range(run.start * dtype.bits // 8, stop, step):
        data = scratch.raw[: min(step, stop - start)]
        go_on()
        source.read(tensor.name, start, data)
        if dtype.kind == "float" and not math.isfinite(scratch.backend.largest((dtype, data))):
            kept += _count_nonfinite((dtype, data))
        if digests:
            hasher.update(data)
            fingerprints.update(data)
        for sink in sinks:
            sink.write(tensor.name, start, data)
    assert tensor.copy_from is not None
    read = ((tensor.copy_from, fingerprints.digests()),) if digests else ()
    return RunRecord(run.tensor, hasher.digests(), read, kept_nonfinite=kept)


def _count_nonfinite(row: Row) -> int:
    import numpy as np

    from rsoup.backends.elements import widened

    return int(np.count_nonzero(~np.isfinite(widened(row))))


class _Loop:
    """One run of a mixed (or measured) tensor, slice by slice, for any number of soups."""

    def __init__(
        self,
        plans: Sequence[Plan],
        run: Run,
        sources: Sequence[Source],
        sinks: Sequence[Sink],
        scratch: Scratch,
        digests: bool,
    ) -> None:
        self.run_ = run
        self.scratch = scratch
        self.soups = [
            Mixture(plan, plan.tensors[run.tensor], sink, scratch.backend, digests=digests)
            for plan, sink in zip(plans, sinks, strict=True)
        ]
        self.readers = tuple(dict.fromkeys(reader for soup in self.soups for reader in soup.readers))
        self.sources = [sources[reader] for reader in self.readers]
        self.reading = self._reading(fingerprints=digests)
        self.itemsizes = [dtype.itemsize for dtype in self.reading.dtypes]
        self.itemsizes.append(max(soup.tensor.spec.dtype.itemsize for soup in self.soups))

    def _reading(self, *, fingerprints: bool) -> Reading:
        name, backend = self.soups[0].tensor.name, self.scratch.backend
        return Reading(self.sources, name, self.run_.stop, backend, fingerprints=fingerprints)

    def run(self) -> list[RunRecord]:
        if len(self.soups) == 1 and self.soups[0].simple and self.reading.mixes:
            self._stretches(self.soups[0])
        else:
            self._slices(self.reading, self.run_.start, self.run_.stop)
        inputs = dict(zip(self.readers, self.reading.digests(), strict=False))
        return [soup.record(self.run_.tensor, inputs) for soup in self.soups]

    def _stretches(self, soup: Mixture) -> None:
        dtype, coefficients = soup.tensor.spec.dtype, list(soup.coefficients.values())
        out, space = self.scratch.stretch()
        step = len(out) // dtype.itemsize
        for start in range(self.run_.start, self.run_.stop, step):
            count = min(step, self.run_.stop - start)
            made = out[: count * dtype.itemsize]
            if soup.fits(self.reading.mix(start, count, coefficients, space, dtype, made)):
                soup.put(start, made)
            else:  # what is in the way is looked for in the rows
                self._slices(self._reading(fingerprints=False), start, start + count)

    def _slices(self, reading: Reading, begin: int, end: int) -> None:
        step = self.scratch.slice_elements
        for start in range(begin, end, step):
            count = min(step, end - start)
            *buffers, out = self.scratch.rows([count * itemsize for itemsize in self.itemsizes])
            rows = dict(zip(self.readers, reading.rows(start, count, buffers), strict=True))
            found: dict[tuple[int, ...], list[float]] = {}
            for soup in self.soups:
                soup.take(rows, start, out[: count * soup.tensor.spec.dtype.itemsize], found)


def measure_run(plan: Plan, run: Run, sources: Sequence[Source], scratch: Scratch) -> RunRecord:
    """The inner products of the deltas of one run; nothing is written."""
    tensor = plan.tensors[run.tensor]
    if plan.base is None or not plan.needs_gram(tensor):
        return RunRecord(run.tensor)
    reading = Reading(sources[: plan.base + 1], tensor.name, run.stop, scratch.backend)
    itemsizes = [dtype.itemsize for dtype in reading.dtypes]
    total: list[float] = []
    for start in range(run.start, run.stop, scratch.slice_elements):
        count = min(scratch.slice_elements, run.stop - start)
        rows = reading.rows(start, count, scratch.rows([count * itemsize for itemsize in itemsizes]))
        part = finite_products(scratch.backend, rows)
        total = [a + b for a, b in zip(total, part, strict=True)] if total else part
    return RunRecord(run.tensor, deltas=tuple(range(plan.base)), products=tuple(total))
