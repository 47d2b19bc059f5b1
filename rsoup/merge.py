"""merge(recipe, out): the one flow. Recipe → sources → plan → blocks → commit → result."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from rsoup import manifest, pot
from rsoup import plan as plans
from rsoup.errors import AccessError, IncompatibleError, Problem, show
from rsoup.examine import examine
from rsoup.gram import Distances, grouped
from rsoup.methods import METHODS
from rsoup.plan import Block, Plan
from rsoup.pot import BlockRecord
from rsoup.recipe import Recipe
from rsoup.report import card
from rsoup.side_files import config_with_dtype, main_dtype
from rsoup.storage.checkpoint import CheckpointSource, Leniency, open_checkpoint
from rsoup.storage.files import changed
from rsoup.storage.protocols import Source
from rsoup.storage.staging import Staging
from rsoup.storage.target import check_target, is_single_file, sidecar
from rsoup.tally import Tally, from_json, to_json
from rsoup.tensors import Header

CARE_DISTANCE = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a merge is: what it does (`measuring`, `mixing`), bytes read and written so far, of how many."""

    phase: str
    done_bytes: int
    total_bytes: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class MergeResult:
    """A finished soup: where it is, what it is made of, what was measured and what a reader should know.

    `distances` (of the ingredients' checkpoints, in order) and `update_error` are None without a base.
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A merge that is planned and not begun: the plan, the open checkpoints (the base last), notes so far."""

    plan: Plan
    sources: tuple[Source, ...]
    checkpoints: tuple[CheckpointSource, ...]
    notes: tuple[str, ...]
    side_files_from: int

    @property
    def side_files(self) -> tuple[str, ...]:
        """The files that are copied along; none where the output is one file."""
        return tuple(self.checkpoints[self.side_files_from].side_files)

    @property
    def read_nbytes(self) -> int:
        """Bytes that will be read, a measuring pass included."""
        once = self.plan.read_nbytes([source.header for source in self.sources])
        return once + (
            measuring_nbytes(self.plan, self.sources) if METHODS[self.plan.recipe.method].needs_gram else 0
        )


def measuring_nbytes(plan: Plan, sources: Sequence[Source]) -> int:
    """Bytes a measuring pass reads: every checkpoint's part of every measured tensor."""
    return sum(
        source.header[tensor.name].nbytes
        for tensor in plan.tensors
        if plan.needs_gram(tensor)
        for source in sources
    )


@contextmanager
def prepared(recipe: Recipe, out: str, *, overwrite: bool = False) -> Iterator[Prepared]:
    """Open the checkpoints, compare everything, decide everything; nothing is written.

    Raises every error `merge` can raise before it begins.
    """
    single = is_single_file(out)
    leniency = Leniency("symlinks" in recipe.allow, "unindexed" in recipe.allow)
    uris = [
        (uri, ingredient.name, len(ingredient.checkpoints))
        for ingredient in recipe.ingredients
        for uri in ingredient.checkpoints
    ]
    with ExitStack() as stack:
        opened = []
        for number, (uri, name, count) in enumerate(uris):
            shown = (
                name
                if count == 1
                else f"{name}/{number - next(i for i, u in enumerate(uris) if u[1] == name) + 1}"
            )
            opened.append(open_checkpoint(uri, name=shown, variant=recipe.variant, leniency=leniency))
            stack.callback(opened[-1].close)
        if recipe.base is not None:
            opened.append(
                open_checkpoint(recipe.base, name="base", variant=recipe.variant, leniency=leniency)
            )
            stack.callback(opened[-1].close)
        check_target(
            out,
            [uri for uri, _, _ in uris]
            + ([recipe.base] if recipe.base is not None else [])
            + [os.path.join(s.folder, file.name) for s in opened for file in s.files],  # links to elsewhere
            overwrite=overwrite,
        )
        ordered = [opened[-1], *opened[:-1]] if recipe.base is not None else opened
        drop = frozenset(name for names in _dropped(recipe, opened).values() for name in names)
        notes = examine(ordered, drop, recipe.allow)
        fine_tuned = opened[: len(uris)]
        base = opened[-1] if recipe.base is not None else None
        plan = plans.make(recipe, fine_tuned, base, single_file=os.path.basename(out) if single else None)
        yield Prepared(plan, tuple(opened), tuple(opened), (*notes, *plan.notes), _files_from(recipe, plan))


def _dropped(recipe: Recipe, sources: Sequence[Source]) -> Mapping[str, tuple[str, ...]]:
    from rsoup.compat import dropped

    return dropped([source.header for source in sources], recipe.drop)


def _files_from(recipe: Recipe, plan: Plan) -> int:
    if recipe.files_from is None:
        return 0
    if recipe.files_from == "base" and plan.base is not None:
        return plan.base
    return plan.groups[recipe.names.index(recipe.files_from)][0]


