"""The options of every command that reads a table of measured points: declared once, received as one `Reading`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rsoup.cli.reading import Reading

Table = Annotated[
    str,
    typer.Argument(
        metavar="TABLE",
        help="A sweep's folder, its metrics.json, or any CSV, TSV, JSON or JSON-lines table of measured points.",
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
        help="Which values count: those the points are chosen by, or those measured with other seeds, of what the first found.",
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
Reported = Annotated[
    list[str] | None,
    typer.Option(
        "--reported",
        metavar="REWARD=METRIC",
        help="The column with a reward's values on the report split, where the table has both; several times.",
    ),
]
Trainings = Annotated[
    float | None,
    typer.Option("--trainings", min=0, help="What the soups took. Default: one training per ingredient."),
]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tolerance", min=0, help="Connectivity: how far below the chord, as a share of the experts' range."
    ),
]
Confidence = Annotated[
    str, typer.Option("--confidence", metavar="SHARE", help="Of the intervals, two-sided.")
]


def _reading(
    table: Table,
    reward: Rewards = None,
    guard: Guards = None,
    where: Where = None,
    lambda_column: LambdaColumns = None,
    name_column: NameColumn = None,
    step: Step = None,
    split: Split = "select",
    raw: Raw = False,
    expert: Experts = None,
    reported: Reported = None,
) -> Reading:
    from rsoup.cli.reading import Reading

    return Reading(
        table, rewards=tuple(reward or ()), guards=tuple(guard or ()), where=tuple(where or ()),
        lambda_columns=tuple(lambda_column or ()), name_column=name_column, step=step, split=split, raw=raw,
        experts=tuple(expert or ()), reported=tuple(reported or ()),
    )  # fmt: skip


def reads_table(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of a table in the place of its argument `reading`, a `Reading` of them."""
    shared, own = (
        inspect.signature(function, eval_str=True, locals={"Reading": object}).parameters
        for function in (_reading, command)
    )
    parameters = [p for name in own for p in (shared.values() if name == "reading" else [own[name]])]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        reading = _reading(**{name: given.pop(name) for name in shared if name in given})
        command(reading=reading, **given)

    run.__annotations__ = {p.name: p.annotation for p in parameters}
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    del run.__wrapped__  # whose signature it would have
    return run
