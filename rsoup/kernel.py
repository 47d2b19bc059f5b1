"""The arithmetic rsoup-arith/1 on one run of elements: read, widen, multiply, add, round once, write.

Float64 throughout, multiply and add as separate operations, no reduction across elements: the result of an
element depends on that element of the inputs and on nothing else. Slices are small enough to stay in the
processor's caches, and large enough that the arithmetic, not the calls, takes the time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsoup.digests import ChunkHasher, fingerprint_hasher
from rsoup.errors import IncompatibleError, show
from rsoup.gram import finite_products, products, unfold
from rsoup.plan import Plan, Run, TensorPlan
from rsoup.scratch import Scratch
from rsoup.storage.protocols import Sink, Source

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What was learnt from one run.

    `output` are digests, `inputs` (checkpoint → bytes) fingerprints of 1 MiB chunks; `products` the inner products of
    (deltas of `deltas`…, θ₀), row by row of the upper triangle; `update_squared` and `error_squared` are
    ‖soup − θ₀‖² before rounding and ‖rounding error‖²; `kept_nonfinite` counts elements that are NaN or
    infinite in every checkpoint alike and were carried over.
    """

    tensor: int
    output: bytes = b""
    inputs: tuple[tuple[int, bytes], ...] = ()
    deltas: tuple[int, ...] = ()
    products: tuple[float, ...] = ()
    update_squared: float = 0.0
    error_squared: float = 0.0
    kept_nonfinite: int = 0


def mix_run(plan: Plan, run: Run, sources: Sequence[Source], sink: Sink, scratch: Scratch) -> RunRecord:
    """Write θ = Σ cᵢθᵢ of one run to `sink`, and return what was learnt on the way.

    Raises IncompatibleError E0304 (a checkpoint holds NaN or infinity), E0305 (the sum leaves the dtype).
    """
    tensor = plan.tensors[run.tensor]
    if tensor.copy_from is not None and not tensor.measured:
        return _copy_run(run, tensor, sources[tensor.copy_from], sink, scratch)
    loop = _Loop(plan, run, tensor, sources, sink, scratch)
    return loop.run()