def merge(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> MergeResult:
    """Write the soup θ(λ) = Σ λᵢθᵢ of `recipe` to `out`, exact, in constant memory; all of it or nothing.

    `out` ending in `.safetensors` is one file with NAME.rsoup.json beside it, anything else a folder. A run
    that was killed is taken up where it was. `progress` is called from worker threads, one at a time.

    Raises UsageError (2), IncompatibleError (3), TargetError (6), AccessError (7), RefusedFileError (8),
    BusyError (75). Source: Ramé et al. 2023, Rewarded soups, section 2.2; arithmetic rsoup-arith/1.
    """
    begun = time.monotonic()
    target = os.fspath(out)
    with prepared(recipe, target, overwrite=overwrite) as ready:
        plan = ready.plan
        files = {file.name: (file.head, file.nbytes) for file in plan.files}
        identities = [source.identity for source in ready.checkpoints]
        with Staging(target, plan.sha256(identities), files) as staging:
            check_target(target, [], overwrite=overwrite)
            if METHODS[recipe.method].needs_gram:
                plan = _with_gram(ready, threads, progress)
            tally = Tally(plan)
            resumed = _cook(plan, ready.sources, staging, tally, threads, progress)
            for source in ready.checkpoints:
                source.check_unchanged()
            notes = [*ready.notes, *_after(plan, tally)]
            side = _side_files(ready, staging, tally, target, overwrite, notes)
            seconds = time.monotonic() - begun
            built = manifest.build(
                plan,
                tally,
                [s.header for s in ready.sources],
                side_files=side,
                files_from=plan.checkpoints[ready.side_files_from],
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


def _with_gram(ready: Prepared, threads: int | None, progress: OnProgress | None) -> Plan:
    """The plan with the coefficients of a method that needs the angles between the deltas first."""
    plan = ready.plan
    tally = Tally(plan)
    meter = _Meter("measuring", measuring_nbytes(plan, ready.sources), progress)

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
        import math

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
    meter = _Meter("mixing", plan.read_nbytes(headers) + plan.nbytes, progress)
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


class _Meter:
    """Adds up bytes and tells the caller; called under the pot's lock."""

    def __init__(self, phase: str, total: int, progress: OnProgress | None) -> None:
        self.phase, self.total, self.progress, self.done = phase, total, progress, 0

    def add(self, nbytes: int) -> None:
        self.done = min(self.done + nbytes, self.total)
        if self.progress is not None:
            self.progress(Progress(self.phase, self.done, self.total))


class _FileSink:
    """A Sink over a staging folder: tensor and byte → file and byte."""

    def __init__(self, plan: Plan, staging: Staging) -> None:
        self._staging = staging
        self._where: dict[str, tuple[str, int]] = {}
        header = plan.header
        for file in plan.files:
            at = len(file.head)
            for name in file.tensors:
                self._where[name] = (file.name, at)
                at += header[name].nbytes

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Put `data` at byte `start` of the tensor, in the file where it belongs."""
        file, at = self._where[tensor]
        self._staging.write(file, at + start, data)


def _after(plan: Plan, tally: Tally) -> list[str]:
    """Notes on what was measured. Raises IncompatibleError E0306 for a soup of strangers."""
    notes = [
        f"'{show(name)}' keeps {count} NaN or infinite values, which every ingredient with a share of it holds"
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


def _side_files(
    ready: Prepared, staging: Staging, tally: Tally, out: str, overwrite: bool, notes: list[str]
) -> dict[str, tuple[int, str]]:
    """Write what goes beside the weights; returns name → (bytes, SHA-256)."""
    if is_single_file(out):
        return {}
    plan, donor = ready.plan, ready.checkpoints[ready.side_files_from]
    written: dict[str, tuple[int, str]] = {}
    for name in donor.side_files:
        try:
            data = donor.side_file(name, 1 << 40)
        except AccessError as error:
            raise changed(error.where or name) from error  # it was there when the merge began
        if name == "config.json" and data is not None:
            data = config_with_dtype(data, main_dtype(plan.header))
        assert data is not None
        staging.add_bytes(name, data)
        written[name] = (len(data), hashlib.sha256(data).hexdigest())
    if plan.index_file is not None:
        name, data = plan.index_file
        staging.add_bytes(name, data)
        written[name] = (len(data), hashlib.sha256(data).hexdigest())
    text = _card(ready, tally, out, overwrite, notes).encode("utf-8", "surrogateescape")
    staging.add_bytes(card.NAME, text)
    written[card.NAME] = (len(text), hashlib.sha256(text).hexdigest())
    if code := [name for name in donor.skipped_files if name.endswith(".py")]:
        notes.append(f"code is never copied: {', '.join(show(name) for name in code)}")
    nested = [name for name in donor.skipped_files if "/" in name]
    if nested:
        notes.append(
            f"weights in subfolders are not part of the soup: {', '.join(show(name) for name in nested[:5])}"
        )
    return written


def _card(ready: Prepared, tally: Tally, out: str, overwrite: bool, notes: list[str]) -> str:
    cards = []
    for source in ready.checkpoints:
        data = source.side_file(card.NAME, card.MAX_CARD_BYTES)
        cards.append(card.split(data.decode("utf-8", "replace"))[0] if data else {})
    fine_tuned = cards[: len(cards) - 1] if ready.plan.base is not None else cards
    bases = [
        value for c in fine_tuned if isinstance(value := c.get("base_model"), str) and card.is_repo(value)
    ]
    base_id = bases[0] if bases and all(value == bases[0] for value in bases) else None
    found, more = card.metadata(ready.plan.recipe, fine_tuned, base_id)
    notes += more
    existing = None
    if overwrite and os.path.isfile(os.path.join(out, card.NAME)):
        with open(os.path.join(out, card.NAME), encoding="utf-8", errors="surrogateescape") as file:
            existing = file.read()
    return card.merged(existing, found, card.body(ready.plan.recipe, tally.distances(), tally.update_error()))
