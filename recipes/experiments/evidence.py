"""Evidence: what cells say, by rules that were fixed before the runs; pure functions of `cells.Cell`.

Everything is in gains: each reward from the worst to the best expert of the same cell, 0 to 1, on each split by itself.
The figure of a set is its expected reward E max_p Σ μₖpₖ over preferences μ uniform on the simplex.
**Chosen and reported**: the best point for every μ by the select values, worth what its report values say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from cells import Cell, Mix, Point, Values

from rsoup.front import seeds
from rsoup.front.connectivity import Connectivity, connectivity
from rsoup.front.decision import BETTER, MATCH, Decision, decide
from rsoup.front.expected import expected_reward
from rsoup.front.pareto import Reference, reference_of, scaled, volume
from rsoup.front.predicted import maximiser
from rsoup.front.seeds import Against, Trial, Twice, Verdict, some_of
from rsoup.front.shape import coverage
from rsoup.front.surrogate import Surrogate, fit
from rsoup.front.theory import curvatures, isotropic_mix
from rsoup.front.versus import versus

DELTA: Final = 0.10
"""A match is within this share of what the other trainings gain over the best single expert. Fixed before the runs."""
CONFIDENCE: Final = 0.95
LEAST_SEEDS: Final = 10
NEGLIGIBLE: Final = 0.01
"""Of what the experts are apart: soups that gain less than this leave a rule nothing to keep."""


# --- gains and expected rewards


def reference(cell: Cell, split: str) -> Reference:
    """The nadir and the ranges of the cell's experts on a split."""
    corners = [values_of(point, split) for point in cell.experts]
    return reference_of(corners, cell.maximise, corners)


def apart(cell: Cell) -> bool:
    """Whether two experts are farther apart than twice the error of that, in every reward on both splits.

    What is divided by a smaller range can be anything. True where no errors are known.
    """
    for split in ("select", "report"):
        for k in range(len(cell.rewards)):
            corners = sorted(cell.experts, key=lambda point: values_of(point, split)[k])
            ends = [corners[0], corners[-1]]
            errors = [
                (one.select_errors if split == "select" else one.report_errors)[k] or 0.0 for one in ends
            ]
            low, high = (values_of(one, split)[k] for one in ends)
            if high - low <= 2 * sum(error**2 for error in errors) ** 0.5:
                return False
    return True


def values_of(point: Point, split: str) -> Values:
    """The point's values on the split. Raises ValueError where the report values are asked for and there are none."""
    found = point.select if split == "select" else point.report
    if found is None:
        raise ValueError("a point without report values was to be reported")
    return found


def gains(cell: Cell, points: Sequence[Point], split: str = "select") -> list[Values]:
    """The points in gains of the cell's experts on that split."""
    scale = reference(cell, split)
    return [scaled(values_of(point, split), cell.maximise, scale) for point in points]


def expected(cell: Cell, points: Sequence[Point], split: str = "select") -> float:
    """E max_p Σ μₖpₖ of the points, chosen and reported on one split: too good where values are noisy."""
    return expected_reward(gains(cell, points, split)).value


def hypervolume(cell: Cell, points: Sequence[Point], split: str = "select") -> float:
    """The volume between the points and the experts' nadir; two experts alone have 0, the box between them 1."""
    return volume(gains(cell, points, split))


def twice(cell: Cell, points: Sequence[Point]) -> Twice:
    """The points in gains of both splits: chosen by the select values, scored by the report values."""
    return Twice(gains(cell, points, "select"), gains(cell, points, "report"))


def promised(cell: Cell, points: Sequence[Point]) -> float:
    """E over μ of the report gain of the point that the select gains choose for μ: what the user gets in truth."""
    return seeds.promised(twice(cell, points))


def best_single(cell: Cell) -> float:
    """What one expert alone is worth: the best on average by the select gains, by its report gains."""
    return seeds.best_single(twice(cell, cell.experts))


# --- soups against M other trainings


def against(cells: Sequence[Cell], name: str = "soups", other: str = "morl") -> list[Against]:
    """For every M: the set `name` of all cells less M of `other` of the same cell, by the rule of `rsoup verdict`."""
    return list(decided(cells, name, other).curve)


