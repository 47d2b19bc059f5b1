"""`rsoup select`: what the user wants → λ, by every rule; the command that makes the soup, or the soup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rsoup.analysis.data import Data
from rsoup.analysis.selected import RULES, Candidate, Selected, Wish, mix_text, selected
from rsoup.cli.kitchen import Kitchen
from rsoup.cli.reading import Reading
from rsoup.console import Console
from rsoup.errors import UsageError, listing, show
from rsoup.gate.requirements import parse_confidence
from rsoup.measured.values import Measured
from rsoup.mix import format_number
from rsoup.report.select_text import final
from rsoup.select.bradley_terry import Preference, learn, next_question
from rsoup.select.comparisons import read_comparisons
from rsoup.select.utility import parse_constraints, parse_utility, unmet
from rsoup.select.weights import parse_preference

SCHEMA = "rsoup-select/1"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted; texts as they were typed."""

    preference: str | None = None
    comparisons: str | None = None
    utility: str | None = None
    require: tuple[str, ...] = ()
    rule: str = "measured"
    confidence: str = "0.95"
    merge: bool = False
    out: str | None = None
    overwrite: bool = False
    threads: int | None = None


def run(reading: Reading, asked: Asked, *, console: Console) -> None:
    """Choose, show every rule's λ, and make the soup where that is asked for."""
    _check(asked)
    table = reading.table()
    data = reading.data(table)
    learnt = None if asked.comparisons is None else _learnt(asked.comparisons, data, asked)
    wish = _wish(asked, data, table.metrics, learnt, reading)
    kitchen = Kitchen(reading.path, data)
    found = selected(data, wish)
    chosen = next((one for one in found.candidates if one.rule == asked.rule), None)
    if chosen is None or (chosen.mix is None and chosen.point is None):
        why = "a utility has no such rule" if chosen is None else chosen.why_not
        raise UsageError("E0266", f"--rule {asked.rule} gives no λ: {why}", hint="--rule measured takes the best measured point")  # fmt: skip
    soup = None
    if asked.merge:
        assert asked.out is not None
        soup = kitchen.make(
            chosen, asked.out, overwrite=asked.overwrite, threads=asked.threads, console=console
        )
    document = {**_document(data, wish, found, chosen, learnt, kitchen), "soup": soup}
    if not console.as_json:
        for note in found.notes:
            console.note(note)
    short = soup or (mix_text(chosen.mix) if chosen.mix is not None else data.names[chosen.point or 0])
    console.result("\n".join(final(document)), document, short)


def _check(asked: Asked) -> None:
    ways = [asked.preference, asked.comparisons, asked.utility]
    if sum(way is not None for way in ways) != 1:
        raise UsageError(
            "E0266", "what is wanted? one of --preference, --comparisons, --utility",
            hint="--preference 0.3,0.7 weighs the rewards",
        )  # fmt: skip
    if asked.rule not in RULES:
        raise UsageError(
            "E0266", f"there is no rule '{show(asked.rule)}'", hint=f"--rule {listing(list(RULES))}"
        )
    if asked.merge != (asked.out is not None):
        raise UsageError("E0266", "--merge and -o go together", hint="--merge -o soup")


def _learnt(path: str, data: Data, asked: Asked) -> Preference:
    pairs = read_comparisons(path, data.names)
    return learn(
        pairs, dict(zip(data.names, data.gains, strict=True)), confidence=parse_confidence(asked.confidence)
    )


def _wish(
    asked: Asked, data: Data, metrics: Mapping[str, object], learnt: Preference | None, reading: Reading
) -> Wish:
    exact: tuple[Fraction, ...] | None = None
    weights = None if learnt is None else learnt.mu
    if asked.preference is not None:
        exact = parse_preference(asked.preference, data.rewards)
        weights = tuple(map(float, exact))
    return Wish(
        weights,
        exact,
        None if asked.utility is None else parse_utility(asked.utility, list(metrics)),
        parse_constraints(asked.require, list(metrics)),
        reading.assignment(),
        parse_confidence(asked.confidence),
    )


# --- the document


