"""`rsoup gate`: the verdict on one point, a line per condition, for people and for CI."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from rsoup.console import Console, error_json
from rsoup.errors import RsoupError, TargetError, UsageError, show
from rsoup.gate import outputs
from rsoup.gate.asked import asked_row
from rsoup.gate.choosing import decide, prepare
from rsoup.gate.judging import MET, UNDECIDED, GateResult, Judgement, failure
from rsoup.gate.requirements import Require, parse_conditions, parse_confidence
from rsoup.gate.wording import because, headline, measured
from rsoup.measured.table import read_table
from rsoup.measured.values import Measured

SCHEMA = "rsoup-gate/1"
_MARKS = {MET: "✓", UNDECIDED: "?"}


def run(
    table_path: str,
    *,
    require: Sequence[str],
    no_worse: Sequence[str],
    baseline: str | None,
    baseline_point: str | None,
    point: str | None,
    mix: str | None,
    minimise: Sequence[str],
    confidence: str,
    undecided: str,
    summary: str | None,
    junit: str | None,
    console: Console,
) -> int:
    """Judge, show the verdict, then write what was asked for; 0 where it passes, 4 where not, 6 where a file failed."""
    conditions = parse_conditions(require, no_worse)
    share = parse_confidence(confidence)
    if undecided not in ("fail", "pass"):
        raise UsageError(
            "E0249", f"--undecided '{show(undecided)}' is neither fail nor pass", hint="--undecided pass"
        )
    table = read_table(table_path)
    other = None if baseline is None else read_table(baseline)
    for output in (summary, junit):
        outputs.check_apart(output, (table_path, os.path.join(table_path, "metrics.json"), baseline))
    gate = prepare(table, conditions, baseline=other, baseline_point=baseline_point, minimise=minimise)
    row = asked_row(gate.table, point, mix)
    result = decide(gate, row, confidence=share, undecided_passes=undecided == "pass")
    error = failure(result, [found.name for found in table.done if found.name != result.point])
    for note in result.notes:
        console.note(note)
    console.result(text(result), as_json(result, error), result.point)
    if error is not None and not console.as_json:
        console.error(error)
    if (failed := _write(result, summary, junit)) is not None:
        # on stderr with --json too: its one document is printed
        Console(out=console.out, err=console.err).error(failed)
        return failed.exit_code
    return 0 if error is None else error.exit_code


def _write(result: GateResult, summary: str | None, junit: str | None) -> TargetError | None:
    """Write everything that is asked for, one failure keeping nothing else back; the first failure."""
    first: TargetError | None = None
    wanted: tuple[tuple[str | None, Callable[[str], None]], ...] = (
        (
            summary or os.environ.get("GITHUB_STEP_SUMMARY"),
            lambda path: outputs.append(path, outputs.markdown(result)),
        ),
        (os.environ.get("GITHUB_OUTPUT"), lambda path: outputs.append(path, outputs.step_outputs(result))),
        (junit, lambda path: outputs.replace(path, outputs.junit(result))),
    )
    for path, write in wanted:
        if path:
            try:
                write(path)
            except TargetError as error:
                first = first or error
    return first


def text(result: GateResult) -> str:
    """The verdict, the point, and a line per condition."""
    mix = "" if result.mix is None else f", λ = {show(result.mix)}"
    lines = [
        f"{'✓' if result.passed else '✗'} gate: {headline(result)}",
        f"  point {show(result.point)}{mix}",
    ]
    rows = [
        (
            show(_name(found)),
            measured(found),
            _MARKS.get(found.verdict, "✗"),
            because(found, result.confidence),
        )
        for found in result.judgements
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines += [f"  {name:<{widths[0]}}  {value:<{widths[1]}}  {mark} {why}" for name, value, mark, why in rows]
    return "\n".join(lines)


def _name(found: Judgement) -> str:
    condition = found.condition
    return condition.text if isinstance(condition, Require) else f"{condition.metric} no worse"


def as_json(result: GateResult, error: RsoupError | None) -> dict[str, object]:
    """Everything that was found, as data; `error` is null where the gate passes."""
    return {
        "format": SCHEMA,
        "pass": result.passed,
        "point": result.point,
        "lambda": result.mix,
        "confidence": result.confidence,
        "conditions": [
            {
                "condition": found.condition.text,
                "metric": found.condition.metric,
                "verdict": found.verdict,
                "value": _measured(found.value),
                "baseline": None if found.baseline is None else _measured(found.baseline),
                "limit": float(found.condition.limit) if isinstance(found.condition, Require) else None,
                "allowed": None if isinstance(found.condition, Require) else float(found.condition.allowed),
                "margin": float(found.difference),
                "error": found.error,
                "half_width": found.half_width,
                "samples_factor": found.samples,
            }
            for found in result.judgements
        ],
        "notes": list(result.notes),
        "error": None if error is None else error_json(error),
    }


def _measured(value: Measured) -> dict[str, object]:
    return {"value": value.value, "error": value.error, "n": value.repeats}
