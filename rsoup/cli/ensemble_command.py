"""`rsoup ensemble` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli.options import Debug, Json, Quiet


def ensemble(
    experts: Annotated[
        list[str],
        typer.Argument(
            metavar="LOGITS",
            help="Each expert's outputs on the same inputs, (…, outputs): .npy, or one array in .npz or .safetensors.",
        ),
    ],
    soup: Annotated[
        str, typer.Option("--soup", metavar="LOGITS", help="The soup's outputs on these inputs.")
    ],
    mix: Annotated[str, typer.Option("--lambda", help="The soup's λ, one per expert: 0.3,0.7.")],
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="FILE", help="The right output of every input, whole numbers."),
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Compare a soup with the ensemble of its experts' predictions (Lemma 4): how far apart, and who is right how often.

    The ensemble costs every expert at each input, the soup one network. With -q the gap in the experts' spread is printed.

    Example: rsoup ensemble low.npy high.npy --soup soup.npy --lambda 0.5,0.5 --labels labels.npy
    """
    from rsoup.cli import ensemble as command
    from rsoup.console import Console

    command.run(experts, soup, mix, labels, console=Console(as_json=json_, quiet=quiet))
