"""The arguments of `rsoup sweep` → what is asked for: a file's, a folder's, or the options' sweep."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

from rsoup.cli.merge_arguments import parse_ingredients
from rsoup.errors import UsageError, listing, show_path
from rsoup.request import Request
from rsoup.sweep import asking
from rsoup.sweep import folder as folders
from rsoup.sweep.mixes_csv import read_mixes
from rsoup.sweep.spec import Design, EvaluatorSpec, SweepSpec
from rsoup.sweep.sweep_yaml import load


@dataclass(frozen=True, slots=True)
class Arguments:
    """What `rsoup sweep` was given about the sweep itself."""

    checkpoints: Sequence[str]
    grid: int | None = None
    scheffe: bool = False
    mixes: tuple[str, ...] = ()
    csv: str | None = None
    random: int = 0
    sobol: int = 0
    seed: int = 0
    waypoints: tuple[str, ...] = ()
    scales: str | None = None
    refine: int = 0
    strategy: str = "points"
    metric: str | None = None
    accept_equal: bool = False
    run: str | None = None
    function: str | None = None
    rewards: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    metrics_file: str | None = None
    files: tuple[str, ...] = ()
    version: str | None = None
    timeout: str | None = None
    repeats: int = 1
    report: int = 0
    report_all: bool = False
    base: str | None = None
    method: str = "linear"
    level: str = "tensor"
    affine: bool = False
    dtype: str | None = None
    variant: str | None = None
    key: str | None = None
    missing: str | None = None
    vocab: str | None = None
    files_from: str | None = None
    buffers_from: str | None = None
    fold: bool = False
    rank: str | None = None
    max_error: str | None = None
    drop: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    max_distance: str = "0.7"


@dataclass(frozen=True, slots=True)
class Asked:
    """A sweep, its folder, and the folder its evaluators run in."""

    spec: SweepSpec
    out: str
    where: str


def asked_of(arguments: Arguments, out: str | None) -> Asked:
    """The sweep of a file, of a sweep's folder, or of the options."""
    first = arguments.checkpoints[0]
    if len(arguments.checkpoints) == 1 and folders.is_sweep(first):
        hint = "to change a sweep, type its whole command with the same -o"
        _check_alone(arguments, f"the sweep in {show_path(first)}", hint)
        if out is not None and os.path.realpath(out) != os.path.realpath(first):
            raise UsageError(
                "E0206", "-o and the folder of a sweep contradict each other", hint="leave out -o"
            )
        with open(os.path.join(first, folders.STATE), "rb") as file:
            where = str(json.load(file)["where"])
        return Asked(load(os.path.join(first, folders.SPEC)), first, where)
    if out is None:
        raise UsageError("E0200", "a sweep needs a folder of its own", hint="-o run")
    files = [path for path in arguments.checkpoints if path.lower().endswith((".yaml", ".yml"))]
    if files:
        if len(arguments.checkpoints) > 1:
            raise UsageError(
                "E0206",
                f"a sweep file ({listing(files, 1)}) comes alone",
                hint="put every checkpoint into the file",
            )
        _check_alone(arguments, "a sweep file", "write it into the file")
        return Asked(load(files[0]), out, os.path.abspath("."))
    return Asked(_spec_of(arguments), out, os.path.abspath("."))


def _check_alone(arguments: Arguments, what: str, hint: str) -> None:
    plain = Arguments(arguments.checkpoints)
    changed = [f.name for f in fields(plain) if getattr(plain, f.name) != getattr(arguments, f.name)]
    flags = {"mixes": "lambda", "run": "eval", "files": "eval-file", "version": "eval-version", "rewards": "reward", "guards": "guard", "waypoints": "waypoint"}  # fmt: skip
    if changed:
        shown = ", ".join(f"--{flags.get(name, name.replace('_', '-'))}" for name in changed)
        raise UsageError("E0206", f"{shown} and {what} contradict each other", hint=hint)


def _spec_of(arguments: Arguments) -> SweepSpec:
    ingredients = parse_ingredients(arguments.checkpoints)
    names = [ingredient.name for ingredient in ingredients]
    waypoints = []
    for text in arguments.waypoints:
        if text in names:
            waypoints.append(text)
        else:
            (more,) = parse_ingredients([text])
            ingredients.append(more)
            waypoints.append(more.name)
    request = Request(
        ingredients, affine=arguments.affine, base=arguments.base, method=arguments.method, level=arguments.level,
        variant=arguments.variant, dtype=arguments.dtype, files_from=arguments.files_from, buffers_from=arguments.buffers_from,
        key=arguments.key, missing=arguments.missing, vocab=arguments.vocab, fold=arguments.fold, rank=arguments.rank,
        max_error=arguments.max_error, drop=arguments.drop, allow=arguments.allow, max_distance=arguments.max_distance,
    )  # fmt: skip
    listed = asking.parse_mixes(arguments.mixes, request)
    design = Design(
        grid=arguments.grid,
        scheffe=arguments.scheffe,
        mixes=(*listed, *(read_mixes(arguments.csv, request) if arguments.csv else ())),
        random=arguments.random,
        sobol=arguments.sobol,
        seed=arguments.seed,
        waypoints=tuple(waypoints),
        scales=Design().scales if arguments.scales is None else asking.parse_scales(arguments.scales),
    )
    return asking.make_spec(
        request,
        _evaluators(arguments),
        design,
        strategy=arguments.strategy,
        metric=arguments.metric,
        accept_equal=arguments.accept_equal,
        refine=arguments.refine,
        repeats=arguments.repeats,
        report_repeats=arguments.report,
        report_all=arguments.report_all,
    )


def _evaluators(arguments: Arguments) -> list[EvaluatorSpec]:
    if arguments.run is None and arguments.function is None:
        return []
    metrics = [asking.parse_metric(text) for text in arguments.rewards]
    guards = [asking.parse_metric(text, guard=True) for text in arguments.guards]
    return [
        EvaluatorSpec(
            (*metrics, *guards),
            run=arguments.run,
            function=arguments.function,
            files=arguments.files,
            version=arguments.version,
            metrics_file=arguments.metrics_file,
            timeout_seconds=None if arguments.timeout is None else asking.parse_duration(arguments.timeout),
        )
    ]
