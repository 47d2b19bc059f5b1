"""The options of every command that can publish what it made."""

from __future__ import annotations

from typing import Annotated

import typer

Push = Annotated[
    str | None,
    typer.Option("--push", metavar="REPO", help="Publish the soup on the Hub: org/name. See rsoup push."),
]
Private = Annotated[bool, typer.Option("--private", help="--push: a new repository is private.")]
CreatePr = Annotated[bool, typer.Option("--create-pr", help="--push: as a pull request instead of a commit.")]
Revision = Annotated[str | None, typer.Option("--revision", metavar="BRANCH", help="--push: to this branch.")]
CommitMessage = Annotated[
    str | None, typer.Option("--commit-message", metavar="TEXT", help="--push: the commit's title.")
]
