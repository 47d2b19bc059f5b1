"""What was typed of a sweep → SweepSpec: every part checked, nothing guessed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final

from rsoup import mix as mixes
from rsoup.errors import UsageError, listing, show
from rsoup.request import Request, make
from rsoup.sweep import harness, placeholders
from rsoup.sweep.grid import points_of
from rsoup.sweep.score import Metric, value_columns
from rsoup.sweep.series import is_pattern
from rsoup.sweep.spec import STRATEGIES, TRACKERS, Design, EvaluatorSpec, SweepSpec, Track

RESERVED: Final = ("point", "scale", "step", "seed", "split", "status", "front")
_DIRECTIONS: Final = {
    **dict.fromkeys(("max", "maximise", "maximize"), True),
    **dict.fromkeys(("min", "minimise", "minimize"), False),
}
_SECONDS: Final = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_SHELL_WORDS: Final = ("|", "||", "&&", "&", ";", ">", ">>", "<", "2>", "2>&1")
_NAME = re.compile(r"[^\s,=:\x00-\x1f\x7f][^,=:\x00-\x1f\x7f]*")


def parse_metric(text: str, *, guard: bool = False) -> Metric:
    """`NAME`, `NAME:min`, `NAME=ADDRESS`, `NAME=ADDRESS:min`; the address is `$.NAME` if none is given.

    More is better unless it ends in `:min`; of a harness's file that says so itself, that file decides. Raises
    UsageError E0232.
    """
    name, equals, address = text.partition("=")
    body = address if equals else name
    head, colon, word = body.rpartition(":")
    maximise = _DIRECTIONS.get(word) if colon else None
    if maximise is not None:
        body = head
    name, address = (name, body) if equals else (body, "")
    if not _NAME.fullmatch(name.strip()) or (equals and not address):
        raise UsageError(
            "E0232",
            f"'{show(text)}' is no reward",
            hint="NAME, NAME:min, or NAME=ADDRESS such as score=$.results.score",
        )
    return metric(name.strip(), address or None, maximise=maximise, guard=guard)


def metric(
    name: str,
    address: str | None = None,
    *,
    error_address: str | None = None,
    maximise: bool | None = None,
    guard: bool = False,
) -> Metric:
    """A metric with the defaults of its kind. Raises UsageError E0232 for its name, E0239 for its address."""
    if not _NAME.fullmatch(name) or name in RESERVED or name.startswith("lambda_"):
        raise UsageError("E0232", f"a metric cannot be called '{show(name)}'", hint="a word, such as helpful")
    where = f"$.{name}" if address is None else address
    if address is None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        where = '$["' + name.replace("\\", "\\\\").replace('"', '\\"') + '"]'
    if maximise is None and not harness.is_address(where):
        maximise = True
    found = Metric(name, where, error_address, maximise, guard)
    harness.check(found)
    return found


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `10min`, `2h`, `1.5h`, `1d`. Raises UsageError E0234."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(s|min|m|h|d)?", text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError("E0234", f"'{show(text)}' is no time", hint="90s, 10min, 2h or 1d")
    return float(found[1]) * _SECONDS[found[2] or ""]


def parse_scales(text: str) -> tuple[Fraction, ...]:
    """`0,0.5,1`, or `grid:11` for 0, 0.1, … 1. Raises UsageError E0201, E0250."""
    if text.startswith("grid:"):
        count = parse_count(text[5:], "--scales", least=2)
        return tuple(Fraction(i, count - 1) for i in range(count))
    return tuple(mixes.parse_number(part) for part in text.split(","))


def parse_count(text: str, what: str, *, least: int = 1) -> int:
    """A whole number of at least `least`. Raises UsageError E0250."""
    if not re.fullmatch("[0-9]{1,9}", text.strip()) or int(text) < least:
        raise UsageError("E0250", f"{what}: '{show(text)}' is no whole number from {least}")
    return int(text)


def parse_track(text: str) -> Track:
    """`trackio`, `wandb` or `mlflow`, and `:PROJECT` if it is not called rsoup. Raises UsageError E0273."""
    tracker, colon, project = text.partition(":")
    pattern = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
    if tracker != "trackio":
        pattern = f"({pattern}/)?{pattern}"
    if tracker not in TRACKERS or (colon and not re.fullmatch(pattern, project)):
        what = f"'{show(text)}' is no tracker with a project"
        raise UsageError("E0273", what, hint=f"{', '.join(TRACKERS)}; with a project: wandb:my-sweeps")
    return Track(tracker, project) if colon else Track(tracker)


def parse_mixes(texts: Sequence[str], request: Request) -> tuple[tuple[Fraction, ...], ...]:
    """λ as `--lambda` takes it, one text per point, each checked as a merge's. Raises UsageError E0201 to E0206."""
    found = []
    for text in texts:
        shares = [mixes.parse_number(part) for part in text.split(",")]
        found.append(checked_mix(shares, request))
    return tuple(found)


