"""`rsoup merge`: arguments → recipe → merge → what the user sees."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

from rsoup.cli.gates import Gates
from rsoup.cli.published import Publish
from rsoup.cli.stopped import Stopped
from rsoup.console import Console, ProgressBar, table
from rsoup.errors import UsageError, listing, show
from rsoup.mix import format_number
from rsoup.names import names_for
from rsoup.recipe import Ingredient, Recipe
from rsoup.request import Request, make
from rsoup.storage.parts import is_held, leftovers, resumable
from rsoup.storage.target import free_bytes, size_text

START_NBYTES = {"numpy": 60_000_000, "torch": 150_000_000}  # Python, libraries and headers, nothing read yet


@dataclass(frozen=True, slots=True)
class Arguments:
    """What `rsoup merge` was given about the soup itself."""

    checkpoints: Sequence[str]
    mix: str | None = None
    uniform: bool = False
    normalize: bool = False
    affine: bool = False
    scale: str = "1"
    base: str | None = None
    method: str = "linear"
    level: str = "tensor"
    dtype: str | None = None
    variant: str | None = None
    max_shard_size: str = "keep"
    files_from: str | None = None
    buffers_from: str | None = None
    optimizer_from: str | None = None
    key: str | None = None
    missing: str | None = None
    vocab: str | None = None
    file_format: str | None = None
    fold: bool = False
    rank: str | None = None
    max_error: str | None = None
    drop: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    max_distance: str = "0.7"
    license: str | None = None


def recipe_of(arguments: Arguments) -> Recipe:
    """The recipe in the one YAML file that was named, or the one the options spell out."""
    paths = arguments.checkpoints
    recipes = [path for path in paths if path.lower().endswith((".yaml", ".yml"))]
    if not recipes:
        return make(
            Request(
                parse_ingredients(paths), mix=None if arguments.mix is None else arguments.mix.split(","), uniform=arguments.uniform,
                normalize=arguments.normalize, affine=arguments.affine, base=arguments.base, method=arguments.method, level=arguments.level,
                scale=arguments.scale, variant=arguments.variant, dtype=arguments.dtype, max_shard_size=arguments.max_shard_size,
                files_from=arguments.files_from, buffers_from=arguments.buffers_from,
                optimizer_from=arguments.optimizer_from, key=arguments.key, missing=arguments.missing, vocab=arguments.vocab,
                file_format=arguments.file_format, fold=arguments.fold, rank=arguments.rank, max_error=arguments.max_error, drop=arguments.drop, allow=arguments.allow,
                max_distance=arguments.max_distance, license=arguments.license,
            )
        )  # fmt: skip
    if len(paths) > 1:
        raise UsageError(
            "E0206",
            f"a recipe ({listing(recipes, 1)}) comes alone",
            hint="put every checkpoint into the recipe",
        )
    plain = Arguments(paths)
    if changed := [
        field.name for field in fields(plain) if getattr(plain, field.name) != getattr(arguments, field.name)
    ]:
        flags = ", ".join("--lambda" if name == "mix" else f"--{name.replace('_', '-')}" for name in changed)
        raise UsageError(
            "E0206",
            f"{flags} and a recipe contradict each other",
            hint="write it into the recipe, so that the recipe tells the whole truth",
        )
    from rsoup.recipe_yaml import load

    return load(recipes[0])


def parse_ingredients(arguments: Sequence[str]) -> list[Ingredient]:
    """PATH, NAME=PATH or NAME=PATH,PATH…; something that exists under the whole text is always a path."""
    named: list[tuple[str | None, tuple[str, ...]]] = []
    for text in arguments:
        name, equals, rest = text.partition("=")
        if not equals or os.path.lexists(text) or "/" in name:
            named.append((None, (text,)))
            continue
        paths = (rest,) if os.path.lexists(rest) else tuple(rest.split(","))
        if not all(paths):
            raise UsageError(
                "E0202",
                f"'{show(text)}' names an empty path",
                hint="NAME=PATH, or NAME=PATH,PATH for several seeds",
            )
        named.append((name, paths))
    fallback = iter(names_for([paths[0] for name, paths in named if name is None]))
    return [Ingredient(name if name is not None else next(fallback), paths) for name, paths in named]


def mix_text(recipe: Recipe) -> str:
    """`helpful 0.3 · harmless 0.7`: the λ that are applied."""
    return " · ".join(
        f"{show(name)} {format_number(share)}" for name, share in zip(recipe.names, recipe.mix, strict=True)
    )


def run(
    recipe: Recipe,
    out: str,
    *,
    overwrite: bool,
    threads: int | None,
    gates: Gates,
    console: Console,
    publish: Publish | None = None,
) -> None:
    """Make the soup and show what it is."""
    from rsoup.lora.mounting import makes_adapter
    from rsoup.merging import merge
    from rsoup.prepare import by_commit

    recipe = by_commit(recipe)
    if recipe.mix != recipe.typed_mix:
        console.talk(f"λ normalised: {mix_text(recipe)}")
    if makes_adapter(recipe):
        from rsoup.cli.merge_adapter import run as run_adapter

        run_adapter(
            recipe, out, mix_text(recipe), overwrite=overwrite, threads=threads, gates=gates, console=console,
            publish=publish,
        )  # fmt: skip
        return
    gates.refuse()
    try:
        with ProgressBar(console) as bar:
            result = merge(recipe, out, overwrite=overwrite, threads=threads, progress=bar)
    except Stopped as stopped:
        stopped.kept = resumable(out)
        raise
    notes = [*result.notes, *_stale(out)]
    for note in notes:
        console.note(note)
    lines = [
        f"{show(result.out)}: {size_text(result.nbytes)} in {result.seconds:.1f} s"
        + (
            f" ({result.resumed_blocks} blocks were there from an earlier run)"
            if result.resumed_blocks
            else ""
        ),
        f"  λ         {mix_text(recipe)}",
        f"  tensors   {result.mixed} mixed, {result.copied} copied"
        + (f", {len(result.dropped)} dropped" if result.dropped else ""),
    ]
    if result.distances is not None:
        names = [show(name) for name, _ in recipe.checkpoints()]
        shown = [
            f"{name} {value:.4f}"
            for name, value in zip(names, result.distances.relative, strict=True)
            if value is not None
        ]
        lines.append(f"  distance  {' · '.join(shown)} (‖θ − base‖ / ‖base‖)")
        if len(shown) > 1:
            cosines = [
                value
                for i, row in enumerate(result.distances.cosine)
                for value in row[i + 1 :]
                if value is not None
            ]
            lines += (
                [f"  cosine    {' · '.join(f'{value:.3f}' for value in cosines[:6])} (between their updates)"]
                if cosines
                else []
            )
    if result.update_error is not None:
        remedy = "; --dtype float32 keeps it" if result.update_error > 0.01 and recipe.dtype != "F32" else ""
        lines.append(
            f"  update    {result.update_error:.2%} of it is rounded away by the stored dtype{remedy}"
        )
    lines.append(
        f"  files     {len(result.files)}: {', '.join(show(name) for name in result.files[:6])}{' …' if len(result.files) > 6 else ''}"
    )
    data = {
        "out": result.out,
        "files": list(result.files),
        "bytes": result.nbytes,
        "bytes_read": result.read_nbytes,
        "seconds": round(result.seconds, 3),
        "resumed_blocks": result.resumed_blocks,
        "notes": notes,
        "manifest": dict(result.manifest),
    }
    if publish is not None:
        more, data["push"] = publish.publish(result.out, recipe.license, console)
        lines += more
    console.result("\n".join(lines), data, result.out)


def _stale(out: str) -> list[str]:
    """A note on every staging folder for the same output that another recipe's run left."""
    parent, name = os.path.split(out.rstrip("/"))
    try:
        paths = [os.path.join(parent, part) for part in leftovers(parent or ".", name)]
    except OSError:
        return []  # the soup is made: nothing can go wrong any more
    return [
        f"an interrupted run of another recipe left {show(path)}; rsoup clean removes it"
        for path in paths
        if not is_held(path)
    ]


