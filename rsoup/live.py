"""open_soup(ingredients): a soup without files, whose λ can be set at any time; θ(λ) goes straight into a module."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rsoup import live_model, request
from rsoup import plan as plans
from rsoup.errors import IncompatibleError, UsageError, listing
from rsoup.library import Path, make_recipe
from rsoup.live_loaded import Loaded
from rsoup.live_plan import Mixing
from rsoup.lora.mounting import makes_adapter, mounted, with_base
from rsoup.plan import TensorPlan
from rsoup.prepare import by_commit, compared, open_all
from rsoup.recipe import Recipe
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.views import lent
from rsoup.tensors import Header

if TYPE_CHECKING:
    import torch


def open_soup(
    ingredients: Recipe | Mapping[str, Path | Sequence[Path]] | Sequence[Path],
    *,
    mix: Sequence[str | Fraction] | None = None,
    base: Path | None = None,
    threads: int | None = None,
    **options: Any,
) -> Soup:
    """The soup θ(λ) of a recipe, or of the arguments of `make_recipe`, open and not written: see `Soup`.

    Without `mix`, λ is 1/N to begin with. Checkpoints are opened, compared and refused as `merge` does it; with slerp
    they are read once for their angles. Adapters are folded into their base. Options that only say how files are
    written (`max_shard_size`, `files_from`, …) wait in `soup.recipe` for a merge.

    Raises UsageError (2), among them E0206 for options beside a recipe and E0207 for adapters without a base,
    IncompatibleError (3), AccessError (7), RefusedFileError (8).
    """
    if isinstance(ingredients, Recipe):
        if mix is not None or base is not None or options:
            raise UsageError(
                "E0206",
                "a recipe and other options contradict each other: it says all of them itself",
                hint="open_soup(recipe), then soup.set_mix(…)",
            )
        recipe = ingredients
    else:
        options["uniform"] = options.get("uniform", mix is None)
        recipe = make_recipe(ingredients, mix=mix, base=base, **options)
    recipe = by_commit(recipe)
    if makes_adapter(recipe):
        recipe = replace(recipe, fold=True)
    with ExitStack() as stack:
        fine_tuned = open_all(recipe, recipe.checkpoints(), recipe.allow, stack)
        recipe, found = with_base(recipe, fine_tuned)
        bases = [("base", recipe.base)] if recipe.base is not None else []
        opened = [*fine_tuned, *open_all(recipe, bases, recipe.allow, stack)]
        sources, notes = compared(recipe, opened, recipe.allow)
        last = None if recipe.base is None else sources[-1]
        plan = plans.make(recipe, sources if last is None else sources[:-1], last)
        for source in sources:
            source.check_sums()
        mixing = Mixing(plan, sources, threads)
        return Soup(mixing, recipe, opened, (*found, *notes, *plan.notes), stack.pop_all())


class Soup:
    """θ(λ) of open checkpoints: what `merge` would write, bit for bit, for the λ that is set, and no file.

    `recipe` has the present λ and scale, and the base; `names` are the ingredients', `notes` what was said at the
    opening. A tensor's dtype is the recipe's, else that of a soup with all λ above 0, whatever λ is: what `merge` writes
    for a λ that leaves ingredients out may be narrower. Nothing is measured: a base that is read for distances
    alone is not looked at. For one thread at a time; a context manager, to be closed.
    """

    def __init__(
        self,
        mixing: Mixing,
        recipe: Recipe,
        opened: Sequence[CheckpointSource],
        notes: tuple[str, ...],
        stack: ExitStack,
    ) -> None:
        """`recipe` is the one to begin with; `stack` closes what is open."""
        self.notes = notes
        self._mixing, self._opened, self._stack = mixing, opened, stack
        self._plan = mixing.plan(recipe)
        self._loaded: weakref.WeakKeyDictionary[torch.nn.Module, Loaded] = weakref.WeakKeyDictionary()
        self._closed = False

    @property
    def recipe(self) -> Recipe:
        """The recipe of the soup as it is: `merge` writes it."""
        return self._plan.recipe

    @property
    def mix(self) -> tuple[Fraction, ...]:
        """λ, one exact fraction per ingredient."""
        return self._plan.recipe.mix

    @property
    def names(self) -> tuple[str, ...]:
        """The ingredients' names, in the order of λ."""
        return self._plan.recipe.names

    @property
    def header(self) -> Header:
        """Every tensor's dtype and shape by name, the same for every λ."""
        return self._plan.header

    def set_mix(
        self,
        mix: Sequence[str | Fraction],
        *,
        scale: str | Fraction | None = None,
        model: torch.nn.Module | None = None,
    ) -> None:
        """Make it θ(λ) for other λ, texts or fractions, Σλ = 1 unless the recipe is affine; `scale` None stays.

        λ is never normalised here; the recipe's rules keep theirs. A `model` is loaded as by `load_into`, with the
        `cast` of its last load; if this soup was the last to load it, tensors that are the same copy for both λ are
        left alone unless an operation of torch has changed them (writing to `.data` goes unseen: `load_into` writes
        everything). λ stays set if the load fails.

        Raises UsageError E0201 to E0207 and IncompatibleError E0303 (integer buffers), E0345, the soup as it was;
        then what `load_into` raises.
        """
        self._check_open()
        now = self.recipe
        asked = request.make(
            request.Request(
                now.ingredients,
                mix=list(mix),
                affine=now.affine,
                base=now.base,
                method=now.method,
                scale=now.scale if scale is None else scale,
                adapters=False,
            )
        )
        recipe = replace(now, mix=asked.mix, typed_mix=asked.typed_mix, scale=asked.scale)
        if recipe.scale != 1 and now.base is not None and lent(self._mixing.sources[-1]):
            mounted(recipe, self._opened, weights=False)  # says why there is no soup of this scale
        self._plan = self._mixing.plan(recipe)
        if model is not None:
            known = self._loaded.get(model)
            self._load(model, known, cast=known is not None and known.cast)

    def read(self, name: str) -> torch.Tensor:
        """The tensor `name` of the soup, new, on the CPU.

        Raises KeyError for no such tensor, ValueError for a soup that is closed, IncompatibleError E0304, E0305 (what
        `merge` refuses in the weights), E0313 (torch has no such dtype), RefusedFileError E0804 (a file has changed).
        """
        found = self._tensors([tensor for tensor in self._plan.tensors if tensor.name == name])
        return found[name]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Every tensor of the soup by name, new, on the CPU. Raises as `read` does."""
        return self._tensors(self._plan.tensors)

    def load_into(self, model: torch.nn.Module, *, cast: bool = False) -> None:
        """Write every tensor of the soup into the model's own parameters and persistent buffers, in place.

        Each is written or it is an error; tied ones are written once. What the model's dtype cannot hold exactly is
        rounded once more only with `cast`. No graph, `requires_grad` and optimisers are untouched, and autograd
        knows that the tensors were changed. Errors while weights are read leave the model partly overwritten.

        Raises IncompatibleError E0312 (names, shapes, tied tensors that differ in the soup) and E0313 (dtypes) before
        anything is written, then as `read` does.
        """
        self._check_open()
        self._load(model, None, cast=cast)

    def close(self) -> None:
        """Let go of the checkpoints; the tensors that were read stay."""
        self._closed = True
        self._stack.close()

    def __enter__(self) -> Soup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tensors(self, wanted: Sequence[TensorPlan]) -> dict[str, torch.Tensor]:
        self._check_open()
        found = {tensor.name: live_model.empty(tensor.name, tensor.spec) for tensor in wanted}
        self._cook(wanted, found)
        return found

    def _load(self, model: torch.nn.Module, known: Loaded | None, *, cast: bool) -> None:
        found = live_model.targets(model, self.header, cast=cast)
        again = {name for group in live_model.tied(found) for name in self._one_of(group)}
        once = [tensor for tensor in self._plan.tensors if tensor.name not in again]
        wanted = [t for t in once if known is None or not known.has(t, found[t.name])]
        self._loaded.pop(model, None)
        self._cook(wanted, {tensor.name: found[tensor.name] for tensor in wanted})
        self._loaded[model] = Loaded(once, found, cast=cast)

    def _one_of(self, group: Sequence[str]) -> Sequence[str]:
        """All but the first name of a tensor that the model ties. Raises IncompatibleError E0312 if they differ."""
        first, *others = group
        wanted = self.read(first)
        if differing := [name for name in others if not live_model.same_bytes(self.read(name), wanted)]:
            raise IncompatibleError(
                "E0312",
                f"the model ties {listing(list(group))}, and the soup's {listing([first, *differing])} differ",
                hint="load it into a model that does not tie them (tie_word_embeddings=False)",
            )
        return others

    def _cook(self, tensors: Sequence[TensorPlan], into: live_model.Targets) -> None:
        part = replace(self._plan, tensors=tuple(tensors))
        with live_model.writing(into, self.header) as sink:
            self._mixing.cook(part, sink)

    def _check_open(self) -> None:
        if self._closed:
            msg = "the soup is closed"
            raise ValueError(msg)
