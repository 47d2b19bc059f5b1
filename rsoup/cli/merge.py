"""`rsoup merge`: arguments → recipe → merge → what the user sees."""

from __future__ import annotations

import os

from rsoup.cli.again import as_data, promise, same
from rsoup.cli.gates import Gates
from rsoup.cli.published import Publish
from rsoup.cli.stopped import Stopped
from rsoup.console import Console, ProgressBar, table
from rsoup.errors import BusyError, show
from rsoup.mix import format_number
from rsoup.proof.recooking import Again
from rsoup.recipe import Recipe
from rsoup.remote.transfer import Fetch, Way
from rsoup.storage.parts import is_held, leftovers, resumable
from rsoup.storage.target import free_bytes, size_text

START_NBYTES = 60_000_000  # Python, libraries and headers, nothing read yet


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
    again: Again | None = None,
    way: Way | None = None,
) -> None:
    """Make the soup and show what it is; one that is made `again` only if it has the bytes it had."""
    from rsoup.lora.mounting import makes_adapter
    from rsoup.merging import merge
    from rsoup.prepare import by_commit

    recipe = by_commit(recipe)
    if publish is not None:
        publish.check_licences(recipe)
    if recipe.mix != recipe.typed_mix:
        console.talk(f"λ normalised: {mix_text(recipe)}")
    if makes_adapter(recipe):
        from rsoup.cli.merge_adapter import run as run_adapter

        run_adapter(
            recipe, out, mix_text(recipe), overwrite=overwrite, threads=threads, gates=gates, console=console,
            publish=publish, again=again,
        )  # fmt: skip
        return
    gates.refuse()
    accept = None if again is None else again.check
    try:
        with ProgressBar(console) as bar:
            result = merge(
                recipe, out, overwrite=overwrite, threads=threads, progress=bar, fetch=way, accept=accept
            )
    except Stopped as stopped:
        stopped.kept = resumable(out)
        raise
    except BusyError as error:
        if error.code == "E7510" and resumable(out) is not None:
            error.hint = "the same command goes on where this one stopped"
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
        "transfers": [one.as_json() for one in result.transfers],
        "resumed_blocks": result.resumed_blocks,
        "notes": notes,
        "manifest": dict(result.manifest),
    }
    if again is not None:
        lines.append(same(again, out))
        data["again"] = as_data(again, out)
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
    recipe: Recipe,
    out: str,
    *,
    overwrite: bool,
    threads: int | None,
    gates: Gates,
    console: Console,
    way: Way | None = None,
    again: Again | None = None,
) -> None:
    """Print what a merge would do: read, mixed, copied, written; bytes, memory and free space."""
    from rsoup.lora.mounting import makes_adapter
    from rsoup.prepare import by_commit, prepared, way_of
    from rsoup.remote.pool import MEMORY_BYTES

    recipe = by_commit(recipe)
    if makes_adapter(recipe):
        from rsoup.cli.merge_adapter import show_plan as show_adapter

        show_adapter(
            recipe, out, mix_text(recipe), overwrite=overwrite, threads=threads, gates=gates, console=console,
            again=again,
        )  # fmt: skip
        return
    gates.refuse()
    from rsoup.scratch import scratch_nbytes
    from rsoup.workers import default_threads

    fetch: Fetch = "stream?" if way_of(recipe, way) == "stream" else "cache?"
    with prepared(recipe, out, overwrite=overwrite, fetch=fetch) as ready:
        plan, count = ready.plan, threads or default_threads()
        memory = START_NBYTES + count * scratch_nbytes(len(ready.sources))
        memory += MEMORY_BYTES if any(one.way == "stream" for one in ready.transfers) else 0
        mixed = sum(tensor.copy_from is None for tensor in plan.tensors)
        free = free_bytes(os.path.dirname(os.path.abspath(out)))
        rows = [[file.name, size_text(file.nbytes), str(len(file.tensors))] for file in plan.files]
        lines = [
            f"would write {show(out)}: {size_text(plan.nbytes)} in {len(plan.files)} weight files, {len(ready.side_files)} other files",
            f"  λ         {mix_text(recipe)}",
            f"  read      {size_text(ready.read_nbytes)} from {len(ready.sources)} checkpoints",
            *(f"  network   {one.plan}" for one in ready.foreseen),
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
            "transfers": [one.as_json() for one in ready.foreseen],
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
        if again is not None:
            lines.insert(1, promise(again, out))
            data["again"] = as_data(again, out)
        console.result("\n".join(lines), data, out)
