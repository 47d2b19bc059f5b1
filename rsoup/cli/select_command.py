"""`rsoup select` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli import table_options as tables
from rsoup.cli.options import Debug, Json, Overwrite, Quiet, Threads


def select(
    table: tables.Table,
    preference: Annotated[
        str | None,
        typer.Option(
            "--preference", metavar="μ", help="A share of 1 per reward: 0.3,0.7, or helpful=0.3,harmless=0.7."
        ),
    ] = None,
    comparisons: Annotated[
        str | None,
        typer.Option(
            "--comparisons",
            metavar="CSV",
            help="Pairs of points somebody compared (better,worse; or a,b,winner): the preference is learnt from them.",
        ),
    ] = None,
    utility: Annotated[
        str | None,
        typer.Option(
            "--utility",
            metavar="EXPRESSION",
            help="Any utility over the rewards in their own units: 'min(helpful, harmless)', 'r1 if r2 > .8 else 0'.",
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="CONDITION",
            help="'harmless>=0.80': only points that meet it; several times.",
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            metavar="measured|lambda|theory|predicted",
            help="Whose λ is taken: the best measured point, λ = the preference, Lemma 3's, or the surrogate's.",
        ),
    ] = "measured",
    reward: tables.Rewards = None,
    guard: tables.Guards = None,
    where: tables.Where = None,
    lambda_column: tables.LambdaColumns = None,
    name_column: tables.NameColumn = None,
    step: tables.Step = None,
    split: tables.Split = "select",
    raw: tables.Raw = False,
    expert: tables.Experts = None,
    confidence: tables.Confidence = "0.95",
    merge: Annotated[
        bool, typer.Option("--merge", help="Make the chosen soup of a sweep's folder, as `rsoup merge` does.")
    ] = False,
    out: Annotated[str | None, typer.Option("-o", "--out", help="Where --merge writes it.")] = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Choose λ for a preference, for comparisons, or for any utility, and print the command that makes that soup.

    What is measured, what theory says and what a surrogate predicts stand side by side. With -q the chosen λ alone is
    printed (with --merge, the soup's path).

    Example: rsoup select run/ --preference 0.3,0.7 --require 'harmless>=0.8'
    """
    from rsoup.cli import select as command
    from rsoup.cli.reading import Reading
    from rsoup.console import Console

    reading = Reading(
        table, rewards=tuple(reward or ()), guards=tuple(guard or ()), where=tuple(where or ()),
        lambda_columns=tuple(lambda_column or ()), name_column=name_column, step=step, split=split, raw=raw,
        experts=tuple(expert or ()),
    )  # fmt: skip
    asked = command.Asked(
        preference=preference, comparisons=comparisons, utility=utility, require=tuple(require or ()), rule=rule,
        confidence=confidence, merge=merge, out=out, overwrite=overwrite, threads=threads,
    )  # fmt: skip
    command.run(reading, asked, console=Console(as_json=json_, quiet=quiet))
