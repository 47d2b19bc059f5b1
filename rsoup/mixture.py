"""One soup of a run: its coefficients, its sum, its rounding, and what is learnt of it on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsoup.digests import ChunkHasher
from rsoup.errors import IncompatibleError, show
from rsoup.gram import products, unfold
from rsoup.plan import Plan, TensorPlan
from rsoup.scratch import Scratch
from rsoup.storage.protocols import Sink

if TYPE_CHECKING:
    import torch

    ReadAgain = Callable[[int], torch.Tensor]


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
        self.bad: torch.Tensor | None = None  # the elements of this slice that are left out of the distances
        self._sink = sink
        self._scratch = scratch
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

    def add(self, reader: int, values: torch.Tensor) -> None:
        """Add c·θ of one checkpoint to the sum; `values` are float64, or are widened in place of the sum."""
        import torch

        coefficient = self.coefficients.get(reader)
        if coefficient is None:
            return
        acc, product = self._scratch.acc[: len(values)], self._scratch.product[: len(values)]
        target = acc if self._first else product
        if values.dtype != torch.float64:
            target.copy_(values)
            values = target
        torch.mul(values, coefficient, out=target)
        if not self._first:
            acc.add_(product)
        self._first = False

    def keep_equal(self, rows: list[torch.Tensor], acc: torch.Tensor) -> None:
        """Where all summands are the same float64, the soup is it too: their rounded sum might not be."""
        if len(rows) < 2 or not math.isclose(math.fsum(self.coefficients.values()), 1.0):
            return
        equal = rows[0] == rows[1]
        for row in rows[2:]:
            equal &= rows[0] == row
        acc[equal] = rows[0][equal]

    def count_nonfinite(self, values: torch.Tensor) -> None:
        """Elements that are carried over as they are, whatever they are; `values` are a copied checkpoint's."""
        if not _finite(values):
            self._carry((~values.isfinite()).nonzero().flatten())

    def round(self, count: int, start: int, read_again: ReadAgain) -> torch.Tensor:
        """The sum, rounded once to the soup's dtype. Raises IncompatibleError E0304, E0305."""
        acc = self._scratch.acc[:count]
        out = self._scratch.typed_out(self.tensor.spec.dtype, count)
        finite = _finite(acc)
        out.copy_(acc)
        if not finite or (self.tensor.may_overflow and self._reaches_overflow(acc)):
            self._check(out, acc, start, read_again)
        if self.base is not None:
            self._measure_rounding(out, acc)
        return out

    def _measure_rounding(self, out: torch.Tensor, acc: torch.Tensor) -> None:
        import torch

        error = self._scratch.product[: len(acc)]
        error.copy_(out)
        error.sub_(acc)
        if self.bad is not None:
            error[self.bad] = 0.0
        self._error_squared += torch.dot(error, error).item()

    def _reaches_overflow(self, acc: torch.Tensor) -> bool:
        import torch

        low, high = torch.aminmax(acc)
        return max(-low.item(), high.item()) >= self.tensor.spec.dtype.overflow

    def _carry(self, bad: torch.Tensor) -> None:
        self.bad = bad
        self._kept_nonfinite += len(bad)

    def _check(self, out: torch.Tensor, acc: torch.Tensor, start: int, read_again: ReadAgain) -> None:
        """Non-finite elements: carried over where every checkpoint holds the same bits, refused elsewhere."""
        import torch

        dtype = self.tensor.spec.dtype
        too_large = acc.abs() >= dtype.overflow  # torch may saturate fp8 instead of saying so
        bad = torch.nonzero(too_large | ~out.to(torch.float64).isfinite()).flatten()
        if not len(bad):
            return
        raw = [read_again(reader)[bad].clone() for reader in self.coefficients]
        values = [row.to(torch.float64) for row in raw]
        shared = ~values[0].isfinite()
        for row in values[1:]:
            shared &= row.view(torch.int64) == values[0].view(torch.int64)
        out[bad[shared]] = raw[0][shared].to(out.dtype)
        if bool(shared.all()):
            self._carry(bad)
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

    def measure(self, rows: torch.Tensor, found: dict[tuple[int, ...], list[float]]) -> None:
        """Add the inner products of a slice; `rows` are (deltas in ascending order…, θ₀).

        `found` has those of this slice that are known. Raises IncompatibleError E0304 for a broken base.
        """
        part = found.get(self.deltas) or products(rows)
        if not math.isfinite(sum(part)) and not bool(rows[-1].isfinite().all()):
            self._refuse_base(rows[-1])
        found[self.deltas] = part
        self._products = (
            [a + b for a, b in zip(self._products, part, strict=True)] if self._products else list(part)
        )

    def _refuse_base(self, theta0: torch.Tensor) -> None:
        assert self.base is not None
        number = int((~theta0.isfinite()).sum())
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


def _finite(values: torch.Tensor) -> bool:
    return math.isfinite(values.sum().item()) or bool(values.isfinite().all())
