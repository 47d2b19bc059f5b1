"""The commands that look at what is there and write nothing: `rsoup verify` and `rsoup diff`."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli.options import Cache, Debug, Json, Key, Quiet, Stream, Threads, Variant, way


def verify(
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="The soup: its folder, its file, or its address on the Hub.")
    ],
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT",
            help="For --sample and --rederive: what it was made of, in the recipe's order or as NAME=PATH "
            "(NAME=PATH,PATH for a group), or its recipe.yaml. What it has by a commit of the Hub need not be given.",
        ),
    ] = None,
    base: Annotated[str | None, typer.Option("--base", help="The base, where the recipe has one.")] = None,
    structure: Annotated[
        bool,
        typer.Option(
            "--structure", help="No digests: only whether the right files are there, complete and valid."
        ),
    ] = False,
    sample: Annotated[
        str | None,
        typer.Option(
            "--sample",
            metavar="SHARE",
            help="Mix some blocks of 64 KiB again and compare every bit: 2% of them, or 300.",
        ),
    ] = None,
    nonce: Annotated[
        str | None,
        typer.Option(
            "--nonce", metavar="HEX", help="Repeat the sample of an earlier run, which printed this."
        ),
    ] = None,
    rederive: Annotated[
        bool, typer.Option("--rederive", help="Mix all of it again and compare every bit.")
    ] = False,
    load: Annotated[
        bool,
        typer.Option(
            "--load", help="Open it with safetensors and transformers; takes the memory of the model."
        ),
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="CHECK", help="For the ingredients: symlinks, unindexed."),
    ] = None,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Hold a soup against its manifest, or against its ingredients; exit 9 if it is not what it says.

    Examples:

    rsoup verify soup/

    rsoup verify soup/ helpful/ harmless/ --base base/ --rederive

    rsoup verify me/soup --rederive
    """
    from rsoup.cli import verify as command
    from rsoup.console import Console

    code = command.run(
        out, checkpoints or (), base=base, structure=structure, sample=sample, nonce=nonce, rederive=rederive, load=load,
        allow=allow or (), threads=threads, console=Console(as_json=json_, quiet=quiet),
    )  # fmt: skip
    raise typer.Exit(code)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A checkpoint: a folder or a weight file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    tensor: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor",
            metavar="GLOB",
            help="Compare only the tensors of this name, and no files; may be given several times.",
        ),
    ] = None,
    variant: Variant = None,
    key: Key = None,
    stream: Stream = False,
    cache: Cache = False,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Show what differs between two checkpoints, tensor by tensor; exit 0 if they are equal, 9 if not.

    Example: rsoup diff base/ soup/
    """
    from rsoup.cli import diff as command
    from rsoup.console import Console

    code = command.run(
        a,
        b,
        tensors=tensor or (),
        variant=variant,
        key=key,
        threads=threads,
        console=Console(as_json=json_, quiet=quiet),
        way=way(stream, cache),
    )
    raise typer.Exit(code)
