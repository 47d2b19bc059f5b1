"""The transfer matrix: what each expert does to every reward, which rewards help each other and which fight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.errors import UsageError, listing, show
from rsoup.front.assignment import assign

Row = Sequence[float]
ErrorRow = Sequence[float | None]
CLEAR: Final = 2.0  # standard errors
_BASED: Final = "g = (expert − base)/(own expert − base): 0 is the base, 1 the reward's own expert"
_BASELESS: Final = (
    "no base is measured: g = (expert − worst expert)/(own expert − worst expert); 0 is the worst expert, so that"
    " harm cannot be seen"
)


@dataclass(frozen=True, slots=True)
class Owners:
    """Which ingredient is whose expert: per reward its index, None where none is left; `how` says who decided."""

    of: tuple[int | None, ...]
    how: str


@dataclass(frozen=True, slots=True)
class Kinship:
    """Two rewards with an expert each: `similarity` s = ½(g of one's expert in the other + the reverse), > 0 synergy, < 0 conflict.

    `error` is its standard error, None where unknown. `antagonistic`: each expert is below the base in the other's
    reward; None without a base. `clear`: both by more than two standard errors; None where these are unknown.
    """

    rewards: tuple[int, int]
    similarity: float
    error: float | None
    antagonistic: bool | None
    clear: bool | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """T[i][k] = reward k of ingredient i, and what it comes to. Rows are ingredients, columns rewards.

    `gains` are the normalised g[i][k], `errors` their standard errors; None where undefined or unknown.
    `undefined` says for which rewards there are no gains, and why; `unsure` names the rewards whose own expert is
    within two standard errors of what it is compared with, so that their gains may be anything. `how` defines g.
    """

    values: tuple[tuple[float, ...], ...]
    base: tuple[float, ...] | None
    owners: Owners
    gains: tuple[tuple[float | None, ...], ...]
    errors: tuple[tuple[float | None, ...], ...]
    kinships: tuple[Kinship, ...]
    undefined: Mapping[int, str]
    unsure: tuple[int, ...]
    how: str

    def similarity(self) -> tuple[tuple[float | None, ...], ...]:
        """sᵢₖ between rewards as a matrix: symmetric, 1 on the diagonal, None where a gain is undefined."""
        size = len(self.owners.of)
        found = {kin.rewards: kin.similarity for kin in self.kinships}
        own = [
            1.0 if self.owners.of[k] is not None and k not in self.undefined else None for k in range(size)
        ]
        return tuple(
            tuple(own[i] if i == k else found.get((min(i, k), max(i, k))) for k in range(size))
            for i in range(size)
        )


def transfer(
    values: Sequence[Row],
    maximise: Sequence[bool],
    owners: Owners,
    *,
    base: Row | None = None,
    errors: Sequence[ErrorRow] | None = None,
    base_errors: ErrorRow | None = None,
) -> Transfer:
    """g[i][k] = (T[i][k] − T₀[k])/(T[own k][k] − T₀[k]), T₀ the base: what expert i gains of what k's own expert does.

    The direction of a reward cancels out. Without a base T₀[k] is the worst expert's value. g is undefined where a
    reward has no expert of its own, or that one is no better than T₀. Standard errors by the delta method, all
    evaluations independent: Var g = (e_i² + g²e_own² + (1−g)²e_0²)/(T_own − T₀)², and 0 where i is the one compared
    with itself; for similarities ½√(Var + Var). If rewards are measured on the same samples, similarities' errors
    are a guess. Where T_own − T₀ is within two errors of 0 a quotient has no normal error: `unsure`. Raises ValueError for
    shapes that differ, no ingredient or reward, owners that are no ingredients, values that are not finite.
    Source: Ramé et al. 2023 (reward similarity, answer to reviewer ntSF).
    """
    _check(values, maximise, owners, base, errors, base_errors)
    columns = [
        _column(
            [row[k] if up else -row[k] for row in values],
            owners.of[k],
            None if base is None else base[k] if up else -base[k],
            [None] * len(values) if errors is None else [row[k] for row in errors],
            None if base_errors is None else base_errors[k],
        )
        for k, up in enumerate(maximise)
    ]
    undefined = {k: column.why for k, column in enumerate(columns) if column.why is not None}
    return Transfer(
        tuple(tuple(map(float, row)) for row in values),
        None if base is None else tuple(map(float, base)),
        owners,
        tuple(tuple(column.gains[i] for column in columns) for i in range(len(values))),
        tuple(tuple(column.errors[i] for column in columns) for i in range(len(values))),
        tuple(_kinships(columns, owners.of, base is not None)),
        undefined,
        tuple(k for k, column in enumerate(columns) if column.unsure),
        _BASELESS if base is None else _BASED,
    )


def _check(
    values: Sequence[Row],
    maximise: Sequence[bool],
    owners: Owners,
    base: Row | None,
    errors: Sequence[ErrorRow] | None,
    base_errors: ErrorRow | None,
) -> None:
    count = len(maximise)
    rows: list[Row | ErrorRow] = [*values, *(errors or ())]
    rows += [row for row in (base, base_errors) if row is not None]
    if not values or not count or any(len(row) != count for row in rows):
        raise ValueError("there must be ingredients and rewards, and one value per reward in every row")
    if errors is not None and len(errors) != len(values):
        raise ValueError("there must be one row of errors per ingredient")
    if not all(math.isfinite(value) for row in (*values, base or ()) for value in row):
        raise ValueError("a value is not finite")
    known = [error for row in (*(errors or ()), base_errors or ()) for error in row if error is not None]
    if not all(math.isfinite(error) and error >= 0 for error in known):
        raise ValueError("a standard error is a number from 0")
    if len(owners.of) != count or any(o is not None and not 0 <= o < len(values) for o in owners.of):
        raise ValueError("owners are one ingredient, or None, per reward")


@dataclass(frozen=True, slots=True)
class _Column:
    gains: list[float | None]
    errors: list[float | None]
    why: str | None
    unsure: bool


def _column(
    column: Sequence[float],
    owner: int | None,
    zero: float | None,
    errors: Sequence[float | None],
    zero_error: float | None,
) -> _Column:
    """One reward, to be maximised."""
    none: list[float | None] = [None] * len(column)
    if owner is None:
        return _Column(none, none, "no ingredient is its expert", unsure=False)
    worst = min(range(len(column)), key=column.__getitem__) if zero is None else None
    if worst is not None:
        zero, zero_error = column[worst], errors[worst]
    assert zero is not None
    width, own = column[owner] - zero, errors[owner]
    if not 0 < width < math.inf:
        than = "the base" if worst is None else "the worst expert"
        return _Column(none, none, f"its own expert is no better than {than}", unsure=False)
    gains = [(value - zero) / width for value in column]
    found: list[float | None] = []
    for i, gain in enumerate(gains):
        error = _spread(errors[i], own, zero_error, gain, width)
        found.append(0.0 if error is not None and i in (owner, worst) else error)
    apart = None if own is None or zero_error is None else math.hypot(own, zero_error)
    return _Column(list(gains), found, None, unsure=apart is not None and width < CLEAR * apart)


def _spread(
    error: float | None, own: float | None, zero: float | None, gain: float, width: float
) -> float | None:
    if error is None or own is None or zero is None:
        return None
    return math.hypot(error, gain * own, (1 - gain) * zero) / width


def _kinships(columns: Sequence[_Column], owners: Sequence[int | None], based: bool) -> list[Kinship]:
    found = []
    for i, one in enumerate(owners):
        for k in range(i + 1, len(owners)):
            other = owners[k]
            if one is None or other is None or one == other:
                continue
            gains = (columns[k].gains[one], columns[i].gains[other])
            errors = (columns[k].errors[one], columns[i].errors[other])
            if gains[0] is None or gains[1] is None:
                continue
            both = None if errors[0] is None or errors[1] is None else (errors[0], errors[1])
            harm = gains[0] < 0 and gains[1] < 0
            clear = (
                None if both is None else harm and gains[0] < -CLEAR * both[0] and gains[1] < -CLEAR * both[1]
            )
            found.append(
                Kinship(
                    (i, k),
                    (gains[0] + gains[1]) / 2,
                    None if both is None else math.hypot(*both) / 2,
                    harm if based else None,
                    clear if based else None,
                )
            )
    return found


def owners_of(
    ingredients: Sequence[str],
    rewards: Sequence[str],
    values: Sequence[Row],
    maximise: Sequence[bool],
    given: Mapping[str, str] | None = None,
) -> Owners:
    """Which ingredient is the expert of which reward: as `given` (reward → ingredient), else by equal names, else by score.

    By score: the assignment of one ingredient to each reward left, none twice, with the greatest sum of values, each
    reward divided by its range over all ingredients (the assignment problem, solved exactly). With fewer ingredients
    than rewards some have no expert. An ingredient may be given to several rewards. Raises UsageError E0258 for a
    given name that is no reward or no ingredient; ValueError for shapes that differ and values that are not finite.
    """
    if (
        len(values) != len(ingredients)
        or any(len(row) != len(rewards) for row in values)
        or len(maximise) != len(rewards)
    ):
        raise ValueError("there must be one row per ingredient, one value and one direction per reward")
    if not all(math.isfinite(value) for row in values for value in row):
        raise ValueError("a value is not finite")
    found: list[int | None] = [None] * len(rewards)
    for reward, ingredient in (given or {}).items():
        for name, names, what in ((reward, rewards, "reward"), (ingredient, ingredients, "ingredient")):
            if name not in names:
                raise UsageError(
                    "E0258", f"there is no {what} '{show(name)}'", hint=f"there are {listing(list(names), 9)}"
                )
        found[rewards.index(reward)] = ingredients.index(ingredient)
    how = ["as given"] if given else []
    named = [k for k, reward in enumerate(rewards) if found[k] is None and reward in ingredients]
    for k in named:
        found[k] = ingredients.index(rewards[k])
    how += ["by name"] if named else []
    left = [k for k in range(len(rewards)) if found[k] is None]
    free = [i for i in range(len(ingredients)) if i not in found]
    if left and free:
        how.append("by the best scores")
        shares = [_shares([row[k] for row in values], maximise[k]) for k in left]
        scores = [[column[i] for i in free] for column in shares]
        for k, place in zip(left, assign(scores), strict=True):
            found[k] = None if place is None else free[place]
    return Owners(tuple(found), ", then ".join(how) or "none is left")


def _shares(column: Sequence[float], up: bool) -> list[float]:
    """0 for the worst of the column, 1 for the best; 0 where all are equal."""
    worst, best = (min(column), max(column)) if up else (max(column), min(column))
    return [(value - worst) / (best - worst) if best != worst else 0.0 for value in column]