def _copy_run(run: Run, tensor: TensorPlan, source: Source, sink: Sink, scratch: Scratch) -> RunRecord:
    bits, kept = tensor.spec.dtype.bits, 0
    hasher, fingerprints = ChunkHasher(), ChunkHasher(fingerprint_hasher)
    stop = run.stop * bits // 8
    for start in range(run.start * bits // 8, stop, scratch.slice_elements * 8):
        data = scratch.raw_bytes[: min(scratch.slice_elements * 8, stop - start)]
        source.read(tensor.name, start, data)
        if tensor.spec.dtype.kind == "float":
            kept += _count_nonfinite(scratch.raw[: len(data)].view(tensor.spec.dtype.torch))
        hasher.update(data)
        fingerprints.update(data)
        sink.write(tensor.name, start, data)
    assert tensor.copy_from is not None
    read = ((tensor.copy_from, fingerprints.digests()),)
    return RunRecord(run.tensor, hasher.digests(), read, kept_nonfinite=kept)


def _count_nonfinite(values: torch.Tensor) -> int:
    import torch

    wide = values if values.element_size() >= 4 else values.to(torch.float32)
    if math.isfinite(wide.sum(dtype=torch.float64).item()):
        return 0
    return int((~torch.isfinite(wide)).sum().item())


class _Loop:
    """One run of a mixed (or measured) tensor, slice by slice."""

    def __init__(
        self,
        plan: Plan,
        run: Run,
        tensor: TensorPlan,
        sources: Sequence[Source],
        sink: Sink,
        scratch: Scratch,
    ) -> None:
        self.run_ = run
        self.tensor = tensor
        self.sources = sources
        self.sink = sink
        self.scratch = scratch
        self.readers = plan.readers(tensor)
        self.names = plan.checkpoints
        self.coefficients = {term.checkpoint: term.coefficient for term in tensor.terms}
        self.base = plan.base if tensor.measured else None
        self.deltas = tuple(reader for reader in self.readers if reader != self.base)
        self.keep_rows = self.base is not None or (tensor.spec.dtype.name == "F64" and len(tensor.terms) > 1)
        self.row_of = {reader: row for row, reader in enumerate((*self.deltas, self.base))}
        self.input_hashers = {reader: ChunkHasher(fingerprint_hasher) for reader in self.readers}
        self.output_hasher = ChunkHasher()
        self.products: list[float] = []
        self.error_squared = 0.0
        self.kept_nonfinite = 0
        self.bad: torch.Tensor | None = None  # the elements of this slice that are left out of the distances

    def run(self) -> RunRecord:
        itemsize = self.tensor.spec.dtype.itemsize
        step = self.scratch.measured_elements if self.keep_rows else self.scratch.slice_elements
        for start in range(self.run_.start, self.run_.stop, step):
            count = min(step, self.run_.stop - start)
            self.bad = None
            rounded = self._slice(start, count)
            data = self.scratch.out_bytes[: count * itemsize]
            self.output_hasher.update(data)
            self.sink.write(self.tensor.name, start * itemsize, data)
            if self.base is not None:
                self._measure(count, rounded)
        return RunRecord(
            self.run_.tensor,
            self.output_hasher.digests(),
            tuple((reader, hasher.digests()) for reader, hasher in self.input_hashers.items()),
            self.deltas if self.base is not None else (),
            tuple(self.products),
            self._update_squared(),
            self.error_squared,
            self.kept_nonfinite,
        )

    def _read(self, reader: int, start: int, count: int) -> torch.Tensor:
        """The raw elements of a checkpoint; they stay in the scratch until the next read."""
        dtype = self.sources[reader].header[self.tensor.name].dtype
        data = self.scratch.raw_bytes[: count * dtype.itemsize]
        self.sources[reader].read(self.tensor.name, start * dtype.itemsize, data)
        return self.scratch.typed(dtype, count)

    def _slice(self, start: int, count: int) -> torch.Tensor:
        import torch

        acc, product = self.scratch.acc[:count], self.scratch.product[:count]
        out = self.scratch.typed_out(self.tensor.spec.dtype, count)
        rows = self.scratch.rows() if self.keep_rows else None
        first = True
        for reader in self.readers:
            raw = self._read(reader, start, count)
            self.input_hashers[reader].update(self.scratch.raw_bytes[: raw.nbytes])
            coefficient = self.coefficients.get(reader)
            target = acc if first else product
            wide = target if rows is None else rows[self.row_of[reader], :count]
            wide.copy_(raw)
            if self.tensor.copy_from == reader:
                out.copy_(raw)
            if coefficient is None:
                continue
            torch.mul(wide, coefficient, out=target)
            if not first:
                acc.add_(product)
            first = False
        if rows is not None and self.tensor.spec.dtype.name == "F64":
            self._keep_equal(rows[:, :count], acc)
        finite = math.isfinite(acc.sum().item()) or bool(acc.isfinite().all())
        if self.tensor.copy_from is None:
            out.copy_(acc)
            if not finite or (self.tensor.may_overflow and self._reaches_overflow(acc)):
                self._check(out, acc, start, count)
        elif not finite:
            self.bad = torch.nonzero(~acc.isfinite()).flatten()
            self.kept_nonfinite += len(self.bad)
        return out

    def _keep_equal(self, rows: torch.Tensor, acc: torch.Tensor) -> None:
        """Where all summands are the same float64, the soup is it too: their rounded sum might not be."""
        used = [self.row_of[reader] for reader in self.readers if reader in self.coefficients]
        if len(used) < 2 or not math.isclose(math.fsum(self.coefficients.values()), 1.0):
            return
        equal = rows[used[0]] == rows[used[1]]
        for position in used[2:]:
            equal &= rows[used[0]] == rows[position]
        acc[equal] = rows[used[0]][equal]

    def _reaches_overflow(self, acc: torch.Tensor) -> bool:
        import torch

        low, high = torch.aminmax(acc)
        return max(-low.item(), high.item()) >= self.tensor.spec.dtype.overflow

    def _check(self, out: torch.Tensor, acc: torch.Tensor, start: int, count: int) -> None:
        """Non-finite elements: carried over where every checkpoint holds the same bits, refused elsewhere."""
        import torch

        dtype = self.tensor.spec.dtype
        too_large = acc.abs() >= dtype.overflow  # torch may saturate fp8 instead of saying so
        bad = torch.nonzero(too_large | ~out.to(torch.float64).isfinite()).flatten()
        if not len(bad):
            return
        raw = [self._read(reader, start, count)[bad].clone() for reader in self.coefficients]
        values = [row.to(torch.float64) for row in raw]
        shared = ~values[0].isfinite()
        for row in values[1:]:
            shared &= row.view(torch.int64) == values[0].view(torch.int64)
        out[bad[shared]] = raw[0][shared].to(out.dtype)
        if bool(shared.all()):
            self.bad = bad
            self.kept_nonfinite += len(bad)
            return
        name = show(self.tensor.name)
        for reader, row in zip(self.coefficients, values, strict=True):
            broken = bad[~row.isfinite() & ~shared]
            if len(broken):
                raise IncompatibleError(
                    "E0304",
                    f"tensor '{name}' of '{show(self.names[reader])}' is NaN or infinite in {len(broken)} of its elements (first at element {start + int(broken[0])})",
                    hint=f"leave '{show(self.names[reader])}' out: a soup with it is broken everywhere they are",
                )
        rest = bad[~shared]
        raise IncompatibleError(
            "E0305",
            f"too large for {dtype.name}: {len(rest)} of the elements of the soup's '{name}' (first at element {start + int(rest[0])})",
            hint="store it in a wider type: --dtype float32 or --dtype bfloat16",
        )

    def _measure(self, count: int, rounded: torch.Tensor) -> None:
        import torch

        rows = self.scratch.rows()[: len(self.row_of), :count]
        deltas, theta0 = rows[:-1], rows[-1]
        acc, error = self.scratch.acc[:count], self.scratch.product[:count]
        error.copy_(rounded)
        if self.bad is not None:
            rows[:, self.bad] = acc[self.bad] = error[self.bad] = 0.0
        error.sub_(acc)
        self.error_squared += torch.dot(error, error).item()
        deltas.sub_(theta0)
        part = products(rows)
        if not math.isfinite(sum(part)) and not bool(theta0.isfinite().all()):
            self._refuse_base(theta0)
        self._add(part)

    def _update_squared(self) -> float:
        """‖soup − θ₀‖² = Σᵢⱼ cᵢcⱼ⟨δᵢ, δⱼ⟩: the coefficients, the base's among them, sum to 1."""
        if not self.products:
            return 0.0
        gram = unfold(self.products, len(self.row_of))
        shares = [self.coefficients.get(reader, 0.0) for reader in self.deltas]
        pairs = ((i, j) for i in range(len(shares)) for j in range(len(shares)))
        return max(0.0, sum(shares[i] * shares[j] * gram[i][j] for i, j in pairs))

    def _refuse_base(self, theta0: torch.Tensor) -> None:
        assert self.base is not None
        number = int((~theta0.isfinite()).sum())
        raise IncompatibleError(
            "E0304",
            f"tensor '{show(self.tensor.name)}' of '{show(self.names[self.base])}' is NaN or infinite in {number} of its elements, where the others are not",
            hint="is this the base they were fine-tuned from? fetch it again, or leave out --base",
        )

    def _add(self, part: list[float]) -> None:
        self.products = [a + b for a, b in zip(self.products, part, strict=True)] if self.products else part


def measure_run(plan: Plan, run: Run, sources: Sequence[Source], scratch: Scratch) -> RunRecord:
    """The inner products of the deltas of one run; nothing is written."""
    tensor = plan.tensors[run.tensor]
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
            rows[reader, :count].copy_(scratch.typed(dtype, count))
        for reader in deltas:
            rows[reader, :count].sub_(rows[plan.base, :count])
        part = finite_products(rows[: plan.base + 1, :count])
        total = [a + b for a, b in zip(total, part, strict=True)] if total else part
    return RunRecord(run.tensor, deltas=deltas, products=tuple(total))
