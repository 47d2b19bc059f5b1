"""`rsoup check` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli.options import (
    Cache,
    Debug,
    Json,
    Key,
    Missing,
    Overwrite,
    Quiet,
    Stream,
    Threads,
    Variant,
    Vocab,
    way,
)


def check(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Folders of models or PEFT adapters, or .safetensors files; NAME=PATH names one.",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="The checkpoint all were fine-tuned from; default: the one their metadata names."
        ),
    ] = None,
    headers: Annotated[
        bool, typer.Option("--headers", help="Read headers, configs and tokenizers alone, no weights.")
    ] = False,
    care: Annotated[
        float | None,
        typer.Option(
            "--care",
            help="From this share of the base's norm on, mix with care; default 0.2, or --max-distance.",
        ),
    ] = None,
    max_distance: Annotated[
        float,
        typer.Option("--max-distance", help="Beyond this share of the base's norm it is another family."),
    ] = 0.7,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 for 'mixable with care' too.")] = False,
    variant: Variant = None,
    key: Key = None,
    missing: Missing = None,
    vocab: Vocab = None,
    fold: Annotated[
        bool,
        typer.Option("--fold", help="Measure adapters as the full checkpoints they make of their base."),
    ] = False,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop",
            metavar="GLOB",
            help="Leave out the tensors of this name, as merge would; several times.",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CHECK",
            help="Read in spite of: symlinks, unindexed; base: of adapters that name other bases.",
        ),
    ] = None,
    threads: Threads = None,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw how far each layer moved, as .svg or .png; with several checkpoints their cosines too.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    stream: Stream = False,
    cache: Cache = False,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Tell whether checkpoints can be mixed: what differs, how far each one moved, and which way.

    Exits 0 where they are mixable, with care or without, and 3 where they are not one family. With -q the
    verdict alone is printed.

    Examples:

    rsoup check helpful/ harmless/ --base base/

    rsoup check helpful/ harmless/ --headers --json

    rsoup check helpful-lora/ harmless-lora/ --base base/
    """
    from rsoup.cli import check as command
    from rsoup.console import Console

    code = command.run(
        checkpoints, base, headers=headers, care=care, max_distance=max_distance, strict=strict, variant=variant,
        key=key, missing=missing, vocab=vocab, fold=fold, drop=tuple(drop or ()), allow=tuple(allow or ()), threads=threads,
        plot=plot, overwrite=overwrite, console=Console(as_json=json_, quiet=quiet), way=way(stream, cache),
    )  # fmt: skip
    raise typer.Exit(code)
