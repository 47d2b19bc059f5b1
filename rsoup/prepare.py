"""prepared(recipe, out): everything opened, compared and decided; nothing written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rsoup import plan as plans
from rsoup.compat import dropped
from rsoup.examine import examine
from rsoup.methods import METHODS
from rsoup.plan import Plan
from rsoup.recipe import Recipe
from rsoup.storage.checkpoint import CheckpointSource, Leniency, open_checkpoint
from rsoup.storage.protocols import Source
from rsoup.storage.target import check_target, is_single_file


@dataclass(frozen=True, slots=True)
class Prepared:
    """A merge that is planned and not begun: the plan, the open checkpoints (the base last), notes so far.

    `donor` is the checkpoint whose other files are copied along; `out` is where the soup will be.
    """

    out: str
    plan: Plan
    sources: tuple[CheckpointSource, ...]
    notes: tuple[str, ...]
    donor: int

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


@contextmanager
def prepared(recipe: Recipe, out: str, *, overwrite: bool = False) -> Iterator[Prepared]:
    """Open the checkpoints, compare everything, decide everything; nothing is written.

    Raises every error `merge` can raise before it begins.
    """
    single = is_single_file(out)
    leniency = Leniency("symlinks" in recipe.allow, "unindexed" in recipe.allow)
    named = [*recipe.checkpoints(), *([("base", recipe.base)] if recipe.base is not None else [])]
    with ExitStack() as stack:
        opened: list[CheckpointSource] = []
        for name, uri in named:
            opened.append(open_checkpoint(uri, name=name, variant=recipe.variant, leniency=leniency))
            stack.callback(opened[-1].close)
        weights = [
            os.path.join(s.folder, file.name) for s in opened for file in s.files
        ]  # links to elsewhere
        check_target(out, [*(uri for _, uri in named), *weights], overwrite=overwrite)
        base = opened[-1] if recipe.base is not None else None
        fine_tuned = opened if base is None else opened[:-1]
        matches = dropped([source.header for source in opened], recipe.drop)
        drop = frozenset(name for names in matches.values() for name in names)
        notes = examine(fine_tuned if base is None else [base, *fine_tuned], drop, recipe.allow)
        plan = plans.make(recipe, fine_tuned, base, single_file=os.path.basename(out) if single else None)
        yield Prepared(out, plan, tuple(opened), (*notes, *plan.notes), _donor(recipe, plan))


def _donor(recipe: Recipe, plan: Plan) -> int:
    if recipe.files_from is None:
        return 0
    if recipe.files_from == "base" and plan.base is not None:
        return plan.base
    return plan.groups[recipe.names.index(recipe.files_from)][0]
