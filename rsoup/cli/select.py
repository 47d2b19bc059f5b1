"""`rsoup select`: what the user wants → λ, by every rule; the command that makes the soup, or the soup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from rsoup.analysis.data import Data
from rsoup.analysis.selected import RULES, Candidate, Selected, Wish, mix_text, selected
from rsoup.cli.kitchen import Kitchen
from rsoup.cli.published import Publish
from rsoup.cli.reading import Reading
from rsoup.cli.terminal_width import columns_of
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
    license: str | None = None
    publish: Publish | None = None


def run(reading: Reading, asked: Asked, *, console: Console) -> None:
    """Choose, show every rule's λ, and make the soup where that is asked for."""
    _check(asked)
    if asked.publish is not None:
        asked.publish.check()
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
    soup, lines, pushed = _made(asked, chosen, kitchen, reading, console)
    notes = [*table.notes, *found.notes]
    if pushed is not None and chosen.point is None:
        notes.append("this λ was not measured: the card has no rewards")
    document = {**_document(data, wish, found, chosen, learnt, kitchen), "soup": soup, "push": pushed, "notes": notes}  # fmt: skip
    if not console.as_json:
        for note in notes:
            console.note(note)
    short = soup or (mix_text(chosen.mix) if chosen.mix is not None else data.names[chosen.point or 0])
    console.result("\n".join([*final(document, columns_of(console)), *lines]), document, short)


def _made(
    asked: Asked, chosen: Candidate, kitchen: Kitchen, reading: Reading, console: Console
) -> tuple[str | None, list[str], dict[str, object] | None]:
    """(where the soup is, lines about its publication, the same as data), each only where it is asked for.

    What was measured of the chosen point goes into the card: the table is the results.
    """
    if not asked.merge or asked.out is None:
        return None, [], None
    publish = asked.publish
    if publish is not None:
        results, point = (None, None) if chosen.point is None else (reading.path, kitchen.name(chosen.point))
        options = replace(publish.options, results=results, point=point, license=asked.license)
        publish = replace(publish, options=options)
        publish.check_licences(kitchen.recipe(chosen))
    soup = kitchen.make(chosen, asked.out, overwrite=asked.overwrite, threads=asked.threads, console=console)
    if publish is None:
        return soup, [], None
    lines, data = publish.publish(soup, None, console)
    return soup, lines, data


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
    if asked.license is not None and asked.publish is None:
        raise UsageError("E0266", "--license is for the card that --push publishes", hint="--push org/name")
    if asked.publish is not None and not asked.merge:
        raise UsageError(
            "E0266", "--push publishes the soup that --merge makes", hint="--merge -o soup --push org/name"
        )


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
