"""Options that several commands share, spelt and explained once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rsoup.remote.transfer import Way

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print only the result's path, or names.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output; it stays until the new one is complete.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads; default one per processor, at most 16.")
]
Variant = Annotated[
    str | None, typer.Option("--variant", help="Read model.VARIANT.safetensors and its like.")
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="The entry of a PyTorch file that holds the weights: state_dict, model, ema."),
]
Missing = Annotated[
    str | None,
    typer.Option("--missing", metavar="base", help="base: what a partial fine-tune lacks is the base's."),
]
Vocab = Annotated[
    str | None,
    typer.Option(
        "--vocab",
        metavar="truncate|pad",
        help="Vocabularies of different length: cut to the shortest, or filled up to the longest from the base.",
    ),
]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream", help="Weights far away: read them as they come, store nothing. See docs/hub.md."
    ),
]
Cache = Annotated[
    bool, typer.Option("--cache", help="Weights far away: download them into the Hub's cache first.")
]
From = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="NAME=PATH",
        help="A soup alone: where the ingredient (or the base) that its recipe calls NAME is here; several times.",
    ),
]
License = Annotated[str | None, typer.Option("--license", help="The licence in the model card.")]
Serve = Annotated[
    str | None,
    typer.Option(
        "--serve",
        metavar="SERVER",
        help="Adapters: refuse what vllm, sglang or llamacpp would not take; print the command that serves it.",
    ),
]
FailAboveError = Annotated[
    float | None,
    typer.Option(
        "--fail-above-error",
        min=0,
        metavar="E",
        help="Adapters: exit 4, nothing written, where the relative error is above this.",
    ),
]


def way(stream: bool, cache: bool) -> Way | None:
    """How far weights come, if that was said. Raises UsageError E0206 where both ways were."""
    if stream and cache:
        from rsoup.errors import UsageError

        raise UsageError("E0206", "--stream and --cache contradict each other", hint="leave one of them out")
    return "stream" if stream else "cache" if cache else None
