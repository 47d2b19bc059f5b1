"""opened(recipe): the adapters of a recipe open, compared, put on their base if there is one; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from rsoup.compat.files import compare_files
from rsoup.contents import fingerprint
from rsoup.errors import IncompatibleError, Problem, UsageError, listing, show
from rsoup.lora.adapter import Adapter, read_adapter, untrained
from rsoup.lora.compare import compared, other_base
from rsoup.lora.design import Design, check_defined, make, rest
from rsoup.lora.factors import check_factors
from rsoup.lora.ground import Ground, ground
from rsoup.lora.mounting import mounted_base
from rsoup.prepare import open_all
from rsoup.recipe import MAX_DISTANCE, Recipe
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.protocols import Source


@dataclass(frozen=True, slots=True)
class Opened:
    """Adapters that may be one soup: `contents` are the digests of their files, `alike` maps a copy to its first.

    `places` are (name, path) of each and of the base, `sources` the open folders, the base last.
    """

    recipe: Recipe
    adapters: tuple[Adapter, ...]
    ground: Ground | None
    sources: tuple[CheckpointSource, ...] = field(repr=False)
    contents: tuple[str, ...]
    alike: dict[int, int]
    notes: tuple[str, ...]

    def design(self, recipe: Recipe) -> Design:
        """The soup of these adapters by this recipe. Raises IncompatibleError E0347, E0349 and UsageError E0209."""
        found = make(recipe, self.adapters, self.alike)
        if recipe.method == "factors":
            check_factors(found)
        check_defined(found, with_base=self.ground is not None)
        if self.ground is not None and found.copy is None:
            _check_rests(found, self.ground)
        return found


def _check_rests(design: Design, below: Ground) -> None:
    """Raise IncompatibleError E0345 where the base's share of a tensor is asked for, and the base has no such tensor."""
    for whole in design.wholes:
        if whole.rest != 0:
            position, key, _ = whole.terms[0]
            below.where(whole.name, design.adapters[position].spec(key).shape)
    for rows in design.rows:
        if any(rest(terms) != 0 for terms in rows.terms):
            position = rows.terms[0][0][0]
            key = design.adapters[position].rows[rows.name][1]
            below.where(rows.name, (-1, *design.adapters[position].spec(key).shape[1:]))


@contextmanager
def opened(recipe: Recipe, *, threads: int | None = None) -> Iterator[Opened]:
    """The adapters of `recipe`, checked against each other and against the base if it names one.

    Raises AccessError, RefusedFileError and IncompatibleError (E0340 to E0346) as they come.
    """
    _refuse_options(recipe)
    with ExitStack() as stack:
        sources = open_all(recipe, recipe.checkpoints(), recipe.allow, stack)
        places = [("base", recipe.base)] if recipe.base is not None else []
        bases = open_all(recipe, places, recipe.allow, stack)
        yield put_together(recipe, sources, bases, threads=threads)


def put_together(
    recipe: Recipe,
    sources: Sequence[CheckpointSource],
    bases: Sequence[CheckpointSource],
    *,
    threads: int | None = None,
) -> Opened:
    """The open folders as adapters that were compared. `bases` holds the base, or nothing."""
    adapters = tuple(read_adapter(source) for source in sources)
    notes = compared(adapters, recipe.allow, with_base=bool(bases))
    notes += _tokenizers(recipe, sources)
    notes += other_base(adapters, recipe.base)
    below = ground(mounted_base(bases[0]), adapters) if bases else None
    contents = tuple(fingerprint(source, threads=threads) for source in sources)
    first: dict[tuple[str, str], int] = {}
    alike = {
        i: first.setdefault((content, _meaning(adapter)), i)
        for i, (content, adapter) in enumerate(zip(contents, adapters, strict=True))
    }
    twins = [adapters[i].name for i, other in alike.items() if i != other]
    if twins:
        notes.append(f"{listing(twins)}: the same adapter as another one; their λ add up")
    notes += untrained(adapters)
    return Opened(recipe, adapters, below, (*sources, *bases), contents, alike, tuple(notes))


def _meaning(adapter: Adapter) -> str:
    """What of a configuration changes what the tensors mean."""
    config = adapter.config
    rows = [(name, indices) for name, (indices, _) in sorted(adapter.rows.items())]
    scalings = [(name, update.scaling) for name, update in sorted(adapter.updates.items())]
    return repr((config.init, config.use_dora, config.fan_in_fan_out, rows, scalings))


def _tokenizers(recipe: Recipe, sources: Sequence[CheckpointSource]) -> list[str]:
    notes: list[str] = []
    named: dict[str, Source] = {source.name: source for source in sources}
    found = compare_files(named, notes)
    if found and "tokenizer" not in recipe.allow:
        details = tuple(Problem(m.kind, m.what) for m in found)
        hint = "if you know that this does not matter: --allow tokenizer"
        raise IncompatibleError("E0346", "the adapters do not belong together", details=details, hint=hint)
    return [*notes, *(f"allowed: {mismatch.what}" for mismatch in found)]


_MEANINGLESS = {
    "max_shard_bytes": "--max-shard-size", "buffers_from": "--buffers-from", "optimizer_from": "--optimizer-from",
    "key": "--key", "missing": "--missing", "vocab": "--vocab", "file_format": "--file-format", "variant": "--variant",
}  # fmt: skip


def _refuse_options(recipe: Recipe) -> None:
    """Raise UsageError E0206 for options that say nothing to an adapter, E0211 for a method that has none."""
    given = [flag for field_, flag in _MEANINGLESS.items() if getattr(recipe, field_) is not None]
    given += ["--max-distance"] if recipe.max_distance != MAX_DISTANCE else []
    if given:
        raise UsageError(
            "E0206",
            f"{', '.join(given)}: means nothing to a soup that is an adapter",
            hint="leave it out; --fold makes full weights",
        )
    if recipe.method == "slerp":
        raise UsageError(
            "E0211",
            f"{show(recipe.method)} of adapters is no adapter",
            hint="--fold --base BASE makes full weights of it",
        )
