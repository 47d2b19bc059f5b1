"""make(spec): the evaluator of a spec, a command or a function."""

from __future__ import annotations

from collections.abc import Callable

from rsoup.errors import UsageError
from rsoup.recipe import Recipe
from rsoup.sweep.command import CommandEvaluator
from rsoup.sweep.evaluation import Evaluator
from rsoup.sweep.function import FunctionEvaluator
from rsoup.sweep.point import Point
from rsoup.sweep.processes import GRACE_SECONDS
from rsoup.sweep.spec import EvaluatorSpec


def make(
    spec: EvaluatorSpec,
    *,
    folder: str,
    recipe_for: Callable[[Point], Recipe],
    base: str | None = None,
    grace: float = GRACE_SECONDS,
) -> Evaluator:
    """The evaluator of a spec, run in `folder`; nothing is started.

    Raises UsageError: E0237 a command that cannot be run, E0238 a function that is not there, E0239 a metric's
    address that means nothing.
    """
    if (spec.run is None) == (spec.function is None):
        raise UsageError(
            "E0237",
            "an evaluator is a command or a function, not both and not neither",
            hint="run: or function:",
        )
    if spec.function is not None:
        if spec.metrics_file is not None:
            raise UsageError(
                "E0237", "a function returns its scores, and no file is read", hint="leave out metrics_file"
            )
        return FunctionEvaluator(spec, folder=folder, recipe_for=recipe_for, grace=grace)
    return CommandEvaluator(spec, folder=folder, base=base, grace=grace)
