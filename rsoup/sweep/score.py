"""Metric and Score: what is measured of a soup, and one measured value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A number an evaluator gives of a soup: a reward, which is optimised, or a guard metric, which is recorded only.

    `address` says where it stands in what the evaluator wrote (`$.results.score`, `lm-eval:gsm8k:acc,none`),
    `error_address` where its standard error does. `maximise` None: the file says which direction is better.
    """

    name: str
    address: str
    error_address: str | None = None
    maximise: bool | None = True
    guard: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """One measured value, finite; `error` is its standard error where one is known, in the same unit.

    `maximise` is the direction of the file it was read from, None where that says nothing.
    """

    value: float
    error: float | None = None
    maximise: bool | None = None


def value_columns(name: str, *, report: bool) -> list[str]:
    """The columns of a metric in a table: its value, standard error, and with `report` those of the report split."""
    endings = ("", "_stderr", *(("_report", "_report_stderr") if report else ()))
    return [f"{name}{ending}" for ending in endings]
