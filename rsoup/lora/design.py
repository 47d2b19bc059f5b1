"""recipe + adapters → Design: what of which adapter goes into every tensor of the soup. Pure; nothing is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from rsoup.errors import IncompatibleError, Problem, UsageError, listing, show
from rsoup.lora.adapter import Adapter, LowRank
from rsoup.recipe import Recipe

Mixes = Callable[[str], dict[int, Fraction]]
"""A tensor's name → λ of every adapter that has one there."""


@dataclass(frozen=True, slots=True)
class Share:
    """λᵢ·sᵢ times one adapter's update of a module. `mix` is λᵢ alone, exact; `adapter` the position in the list."""

    adapter: int
    update: LowRank
    mix: Fraction

    @property
    def coefficient(self) -> float:
        """c = λ·s, rounded once."""
        return float(self.mix * Fraction(self.update.scaling))


@dataclass(frozen=True, slots=True)
class Module:
    """One module of the soup: ΔW = Σ cᵢ·BᵢAᵢ over its shares. `total` is Σλ of the whole soup there, exact.

    `dora`: some share has a magnitude, so the module of the soup has one too.
    """

    name: str
    shares: tuple[Share, ...]
    total: Fraction
    dora: bool = False

    @property
    def like(self) -> LowRank:
        """An update of it: rows, columns, experts and kind are those of all."""
        return self.shares[0].update

    @property
    def rank(self) -> int:
        """Σrᵢ of its shares."""
        return sum(share.update.rank for share in self.shares)


@dataclass(frozen=True, slots=True)
class Whole:
    """A tensor that is stored whole: Σλᵢθᵢ + (1 − Σλᵢ)·θ₀. `terms` are (adapter, key, λ), `rest` what the base has."""

    name: str
    terms: tuple[tuple[int, str, Fraction], ...]
    rest: Fraction


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of an embedding that are stored: for each index (adapter, position in its rows, λ), and the base's rest."""

    name: str
    indices: tuple[int, ...]
    terms: tuple[tuple[tuple[int, int, Fraction], ...], ...]


@dataclass(frozen=True, slots=True)
class Design:
    """Everything decided of a soup of adapters but its ranks. `copy` is the one adapter that it is, bit for bit.

    `mixes` are λ by adapter where no rule says otherwise; `used` the adapters with a part anywhere.
    """

    recipe: Recipe
    adapters: tuple[Adapter, ...] = field(repr=False)
    modules: tuple[Module, ...]
    wholes: tuple[Whole, ...]
    rows: tuple[TokenRows, ...]
    used: tuple[int, ...]
    copy: int | None = None

    @property
    def needs_base(self) -> list[str]:
        """The names of what cannot be made without the base's own weights."""
        found = [module.name for module in self.modules if module.dora]
        found += [m.name for m in self.modules if any(self.began(share) is not None for share in m.shares)]
        found += [whole.name for whole in self.wholes if whole.rest != 0]
        return found + [rows.name for rows in self.rows if any(rest(terms) != 0 for terms in rows.terms)]

    def began(self, share: Share) -> str | None:
        """How the factors of a share began where that took something out of the base."""
        return self.adapters[share.adapter].began(share.update)


def rest(terms: Sequence[tuple[int, int, Fraction]]) -> Fraction:
    """The base's share of a row."""
    return 1 - sum((mix for _, _, mix in terms), Fraction(0))


def make(recipe: Recipe, adapters: Sequence[Adapter], alike: Mapping[int, int]) -> Design:
    """The design of `recipe` over its adapters; `alike` maps an adapter to the first one that is the very same.

    Raises UsageError E0209 (a rule or --drop that matches nothing) and IncompatibleError E0347 (λ that leave
    something undefined).
    """
    drop = _dropped(recipe, adapters)
    _check_rules(recipe, adapters)
    groups = recipe.groups()

    def mixes(tensor: str) -> dict[int, Fraction]:
        found: dict[int, Fraction] = {}
        for share, group in zip(recipe.mix_for(tensor), groups, strict=True):
            for position in group:
                first = alike.get(position, position)
                found[first] = found.get(first, Fraction(0)) + recipe.scale * share / len(group)
        return {adapter: mix for adapter, mix in found.items() if mix != 0}

    modules = tuple(_modules(adapters, mixes, drop))
    wholes = tuple(_wholes(adapters, mixes, drop))
    rows = tuple(_rows(adapters, mixes, drop))
    used = {share.adapter for module in modules for share in module.shares}
    used |= {adapter for whole in wholes for adapter, _, _ in whole.terms}
    used |= {adapter for found in rows for terms in found.terms for adapter, _, _ in terms}
    one = _only(adapters, mixes) if not drop else None
    copied = one if one is not None and recipe.dtype is None and _is_whole(recipe) else None
    return Design(recipe, tuple(adapters), modules, wholes, rows, tuple(sorted(used)), copied)


def left_out(design: Design, alike: Mapping[int, int]) -> Design:
    """The modules that --drop keeps out of a design, as a design of their own."""
    whole = make(replace(design.recipe, drop=()), design.adapters, alike)
    kept = {module.name for module in design.modules}
    return replace(whole, modules=tuple(m for m in whole.modules if m.name not in kept), copy=None)


def _is_whole(recipe: Recipe) -> bool:
    return recipe.rank is None and recipe.max_error is None


