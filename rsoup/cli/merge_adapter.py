"""`rsoup merge` where the soup is an adapter: what the user sees of it, and what a server would say to it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

from rsoup.cli.again import as_data as again_data
from rsoup.cli.again import promise, same
from rsoup.cli.figures import error_text, ranks_text
from rsoup.cli.gates import Gates
from rsoup.cli.published import Publish
from rsoup.console import Console, ProgressBar
from rsoup.errors import IncompatibleError, Problem, UsageError, show
from rsoup.lora.merging import Cooked, check_place, merge_adapters
from rsoup.lora.opening import opened
from rsoup.lora.planning import Planned, check_gate, planned
from rsoup.lora.result import AdapterMeasures, measures_json
from rsoup.lora.serving import command, lint
from rsoup.proof.recooking import Again
from rsoup.recipe import Recipe
from rsoup.storage.target import free_bytes, size_text
from rsoup.tensors import Header


def run(
    recipe: Recipe,
    out: str,
    mix: str,
    *,
    overwrite: bool,
    threads: int | None,
    gates: Gates,
    console: Console,
    publish: Publish | None = None,
    again: Again | None = None,
) -> None:
    """Make the adapter and show what it is; with `gates.serve`, refuse what that server would not take before it is written."""
    with ProgressBar(console) as bar:
        (made,) = merge_adapters(
            [(recipe, out)],
            overwrite=overwrite,
            threads=threads,
            progress=bar,
            fail_above_error=gates.fail_above_error,
            check=None if gates.serve is None else partial(check_served, gates.serve),
            accept=None if again is None else again.check,
        )
    for note in made.notes:
        console.note(note)
    lines = [
        f"{show(out)}: {size_text(made.nbytes)} in {made.seconds:.1f} s",
        f"  λ         {mix}",
        *figures(made.measures),
        f"  files     {len(made.files)}: {', '.join(show(name) for name in made.files[:6])}{' …' if len(made.files) > 6 else ''}",
    ]
    serving = None
    if gates.serve is not None:
        serving = command(
            gates.serve,
            _base(made.config),
            os.path.join(".", out) if not os.path.isabs(out) else out,
            made.config,
            made.header,
        )
        lines.append(f"  serve     {serving}")
    data = as_data(made, serving)
    if again is not None:
        lines.append(same(again, out))
        data["again"] = again_data(again, out)
    if publish is not None:
        more, data["push"] = publish.publish(out, recipe.license, console)
        lines += more
    console.result("\n".join(lines), data, out)


def _base(config: Mapping[str, object]) -> str | None:
    found = config.get("base_model_name_or_path")
    return found if isinstance(found, str) else None


def check_served(server: str, plan: Planned) -> None:
    """Raise IncompatibleError E0350 with everything a server does not take; UsageError E0206 for a LoRA of diffusers."""
    if plan.of_pipeline:
        raise UsageError(
            "E0206",
            "--serve means nothing to a LoRA of diffusers",
            hint="leave it out; pipe.load_lora_weights opens the soup",
        )
    check_lint(server, plan.configuration, plan.header)


def check_lint(server: str, config: Mapping[str, object], header: Header) -> None:
    """Raise IncompatibleError E0350 with everything a server does not take of an adapter."""
    findings = lint(server, config, header)
    if not findings:
        return
    raise IncompatibleError(
        "E0350",
        f"{server} would not serve this adapter as it is",
        details=tuple(Problem("", f"{finding.what} → {finding.remedy}") for finding in findings),
        hint="change it as said, or leave out --serve",
    )


def figures(found: AdapterMeasures) -> list[str]:
    """Lines on the ingredients, the soup's rank and its error."""
    rows = [
        f"{show(row.name)} {row.kind} r{_range(row.ranks)} s{_range(row.scalings)}"
        + ("" if row.norm is None else f" ‖ΔW‖ {row.norm:.4g}")
        for row in found.ingredients
    ]
    lines = [f"  adapters  {' · '.join(rows[:6])}{' …' if len(rows) > 6 else ''}"]
    cosines = [v for i, row in enumerate(found.cosine) for v in row[i + 1 :] if v is not None]
    if cosines:
        lines.append(f"  cosine    {' · '.join(f'{value:.3f}' for value in cosines[:6])} (between their ΔW)")
    if found.copied is not None:
        lines.append(f"  soup      is '{show(found.copied)}', bit for bit")
    if found.factors_distance is not None:
        lines.append(
            f"  factors   averaged by themselves: {error_text(found.factors_distance)} of the soup's norm away from the soup"
        )
    elif found.ranks is not None:
        lines += ranks_text(found.ranks)
    if found.stored_error is not None and found.stored_error > 1e-6:
        remedy = "; --dtype float32 keeps it" if found.stored_error > 0.0005 else ""
        lines.append(
            f"  stored    {error_text(found.stored_error)} of ‖ΔW‖ is rounded away by the factors' dtype{remedy}"
        )
    return lines


def _range(values: Sequence[float]) -> str:
    low, high = values
    return f"{low:.4g}" if low == high else f"{low:.4g}–{high:.4g}"


def as_data(made: Cooked, serving: str | None) -> dict[str, object]:
    """The result as JSON's types."""
    return {
        "out": made.out,
        "files": list(made.files),
        "bytes": made.nbytes,
        "bytes_read": made.read_nbytes,
        "seconds": round(made.seconds, 3),
        "adapter": measures_json(made.measures),
        "config": dict(made.config),
        "serve": serving,
        "notes": list(made.notes),
        "manifest": dict(made.manifest),
    }


def show_plan(
    recipe: Recipe,
    out: str,
    mix: str,
    *,
    overwrite: bool,
    threads: int | None,
    gates: Gates,
    console: Console,
    again: Again | None = None,
) -> None:
    """Print what a merge would write and how exact it would be; the factors are read for that, nothing is written."""
    with opened(recipe, threads=threads) as ready, ProgressBar(console) as bar:
        check_place(ready, out, overwrite=overwrite)
        (plan,) = planned(ready, [(recipe, out)], threads=threads, progress=bar)
        check_gate(plan, gates.fail_above_error)
        if gates.serve is not None:
            check_served(gates.serve, plan)
    free = free_bytes(os.path.dirname(os.path.abspath(out)))
    lines = [
        f"would write {show(out)}: {size_text(plan.file.nbytes)}, {len(plan.header)} tensors",
        f"  λ         {mix}",
        *figures(plan.measures),
        f"  free      {size_text(free) if free is not None else 'unknown'}",
        *(f"note: {note}" for note in plan.notes),
    ]
    data = {
        "dry_run": True,
        "out": out,
        "recipe": {"sha256": recipe.sha256(), "canonical": recipe.canonical()},
        "bytes": plan.file.nbytes,
        "bytes_free": free,
        "adapter": measures_json(plan.measures),
        "config": dict(plan.configuration),
        "tensors": list(plan.header),
        "notes": list(plan.notes),
    }
    if again is not None:
        lines.insert(1, promise(again, out))
        data["again"] = again_data(again, out)
    console.result("\n".join(lines), data, out)
