"""`rsoup extract`: a full fine-tune becomes an adapter; its error, and what is not in it, are shown."""

from __future__ import annotations

from collections.abc import Sequence

from rsoup.cli.figures import error_text
from rsoup.cli.resize import one_of
from rsoup.console import Console, ProgressBar
from rsoup.errors import show
from rsoup.lora.extracted import Figures, figures_json
from rsoup.lora.extracting import ExtractResult, extract
from rsoup.remote.transfer import Way
from rsoup.storage.target import size_text

_SHOWN = 4


def run(
    finetune: str,
    out: str,
    *,
    base: str,
    rank: str | None,
    max_error: str | None,
    dtype: str,
    save_modules: bool,
    embeddings: bool,
    drop: Sequence[str],
    allow: Sequence[str],
    max_distance: str,
    variant: str | None,
    key: str | None,
    license_: str | None,
    fail_above_error: float | None,
    overwrite: bool,
    dry_run: bool,
    threads: int | None,
    console: Console,
    way: Way | None = None,
) -> None:
    """Extract the adapter (or only say what it would be) and show how near it is."""
    ingredient = one_of(finetune)
    with ProgressBar(console) as bar:
        made = extract(
            ingredient.checkpoints[0],
            out,
            base=base,
            rank=rank,
            max_error=max_error,
            dtype=dtype,
            save_modules=save_modules,
            embeddings=embeddings,
            drop=drop,
            allow=allow,
            max_distance=max_distance,
            variant=variant,
            key=key,
            license=license_,
            name=ingredient.name,
            overwrite=overwrite,
            threads=threads,
            progress=bar,
            fail_above_error=fail_above_error,
            dry_run=dry_run,
            fetch=way or "cache",
        )
    for note in made.notes:
        console.note(note)
    first = (
        f"would write {show(out)}: {size_text(made.nbytes)}"
        if dry_run
        else f"{show(out)}: {size_text(made.nbytes)} in {made.seconds:.1f} s"
    )
    lines = [first, *figures(made.figures)]
    if made.files:
        lines.append(f"  files     {len(made.files)}: {', '.join(show(name) for name in made.files[:6])}{' …' if len(made.files) > 6 else ''}")  # fmt: skip
    console.result("\n".join(lines), as_data(made, dry_run=dry_run), out)


def figures(found: Figures) -> list[str]:
    """Lines on the ranks, the error, the worst modules, other ranks, and what is kept whole or left out."""
    ranks = found.ranks
    chosen = sorted(set(ranks.chosen.values()))
    shown = f"{chosen[0]}" if len(chosen) == 1 else f"{chosen[0]} to {chosen[-1]}"
    lines = [
        f"  rank      {shown} · {len(ranks.chosen)} modules",
        f"  error     {error_text(ranks.error)} of their ‖Δ‖ {ranks.norm:.4g}"
        + (f" · the fine-tune is {found.distance:.4f} from the base" if found.distance is not None else ""),
    ]
    if len(ranks.table) > 1:
        lines.append(
            f"  r: error  {' · '.join(f'{rank} {error_text(error)}' for rank, error in ranks.table)}"
        )
    worst = " · ".join(f"{show(name)} {error_text(error)}" for name, error in ranks.worst)
    lines.append(f"  worst     {worst}")
    if found.saved:
        lines.append(f"  whole     {_names(found.saved)} (modules_to_save)")
    if found.biases:
        lines.append(f"  biases    {len(found.biases)}, kept as they were trained")
    if found.left_out:
        names = _names([name for name, _ in found.left_out])
        lines.append(
            f"  left out  {names}: {error_text(found.left_out_share)} of the norm of the whole change"
        )
    return lines


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(show(name) for name in names[:_SHOWN]) + more


def as_data(made: ExtractResult, *, dry_run: bool) -> dict[str, object]:
    """The result as JSON's types."""
    data: dict[str, object] = {
        "out": made.out,
        "files": list(made.files),
        "bytes": made.nbytes,
        "seconds": round(made.seconds, 3),
        "extract": figures_json(made.figures),
        "config": dict(made.config),
        "transfers": [one.as_json() for one in made.transfers],
        "notes": list(made.notes),
    }
    return {"dry_run": True, **data} if dry_run else {**data, "manifest": dict(made.manifest)}