def _only(adapters: Sequence[Adapter], mixes: Mixes) -> int | None:
    """The adapter that has λ = 1 everywhere, with no other beside it."""
    names = {name for adapter in adapters for name in touched(adapter)}
    found = [mixes(name) for name in names]
    one = next(iter(found[0]), None) if found else None
    return one if one is not None and all(mix == {one: 1} for mix in found) else None


def touched(adapter: Adapter) -> Iterator[str]:
    """The names of the model's tensors an adapter changes."""
    yield from (update.tensor for update in adapter.updates.values())
    yield from adapter.tensors
    yield from adapter.beneath
    yield from adapter.rows


def _modules(adapters: Sequence[Adapter], mixes: Mixes, drop: frozenset[str]) -> Iterator[Module]:
    names = dict.fromkeys(name for adapter in adapters for name in adapter.updates)
    for name in names:
        tensor = f"{name}.weight"
        if tensor in drop:
            continue
        mix: dict[int, Fraction] = mixes(tensor)
        shares = tuple(
            Share(i, adapters[i].updates[name], mix[i]) for i in sorted(mix) if name in adapters[i].updates
        )
        if shares:
            dora = any(share.update.keys.magnitude is not None for share in shares)
            yield Module(name, shares, sum(mix.values(), Fraction(0)), dora)


def _wholes(adapters: Sequence[Adapter], mixes: Mixes, drop: frozenset[str]) -> Iterator[Whole]:
    stored = [{**adapter.beneath, **adapter.tensors} for adapter in adapters]
    for name in dict.fromkeys(name for keys in stored for name in keys):
        if name in drop:
            continue
        mix: dict[int, Fraction] = mixes(name)
        terms = tuple((i, stored[i][name], mix[i]) for i in mix if name in stored[i])
        if terms:
            yield Whole(name, terms, 1 - sum((part for _, _, part in terms), Fraction(0)))


def _rows(adapters: Sequence[Adapter], mixes: Mixes, drop: frozenset[str]) -> Iterator[TokenRows]:
    for name in dict.fromkeys(name for adapter in adapters for name in adapter.rows):
        if name in drop:
            continue
        mix: dict[int, Fraction] = mixes(name)
        having = {i: adapters[i].rows[name][0] for i in mix if name in adapters[i].rows}
        indices = tuple(sorted({index for found in having.values() for index in found}))
        terms = tuple(
            tuple((i, found.index(index), mix[i]) for i, found in having.items() if index in found)
            for index in indices
        )
        if indices:
            yield TokenRows(name, indices, terms)


def _dropped(recipe: Recipe, adapters: Sequence[Adapter]) -> frozenset[str]:
    import fnmatch

    names = dict.fromkeys(name for adapter in adapters for name in touched(adapter))
    matches = {glob: [name for name in names if fnmatch.fnmatchcase(name, glob)] for glob in recipe.drop}
    if useless := [glob for glob, found in matches.items() if not found]:
        raise UsageError(
            "E0209",
            f"--drop {listing(useless)} matches no tensor these adapters change",
            hint=f"the names look like '{show(next(iter(names), ''))}'",
        )
    return frozenset(name for found in matches.values() for name in found)


def _check_rules(recipe: Recipe, adapters: Sequence[Adapter]) -> None:
    names = [name for adapter in adapters for name in touched(adapter)]
    for rule in recipe.per_tensor:
        if not any(rule.applies_to(name) for name in names):
            raise UsageError(
                "E0209",
                f"per_tensor: {rule} matches no tensor these adapters change",
                hint=f"the names look like '{show(names[0]) if names else ''}'",
            )


def check_defined(design: Design, *, with_base: bool) -> None:
    """Raise UsageError E0206 for a soup of nothing, IncompatibleError E0347 where it is not defined without the base,
    E0348 where no adapter is that soup.
    """
    if not design.modules and not design.wholes and not design.rows:
        raise UsageError(
            "E0206",
            "nothing is left of the adapters: their λ are 0 or cancel, or --drop takes all of them",
            hint="the soup would be the base itself",
        )
    if design.copy is not None:
        return
    _check_kinds(design)
    if with_base:
        return
    if lacking := design.needs_base:
        raise IncompatibleError(
            "E0347",
            f"the soup of {listing(lacking, 3)} depends on the base's own weights (DoRA, PiSSA, tensors that only "
            "some adapters replace, or Σλ ≠ 1 of replaced tensors)",
            hint="add --base BASE, or leave them out: --drop 'GLOB'",
        )


def _check_kinds(design: Design) -> None:
    """Raise IncompatibleError E0348 where the adapters have kinds of updates that no adapter of PEFT has together."""
    changed = {module.like.tensor for module in design.modules}
    wholes = {whole.name for whole in design.wholes}
    wrong = [
        Problem(show(rows.name), "rows of it (trainable_token_indices) beside an update or the whole of it")
        for rows in design.rows
        if rows.name in changed | wholes
    ]
    if any(module.dora for module in design.modules):
        wrong += [
            Problem(show(module.name), "DoRA beside biases of the factors (lora_bias)")
            for module in design.modules
            if any(share.update.keys.bias is not None for share in module.shares)
        ]
        wrong += [
            Problem(show(whole.name), "DoRA beside a tensor that is stored whole and updated")
            for whole in design.wholes
            if whole.name in changed
            and any(whole.name in design.adapters[i].tensors for i, _, _ in whole.terms)
        ]
    if wrong:
        raise IncompatibleError(
            "E0348",
            "these adapters have updates that PEFT does not take in one adapter",
            details=tuple(wrong[:5]),
            hint="--fold makes full weights of it; or leave them out: --drop 'GLOB'",
        )
