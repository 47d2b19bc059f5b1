"""The options of every command that reads a table of measured points."""

from __future__ import annotations

from typing import Annotated

import typer

Table = Annotated[
    str,
    typer.Argument(
        metavar="TABLE",
        help="A sweep's folder, its metrics.json, or any CSV, JSON or JSON-lines table of measured points.",
    ),
]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        metavar="NAME[:min]",
        help="A column that is a reward; :min if smaller is better. Default: all that are no guards.",
    ),
]
Guards = Annotated[
    list[str] | None,
    typer.Option(
        "--guard",
        metavar="NAME[:min]",
        help="A column that is recorded but not optimised; several times.",
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE",
        help="Only rows whose column has this value, or with != has not; several times.",
    ),
]
LambdaColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--lambda-column",
        metavar="INGREDIENT=COLUMN",
        help="The column of an ingredient's λ; one may be rest, what the others leave of 1. Default: lambda_INGREDIENT.",
    ),
]
NameColumn = Annotated[
    str | None,
    typer.Option("--name-column", metavar="COLUMN", help="The column of the points' names. Default: point."),
]
Step = Annotated[
    int | None,
    typer.Option("--step", help="The training step that is meant. Default: the last one measured."),
]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        metavar="select|report",
        help="Which values count: those the points are chosen by, or those measured with other seeds.",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference",
        metavar="R1,R2,…",
        help="Where the hypervolume is counted from, in the rewards' units. Default: the worst of the experts.",
    ),
]
Raw = Annotated[
    bool,
    typer.Option("--raw", help="Rewards in their own units, not divided by the range of the experts."),
]
Experts = Annotated[
    list[str] | None,
    typer.Option(
        "--expert",
        metavar="REWARD=INGREDIENT",
        help="Whose expert an ingredient is. Default: by name, else whichever is best at it.",
    ),
]
Confidence = Annotated[
    str, typer.Option("--confidence", metavar="SHARE", help="Of the intervals, two-sided.")
]
