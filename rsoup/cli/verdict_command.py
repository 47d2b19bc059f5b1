"""`rsoup verdict` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rsoup.cli import table_options as tables
from rsoup.cli.options import Debug, Json, Overwrite, Quiet

if TYPE_CHECKING:
    from rsoup.cli.reading import Reading


@tables.reads_table
def verdict(
    *,
    reading: Reading,
    compare: Annotated[
        list[str],
        typer.Option(
            "--compare",
            metavar="[NAME=]TABLE[:COLUMN=VALUE]",
            help="The other trainings of the same seeds, in order of preference; several times.",
        ),
    ],
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="COLUMN",
            help="The column that says which seed a row is of. Default: {seed} in the tables' paths.",
        ),
    ] = None,
    trainings: tables.Trainings = None,
    delta: Annotated[
        float,
        typer.Option(
            "--delta",
            min=0,
            help="A match is within this share of what all of the others gain over the best single expert.",
        ),
    ] = 0.1,
    least: Annotated[
        int, typer.Option("--least-seeds", min=2, help="With fewer seeds nothing is decided.")
    ] = 10,
    tolerance: tables.Tolerance = 0.0,
    confidence: tables.Confidence = "0.95",
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap's draws.")] = 0,
    require: Annotated[
        str | None,
        typer.Option(
            "--require",
            metavar="match|better",
            help="Exit 4 unless the soups match, or beat, all of the others.",
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw the advantage over M trainings as .svg or .png, of the first set.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Do two trainings and their soups match M other trainings? Several seeds, paired, by a rule fixed beforehand.

    TABLE and those compared have {seed} in their paths, or a column that --seeds names. With -q the verdict alone is
    printed.

    Example: rsoup verdict 'runs/{seed}/soups' --compare 'morl=runs/{seed}/morl' --split report
    """
    from rsoup.cli import verdict as command
    from rsoup.console import Console

    asked = command.Asked(
        compare=tuple(compare), seeds=seeds, trainings=trainings, delta=delta, least=least, tolerance=tolerance,
        confidence=confidence, seed=seed, require=require, plot=plot, overwrite=overwrite,
    )  # fmt: skip
    raise typer.Exit(command.run(reading, asked, console=Console(as_json=json_, quiet=quiet)))