def delta_of(cells: Sequence[Cell], other: str = "morl") -> float:
    """δ: 10 % of what all of `other` gain over the best single expert, on average over the cells, at least 0."""
    return decided(cells, "soups", other).delta


def decided(cells: Sequence[Cell], name: str, other: str) -> Verdict:
    """The verdict over the cells; of `other` as many take part as every cell has."""
    trials = [
        Trial(twice(cell, cell.sets[name]), twice(cell, cell.experts), twice(cell, cell.sets[other]))
        for cell in cells
    ]
    sizes = some_of(min(len(cell.sets[other]) for cell in cells), len(cells[0].rewards))
    return seeds.judged(trials, share=DELTA, confidence=CONFIDENCE, least=LEAST_SEEDS, sizes=sizes)


def judged(differences: Sequence[float], delta: float) -> Decision | None:
    """`decide` by the rule of the experiments; None for one seed."""
    if len(differences) < 2:
        return None
    return decide(differences, delta, CONFIDENCE, least=LEAST_SEEDS)


def compared(cells: Sequence[Cell], name: str, other: str, delta: float) -> Against:
    """One set less another of the same cells, chosen and reported, by the same rule."""
    differences = tuple(promised(c, c.sets[name]) - promised(c, c.sets[other]) for c in cells)
    return Against(0, differences, judged(differences, delta))


def worth(curve: Sequence[Against]) -> int | None:
    """The largest M with the verdict match or better; None where there is none."""
    good = [row.trainings for row in curve if row.decision and row.decision.verdict in {BETTER, MATCH}]
    return max(good, default=None)


# --- hypotheses


def connected(cell: Cell, name: str = "soups", tolerance: float = 0.0) -> Connectivity:
    """Hypothesis 1 on the select values of a set of soups."""
    points = [point for point in cell.sets[name] if point.mix is not None]
    mixes = [point.mix for point in points if point.mix is not None]
    noisy = any(error for point in points for error in point.select_errors)
    return connectivity(
        mixes, [point.select for point in points], cell.maximise,
        [point.select_errors for point in points] if noisy else None, tolerance=tolerance, confidence=CONFIDENCE,
    )  # fmt: skip


def worst_gap(found: Connectivity) -> float:
    """The lowest gap to the chord of any reward and soup, in the experts' range; 0 without one."""
    gaps = [chord.worst.relative for chord in found.rewards if chord.worst]
    return min((gap for gap in gaps if gap is not None), default=0.0)


@dataclass(frozen=True, slots=True)
class Dominance:
    """Hypothesis 2 in counts: others that some soup dominates, that dominate some soup, and neither; soups dominated."""

    others: int
    dominated: int
    dominate: int
    soups: int
    soups_dominated: int


def dominance(cell: Cell, name: str = "soups", other: str = "morl") -> Dominance:
    """Who dominates whom, by the select values, the experts themselves aside."""
    corners = [point.select for point in cell.experts]
    ours = [p for p in cell.sets[name] if p.select not in corners]
    theirs = [p for p in cell.sets[other] if p.select not in corners]
    mine, their = gains(cell, ours), gains(cell, theirs)
    found = versus(mine, their)
    below = sum(any(_dominates(t, p) for t in their) for p in mine)
    return Dominance(len(their), found.count("dominated"), found.count("dominates"), len(mine), below)


def _dominates(one: Values, other: Values) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and one != other


def covered(cell: Cell, name: str) -> float:
    """The mean over the rewards of the share of the experts' range that the set's front reaches."""
    found = coverage(gains(cell, cell.sets[name]), gains(cell, cell.experts))
    return fmean(one.share or 0.0 for one in found)  # None: the experts are equal