def show_plan(
    recipe: Recipe, out: str, *, overwrite: bool, threads: int | None, gates: Gates, console: Console
) -> None:
    """Print what a merge would do: read, mixed, copied, written; bytes, memory and free space."""
    from rsoup.lora.mounting import makes_adapter
    from rsoup.prepare import by_commit, prepared

    recipe = by_commit(recipe)
    if makes_adapter(recipe):
        from rsoup.cli.merge_adapter import show_plan as show_adapter

        show_adapter(
            recipe, out, mix_text(recipe), overwrite=overwrite, threads=threads, gates=gates, console=console
        )
        return
    gates.refuse()
    from rsoup.backends import kind_for
    from rsoup.scratch import scratch_nbytes
    from rsoup.workers import default_threads

    with prepared(recipe, out, overwrite=overwrite, fetch="headers") as ready:
        plan, count = ready.plan, threads or default_threads()
        memory = START_NBYTES[kind_for(ready.read_nbytes)] + count * scratch_nbytes(
            len(ready.sources), ready.read_nbytes, measured=plan.base is not None
        )
        mixed = sum(tensor.copy_from is None for tensor in plan.tensors)
        free = free_bytes(os.path.dirname(os.path.abspath(out)))
        rows = [[file.name, size_text(file.nbytes), str(len(file.tensors))] for file in plan.files]
        lines = [
            f"would write {show(out)}: {size_text(plan.nbytes)} in {len(plan.files)} weight files, {len(ready.side_files)} other files",
            f"  λ         {mix_text(recipe)}",
            f"  read      {size_text(ready.read_nbytes)} from {len(ready.sources)} checkpoints",
            f"  tensors   {mixed} mixed, {len(plan.tensors) - mixed} copied, {len(plan.dropped)} dropped",
            f"  memory    about {size_text(memory)} with {count} threads, whatever the model's size",
            f"  free      {size_text(free) if free is not None else 'unknown'}",
            table(rows, ["file", "size", "tensors"]),
        ]
        if ready.side_files:
            lines.append(
                f"other files, from '{show(plan.checkpoints[ready.donor])}': {', '.join(show(n) for n in ready.side_files)}"
            )
        lines += [f"note: {note}" for note in ready.notes]
        data = {
            "dry_run": True,
            "out": out,
            "recipe": {"sha256": plan.recipe.sha256(), "canonical": plan.recipe.canonical()},
            "bytes": plan.nbytes,
            "bytes_read": ready.read_nbytes,
            "bytes_free": free,
            "memory_bytes": memory,
            "threads": count,
            "files": [
                {"name": file.name, "bytes": file.nbytes, "tensors": list(file.tensors)}
                for file in plan.files
            ],
            "side_files": list(ready.side_files),
            "mixed": mixed,
            "copied": [tensor.name for tensor in plan.tensors if tensor.copy_from is not None],
            "dropped": list(plan.dropped),
            "notes": list(ready.notes),
        }
        console.result("\n".join(lines), data, out)