def _document(
    data: Data, wish: Wish, found: Selected, chosen: Candidate, learnt: Preference | None, kitchen: Kitchen
) -> dict[str, Any]:
    ranking = found.ranking
    return {
        "format": SCHEMA,
        "table": data.shown,
        "step": data.rows[0].step,
        "split": data.split,
        "rewards": {n: "maximise" if up else "minimise" for n, up in zip(data.rewards, data.maximise, strict=True)},
        "unit": f"gain = (reward − reference) / span; {data.reference.how}" if wish.utility is None else "the rewards' own units",
        "preference": None if wish.weights is None else _preference(data, wish, learnt),
        "utility": None if wish.utility is None else wish.utility.text,
        "constraints": [one.text for one in wish.constraints],
        "candidates": [_candidate(data, wish, found, one, kitchen) for one in found.candidates],
        "rule": chosen.rule,
        "chosen": _candidate(data, wish, found, chosen, kitchen),
        "ranking": {
            "points": [
                {"point": data.names[i], "lambda": data.rows[i].lambda_text, "utility": found.worths[i].value, "error": found.worths[i].error}
                for i in ranking.order
            ],
            "not_allowed": sum(not ok for ok in found.allowed),
            "undefined": sum(w.value is None for w in found.worths),
            "lead": ranking.lead,
            "lead_error": ranking.lead_error,
            "beyond_noise": ranking.clear,
            "optimism": ranking.optimism,
        },
        "can_merge": kitchen.knows,
        "next_question": None if learnt is None else _question(data, learnt),
        "notes": list(found.notes),
    }  # fmt: skip


def _preference(data: Data, wish: Wish, learnt: Preference | None) -> dict[str, Any]:
    assert wish.weights is not None
    about: dict[str, Any] = {"weights": dict(zip(data.rewards, wish.weights, strict=True)), "learnt": None}
    if learnt is not None:
        about["learnt"] = {
            "comparisons": learnt.comparisons,
            "agreement": learnt.agreement,
            "confidence": learnt.confidence,
            "low": dict(zip(data.rewards, learnt.low, strict=True)),
            "high": dict(zip(data.rewards, learnt.high, strict=True)),
        }
    return about


def _candidate(data: Data, wish: Wish, found: Selected, one: Candidate, kitchen: Kitchen) -> dict[str, Any]:
    i = one.point
    about: dict[str, Any] = {
        "rule": one.rule,
        "definition": one.definition,
        "why_not": one.why_not,
        "lambda": None if one.mix is None else [format_number(share) for share in one.mix],
        "ingredients": list(data.ingredients),
        "point": None if i is None else data.names[i],
        "measured": None,
        "reported": None,
        "predicted": None if one.predicted is None else dict(zip(data.rewards, one.predicted, strict=True)),
        "utility": None,
        "error": None,
        "allowed": found.allowed[i] if i is not None else _would_be(one, data, wish),
        "command": kitchen.command(one) if one.mix is not None or i is not None else None,
    }
    if i is not None:
        row = data.rows[i]
        about["measured"] = {
            name: {"value": score.value, "error": score.error}
            for name, score in (row.report if data.split == "report" else row.select).items()
        }
        about["reported"] = {n: {"value": s.value, "error": s.error} for n, s in row.report.items()} or None
        about["utility"], about["error"] = found.worths[i].value, found.worths[i].error
    return about


def _would_be(one: Candidate, data: Data, wish: Wish) -> bool | None:
    """Whether a prediction meets the conditions on rewards; None where nothing is predicted."""
    if one.predicted is None:
        return None
    values = {name: Measured(value) for name, value in zip(data.rewards, one.predicted, strict=True)}
    return not [failed for failed in unmet(wish.constraints, values) if failed.metric in values]


def _question(data: Data, learnt: Preference) -> dict[str, Any] | None:
    """The pair that tells most about the preference, among the points on the front."""
    from rsoup.front.pareto import front

    places = front(data.values, data.maximise)
    asked = next_question(learnt, [data.gains[i] for i in places])
    if asked is None:
        return None
    return {
        "a": data.names[places[asked.a]],
        "b": data.names[places[asked.b]],
        "probability_of_a": asked.probability,
    }