def checked_mix(shares: Sequence[Fraction], request: Request) -> tuple[Fraction, ...]:
    """One λ per ingredient that may be meant. Raises UsageError E0202 to E0206."""
    count = len(request.ingredients)
    if len(shares) != count:
        raise UsageError(
            "E0202", f"{len(shares)} λ for {count} ingredients", hint="one λ per ingredient, in their order"
        )
    return mixes.checked(shares, normalize=request.normalize, affine=request.affine)


def make_spec(
    request: Request,
    evaluators: Sequence[EvaluatorSpec],
    design: Design,
    *,
    strategy: str = "points",
    metric: str | None = None,
    accept_equal: bool = False,
    refine: int = 0,
    repeats: int = 1,
    report_repeats: int = 0,
    report_all: bool = False,
    track: Track | None = None,
) -> SweepSpec:
    """The sweep that was asked for, if its parts go together. Raises UsageError E0206, E0210, E0250 to E0235."""
    series = tuple(
        i.name for i in request.ingredients if len(i.checkpoints) == 1 and is_pattern(i.checkpoints[0])
    )
    spec = SweepSpec(
        request, tuple(evaluators), design, series, strategy, metric, accept_equal, refine, repeats, report_repeats, report_all, track
    )  # fmt: skip
    _check_soups(spec)
    _check_evaluators(spec)
    _check_strategy(spec)
    return spec


def _check_evaluators(spec: SweepSpec) -> None:
    if not spec.evaluators:
        raise UsageError(
            "E0235", "nothing scores the soups", hint="--eval 'python score.py {model}' --reward NAME"
        )
    for evaluator in spec.evaluators:
        if not evaluator.metrics:
            raise UsageError(
                "E0235", "an evaluator gives no reward", hint="--reward NAME, as its JSON calls it"
            )
        if evaluator.run is not None:
            placeholders.split(evaluator.run)
            _check_no_shell(evaluator.run)
    names = [found.name for found in spec.metrics]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError("E0232", f"two metrics are called {listing(twice)}", hint="give each its own name")
    columns = [column for name in names for column in value_columns(name, report=spec.report_repeats > 0)]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise UsageError(
            "E0232", f"two columns of points.csv would be called {listing(twice)}: a metric, and what is written beside another one",
            hint="give the metric another name",
        )  # fmt: skip
    if all(found.guard for found in spec.metrics):
        raise UsageError("E0235", "there are guard metrics and no reward", hint="--reward NAME")
    if spec.report_all and not spec.report_repeats:
        raise UsageError(
            "E0250", "--report-all says where, not how often, points are reported", hint="--report 1"
        )
    if min(spec.repeats, spec.report_repeats + 1, spec.refine + 1) < 1:
        raise UsageError("E0250", "repeats are at least 1, and nothing is less than 0")


def _check_no_shell(command: str) -> None:
    """E0233 for words that only a shell understands: there is none."""
    words = shlex.split(command)
    found = [word for word in words if word in _SHELL_WORDS or word.startswith(("$(", "`"))]
    if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*=.*", words[0]):
        found.insert(0, words[0])
    if found:
        raise UsageError(
            "E0233",
            f"'{show(found[0])}' is for a shell, and commands are run without one",
            hint="""write the shell yourself: sh -c '… "$RSOUP_MODEL" …'; its variables are RSOUP_MODEL, RSOUP_OUT, RSOUP_LAMBDA …""",
        )


def _check_strategy(spec: SweepSpec) -> None:
    if spec.strategy not in STRATEGIES:
        raise UsageError(
            "E0210", f"there is no strategy '{show(spec.strategy)}'", hint=f"one of {', '.join(STRATEGIES)}"
        )
    if spec.strategy == "points":
        if spec.metric is not None or spec.accept_equal:
            raise UsageError(
                "E0206", "--metric and --accept-equal belong to --strategy greedy", hint="leave them out"
            )
        points_of(spec.design, [i.name for i in spec.request.ingredients])
        return
    if spec.design != Design() or spec.refine or spec.series:
        raise UsageError(
            "E0206",
            f"--strategy {spec.strategy} chooses its points itself",
            hint="leave out the grid, --refine and series",
        )
    rewards = [found.name for found in spec.metrics if not found.guard]
    if spec.strategy == "greedy" and spec.metric not in rewards:
        what = (
            "needs a reward to improve" if spec.metric is None else f"knows no reward '{show(spec.metric)}'"
        )
        raise UsageError("E0206", f"--strategy greedy {what}", hint=f"--metric {show(rewards[0])}")
    if spec.strategy == "uniform" and spec.metric is not None:
        raise UsageError("E0206", "--metric belongs to --strategy greedy", hint="leave it out")


def _check_soups(spec: SweepSpec) -> None:
    """What a merge of these ingredients would refuse at once, with λ of the points that are asked for."""
    count = max(1, len(spec.request.ingredients))
    if spec.request.scale not in ("1", Fraction(1)) and spec.design.scales != (Fraction(1),):
        raise UsageError("E0206", "--scale and --scales contradict each other", hint="leave one of them out")
    scales = [spec.request.scale] if spec.design.scales == (Fraction(1),) else list(spec.design.scales)
    for scale in scales:
        make(replace(spec.request, mix=(Fraction(1, count),) * count, scale=scale))
