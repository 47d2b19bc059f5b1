"""Options that several commands share, spelt and explained once."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print only the result's path, or names.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output; it stays until the new one is complete.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads; default one per processor, at most 16.")
]
