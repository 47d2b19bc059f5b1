"""The arithmetic rsoup-arith/1 on one run of elements: read, widen, multiply, add, round once, write.

Float64 throughout, multiply and add as separate operations, no reduction across elements: the result of an
element depends on that element of the inputs and on nothing else. Slices are small enough to stay in the
processor's caches, and large enough that the arithmetic, not the calls, takes the time. Any number of soups
of the same checkpoints are made of one reading; each is what it would be alone, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rsoup.backends import Array
from rsoup.digests import ChunkHasher, fingerprint_hasher
from rsoup.gram import finite_products
from rsoup.mixture import Mixture, RunRecord
from rsoup.plan import Plan, Run, TensorPlan
from rsoup.scratch import Scratch
from rsoup.storage.protocols import Sink, Source
from rsoup.tensors import DType


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
    with scratch.backend.quiet():
        return _mixed(plans, run, sources, sinks, scratch, digests)


def _mixed(
    plans: Sequence[Plan],
    run: Run,
    sources: Sequence[Source],
    sinks: Sequence[Sink],
    scratch: Scratch,
    digests: bool,
) -> list[RunRecord]:
    tensors = [plan.tensors[run.tensor] for plan in plans]
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
    bits, kept = tensor.spec.dtype.bits, 0
    hasher, fingerprints = ChunkHasher(), ChunkHasher(fingerprint_hasher)
    stop = run.stop * bits // 8
    for start in range(run.start * bits // 8, stop, scratch.slice_elements * 8):
        data = scratch.raw_bytes[: min(scratch.slice_elements * 8, stop - start)]
        source.read(tensor.name, start, data)
        if tensor.spec.dtype.kind == "float":
            kept += _count_nonfinite(scratch, tensor.spec.dtype, len(data) * 8 // bits)
        if digests:
            hasher.update(data)
            fingerprints.update(data)
        for sink in sinks:
            sink.write(tensor.name, start, data)
    assert tensor.copy_from is not None
    read = ((tensor.copy_from, fingerprints.digests()),) if digests else ()
    return RunRecord(run.tensor, hasher.digests(), read, kept_nonfinite=kept)


def _count_nonfinite(scratch: Scratch, dtype: DType, count: int) -> int:
    backend, found = scratch.backend, 0
    for start in range(
        0, count, scratch.slice_elements
    ):  # the raw buffer holds several slices of small elements
        stored = scratch.typed(dtype, count)[start : start + scratch.slice_elements]
        wide = scratch.acc[: len(stored)]
        backend.widen(dtype, stored, wide)
        if not all(map(math.isfinite, backend.extremes(wide))):
            found += int((~backend.finite(wide)).sum())
    return found


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
        self.sources = sources
        self.scratch = scratch
        self.soups = [
            Mixture(plan, plan.tensors[run.tensor], sink, scratch, digests=digests)
            for plan, sink in zip(plans, sinks, strict=True)
        ]
        self.name = self.soups[0].tensor.name
        self.base = self.soups[0].base
        self.readers = tuple(dict.fromkeys(reader for soup in self.soups for reader in soup.readers))
        deltas = sorted(reader for reader in self.readers if reader != self.base)
        self.row_of = {reader: row for row, reader in enumerate((*deltas, self.base))}
        self.keep_rows = (
            self.base is not None or len(self.soups) > 1 or any(soup.needs_equal for soup in self.soups)
        )
        self.hashers = {reader: ChunkHasher(fingerprint_hasher) for reader in self.readers if digests}

    def run(self) -> list[RunRecord]:
        scratch = self.scratch
        step = scratch.measured_elements if self.keep_rows else scratch.slice_elements
        for start in range(self.run_.start, self.run_.stop, step):
            self._slice(start, min(step, self.run_.stop - start))
        inputs = {reader: hasher.digests() for reader, hasher in self.hashers.items()}
        return [soup.record(self.run_.tensor, inputs) for soup in self.soups]

    def _read(self, reader: int, start: int, count: int) -> Array:
        """The raw elements of a checkpoint; they stay in the scratch until the next read."""
        dtype = self.sources[reader].header[self.name].dtype
        data = self.scratch.raw_bytes[: count * dtype.itemsize]
        self.sources[reader].read(self.name, start * dtype.itemsize, data)
        return self.scratch.typed(dtype, count)

    def _read_again(self, reader: int, start: int, count: int) -> tuple[DType, Array]:
        return self.sources[reader].header[self.name].dtype, self._read(reader, start, count)

    def _slice(self, start: int, count: int) -> None:
        rows = self.scratch.rows()[: len(self.row_of), :count] if self.keep_rows else None
        for soup in self.soups:
            soup.begin()
        for reader in self.readers:
            dtype = self.sources[reader].header[self.name].dtype
            raw = self._read(reader, start, count)
            data = self.scratch.raw_bytes[: raw.nbytes]
            if reader in self.hashers:
                self.hashers[reader].update(data)
            for soup in self.soups:
                if soup.tensor.copy_from == reader:
                    soup.put(start, data)
            if rows is None:
                self.soups[0].add(reader, raw, dtype)
            else:
                self.scratch.backend.widen(dtype, raw, rows[self.row_of[reader]])
        for soup in self.soups:
            self._finish(soup, rows, start, count)
        if rows is not None and self.base is not None:
            self._measure(rows)

    def _finish(self, soup: Mixture, rows: Array | None, start: int, count: int) -> None:
        if soup.copies:
            assert rows is not None
            soup.count_nonfinite(rows[self.row_of[soup.readers[0]]])
            return
        if rows is not None:
            for reader in soup.readers:
                soup.add(reader, rows[self.row_of[reader]])
            if soup.needs_equal:
                used = [rows[self.row_of[reader]] for reader in soup.coefficients]
                soup.keep_equal(used, self.scratch.acc[:count])
        rounded = soup.round(count, start, lambda reader: self._read_again(reader, start, count))
        soup.put(start, self.scratch.out_bytes[: rounded.nbytes])

    def _measure(self, rows: Array) -> None:
        """The inner products of this slice; `rows` are used up."""
        whole = [soup for soup in self.soups if soup.bad is None]
        for soup in self.soups:
            if soup.bad is not None:
                own = rows[self._rows_of(soup)]
                own[:, soup.bad] = 0.0
                own[:-1] -= own[-1]
                soup.measure(own, {})
        if whole:
            rows[:-1] -= rows[-1]
        found: dict[tuple[int, ...], list[float]] = {}
        for soup in whole:
            known = soup.deltas in found or len(soup.deltas) == len(rows) - 1
            soup.measure(rows if known else rows[self._rows_of(soup)], found)

    def _rows_of(self, soup: Mixture) -> list[int]:
        return [self.row_of[reader] for reader in (*soup.deltas, self.base) if reader is not None]


def measure_run(plan: Plan, run: Run, sources: Sequence[Source], scratch: Scratch) -> RunRecord:
    """The inner products of the deltas of one run; nothing is written."""
    with scratch.backend.quiet():
        return _products(plan, run, sources, scratch)


def _products(plan: Plan, run: Run, sources: Sequence[Source], scratch: Scratch) -> RunRecord:
    tensor, backend = plan.tensors[run.tensor], scratch.backend
    if plan.base is None or not plan.needs_gram(tensor):
        return RunRecord(run.tensor)
    deltas = tuple(range(plan.base))
    total: list[float] = []
    for start in range(run.start, run.stop, scratch.measured_elements):
        count = min(scratch.measured_elements, run.stop - start)
        rows = scratch.rows()
        for reader in (*deltas, plan.base):
            dtype = sources[reader].header[tensor.name].dtype
            sources[reader].read(
                tensor.name, start * dtype.itemsize, scratch.raw_bytes[: count * dtype.itemsize]
            )
            backend.widen(dtype, scratch.typed(dtype, count), rows[reader, :count])
        for reader in deltas:
            rows[reader, :count] -= rows[plan.base, :count]
        part = finite_products(backend, rows[: plan.base + 1, :count])
        total = [a + b for a, b in zip(total, part, strict=True)] if total else part
    return RunRecord(run.tensor, deltas=deltas, products=tuple(total))
