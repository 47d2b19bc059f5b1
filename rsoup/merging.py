"""merge(recipe, out): the one flow. Recipe → sources → plan → blocks → commit → result."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from rsoup import manifest, pot
from rsoup import plan as plans
from rsoup.beside import Written, write_beside
from rsoup.errors import IncompatibleError, Problem, show
from rsoup.gram import Distances, grouped
from rsoup.lora.fused import contents, fused
from rsoup.lora.merging import merge_adapters
from rsoup.lora.mounting import makes_adapter
from rsoup.lora.result import AdapterMeasures
from rsoup.methods import METHODS
from rsoup.plan import Block, Plan
from rsoup.pot import BlockRecord
from rsoup.prepare import Prepared, measuring_nbytes, prepared
from rsoup.progress import Meter, OnProgress
from rsoup.recipe import CARE_DISTANCE, Recipe
from rsoup.storage.pickled.zip_write import fill_crcs
from rsoup.storage.protocols import Source
from rsoup.storage.staging import Staging
from rsoup.storage.target import check_target, is_single_file, sidecar
from rsoup.tally import Tally, from_json, to_json
from rsoup.tensors import Header


@dataclass(frozen=True, slots=True)
class MergeResult:
    """A finished soup: where it is, what it is made of, what was measured and what a reader should know.

    `distances` (of the ingredients' checkpoints, in order) and `update_error` are None without a base. `adapter`
    are the figures of a soup that is an adapter, None for full weights.
    """

    out: str
    files: tuple[str, ...]
    nbytes: int
    read_nbytes: int
    seconds: float
    resumed_blocks: int
    mixed: int
    copied: int
    dropped: tuple[str, ...]
    distances: Distances | None
    update_error: float | None
    notes: tuple[str, ...]
    manifest: Mapping[str, object] = field(repr=False)
    adapter: AdapterMeasures | None = None


def merge(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    threads: int | None = None,
    progress: OnProgress | None = None,
    fail_above_error: float | None = None,
) -> MergeResult:
    """Write the soup θ(λ) = Σ λᵢθᵢ of `recipe` to `out`, exact, in constant memory; all of it or nothing.

    `out` ending in `.safetensors` is one file with NAME.rsoup.json beside it, anything else a folder. A run
    that was killed is taken up where it was. `progress` is called from worker threads, one at a time.

    Raises UsageError (2), IncompatibleError (3), TargetError (6), AccessError (7), RefusedFileError (8),
    BusyError (75). Source: Ramé et al. 2023, Rewarded soups, section 2.2; arithmetic rsoup-arith/1.
    """
    begun = time.monotonic()
    target = os.fspath(out)
    if makes_adapter(recipe):
        return _adapter(recipe, target, overwrite, threads, progress, fail_above_error)
    with prepared(recipe, target, overwrite=overwrite) as ready:
        plan = ready.plan
        files = {file.name: (file.pieces, file.nbytes) for file in plan.files}
        identities = [source.identity for source in ready.sources]
        with Staging(target, plan.sha256(identities), files) as staging:
            check_target(target, [], overwrite=overwrite)
            for source in ready.sources:
                source.check_sums()
            if METHODS[recipe.method].needs_gram:
                plan = measured(ready, threads, progress)
            summed = fused(plan, ready.sources, threads=threads)
            tally = Tally(summed.plan, summed.grams)
            resumed = _cook(summed.plan, summed.sources, staging, tally, threads, progress)
            for source in ready.sources:
                source.check_unchanged()
            finished = {
                file.name: staging.finish(file.name, partial(fill_crcs, crcs=file.crcs))
                for file in plan.files
                if file.crcs
            }
            notes = [*ready.notes, *_after(plan, tally)]
            side: Written = {}
            if not is_single_file(target):
                side, more = write_beside(ready, staging, tally, overwrite=overwrite)
                notes += more
            seconds = time.monotonic() - begun
            built = manifest.build(
                plan,
                tally,
                contents(plan, tally, ready.sources),
                finished=finished,
                side_files=side,
                files_from=plan.checkpoints[ready.donor],
                seconds=seconds,
            )
            staging.commit(overwrite=overwrite, last={manifest.NAME: manifest.encode(built)})
    mixed = sum(tensor.copy_from is None for tensor in plan.tensors)
    return MergeResult(
        out=target,
        files=(*files, *side, os.path.basename(sidecar(target)) if is_single_file(target) else manifest.NAME),
        nbytes=plan.nbytes,
        read_nbytes=ready.read_nbytes,
        seconds=time.monotonic() - begun,
        resumed_blocks=resumed,
        mixed=mixed,
        copied=len(plan.tensors) - mixed,
        dropped=plan.dropped,
        distances=tally.distances(),
        update_error=tally.update_error(),
        notes=tuple(notes),
        manifest=built,
    )


def _adapter(
    recipe: Recipe,
    out: str,
    overwrite: bool,
    threads: int | None,
    progress: OnProgress | None,
    fail_above_error: float | None,
) -> MergeResult:
    """The soup of adapters as an adapter."""
    (made,) = merge_adapters(
        [(recipe, out)],
        overwrite=overwrite,
        threads=threads,
        progress=progress,
        fail_above_error=fail_above_error,
    )
    copied = made.measures.copied is not None
    return MergeResult(
        out=made.out,
        files=made.files,
        nbytes=made.nbytes,
        read_nbytes=made.read_nbytes,
        seconds=made.seconds,
        resumed_blocks=0,
        mixed=0 if copied else made.tensors,
        copied=made.tensors if copied else 0,
        dropped=made.dropped,
        distances=None,
        update_error=None,
        notes=made.notes,
        manifest=made.manifest,
        adapter=made.measures,
    )


def measured(ready: Prepared, threads: int | None, progress: OnProgress | None) -> Plan:
    """The plan with the coefficients of a method that needs the angles between the deltas first."""
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
    return plans.with_gram(plan, ready.sources, grams)


def _cook(
    plan: Plan,
    sources: Sequence[Source],
    staging: Staging,
    tally: Tally,
    threads: int | None,
    progress: OnProgress | None,
) -> int:
    sink = _FileSink(plan, staging)
    headers = [source.header for source in sources]
    meter = Meter("mixing", plan.read_nbytes(headers) + plan.nbytes, progress)
    blocks = {block.index: block for block in plan.blocks()} if staging.resumes else {}
    done: set[int] = set()
    for line in staging.finished():
        record = from_json(line)
        if record is None or record.index not in blocks or record.index in done:
            continue
        tally.add(blocks[record.index], record)
        meter.add(_block_nbytes(plan, blocks[record.index], headers))
        done.add(record.index)

    def on_block(block: Block, record: BlockRecord) -> None:
        tally.add(block, record)
        staging.note(to_json(record))
        meter.add(_block_nbytes(plan, block, headers))

    pot.cook(plan, sources, sink, on_block=on_block, done=done, threads=threads)
    return len(done)


def _block_nbytes(plan: Plan, block: Block, headers: Sequence[Header]) -> int:
    """Bytes read and written for a block."""
    total = 0
    for run in block.runs:
        tensor = plan.tensors[run.tensor]
        bits = tensor.spec.dtype.bits + sum(headers[i][tensor.name].dtype.bits for i in plan.readers(tensor))
        total += (run.stop - run.start) * bits // 8
    return total


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
        self._staging.write(file, at + start, data)


def _after(plan: Plan, tally: Tally) -> list[str]:
    """Notes on what was measured. Raises IncompatibleError E0306 for a soup of strangers."""
    notes = [
        f"'{show(name)}' stays NaN or infinite in {count} of its elements, as every ingredient with a share of it is"
        for name, count in tally.kept_nonfinite().items()
    ]
    distances = tally.distances()
    if distances is None:
        return notes
    names = plan.checkpoints
    strangers = [
        Problem(f"'{show(names[i])}'", f"relative distance {value:.3f} from the base")
        for i, value in enumerate(distances.relative)
        if value is not None and value > plan.recipe.max_distance
    ]
    if strangers and "distance" not in plan.recipe.allow:
        raise IncompatibleError(
            "E0306",
            f"{len(strangers)} of {len(names) - 1} checkpoints look unrelated to the base (farther than {plan.recipe.max_distance:g})",
            details=tuple(strangers),
            hint="a soup of strangers does not work; is it the right base? If you know better: --allow distance",
        )
    for i, value in enumerate(distances.relative):
        if value == 0.0:
            notes.append(f"'{show(names[i])}' equals the base (distance 0)")
        elif value is not None and value > CARE_DISTANCE:
            notes.append(
                f"'{show(names[i])}' moved far from the base (relative distance {value:.3f}); check that the soup works"
            )
    return notes
