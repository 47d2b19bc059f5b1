"""`rsoup check`: checkpoints → verdict, measures, mismatches as text or data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TextIO

from rsoup.cli import layer_figures
from rsoup.cli.merge_arguments import parse_ingredients
from rsoup.console import Console, ProgressBar
from rsoup.errors import UsageError, listing, show, show_path
from rsoup.family.adapters import AdapterMeasures
from rsoup.family.checking import CheckResult, check
from rsoup.family.measures import Measures, Part
from rsoup.family.verdict import MIXABLE, NOT_ONE
from rsoup.remote.transfer import Way
from rsoup.report import adapters, terminal
from rsoup.request import MISSING, VOCABS

EXIT_NOT_ONE = 3
_ALLOWED = ("symlinks", "unindexed", "base")


def run(
    checkpoints: Sequence[str],
    base: str | None,
    *,
    headers: bool,
    care: float | None,
    max_distance: float,
    strict: bool,
    variant: str | None,
    key: str | None,
    missing: str | None,
    vocab: str | None,
    fold: bool,
    drop: Sequence[str],
    allow: Sequence[str],
    threads: int | None,
    plot: str | None,
    overwrite: bool,
    console: Console,
    way: Way | None = None,
) -> int:
    """Check, show everything, and return the exit code: 0, or 3 where they are not one family."""
    layer_figures.check_target(plot, headers=headers, overwrite=overwrite)
    if wrong := [name for name in allow if name not in _ALLOWED]:
        raise UsageError(
            "E0211", f"a check cannot allow {listing(wrong)}", hint="symlinks, unindexed or base"
        )
    for option, value, known in (("missing", missing, MISSING), ("vocab", vocab, VOCABS)):
        if value is not None and value not in known:
            raise UsageError(
                "E0210", f"there is no {option} '{show(value)}'", hint=f"--{option} {' or '.join(known)}"
            )
    with ProgressBar(console) as bar:
        result = check(
            named(checkpoints),
            base,
            headers=headers,
            care=care,
            max_distance=max_distance,
            variant=variant,
            key=key,
            missing=missing,
            vocab=vocab,
            fold=fold,
            drop=drop,
            allow=allow,
            threads=threads,
            progress=bar,
            fetch=way or "stream",
        )
    for note in result.notes:
        console.note(note)
    written = layer_figures.write(plot, result)
    text = terminal.text if result.adapters is None else adapters.text
    shown = [
        text(result, unicode=can_draw(console.out)),
        *(f"written: {show_path(path)}" for path in written),
    ]
    console.result("\n".join(shown), {**as_data(result), "written": written}, result.verdict.word)
    word = result.verdict.word
    return EXIT_NOT_ONE if word == NOT_ONE or (strict and word != MIXABLE) else 0


def named(arguments: Sequence[str]) -> dict[str, str]:
    """Name → path of every checkpoint, as `rsoup merge` names them; several of one group are checked one by one."""
    found = {}
    for ingredient in parse_ingredients(arguments):
        for number, path in enumerate(ingredient.checkpoints, 1):
            name = ingredient.name if len(ingredient.checkpoints) == 1 else f"{ingredient.name}/{number}"
            if name in found:
                raise UsageError("E0202", f"two checkpoints are called {listing([name])}", hint="NAME=PATH gives another name")  # fmt: skip
            found[name] = path
    return found


def can_draw(stream: TextIO) -> bool:
    """Whether the stream's encoding has blocks and bars."""
    try:
        "▁█‖√θ".encode(stream.encoding or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def as_data(result: CheckResult) -> dict[str, object]:
    """The result as JSON's types, as docs/check.md describes them; what is unknown or infinite is null."""
    return {
        "verdict": result.verdict.word,
        "reasons": [
            {
                "verdict": reason.verdict, "measure": reason.measure, "checkpoint": reason.checkpoint, "value": _finite(reason.value),
                "limit": _finite(reason.limit), "what": reason.what,
            }
            for reason in result.verdict.reasons
        ],
        "limits": {"care": _finite(result.limits.care), "max_distance": _finite(result.limits.max_distance)},
        "checkpoints": list(result.names),
        "base": None if result.base is None else {"path": result.base, "from_metadata": result.found_base},
        "mismatches": [
            {"kind": m.kind, "what": m.what, "tensors": list(m.tensors), "guess": m.guess} for m in result.mismatches
        ],
        "notes": list(result.notes),
        "tensors": result.tensors,
        "left_out": list(result.left_out),
        "measures": None if result.measures is None else _measures(result.measures),
        "adapters": None if result.adapters is None else _adapters(result.adapters),
        "transfers": [one.as_json() for one in result.transfers],
        "bytes_read": result.read_nbytes,
        "seconds": round(result.seconds, 3),
    }  # fmt: skip


def _measures(found: Measures) -> dict[str, object]:
    names = [*found.names, "base"]
    return {
        "elements": found.elements,
        "norm": _row(found.norm),
        "pairs": {
            "absolute": [_row(row) for row in found.pair_absolute],
            "relative": [_row(row) for row in found.pair_relative],
        },
        "total": None if found.total is None else _part(found.total),
        "layers": [_part(part) for part in found.layers],
        "by_tensor": [_part(part) for part in found.tensors],
        "cosine": [_row(row) for row in found.cosine],
        "unique": _row(found.unique),
        "moved": _finite(found.moved),
        "shared": _finite(found.shared),
        "sign_conflicts": _finite(found.conflicts),
        "norm_ratio": _finite(found.norm_ratio),
        "nonfinite": [
            {"checkpoint": names[i], "tensor": tensor, "elements": count}
            for i, tensor, count in found.nonfinite
        ],
        "carried": found.carried,
        "below_precision": [
            {"checkpoint": names[i], "tensor": tensor} for i, tensor in found.below_precision
        ],
        "copied_differ": list(found.copied),
    }


def _adapters(found: AdapterMeasures) -> dict[str, object]:
    return {
        "rows": [
            {
                "name": row.facts.name, "kind": row.facts.kind, "base": row.base, "revision": row.revision,
                "on_base": row.on_base, "modules": row.facts.modules, "ranks": list(row.facts.ranks),
                "scalings": list(row.facts.scalings), "parameters": row.parameters, "replaces": list(row.replaces),
                "norm": _finite(row.facts.norm), "relative": _finite(row.relative), "sigma": _finite(row.sigma),
                "stable_rank": _finite(row.stable_rank), "untrained": row.untrained,
            }
            for row in found.rows
        ],
        "modules": found.modules,
        "shared": found.shared,
        "total": None if found.total is None else _size(found.total),
        "layers": [_size(part) for part in found.layers],
        "by_module": [_size(part) for part in found.tensors],
        "cosine": [_row(row) for row in found.cosine],
        "a_cosine": [_row(row) for row in found.a_cosine],
        "b_cosine": [_row(row) for row in found.b_cosine],
        "factors_distance": _finite(found.factors_distance),
        "nonfinite": [
            {"checkpoint": found.names[i], "tensor": key, "elements": count} for i, key, count in found.nonfinite
        ],
    }  # fmt: skip


def _size(part: Part) -> dict[str, object]:
    return {
        "name": part.name,
        "elements": part.elements,
        "absolute": _row(part.absolute),
        "relative": _row(part.relative),
    }


def _part(part: Part) -> dict[str, object]:
    return {
        "name": part.name,
        "elements": part.elements,
        "absolute": _row(part.absolute),
        "relative": _row(part.relative),
        "changed": _row(part.changed),
        "norm_ratio": _row(part.norm_ratio),
        "cosine": [_row(row) for row in part.cosine],
    }


def _row(values: Sequence[float | None]) -> list[float | None]:
    return [_finite(value) for value in values]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
