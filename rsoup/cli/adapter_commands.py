"""`rsoup extract` and `rsoup resize` as commands: their arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli.options import (
    Cache,
    Debug,
    FailAboveError,
    Json,
    Key,
    License,
    Overwrite,
    Quiet,
    Serve,
    Stream,
    Threads,
    Variant,
    way,
)

Out = Annotated[str, typer.Option("-o", "--out", help="The adapter's folder.")]
Rank = Annotated[str | None, typer.Option("--rank", metavar="R", help="At most this rank in every module.")]
MaxError = Annotated[
    str | None,
    typer.Option(
        "--max-error",
        metavar="E",
        help="The fewest ranks whose relative error (Frobenius, over all modules) is at most E: 0.1.",
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option("--drop", metavar="GLOB", help="Leave out the changed tensors of this name; several times."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be written and how near, and stop.")
]


def extract(
    finetune: Annotated[
        str, typer.Argument(metavar="FINETUNE", help="A folder or a file of full weights; a soup, too.")
    ],
    base: Annotated[str, typer.Option("--base", help="The checkpoint it was fine-tuned from.")],
    out: Out,
    rank: Rank = None,
    max_error: MaxError = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Store the factors as float32, bfloat16, float16 or float64.")
    ] = "float32",
    save_modules: Annotated[
        bool,
        typer.Option(
            "--save-modules",
            help="Keep whole what two factors cannot hold: norms, embeddings, biases, convolutions, new heads.",
        ),
    ] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Take embeddings for matrices of low rank, too.")
    ] = False,
    drop: Drop = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="CHECK",
            help="Go on in spite of: config, tokenizer, distance, unindexed, symlinks; recorded in the manifest.",
        ),
    ] = None,
    max_distance: Annotated[
        str,
        typer.Option(
            "--max-distance", help="Refuse a fine-tune farther from the base than this share of it."
        ),
    ] = "0.7",
    variant: Variant = None,
    key: Key = None,
    license_: License = None,
    fail_above_error: FailAboveError = None,
    overwrite: Overwrite = False,
    stream: Stream = False,
    cache: Cache = False,
    dry_run: DryRun = False,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Turn a full fine-tune into a LoRA adapter of its base: the best factors of every linear module that changed.

    What two factors cannot hold (norms, biases, embeddings, new heads) is refused where it changed, unless
    --save-modules keeps it whole or --drop leaves it out.

    Examples:

    rsoup extract helpful/ --base base/ --rank 64 -o helpful-lora/

    rsoup extract soup/ --base base/ --max-error 0.1 --save-modules -o soup-lora/
    """
    from rsoup.cli import extract as command
    from rsoup.console import Console

    command.run(
        finetune, out, base=base, rank=rank, max_error=max_error, dtype=dtype, save_modules=save_modules, embeddings=embeddings,
        drop=tuple(drop or ()), allow=tuple(allow or ()), max_distance=max_distance, variant=variant, key=key, license_=license_,
        fail_above_error=fail_above_error, overwrite=overwrite, dry_run=dry_run, threads=threads, console=Console(as_json=json_, quiet=quiet),
        way=way(stream, cache),
    )  # fmt: skip


def resize(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="The folder of a PEFT adapter.")],
    out: Out,
    rank: Rank = None,
    max_error: MaxError = None,
    base: Annotated[
        str | None, typer.Option("--base", help="The model it sits on; DoRA, PiSSA and OLoRA need it.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="Store it as float32, bfloat16, float16 or float64; default: as it is."),
    ] = None,
    drop: Drop = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="CHECK", help="Go on in spite of: base, tokenizer, unindexed, symlinks."
        ),
    ] = None,
    license_: License = None,
    serve: Serve = None,
    fail_above_error: FailAboveError = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Truncate a LoRA adapter to lower ranks, the best there are, and say exactly what that loses.

    It is `rsoup merge ADAPTER --rank R`, under a name of its own. Examples:

    rsoup resize helpful-lora/ --rank 16 -o helpful-r16/

    rsoup resize helpful-lora/ --max-error 0.05 -o helpful-small/
    """
    from rsoup.cli import resize as command
    from rsoup.cli.gates import Gates
    from rsoup.console import Console

    command.run(
        adapter, out, base=base, rank=rank, max_error=max_error, dtype=dtype, drop=tuple(drop or ()), allow=tuple(allow or ()),
        license_=license_, gates=Gates(fail_above_error, serve), overwrite=overwrite, dry_run=dry_run, threads=threads,
        console=Console(as_json=json_, quiet=quiet),
    )  # fmt: skip
