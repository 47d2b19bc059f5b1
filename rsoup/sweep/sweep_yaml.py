"""Sweep files: a recipe without its λ, the points, the evaluators; read strictly, written back as they are read."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any

from rsoup.mix import format_number
from rsoup.recipe_nodes import Problems, parse
from rsoup.recipe_yaml import dump_form, read_text, request_form
from rsoup.sweep.form import SweepForm
from rsoup.sweep.score import Metric
from rsoup.sweep.spec import OUTPUT_BYTES, Design, EvaluatorSpec, SweepSpec


def load(path: str) -> SweepSpec:
    """The sweep in the file at `path`; its relative paths start in the file's folder.

    Raises UsageError E0220 with every problem of the file, or E02xx for a sweep that cannot be meant; AccessError
    E0701, E0702 where there is nothing to read; RefusedFileError E0807 for what is no file.
    """
    return loads(read_text(path), name=path, folder=os.path.dirname(path))


def loads(text: str, *, name: str = "sweep.yaml", folder: str = "") -> SweepSpec:
    """The sweep written in `text`; relative paths start in `folder`, problems are shown with `name`. Raises as `load`."""
    problems = Problems(name)
    form = SweepForm(parse(text, problems), problems, folder)
    problems.check()
    return form.spec()


def dump(spec: SweepSpec) -> str:
    """A YAML text that `loads` reads back to an equal sweep; defaults are left out."""
    form = {
        **request_form(spec.request),
        "points": _points(spec) or None,
        "strategy": None if spec.strategy == "points" else spec.strategy,
        "metric": spec.metric,
        "accept_equal": spec.accept_equal or None,
        "evaluate": [_evaluator(evaluator) for evaluator in spec.evaluators],
        "repeats": spec.repeats if spec.repeats != 1 else None,
        "report": spec.report_repeats or None,
        "report_all": spec.report_all or None,
        "track": None if spec.track is None else spec.track.text,
    }
    return dump_form({key: value for key, value in form.items() if value is not None})


def _points(spec: SweepSpec) -> dict[str, Any]:
    design = spec.design
    found = {
        "grid": design.grid,
        "scheffe": design.scheffe or None,
        "list": [list(mix) for mix in design.mixes] or None,
        "random": design.random or None,
        "sobol": design.sobol or None,
        "seed": design.seed or None,
        "through": list(design.waypoints) or None,
        "scales": list(design.scales) if design.scales != Design().scales else None,
        "refine": spec.refine or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _evaluator(spec: EvaluatorSpec) -> dict[str, Any]:
    found = {
        "run": spec.run,
        "function": spec.function,
        "files": list(spec.files) or None,
        "version": spec.version,
        "metrics_file": spec.metrics_file,
        "timeout": None if spec.timeout_seconds is None else format_number(Fraction(spec.timeout_seconds)),
        "output_limit": None if spec.output_bytes == OUTPUT_BYTES else f"{spec.output_bytes}B",
        "rewards": {m.name: _metric(m) for m in spec.metrics if not m.guard} or None,
        "guards": {m.name: _metric(m) for m in spec.metrics if m.guard} or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _metric(metric: Metric) -> dict[str, Any]:
    directions = {True: "maximise", False: "minimise", None: None}
    found = {
        "metric": metric.address,
        "direction": directions[metric.maximise],
        "error": metric.error_address,
    }
    return {key: value for key, value in found.items() if value is not None}
