"""The commands of rsoup; each one in a file of its own, imported when it is called."""

from __future__ import annotations

from typing import Annotated

import typer

import rsoup
from rsoup.cli.adapter_commands import extract, resize
from rsoup.cli.check_command import check
from rsoup.cli.ensemble_command import ensemble
from rsoup.cli.front_command import front
from rsoup.cli.gate_command import gate
from rsoup.cli.merge_command import merge
from rsoup.cli.options import Debug, Json, Overwrite, Quiet
from rsoup.cli.proof_commands import diff, verify
from rsoup.cli.push_command import push
from rsoup.cli.recipe_command import recipe
from rsoup.cli.select_command import select
from rsoup.cli.sweep_command import sweep
from rsoup.cli.verdict_command import verdict

app = typer.Typer(
    name="rsoup",
    help=(
        "Mix fine-tuned checkpoints that share a base: θ(λ) = Σ λᵢθᵢ, exact, streamed, at the speed of the disk.\n\n"
        "Example: rsoup merge helpful/ harmless/ --lambda 0.3,0.7 --base base/ -o soup/"
    ),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"rsoup {rsoup.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """The options before a command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


app.command()(merge)
app.command()(sweep)
app.command()(front)
app.command()(select)
app.command()(verdict)
app.command()(ensemble)
app.command()(recipe)
app.command()(push)
app.command()(gate)


@app.command()
def demo(
    out: Annotated[str, typer.Option("-o", "--out", help="The folder that is made.")] = "rsoup-demo",
    seed: Annotated[int, typer.Option("--seed", help="Another seed trains other networks.")] = 0,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Train two tiny experts by reinforcement learning, merge them at a few λ, and score the soups.

    Takes well under a minute, needs no network and no GPU. Example: rsoup demo
    """
    from rsoup.cli import demo as command
    from rsoup.console import Console

    command.run(out, seed=seed, overwrite=overwrite, console=Console(as_json=json_, quiet=quiet))


@app.command()
def schema(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="Of which files: recipe or sweep.", show_default=True)
    ] = "recipe",
) -> None:
    """Print the JSON Schema of recipe or sweep files, with which editors complete and check them.

    Examples:

    rsoup schema > rsoup.schema.json

    rsoup schema sweep > rsoup-sweep.schema.json
    """
    import json

    from rsoup.errors import UsageError, show

    if kind == "recipe":
        from rsoup.recipe_yaml import json_schema
    elif kind == "sweep":
        from rsoup.sweep.sweep_schema import json_schema
    else:
        raise UsageError("E0259", f"there is no schema of '{show(kind)}'", hint="one of recipe, sweep")
    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def methods(json_: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:  # noqa: ARG001
    """List the ways of mixing: name, formula, whether it needs the base, source.

    Example: rsoup methods
    """
    from rsoup.cli import methods as command
    from rsoup.console import Console

    command.run(Console(as_json=json_, quiet=quiet))


@app.command()
def clean(
    folder: Annotated[str, typer.Argument(help="Where to look; folders inside are not entered.")] = ".",
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only listed.")] = False,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """List what interrupted merges left behind (OUT.rsoup-….part), and remove it with --yes.

    A merge that is running is never touched. Example: rsoup clean --yes
    """
    from rsoup.cli import clean as command
    from rsoup.console import Console

    command.run(folder, yes=yes, console=Console(as_json=json_, quiet=quiet))


app.command()(check)
app.command()(verify)
app.command()(diff)
app.command()(extract)
app.command()(resize)
