"""One soup of a run: its coefficients, its sum, its rounding, and what is learnt of it on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from rsoup.backends import Array
from rsoup.digests import ChunkHasher
from rsoup.errors import IncompatibleError, show
from rsoup.gram import unfold
from rsoup.plan import Plan, TensorPlan
from rsoup.scratch import Scratch
from rsoup.storage.protocols import Sink
from rsoup.tensors import DTYPES, DType

ReadAgain = Callable[[int], tuple[DType, Array]]
_NEARLY = 1 - 2.0**-20  # the sum is rounded to float32 first, which may lift it to the limit


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


class Mixture:
    """One soup's tensor while a run of it is made, slice by slice."""

    def __init__(
        self, plan: Plan, tensor: TensorPlan, sink: Sink, scratch: Scratch, *, digests: bool
    ) -> None:
        self.tensor = tensor
        self.names = plan.checkpoints
        self.readers = plan.readers(tensor)
        self.base = plan.base if tensor.measured else None
        self.deltas = tuple(sorted(reader for reader in self.readers if reader != self.base))
        self.coefficients = {term.checkpoint: term.coefficient for term in tensor.terms}
        self.copies = tensor.copy_from is not None
        self.needs_equal = tensor.spec.dtype.name == "F64" and len(tensor.terms) > 1
        self.bad: Array | None = None  # the elements of this slice that are left out of the distances
        self._sink = sink
        self._scratch, self._backend = scratch, scratch.backend
        self._hasher = ChunkHasher() if digests else None
        self._products: list[float] = []
        self._error_squared = 0.0
        self._kept_nonfinite = 0
        self._first = True

    def begin(self) -> None:
        """A new slice."""
        self.bad, self._first = None, True

    def put(self, start: int, data: memoryview) -> None:
        """Write the bytes of the elements from `start` on, and digest them."""
        if self._hasher is not None:
            self._hasher.update(data)
        self._sink.write(self.tensor.name, start * self.tensor.spec.dtype.itemsize, data)

    def add(self, reader: int, values: Array, dtype: DType = DTYPES["F64"]) -> None:
        """Add c·θ of one checkpoint to the sum; `values` are stored as `dtype`, and widened in place of the sum."""
        coefficient = self.coefficients.get(reader)
        if coefficient is None:
            return
        acc, product = self._scratch.acc[: len(values)], self._scratch.product[: len(values)]
        target = acc if self._first else product
        if dtype.name != "F64":
            self._backend.widen(dtype, values, target)
            values = target
        self._backend.multiply(values, coefficient, target)
        if not self._first:
            acc += product
        self._first = False

    def keep_equal(self, rows: list[Array], acc: Array) -> None:
        """Where all summands are the same float64, the soup is it too: their rounded sum might not be."""
        if len(rows) < 2 or not math.isclose(math.fsum(self.coefficients.values()), 1.0):
            return
        equal = rows[0] == rows[1]
        for row in rows[2:]:
            equal &= rows[0] == row
        acc[equal] = rows[0][equal]

    def count_nonfinite(self, values: Array) -> None:
        """Elements that are carried over as they are, whatever they are; `values` are a copied checkpoint's."""
        if not all(map(math.isfinite, self._backend.extremes(values))):
            self._carry(self._backend.indices(~self._backend.finite(values)))

    def round(self, count: int, start: int, read_again: ReadAgain) -> Array:
        """The sum, rounded once to the soup's dtype. Raises IncompatibleError E0304, E0305."""
        acc, dtype = self._scratch.acc[:count], self.tensor.spec.dtype
        out = self._scratch.typed_out(dtype, count)
        self._backend.narrow(dtype, acc, out)
        low, high = self._backend.extremes(acc)
        if not max(-low, high) < dtype.overflow * _NEARLY:  # not for NaN either
            self._check(out, acc, start, read_again)
        if self.base is not None:
            self._measure_rounding(out, acc)
        return out

    def _measure_rounding(self, out: Array, acc: Array) -> None:
        error = self._scratch.product[: len(acc)]
        self._backend.widen(self.tensor.spec.dtype, out, error)
        error -= acc
        if self.bad is not None:
            error[self.bad] = 0.0
        self._error_squared += self._backend.square(error)

    def _carry(self, bad: Array) -> None:
        self.bad = bad
        self._kept_nonfinite += len(bad)

    def _check(self, out: Array, acc: Array, start: int, read_again: ReadAgain) -> None:
        """Non-finite elements: carried over where every checkpoint holds the same value, refused elsewhere."""
        backend, dtype = self._backend, self.tensor.spec.dtype
        stored = self._scratch.product[: len(acc)]
        backend.widen(dtype, out, stored)
        too_large = abs(acc) >= dtype.overflow  # the cast to fp8 may saturate instead of saying so
        bad = backend.indices(too_large | ~backend.finite(acc) | ~backend.finite(stored))
        if not len(bad):
            return
        rows = [(kind, read[bad]) for kind, read in map(read_again, self.coefficients)]
        values = [self._widened(*row) for row in rows]
        shared = ~backend.finite(values[0])
        for row in values[1:]:
            shared &= backend.same_bits(row, values[0])
        kind, kept = rows[0]
        if kind != dtype:
            kept = backend.view(backend.buffer(len(bad) * dtype.itemsize), dtype)
            backend.narrow(dtype, values[0], kept)
        out[bad[shared]] = kept[shared]
        if bool(shared.all()):
            self._carry(bad)
            return
        name = show(self.tensor.name)
        for reader, row in zip(self.coefficients, values, strict=True):
            broken = bad[~backend.finite(row) & ~shared]
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

    def _widened(self, dtype: DType, stored: Array) -> Array:
        wide = self._backend.doubles(len(stored))
        self._backend.widen(dtype, stored, wide)
        return wide

    def measure(self, rows: Array, found: dict[tuple[int, ...], list[float]]) -> None:
        """Add the inner products of a slice; `rows` are (deltas in ascending order…, θ₀).

        `found` has those of this slice that are known. Raises IncompatibleError E0304 for a broken base.
        """
        part = found.get(self.deltas) or self._backend.products(rows)
        if not math.isfinite(sum(part)) and not bool(self._backend.finite(rows[-1]).all()):
            self._refuse_base(rows[-1])
        found[self.deltas] = part
        self._products = (
            [a + b for a, b in zip(self._products, part, strict=True)] if self._products else list(part)
        )

    def _refuse_base(self, theta0: Array) -> None:
        assert self.base is not None
        number = int((~self._backend.finite(theta0)).sum())
        raise IncompatibleError(
            "E0304",
            f"tensor '{show(self.tensor.name)}' of '{show(self.names[self.base])}' is NaN or infinite in {number} of its elements, where the others are not",
            hint="is this the base they were fine-tuned from? fetch it again, or leave out --base",
        )

    def record(self, number: int, inputs: dict[int, bytes]) -> RunRecord:
        """What was learnt; `inputs` are the fingerprints of every checkpoint that was read."""
        return RunRecord(
            number,
            b"" if self._hasher is None else self._hasher.digests(),
            tuple((reader, inputs[reader]) for reader in self.readers if reader in inputs),
            self.deltas if self.base is not None else (),
            tuple(self._products),
            self._update_squared(),
            self._error_squared,
            self._kept_nonfinite,
        )

    def _update_squared(self) -> float:
        """‖soup − θ₀‖² = Σᵢⱼ cᵢcⱼ⟨δᵢ, δⱼ⟩: the coefficients, the base's among them, sum to 1."""
        if not self._products:
            return 0.0
        gram = unfold(self._products, len(self.deltas) + 1)
        shares = [self.coefficients.get(reader, 0.0) for reader in self.deltas]
        pairs = ((i, j) for i in range(len(shares)) for j in range(len(shares)))
        return max(0.0, sum(shares[i] * shares[j] * gram[i][j] for i, j in pairs))
