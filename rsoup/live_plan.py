"""λ → the plan of a soup whose checkpoints stay open: only what depends on λ is decided again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from rsoup import mix as mixes
from rsoup import plan as plans
from rsoup import pot
from rsoup.buffers import Choice, choose
from rsoup.errors import IncompatibleError
from rsoup.gram import Gram, grouped
from rsoup.lora.fused import fused
from rsoup.methods import METHODS
from rsoup.plan import Block, Plan
from rsoup.pot import BlockRecord
from rsoup.recipe import Recipe
from rsoup.storage.protocols import Sink, Source
from rsoup.tally import Tally


class Mixing:
    """The plans of all λ over the open `sources`, the base last, and how they are cooked.

    A tensor's dtype is the recipe's, else that of the soup in which every ingredient has a share. For a method that
    needs them, the angles are measured here: they are those of the ingredients, which no λ changes.
    """

    def __init__(self, plan: Plan, sources: Sequence[Source], threads: int | None) -> None:
        """`plan` is that of any λ. Raises IncompatibleError E0304, as `merge` does when it measures."""
        self.sources = tuple(sources)
        self._threads = threads
        self._mixed = frozenset(t.name for t in plan.tensors if t.spec.dtype.kind == "float")
        even = replace(plan.recipe, mix=mixes.uniform(len(plan.groups)), scale=Fraction(1))
        self._even = self._with_terms(plan, even, {}, self._mixed)
        self._dtypes = {t.name: t.spec.dtype.name for t in self._even.tensors if t.name in self._mixed}
        self._buffers_alike = self._are_buffers_alike()
        self._grams = self._measured() if METHODS[even.method].needs_gram else {}

    def plan(self, recipe: Recipe) -> Plan:
        """The plan of the recipe with another λ or scale. Raises IncompatibleError E0303 (integer buffers differ)."""
        plan = replace(self._even, recipe=recipe)
        if not self._buffers_alike:
            plan = self._with_buffers(plan)
        grams = self._whole_model(plan) if recipe.level == "global" else self._grams
        for dtype in sorted(set(self._dtypes.values())):
            names = frozenset(name for name, own in self._dtypes.items() if own == dtype)
            plan = self._with_terms(plan, replace(recipe, dtype=dtype), grams, names)
        return replace(plan, recipe=recipe)

    def cook(self, plan: Plan, sink: Sink) -> None:
        """Write every tensor of `plan`, or of a part of it; nothing is digested, no distance measured.

        Adapters on the base are summed before they meet it, as in a merge. Raises IncompatibleError E0304, E0305,
        RefusedFileError E0804 for a file that has changed.
        """
        ready = fused(plan, self.sources, threads=self._threads)
        tensors = tuple(replace(tensor, measured=False) for tensor in ready.plan.tensors)
        unmeasured = replace(ready.plan, tensors=tensors)
        pot.cook(
            unmeasured, ready.sources, sink, on_block=_learn_nothing, threads=self._threads, digests=False
        )
        for source in self.sources:
            source.check_unchanged()

    def _with_terms(
        self, plan: Plan, recipe: Recipe, grams: Mapping[str, Gram], names: frozenset[str]
    ) -> Plan:
        """The plan with a recipe's summands for the tensors `names`; without a Gram matrix, as if no angle were defined."""
        none = [[0.0] * len(plan.groups) for _ in plan.groups]
        return plans.with_gram(
            replace(plan, recipe=recipe), self.sources, {name: grams.get(name, none) for name in names}
        )

    def _whole_model(self, plan: Plan) -> dict[str, Gram]:
        """Every measured tensor with the sum over those in which more than one ingredient has a share."""
        used = [self._grams[t.name] for t in plan.tensors if t.name in self._grams and plan.needs_gram(t)]
        size = range(len(plan.groups))
        total = [[math.fsum(gram[i][j] for gram in used) for j in size] for i in size]
        return dict.fromkeys(self._grams, total)

    def _measured(self) -> dict[str, Gram]:
        """Name → ⟨δᵢ, δⱼ⟩ of the ingredients."""
        tally = Tally(self._even)
        pot.measure(self._even, self.sources, on_block=tally.add, threads=self._threads)
        return {name: grouped(gram, self._even.groups) for name, gram in tally.grams().items()}

    def _buffers(self, plan: Plan) -> dict[str, Choice]:
        """Whose bytes each tensor has that is never averaged."""
        others = [tensor.name for tensor in plan.tensors if tensor.name not in self._mixed]
        return choose(plan.recipe, plan.groups, plan.base, self.sources, others)[0]

    def _with_buffers(self, plan: Plan) -> Plan:
        choices = self._buffers(plan)
        tensors = tuple(
            replace(
                t,
                spec=self.sources[choices[t.name].checkpoint].header[t.name],
                copy_from=choices[t.name].checkpoint,
                alike=choices[t.name].alike,
            )
            if t.name in choices
            else t
            for t in plan.tensors
        )
        return replace(plan, tensors=tensors)

    def _are_buffers_alike(self) -> bool:
        """Whether all checkpoints have the same of them: then they are read once, and no λ decides whose they are."""
        try:
            choices = self._buffers(self._even)
        except IncompatibleError:
            return False
        return all(len(choice.alike) == len(self.sources) for choice in choices.values())


def _learn_nothing(block: Block, record: BlockRecord) -> None:
    """A live soup has no manifest to fill."""
