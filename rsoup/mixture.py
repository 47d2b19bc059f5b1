"""One soup of a run: its coefficients, its sum, its rounding, and what is learnt of it on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from rsoup.backends import Backend, Row
from rsoup.digests import ChunkHasher
from rsoup.errors import IncompatibleError, show
from rsoup.gram import unfold, without
from rsoup.plan import Plan, TensorPlan
from rsoup.storage.protocols import Sink
from rsoup.tensors import DTYPES

if TYPE_CHECKING:
    import numpy as np

    from rsoup.backends.elements import Doubles

    Indices = np.ndarray[Any, np.dtype[np.intp]]

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
        self, plan: Plan, tensor: TensorPlan, sink: Sink, backend: Backend, *, digests: bool
    ) -> None:
        self.tensor = tensor
        self.names = plan.checkpoints
        self.readers = plan.readers(tensor)
        self.base = plan.base if tensor.measured else None
        self.deltas = tuple(sorted(reader for reader in self.readers if reader != self.base))
        self.coefficients = {term.checkpoint: term.coefficient for term in tensor.terms}
        self._sink = sink
        self._backend = backend
        self._hasher = ChunkHasher() if digests else None
        self._products: list[float] = []
        self._error_squared = 0.0
        self._kept_nonfinite = 0

    @property
    def simple(self) -> bool:
        """Whether only the sum is asked of a slice, rounded: no distances, nothing copied, no float64 to keep equal."""
        mixed = self.tensor.copy_from is None and tuple(self.coefficients) == self.readers
        return mixed and self.base is None and self.tensor.spec.dtype.name in ("F32", "F16", "BF16")

    def fits(self, largest: float) -> bool:
        """Whether a sum of at most this magnitude is finite, and stays so when it is rounded."""
        return largest < self.tensor.spec.dtype.overflow * _NEARLY  # not for NaN either

    def take(
        self, rows: Mapping[int, Row], start: int, out: memoryview, found: dict[tuple[int, ...], list[float]]
    ) -> None:
        """Make the elements from `start` on of `rows`, those of every reader, in `out`, and write them.

        `found` has the inner products of this slice that are known. Raises IncompatibleError E0304, E0305.
        """
        if self.tensor.copy_from is not None:
            self.put(start, rows[self.tensor.copy_from][1])
            bad = self._carried(rows[self.readers[0]])
        else:
            bad = self._mix([(reader, rows[reader]) for reader in self.coefficients], start, out)
            self.put(start, out)
        if bad is not None:
            self._kept_nonfinite += len(bad)
        if self.base is not None:
            self._measure([rows[reader] for reader in (*self.deltas, self.base)], bad, found)

    def put(self, start: int, data: memoryview) -> None:
        """Digest and write the soup's elements from `start` on."""
        if self._hasher is not None:
            self._hasher.update(data)
        self._sink.write(self.tensor.name, start * self.tensor.spec.dtype.itemsize, data)

    def _carried(self, row: Row) -> Indices | None:
        """The elements of a copied checkpoint that are carried over as they are, though they are not finite."""
        if math.isfinite(self._backend.largest(row)):
            return None
        import numpy as np

        from rsoup.backends.elements import widened

        return np.flatnonzero(~np.isfinite(widened(row)))

    def _mix(self, rows: Sequence[tuple[int, Row]], start: int, out: memoryview) -> Indices | None:
        """The sum, rounded once to the soup's dtype; the elements that are carried over. Raises E0304, E0305."""
        dtype, used = self.tensor.spec.dtype, [row for _, row in rows]
        largest, error = self._backend.mix(
            used, list(self.coefficients.values()), dtype, out, measured=self.base is not None
        )
        if dtype.name == "F64":
            error = 0.0  # it is not rounded
            self._keep_equal(used, out)
        bad = None
        if not self.fits(largest):
            bad, error = self._check(rows, start, out, error)
        self._error_squared += error
        return bad

    def _keep_equal(self, rows: Sequence[Row], out: memoryview) -> None:
        """Where all summands are the same float64, the soup is it too: their rounded sum might not be."""
        if len(rows) < 2 or not math.isclose(math.fsum(self.coefficients.values()), 1.0):
            return
        from rsoup.backends.elements import typed, widened

        first, second, *rest = map(widened, rows)
        equal = first == second
        for values in rest:
            equal &= first == values
        typed(DTYPES["F64"], out)[equal] = first[equal]

    def _check(
        self, rows: Sequence[tuple[int, Row]], start: int, out: memoryview, error: float
    ) -> tuple[Indices | None, float]:
        """Non-finite elements: carried over where every checkpoint holds the same value, refused elsewhere.

        Returns which they are, and the squared rounding error without them.
        """
        import numpy as np

        from rsoup.backends.elements import narrow, typed, widened
        from rsoup.backends.with_numpy import NumpyBackend, add_up

        dtype = self.tensor.spec.dtype
        stored = typed(dtype, out)
        total, term = widened((dtype, out)), np.empty(len(stored))
        with np.errstate(all="ignore"):
            if dtype.name != "F64":
                inputs = [(kind, typed(kind, data)) for _, (kind, data) in rows]
                add_up(inputs, list(self.coefficients.values()), total, term)
            too_large = np.abs(total) >= dtype.overflow  # the cast to fp8 may saturate instead of saying so
            bad = np.flatnonzero(too_large | ~np.isfinite(total) | ~np.isfinite(widened((dtype, out))))
            if not len(bad):
                return None, error
            values = [widened(row)[bad] for _, row in rows]
            shared = ~np.isfinite(values[0])
            for other in values[1:]:
                shared &= other.view(np.int64) == values[0].view(np.int64)
            kind, data = rows[0][1]
            kept = typed(kind, data)[bad]
            if kind != dtype:
                kept = np.empty(len(bad), dtype=stored.dtype)
                narrow(dtype, values[0], kept)
            stored[bad[shared]] = kept[shared]
            if not shared.all():
                self._refuse(rows, values, bad, shared, start)
            lost = widened((dtype, out)) - total
            lost[bad] = 0.0
            return bad, NumpyBackend().squares(lost) if self.base is not None else 0.0

    def _refuse(
        self,
        rows: Sequence[tuple[int, Row]],
        values: Sequence[Doubles],
        bad: Indices,
        shared: Any,
        start: int,
    ) -> NoReturn:
        import numpy as np

        name, dtype = show(self.tensor.name), self.tensor.spec.dtype
        for (reader, _), row in zip(rows, values, strict=True):
            broken = bad[~np.isfinite(row) & ~shared]
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
            hint=dtype.remedy,
        )

    def _measure(
        self, rows: list[Row], bad: Indices | None, found: dict[tuple[int, ...], list[float]]
    ) -> None:
        """Add the inner products of a slice of (deltas in ascending order…, θ₀), without the `bad` elements."""
        if bad is not None:
            part = self._backend.products(without(rows, bad))
        else:
            part = found.get(self.deltas) or self._backend.products(rows)
            found[self.deltas] = part
        if not math.isfinite(sum(part)):
            self._check_base(rows[-1], bad)
        self._products = (
            [a + b for a, b in zip(self._products, part, strict=True)] if self._products else list(part)
        )

    def _check_base(self, theta0: Row, bad: Indices | None) -> None:
        import numpy as np

        from rsoup.backends.elements import widened

        assert self.base is not None
        broken = ~np.isfinite(widened(theta0))
        if bad is not None:
            broken[bad] = False
        number = int(np.count_nonzero(broken))
        if number:
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
        total = 0.0
        for i in range(len(shares)):
            for j in range(len(shares)):
                total += shares[i] * shares[j] * gram[i][j]  # not `sum`, which Python 3.12 compensates
        return max(0.0, total)
