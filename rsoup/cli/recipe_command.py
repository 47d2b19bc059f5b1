"""`rsoup recipe` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli.options import Debug, From, Json, Quiet


def recipe(
    soup: Annotated[
        str,
        typer.Argument(
            metavar="SOUP", help="The folder of a soup, or its address on the Hub: org/name@revision."
        ),
    ],
    from_: From = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Print the recipe of a soup as a file for `rsoup merge`: λ, options, every ingredient by its commit on the Hub.

    Examples:

    rsoup recipe me/soup > soup.yaml

    rsoup recipe soup/ --from helpful=runs/helpful
    """
    from rsoup.cli import again as command
    from rsoup.console import Console

    command.show_recipe(soup, from_ or (), console=Console(as_json=json_, quiet=quiet))
