"""prepared(recipe, out): everything opened, compared and decided; nothing written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction

from rsoup import plan as plans
from rsoup.compat.alignment import aligned
from rsoup.compat.examine import examine
from rsoup.compat.headers import dropped
from rsoup.errors import UsageError, listing
from rsoup.layout import FileFormat, Sb3
from rsoup.lora.mounting import mounted, with_base
from rsoup.methods import METHODS
from rsoup.plan import Plan
from rsoup.recipe import Recipe, is_far
from rsoup.remote.transfer import Fetch, Transfer, Way
from rsoup.request import check_based
from rsoup.storage.checkpoint import Leniency, open_checkpoint
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.protocols import Source
from rsoup.storage.target import check_target, is_single_file, single_file_format
from rsoup.stores.place import at_hand


@dataclass(frozen=True, slots=True)
class Prepared:
    """A merge that is planned and not begun: the plan, the open checkpoints (the base last), notes so far.

    `donor` is the checkpoint whose other files are copied along; `out` is where the soup will be. `opened` are the
    checkpoints as they lie somewhere.
    """

    out: str
    plan: Plan
    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    donor: int
    opened: tuple[CheckpointSource, ...] = ()

    @property
    def transfers(self) -> list[Transfer]:
        """How the weights of far checkpoints come here, and what is proven of them by now."""
        return [transfer for source in self.opened for transfer in source.transfers]

    @property
    def foreseen(self) -> list[Transfer]:
        """The same before anything was read: `again` are bytes that may have to come twice, for their order."""
        found = []
        for source in self.opened:
            position = next((i for i, one in enumerate(self.sources) if one is source), None)
            rows = source.transfers
            if position is not None and len(rows) == 1 and rows[0].way == "stream":
                mine = (t.name for t in self.plan.tensors if position in self.plan.readers(t))
                rows = [replace(rows[0], again=source.unordered(mine))]
            found += rows
        return found

    @property
    def side_files(self) -> tuple[str, ...]:
        """The files that are copied along; none where the output is one file."""
        return () if is_single_file(self.out) else tuple(self.sources[self.donor].side_files)

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


def way_of(recipe: Recipe, asked: Way | None = None) -> Way:
    """How far weights come for a merge: as asked, else as a stream where every byte is read once, and kept otherwise."""
    if asked is not None:
        return asked
    return "cache" if METHODS[recipe.method].needs_gram else "stream"


@contextmanager
def prepared(
    recipe: Recipe, out: str, *, overwrite: bool = False, fetch: Fetch = "cache"
) -> Iterator[Prepared]:
    """Open the checkpoints, compare everything, decide everything; nothing is written.

    `fetch` says what comes of weights on the Hub. Raises every error `merge` can raise before it begins.
    """
    with prepared_together([(recipe, out)], overwrite=overwrite, fetch=fetch) as ready:
        yield ready[0]


@contextmanager
def prepared_together(
    recipes: Sequence[tuple[Recipe, str]], *, overwrite: bool = False, fetch: Fetch = "cache"
) -> Iterator[list[Prepared]]:
    """`prepared` for recipes over the same checkpoints, which are opened and compared once.

    Raises ValueError for recipes that differ in more than λ, scale and rules, or for one output twice.
    """
    recipes = [(by_commit(recipe), out) for recipe, out in recipes]
    first = recipes[0][0]
    places = {os.path.realpath(out) for _, out in recipes}
    if any(_shared(recipe) != _shared(first) for recipe, _ in recipes) or len(places) < len(recipes):
        msg = "recipes that are prepared together differ in λ, scale, rules and output only"
        raise ValueError(msg)
    with ExitStack() as stack:
        fine_tuned = open_all(first, first.checkpoints(), first.allow, stack, fetch=fetch)
        based = [with_base(recipe, fine_tuned) for recipe, _ in recipes]
        first = based[0][0]
        bases = [("base", first.base)] if first.base is not None else []
        opened = [*fine_tuned, *open_all(first, bases, first.allow, stack, fetch=fetch)]
        inputs = [place for source in opened for place in source.places]
        for _, out in recipes:
            check_target(out, inputs, overwrite=overwrite)
        sources, notes = compared(first, opened, first.allow)
        base = sources[-1] if first.base is not None else None
        ready = []
        for (_, out), (recipe, found) in zip(recipes, based, strict=True):
            plan = plans.make(
                recipe,
                sources if base is None else sources[:-1],
                base,
                single_file=os.path.basename(out) if is_single_file(out) else None,
                file_format=_file_format(recipe, out, opened),
            )
            said = (*found, *notes, *plan.notes)
            ready.append(Prepared(out, plan, tuple(sources), said, _donor(recipe, plan), tuple(opened)))
        yield ready


def by_commit(recipe: Recipe) -> Recipe:
    """The recipe with every address of the Hub by its commit, which is what a manifest records; paths as they are.

    Raises what `at_hand` raises, and UsageError E0207 where what lay there needs a base.
    """
    far = any(is_far(uri) for ingredient in recipe.ingredients for uri in ingredient.checkpoints)
    ingredients = tuple(
        replace(ingredient, checkpoints=tuple(map(at_hand, ingredient.checkpoints)))
        for ingredient in recipe.ingredients
    )
    base = None if recipe.base is None else at_hand(recipe.base)
    found = replace(recipe, ingredients=ingredients, base=base)
    if far or found.ingredients != recipe.ingredients:
        check_based(found)  # what lay far may be no adapter
    return found


def _shared(recipe: Recipe) -> Recipe:
    """The recipe without what may differ between soups of one reading."""
    return replace(recipe, mix=(), typed_mix=(), scale=Fraction(1), per_tensor=())


def open_all(
    recipe: Recipe,
    places: Sequence[tuple[str, str]],
    allow: Sequence[str],
    stack: ExitStack,
    *,
    fetch: Fetch = "cache",
) -> list[CheckpointSource]:
    """The checkpoints at `places` (name, path), open until `stack` is unwound; `allow` may hold symlinks, unindexed."""
    leniency = Leniency("symlinks" in allow, "unindexed" in allow)
    opened: list[CheckpointSource] = []
    for name, path in places:
        opened.append(
            open_checkpoint(
                path, name=name, variant=recipe.variant, key=recipe.key, leniency=leniency, fetch=fetch
            )
        )
        stack.callback(opened[-1].close)
    return opened


def compared(
    recipe: Recipe, opened: Sequence[CheckpointSource], allow: Sequence[str]
) -> tuple[list[Source], list[str]]:
    """(the checkpoints under one set of names and shapes, notes), the base last, if they may be mixed.

    Raises IncompatibleError E0301, E0302 with every difference that `allow` does not hold.
    """
    full, mounts = mounted(recipe, opened)
    base = full[-1] if recipe.base is not None else None
    fine_tuned = full if base is None else full[:-1]
    seen, base, views = aligned(
        fine_tuned, base, _dropped(recipe, full), missing=recipe.missing, vocab=recipe.vocab
    )
    sources = [*seen, *([base] if base is not None else [])]
    measure = seen if base is None else [base, *seen]
    notes = examine(measure, _dropped(recipe, sources), allow, resized=recipe.vocab is not None)
    return sources, [*_twice(fine_tuned), *mounts, *views, *notes]


def _dropped(recipe: Recipe, sources: Sequence[Source]) -> frozenset[str]:
    matches = dropped([source.header for source in sources], recipe.drop)
    return frozenset(name for names in matches.values() for name in names)


def _twice(sources: Sequence[Source]) -> list[str]:
    """A note on checkpoints that are the very same files, if there are any."""
    having: dict[str, list[str]] = {}
    for source in sources:
        having.setdefault(source.identity, []).append(source.name)
    return [
        f"{listing(names)} are the same files: their λ add up" for names in having.values() if len(names) > 1
    ]


def _file_format(recipe: Recipe, out: str, opened: Sequence[CheckpointSource]) -> FileFormat:
    """How the weights are stored: by the output's ending, for a folder as the recipe says."""
    single = single_file_format(out)
    if recipe.optimizer_from is not None and single != "sb3":
        raise UsageError(
            "E0206",
            "--optimizer-from means nothing to this output",
            hint="-o NAME.zip keeps an optimiser's state",
        )
    if recipe.file_format is not None and single not in (None, recipe.file_format):
        raise UsageError(
            "E0206",
            f"--file-format {recipe.file_format} and the ending of the output contradict each other",
            hint="leave one of them out",
        )
    if recipe.key is not None and not any(source.keyed for source in opened):
        raise UsageError(
            "E0206",
            "--key means nothing to these checkpoints",
            hint="it names a table in a PyTorch file: leave it out",
        )
    if single is None:
        return "torch" if recipe.file_format == "torch" else "safetensors"
    if any("/" in file.name for source in opened for file in source.files):
        raise UsageError("E0214", "a pipeline does not fit into one file", hint="-o NAME for a folder")
    if single != "sb3":
        return "torch" if single == "torch" else "safetensors"
    names = [name for name, _ in recipe.checkpoints()]
    archives = {name: source.archive for name, source in zip([*names, "base"], opened, strict=False)}
    donor = archives[_checkpoint_of(recipe, recipe.files_from)]
    optimizers = archives[_checkpoint_of(recipe, recipe.optimizer_from)] if recipe.optimizer_from else None
    if donor is None or (recipe.optimizer_from and optimizers is None):
        raise UsageError(
            "E0214",
            "a soup can be an archive of Stable-Baselines3 only if its ingredients are",
            hint="-o NAME.safetensors or NAME.pt, or mix what model.save(...) wrote",
        )
    return Sb3(donor, optimizers)


def _checkpoint_of(recipe: Recipe, name: str | None) -> str:
    """The first checkpoint of the ingredient of this name, without a name of the first ingredient."""
    if name == "base":
        return name
    index = recipe.names.index(name) if name is not None else 0
    return recipe.checkpoints()[sum(len(i.checkpoints) for i in recipe.ingredients[:index])][0]


def _donor(recipe: Recipe, plan: Plan) -> int:
    if recipe.files_from is None:
        return 0
    if recipe.files_from == "base" and plan.base is not None:
        return plan.base
    return plan.groups[recipe.names.index(recipe.files_from)][0]
