"""`rsoup merge` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli.options import (
    Cache,
    Debug,
    FailAboveError,
    From,
    Json,
    Key,
    License,
    Missing,
    Overwrite,
    Quiet,
    Serve,
    Stream,
    Threads,
    Variant,
    Vocab,
    way,
)
from rsoup.cli.publish_options import CommitMessage, CreatePr, Private, Push, Revision


def merge(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Folders or files of weights, or PEFT adapters, one ingredient each; CHECKPOINT+ADAPTER is one with the "
            "adapter in it. NAME=PATH names it, NAME=PATH,PATH averages several seeds of one reward first. Or one "
            "recipe: soup.yaml; or a soup alone, which is made again by its own.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            help="Where the soup goes: a folder, or one file if it ends in .safetensors, .pt, .bin. Of adapters: a folder.",
        ),
    ],
    lambda_: Annotated[
        str | None,
        typer.Option(
            "--lambda",
            metavar="λ,λ…",
            help="One λ per ingredient: 0.3,0.7 or 1/3,2/3; kept exactly, must sum to 1.",
        ),
    ] = None,
    uniform: Annotated[bool, typer.Option("--uniform", help="λ = 1/N.")] = False,
    normalize: Annotated[bool, typer.Option("--normalize", help="Divide λ by its sum, and say so.")] = False,
    affine: Annotated[
        bool,
        typer.Option(
            "--affine", help="Take any λ, negative too: θ₀ + Σ λᵢ(θᵢ − θ₀). Full weights need --base."
        ),
    ] = False,
    scale: Annotated[
        str,
        typer.Option(
            "--scale",
            metavar="S",
            help="After mixing: θ₀ + S·(soup − θ₀); below 1 is toward the base. Full weights need --base.",
        ),
    ] = "1",
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="The checkpoint all were fine-tuned from; distances from it are measured and checked. Adapters: their "
            "shapes are checked; DoRA, PiSSA, OLoRA, replaced tensors and --fold need it.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="linear, task_arithmetic, slerp or, of adapters, factors; `rsoup methods` explains them.",
        ),
    ] = "linear",
    level: Annotated[
        str, typer.Option("--level", help="slerp: one angle per tensor, or one for all (global).")
    ] = "tensor",
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="Store the soup as float32, bfloat16, float16 or float64; default: as the ingredients.",
        ),
    ] = None,
    variant: Variant = None,
    max_shard_size: Annotated[
        str,
        typer.Option(
            "--max-shard-size",
            help="Split the soup's files at this size (5GB); default: as the base's files, else the first ingredient's.",
        ),
    ] = "keep",
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from",
            metavar="NAME",
            help="Whose config, tokenizer and other files are copied; default the first ingredient's.",
        ),
    ] = None,
    buffers_from: Annotated[
        str | None,
        typer.Option(
            "--buffers-from",
            metavar="NAME",
            help="Whose integer and boolean buffers to take where they differ.",
        ),
    ] = None,
    optimizer_from: Annotated[
        str | None,
        typer.Option(
            "--optimizer-from",
            metavar="NAME",
            help="Whose optimiser state a Stable-Baselines3 soup keeps; default: none, it begins anew.",
        ),
    ] = None,
    key: Key = None,
    missing: Missing = None,
    vocab: Vocab = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--file-format",
            metavar="torch",
            help="A folder's weights as safetensors, or as pytorch_model.bin (torch). A file: by its ending.",
        ),
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Adapters: make full weights, base and soup in one.")
    ] = False,
    rank: Annotated[
        str | None,
        typer.Option(
            "--rank", metavar="R", help="Adapters: at most this rank in every module; default: exact."
        ),
    ] = None,
    max_error: Annotated[
        str | None,
        typer.Option(
            "--max-error",
            metavar="E",
            help="Adapters: the smallest ranks whose relative error (Frobenius) is at most E: 0.01.",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop",
            metavar="GLOB",
            help="Leave out the tensors of this name (adapters: the weights they change); several times.",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CHECK",
            help="Go on in spite of: config, tokenizer, distance, unindexed, symlinks, base (adapters that name "
            "different ones); recorded in the manifest.",
        ),
    ] = None,
    max_distance: Annotated[
        str,
        typer.Option(
            "--max-distance", help="Refuse ingredients farther from the base than this share of its norm."
        ),
    ] = "0.7",
    license_: License = None,
    from_: From = None,
    serve: Serve = None,
    fail_above_error: FailAboveError = None,
    push: Push = None,
    private: Private = False,
    create_pr: CreatePr = False,
    revision: Revision = None,
    commit_message: CommitMessage = None,
    overwrite: Overwrite = False,
    stream: Stream = False,
    cache: Cache = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be read, mixed, copied and written, and stop.")
    ] = False,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Write the λ-weighted soup of checkpoints: exact, in constant memory, all of it or nothing.

    Examples:

    rsoup merge helpful/ harmless/ --lambda 0.3,0.7 --base base/ -o soup/

    rsoup merge helpful-lora/ harmless-lora/ --lambda 0.3,0.7 -o soup-lora/

    rsoup merge bleu=s1/,s2/ rouge=s3/,s4/ --lambda 1/3,2/3 -o soup/

    rsoup merge recipes/rewarded-soup.yaml -o soup/

    rsoup merge me/soup -o soup/
    """
    from rsoup.cli import merge as command
    from rsoup.cli.again import again_of
    from rsoup.cli.gates import Gates
    from rsoup.cli.merge_arguments import Arguments, flags, recipe_of
    from rsoup.cli.published import publish_of
    from rsoup.console import Console

    request = Arguments(
        checkpoints=checkpoints, mix=lambda_, uniform=uniform, normalize=normalize, affine=affine, scale=scale, base=base,
        method=method, level=level, dtype=dtype, variant=variant, max_shard_size=max_shard_size, files_from=files_from,
        buffers_from=buffers_from, optimizer_from=optimizer_from, key=key, missing=missing, vocab=vocab, file_format=file_format, fold=fold, rank=rank, max_error=max_error,
        drop=tuple(drop or ()), allow=tuple(allow or ()), max_distance=max_distance, license=license_,
    )  # fmt: skip
    console = Console(as_json=json_, quiet=quiet)
    again = again_of(
        checkpoints, flags(request, but=("license", "allow")), from_ or (), allow=request.allow, license_=license_
    )  # fmt: skip
    recipe = recipe_of(request) if again is None else again.recipe
    gates = Gates(fail_above_error, serve)
    publish = publish_of(
        push,
        private=private,
        create_pr=create_pr,
        revision=revision,
        message=commit_message,
        overwrite=overwrite,
    )
    if publish is not None:
        publish.check()
    asked = way(stream, cache)
    if dry_run:
        command.show_plan(
            recipe,
            out,
            overwrite=overwrite,
            threads=threads,
            gates=gates,
            console=console,
            way=asked,
            again=again,
        )
        return
    command.run(
        recipe,
        out,
        overwrite=overwrite,
        threads=threads,
        gates=gates,
        console=console,
        publish=publish,
        way=asked,
        again=again,
    )
