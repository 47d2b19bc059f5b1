"""Tally: what was learnt from the blocks, tensor by tensor: digests, distances, the update error.

A tensor's records are folded as soon as all its runs are there, so that memory does not grow with the
model. Sums are taken in the order of the runs, and over tensors exactly: neither the number of threads nor
an interruption changes a bit of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsoup.digests import content_digest, file_digest, tensor_digest
from rsoup.gram import Distances, Gram, GramSum, unfold
from rsoup.mixture import RunRecord
from rsoup.plan import Block, Plan
from rsoup.pot import BlockRecord
from rsoup.tensors import Header

Grams = Mapping[str, tuple[tuple[int, ...], Gram]]


@dataclass(slots=True)
class _Tensor:
    """One tensor: its records by the start of their run until all are there, then what follows from them."""

    missing: int
    records: dict[int, RunRecord]
    output: str = ""
    inputs: dict[int, str] | None = None
    deltas: tuple[int, ...] = ()
    products: tuple[float, ...] = ()
    update_squared: float = 0.0
    error_squared: float = 0.0
    kept_nonfinite: int = 0


class Tally:
    """Collects the records of a plan's blocks; `add` in any order, then ask."""

    def __init__(self, plan: Plan, grams: Grams | None = None) -> None:
        """`grams` has (checkpoints, ⟨δᵢ, δⱼ⟩) of tensors that are read as one sum of all checkpoints."""
        self.plan = plan
        self._grams = grams or {}
        self._tensors: list[_Tensor] = []
        for tensor in plan.tensors:
            step = tensor.spec.numel if tensor.spec.dtype.bits % 8 else plan.block_elements
            runs = math.ceil(tensor.spec.numel / step) if tensor.spec.numel else 0
            self._tensors.append(_Tensor(runs, {}))
            if runs == 0:
                _fold(self._tensors[-1], plan.readers(tensor))

    def add(self, block: Block, record: BlockRecord) -> None:
        """Take the record of a block that is written."""
        for run, learnt in zip(block.runs, record.runs, strict=True):
            tensor = self._tensors[run.tensor]
            tensor.records[run.start] = learnt
            if len(tensor.records) == tensor.missing:
                _fold(tensor, ())

    def tensor_digests(self) -> dict[str, str]:
        """Name → digest of the soup's tensors."""
        return {
            plan.name: tensor.output for plan, tensor in zip(self.plan.tensors, self._tensors, strict=True)
        }

    def file_digests(self) -> dict[str, str]:
        """Name → digest of the soup's weight files."""
        digests = self.tensor_digests()
        return {
            file.name: file_digest(file.head, [digests[name] for name in file.tensors])
            for file in self.plan.files
        }

    def content(self) -> str:
        """The soup's content digest."""
        digests, header = self.tensor_digests(), self.plan.header
        return content_digest({name: (header[name], digests[name]) for name in header})

    def input_contents(self, headers: Sequence[Header]) -> list[str | None]:
        """The content digest of each checkpoint; None where not all of its tensors were read."""
        found: list[dict[str, str]] = [{} for _ in headers]
        for plan, tensor in zip(self.plan.tensors, self._tensors, strict=True):
            for checkpoint, digest in (tensor.inputs or {}).items():
                if checkpoint < len(found):  # a sum of several is none of them
                    found[checkpoint][plan.name] = digest
            for checkpoint in plan.alike:
                reader = plan.terms[0].checkpoint if plan.copy_from is None else plan.copy_from
                found[checkpoint][plan.name] = (tensor.inputs or {})[reader]
        return [
            content_digest({name: (header[name], digests[name]) for name in header})
            if digests.keys() == header.keys()
            else None
            for header, digests in zip(headers, found, strict=True)
        ]

    def distances(self) -> Distances | None:
        """How far the checkpoints moved from the base; None where that was not measured."""
        if self.plan.base is None:
            return None
        total = GramSum(self.plan.base)
        for plan, tensor in zip(self.plan.tensors, self._tensors, strict=True):
            if plan.name in self._grams and tensor.products:
                positions, gram = self._grams[plan.name]
                rows = [value for i, row in enumerate(gram) for value in (*row[i:], 0.0)]
                total.add(positions, [*rows, tensor.products[-1]])
            elif tensor.deltas:
                total.add(tensor.deltas, tensor.products)
            elif tensor.products:  # the base alone was read: what the others have is the same
                count = len(plan.alike)
                zeros = [0.0] * ((count + 1) * (count + 2) // 2 - 1)
                total.add(plan.alike, [*zeros, tensor.products[-1]])
        return total.distances()

    def grams(self) -> Mapping[str, Gram]:
        """Name → Gram matrix of the deltas of every checkpoint, of the tensors that were measured."""
        return {
            plan.name: [row[:-1] for row in unfold(tensor.products, len(tensor.deltas) + 1)[:-1]]
            for plan, tensor in zip(self.plan.tensors, self._tensors, strict=True)
            if tensor.deltas
        }

    def update_error(self) -> float | None:
        """‖rounding error‖ / ‖soup − θ₀‖: the share of the update the output dtype rounds away; None unknown."""
        update = math.fsum(tensor.update_squared for tensor in self._tensors)
        error = math.fsum(tensor.error_squared for tensor in self._tensors)
        if self.plan.base is None or update == 0.0 or not math.isfinite(update + error):
            return None
        return math.sqrt(error / update)

    def kept_nonfinite(self) -> dict[str, int]:
        """Name → number of elements that are NaN or infinite in every checkpoint alike and were carried over."""
        return {
            plan.name: tensor.kept_nonfinite
            for plan, tensor in zip(self.plan.tensors, self._tensors, strict=True)
            if tensor.kept_nonfinite
        }


def _fold(tensor: _Tensor, readers: Sequence[int]) -> None:
    ordered = [tensor.records[start] for start in sorted(tensor.records)]
    tensor.records = {}
    tensor.output = tensor_digest(record.output for record in ordered)
    chunks: dict[int, list[bytes]] = {reader: [] for reader in readers}
    sums: list[float] = []
    for record in ordered:
        for checkpoint, digests in record.inputs:
            chunks.setdefault(checkpoint, []).append(digests)
        if record.products:
            sums = (
                [a + b for a, b in zip(sums, record.products, strict=True)] if sums else list(record.products)
            )
            tensor.deltas = record.deltas
        tensor.update_squared += record.update_squared
        tensor.error_squared += record.error_squared
        tensor.kept_nonfinite += record.kept_nonfinite
    tensor.products = tuple(sums)
    tensor.inputs = {checkpoint: tensor_digest(parts) for checkpoint, parts in chunks.items()}


def to_json(record: BlockRecord) -> dict[str, object]:
    """A block's record as the journal keeps it; floats survive exactly."""
    return {
        "block": record.index,
        "runs": [
            [run.tensor, run.output.hex(), [[i, digests.hex()] for i, digests in run.inputs], list(run.deltas),
             list(run.products), run.update_squared, run.error_squared, run.kept_nonfinite]
            for run in record.runs
        ],
    }  # fmt: skip


def from_json(value: Mapping[str, object]) -> BlockRecord | None:
    """The block's record that `to_json` wrote; None for anything else."""
    try:
        index, runs = value["block"], value["runs"]
        assert isinstance(index, int)
        assert isinstance(runs, list)
        return BlockRecord(
            index,
            tuple(
                RunRecord(
                    tensor, bytes.fromhex(output), tuple((i, bytes.fromhex(digests)) for i, digests in inputs),
                    tuple(deltas), tuple(products), update, error, kept,
                )
                for tensor, output, inputs, deltas, products, update, error, kept in runs
            ),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AssertionError):
        return None