# --- rules for λ at equal evaluations


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule for λ: its evaluations, and the share of the best soup's gain over the better expert that it keeps.

    `kept` has one value per cell: 1 − Σ regret/Σ gain over the preferences; 1 is the best of all measured λ by the report
    values, 0 no better than picking the better expert; NaN where the best soups gain next to nothing (`NEGLIGIBLE`).
    """

    name: str
    evaluations: int
    kept: tuple[float, ...]


Chooser = Callable[[Values], Mix]


def rules(
    cells: Sequence[Cell], wanted: Sequence[Values], budgets: Sequence[int], *, raw: bool
) -> list[Rule]:
    """λ = μ, λ*, validation and the surrogate, each with so many evaluated soups; scored by report values.

    For preferences between rewards in their own units (`raw`) or in gains. A rule's λ is taken at the nearest λ that was
    measured, in `soups` or `between`. λ = μ and λ* (Lemma 3; Lemma 1 beyond two experts) need the experts alone.
    Validation takes the best of equally spaced λ (of a lattice) by the select values; the surrogate is the quadratic
    through the same points, and its maximum is taken. Budgets are the values on an edge: 2 are the experts.
    """
    names: dict[tuple[str, int], list[float]] = {}
    for cell in cells:
        every = [*cell.sets["soups"], *cell.sets.get("between", ())]
        points = {point.mix: point for point in every if point.mix is not None and point.report is not None}
        for name, count, chooser in _choosers(cell, points, budgets, raw=raw):
            names.setdefault((name, count), []).append(_kept(cell, points, wanted, chooser, raw=raw))
    return [Rule(name, count, tuple(kept)) for (name, count), kept in names.items()]


def _choosers(
    cell: Cell, points: dict[Mix, Point], budgets: Sequence[int], *, raw: bool
) -> list[tuple[str, int, Chooser]]:
    size = len(cell.experts)
    found: list[tuple[str, int, Chooser]] = [("λ = μ", size, lambda mu: _nearest(points, mu))]
    spans = (1.0,) * len(cell.rewards) if raw else reference(cell, "select").spans
    slopes = curvatures([point.select for point in cell.experts], cell.maximise)
    etas = [max(eta, 0.0) / span for eta, span in zip(slopes.values, spans, strict=True)]

    def theory(mu: Values) -> Mix:
        shares = [eta * share for eta, share in zip(etas, mu, strict=True)]
        if not sum(shares) or any(share and not eta for eta, share in zip(etas, mu, strict=True)):
            return _nearest(points, mu)
        return _nearest(points, isotropic_mix(etas, mu))

    found.append(("λ*", size, theory))
    for edge in budgets:
        mixes = [mix for mix in points if all((share * (edge - 1)).denominator == 1 for share in mix)]
        found.append(("validation", len(mixes), _validation(cell, points, mixes, spans)))
        model = fit(mixes, [points[mix].select for mix in mixes]) if edge > 2 else None
        if model is not None:
            found.append(("surrogate", len(mixes), _predicted(cell, points, model, spans)))
    return found


def _predicted(cell: Cell, points: dict[Mix, Point], model: Surrogate, spans: Values) -> Chooser:
    def best(mu: Values) -> Mix:
        weights = [share / span for share, span in zip(mu, spans, strict=True)]
        return _nearest(points, maximiser(model, weights, cell.maximise).exact)

    return best


def _validation(cell: Cell, points: dict[Mix, Point], mixes: Sequence[Mix], spans: Values) -> Chooser:
    def best(mu: Values) -> Mix:
        return max(mixes, key=lambda mix: _utility(cell, points[mix].select, mu, spans))

    return best


def _kept(
    cell: Cell, points: dict[Mix, Point], wanted: Sequence[Values], chooser: Chooser, *, raw: bool
) -> float:
    spans = (1.0,) * len(cell.rewards) if raw else reference(cell, "report").spans
    lost = gained = apart = 0.0
    for mu in wanted:
        worths = {
            mix: _utility(cell, point.report, mu, spans) for mix, point in points.items() if point.report
        }
        best = max(worths.values())
        lost += best - worths[chooser(mu)]
        alone = [_utility(cell, values_of(e, "report"), mu, spans) for e in cell.experts]
        gained += best - max(alone)
        apart += max(alone) - min(alone)
    return 1 - lost / gained if gained > NEGLIGIBLE * apart else float("nan")


def _utility(cell: Cell, values: Values, mu: Values, spans: Values) -> float:
    signed = [v if up else -v for v, up in zip(values, cell.maximise, strict=True)]
    return sum(share * value / span for share, value, span in zip(mu, signed, spans, strict=True))


def _nearest(points: dict[Mix, Point], wanted: Sequence[float]) -> Mix:
    """The measured λ nearest to the wanted one; the first of equals."""
    return min(points, key=lambda mix: sum((float(a) - b) ** 2 for a, b in zip(mix, wanted, strict=True)))
