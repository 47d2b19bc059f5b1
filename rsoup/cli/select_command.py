"""`rsoup select` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rsoup.cli import publish_options as publishing
from rsoup.cli import table_options as tables
from rsoup.cli.options import Debug, Json, License, Overwrite, Quiet, Threads

if TYPE_CHECKING:
    from rsoup.cli.reading import Reading


@tables.reads_table
def select(
    *,
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
    reading: Reading,
    confidence: tables.Confidence = "0.95",
    merge: Annotated[
        bool, typer.Option("--merge", help="Make the chosen soup of a sweep's folder, as `rsoup merge` does.")
    ] = False,
    out: Annotated[str | None, typer.Option("-o", "--out", help="Where --merge writes it.")] = None,
    license_: License = None,
    push: publishing.Push = None,
    private: publishing.Private = False,
    create_pr: publishing.CreatePr = False,
    revision: publishing.Revision = None,
    commit_message: publishing.CommitMessage = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Choose λ for a preference, for comparisons, or for any utility, and print the command that makes that soup.

    What is measured, what theory says and what a surrogate predicts stand side by side. With -q the chosen λ alone is
    printed (with --merge, the soup's path). --merge --push publishes the soup with the rewards that were measured of it.

    Examples:

    rsoup select run/ --preference 0.3,0.7 --require 'harmless>=0.8'

    rsoup select run/ --preference 0.3,0.7 --merge -o soup/ --push me/soup
    """
    from rsoup.cli import select as command
    from rsoup.cli.published import publish_of
    from rsoup.console import Console

    publish = publish_of(
        push, private=private, create_pr=create_pr, revision=revision, message=commit_message, overwrite=overwrite
    )  # fmt: skip
    asked = command.Asked(
        preference=preference, comparisons=comparisons, utility=utility, require=tuple(require or ()), rule=rule,
        confidence=confidence, merge=merge, out=out, overwrite=overwrite, threads=threads, license=license_,
        publish=publish,
    )  # fmt: skip
    command.run(reading, asked, console=Console(as_json=json_, quiet=quiet))
