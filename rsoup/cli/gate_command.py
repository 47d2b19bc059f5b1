"""`rsoup gate` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli.options import Debug, Json, Quiet


def gate(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A sweep's folder, its metrics.json, or any JSON or CSV table of metrics."
        ),
    ],
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require", metavar="CONDITION", help="'harmless>=0.80'; >=, >, <= or <; several times."
        ),
    ] = None,
    no_worse: Annotated[
        list[str] | None,
        typer.Option(
            "--no-worse",
            metavar="METRIC[:D]",
            help="At most D worse than the baseline; default 0; several times.",
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="What --no-worse compares with: a table like RUN.")
    ] = None,
    baseline_point: Annotated[
        str | None,
        typer.Option("--baseline-point", metavar="NAME", help="Its point; default the only one, or RUN's."),
    ] = None,
    point: Annotated[
        str | None,
        typer.Option(
            "--point", metavar="NAME", help="The point to judge; default the best by its select values."
        ),
    ] = None,
    mix: Annotated[
        str | None, typer.Option("--lambda", help="The point to judge, by its λ: 0.3,0.7.")
    ] = None,
    minimise: Annotated[
        list[str] | None,
        typer.Option("--minimise", metavar="METRIC", help="Smaller is better, where the table does not say."),
    ] = None,
    confidence: Annotated[
        str, typer.Option("--confidence", metavar="SHARE", help="Of the intervals, two-sided.")
    ] = "0.95",
    undecided: Annotated[
        str, typer.Option("--undecided", metavar="fail|pass", help="What noise leaves open: exit 4, or 0.")
    ] = "fail",
    summary: Annotated[
        str | None,
        typer.Option(
            "--summary", metavar="FILE", help="Append the Markdown table here; default $GITHUB_STEP_SUMMARY."
        ),
    ] = None,
    junit: Annotated[
        str | None,
        typer.Option("--junit", metavar="FILE", help="Write a JUnit report, a test per condition."),
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Judge measured rewards by limits and by a baseline, noise taken into account: exit 0, or 4.

    With -q the judged point's name alone is printed.

    Example: rsoup gate run/ --require 'harmless>=0.80' --no-worse helpful:0.01 --baseline metrics.json
    """
    from rsoup.cli import gate as command
    from rsoup.console import Console

    code = command.run(
        run, require=tuple(require or ()), no_worse=tuple(no_worse or ()), baseline=baseline,
        baseline_point=baseline_point, point=point, mix=mix, minimise=tuple(minimise or ()), confidence=confidence,
        undecided=undecided, summary=summary, junit=junit, console=Console(as_json=json_, quiet=quiet),
    )  # fmt: skip
    raise typer.Exit(code)
