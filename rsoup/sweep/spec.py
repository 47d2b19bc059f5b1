"""SweepSpec: what a sweep was asked to do: the soups, the points, the evaluators."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from rsoup.request import Request
from rsoup.sweep.score import Metric

TRACKERS: Final = ("trackio", "wandb", "mlflow")
STRATEGIES: Final = ("points", "greedy", "uniform")
OUTPUT_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Design:
    """Which λ are evaluated first; every part that is given adds its points, duplicates count once.

    `grid` puts so many values on every edge of the simplex, `scheffe` the vertices, midpoints and the
    centroid, `mixes` are explicit λ, `random` and `sobol` so many points from `seed`, `waypoints` the names of
    ingredients through which the path between the two others leads (`grid` values on each leg). Each λ is
    taken with each of `scales` (η).
    """

    grid: int | None = None
    scheffe: bool = False
    mixes: tuple[tuple[Fraction, ...], ...] = ()
    random: int = 0
    sobol: int = 0
    seed: int = 0
    waypoints: tuple[str, ...] = ()
    scales: tuple[Fraction, ...] = (Fraction(1),)


@dataclass(frozen=True, slots=True)
class EvaluatorSpec:
    """One way to score a soup: a command line (`run`) or a Python function (`function`, as `module:name`).

    `files` are files besides those named in the command that decide the scores, `version` a text that does.
    `metrics_file` is where the JSON is read (with placeholders) instead of the last line of stdout.
    """

    metrics: tuple[Metric, ...]
    run: str | None = None
    function: str | None = None
    files: tuple[str, ...] = ()
    version: str | None = None
    metrics_file: str | None = None
    timeout_seconds: float | None = None
    output_bytes: int = OUTPUT_BYTES


@dataclass(frozen=True, slots=True)
class Track:
    """The experiment tracker a sweep is mirrored to, and the project there (wandb: ENTITY/PROJECT, too)."""

    tracker: str
    project: str = "rsoup"

    @property
    def text(self) -> str:
        """As `--track` takes it."""
        return f"{self.tracker}:{self.project}"


@dataclass(frozen=True, slots=True)
class SweepSpec:
    """A sweep as it was asked for, checked part by part.

    `request` is the soup without its λ. `series` are the names of ingredients whose checkpoint is a pattern
    (`run/checkpoint-*`), one front per training step. `metric` is what `greedy` improves; `accept_equal`
    keeps what is as good. `report_repeats` are evaluations of the front's points (`report_all`: of every point) with other seeds. `track` is where
    the results are mirrored, which changes nothing of them.
    """

    request: Request
    evaluators: tuple[EvaluatorSpec, ...]
    design: Design = field(default_factory=Design)
    series: tuple[str, ...] = ()
    strategy: str = "points"
    metric: str | None = None
    accept_equal: bool = False
    refine: int = 0
    repeats: int = 1
    report_repeats: int = 0
    report_all: bool = False
    track: Track | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every evaluator's metrics, in order."""
        return tuple(metric for evaluator in self.evaluators for metric in evaluator.metrics)
