"""`rsoup push` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli.options import Debug, Json, Quiet


def push(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="A soup of rsoup, full weights or adapter; one that is a file, with its manifest beside it; or any "
            "checkpoint's folder.",
        ),
    ],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Its name on the Hub: org/name.")],
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Propose it as a pull request instead of committing it.")
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="BRANCH", help="Commit to this branch; it is made if missing."),
    ] = None,
    commit_message: Annotated[
        str | None, typer.Option("--commit-message", metavar="TEXT", help="The commit's title.")
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="The licence in the card. Default: the one the ingredients agree on.",
        ),
    ] = None,
    results: Annotated[
        str | None,
        typer.Option(
            "--results",
            metavar="RUN",
            help="A sweep's folder or metrics.json: the soup's measured rewards go into the card.",
        ),
    ] = None,
    point: Annotated[
        str | None,
        typer.Option("--point", metavar="NAME", help="The point of RUN. Default: the one with the soup's λ."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the weights of another model that the repository holds."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be published, and write nothing.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Publish a soup on the Hub as one commit: proven complete, with a true card, and nothing private in it.

    Examples:

    rsoup push soup/ me/soup --dry-run

    rsoup push soup/ me/soup --results runs/0001 --create-pr
    """
    from rsoup.cli import push as command
    from rsoup.console import Console
    from rsoup.publish.asked import Options

    options = Options(
        private=private, create_pr=create_pr, revision=revision, commit_message=commit_message, license=license_,
        results=results, point=point, overwrite=overwrite, dry_run=dry_run,
    )  # fmt: skip
    command.run(folder, repo, options, console=Console(as_json=json_, quiet=quiet))
