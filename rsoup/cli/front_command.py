"""`rsoup front` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from rsoup.cli import table_options as tables
from rsoup.cli.options import Debug, Json, Overwrite, Quiet

if TYPE_CHECKING:
    from rsoup.cli.reading import Reading


@tables.reads_table
def front(
    *,
    reading: Reading,
    reference: tables.Reference = None,
    base_point: Annotated[
        str | None,
        typer.Option(
            "--base-point", metavar="NAME", help="The point that is the base itself, for the transfer matrix."
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            metavar="[NAME=]TABLE[:COLUMN=VALUE]",
            help="Other models with the same rewards, such as one training per preference; several times.",
        ),
    ] = None,
    trainings: tables.Trainings = None,
    tolerance: tables.Tolerance = 0.0,
    require_connectivity: Annotated[
        bool,
        typer.Option("--require-connectivity", help="Exit 4 unless the verdict on connectivity is PASS."),
    ] = False,
    min_hypervolume: Annotated[
        float | None,
        typer.Option("--min-hypervolume", metavar="V", help="Exit 4 if the hypervolume is below V."),
    ] = None,
    confidence: tables.Confidence = "0.95",
    draws: Annotated[
        int,
        typer.Option("--draws", min=100, max=100_000, help="Draws of the bootstrap behind the intervals."),
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    plot: Annotated[
        list[str] | None,
        typer.Option(
            "--plot",
            metavar="[KIND=]FILE",
            help="Draw it as .svg or .png: front (default), spider, connectivity, advantage, training, transfer; several times. Where a kind has several figures (training, pairs of rewards), FILE-PART.svg each.",
        ),
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option(
            "--figures", metavar="FOLDER", help="Every figure there is something to draw of, as .svg."
        ),
    ] = None,
    page: Annotated[
        str | None,
        typer.Option(
            "--page", metavar="FILE.html", help="The interactive page, one file that needs no other."
        ),
    ] = None,
    smooth: Annotated[
        bool,
        typer.Option(
            "--smooth", help="Figures of two ingredients: the paper's smoothed curve beside the points."
        ),
    ] = False,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """What measured points say: front, hypervolume, expected reward, connectivity, what the experts share, what to measure next.

    With -q the names of the front's points alone are printed.

    Example: rsoup front run/ --compare morl.csv --plot front.svg
    """
    from rsoup.cli import front as command
    from rsoup.cli.front_outputs import Outputs
    from rsoup.console import Console

    questions = command.Questions(
        compare=tuple(compare or ()), trainings=trainings, base_point=base_point, tolerance=tolerance,
        require_connectivity=require_connectivity, min_hypervolume=min_hypervolume, confidence=confidence, draws=draws,
        seed=seed,
    )  # fmt: skip
    outputs = Outputs(plots=tuple(plot or ()), figures=figures, page=page, smooth=smooth, overwrite=overwrite)
    code = command.run(
        replace(reading, reference=reference), questions, outputs, console=Console(as_json=json_, quiet=quiet)
    )
    raise typer.Exit(code)
