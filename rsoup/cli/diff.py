"""`rsoup diff`: two checkpoints side by side, the worst tensors first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from rsoup.console import Console, ProgressBar, table
from rsoup.errors import MismatchError, listing, show
from rsoup.proof.differing import DiffResult, FileDiff, TensorDiff
from rsoup.remote.transfer import Way

SCHEMA = "rsoup-diff/1"
SHOWN = 20
KEYS_SHOWN = 6


def run(
    a: str,
    b: str,
    *,
    tensors: Sequence[str],
    variant: str | None,
    key: str | None,
    threads: int | None,
    console: Console,
    way: Way | None = None,
) -> int:
    """Compare, show what differs, and return 0, or 9 where anything does."""
    from rsoup.proof.differing import diff

    with ProgressBar(console) as bar:
        result = diff(
            a,
            b,
            tensors=tensors,
            variant=variant,
            key=key,
            threads=threads,
            progress=bar,
            fetch=way or "stream",
        )
    for one in result.transfers:
        if one.way == "stream":
            console.note(one.told)
    names = [*(row.name for row in result.tensors), *(row.name for row in result.files)]
    console.result(text(result), as_json(result), "\n".join(show(name, len(name)) for name in names))
    return 0 if result.same else MismatchError.exit_code


def text(result: DiffResult) -> str:
    """What differs: sets, shapes, dtypes in a line each kind, values as a table, files, and what is equal."""
    a, b = show(result.a), show(result.b)
    if result.same:
        return f"{a} and {b} are equal: {_count(result.equal, 'tensor')}, to the last bit"
    lines = [f"{a} (a) and {b} (b) differ"]
    for kind in ("only in a", "only in b"):
        if names := [row.name for row in result.tensors if row.kind == kind]:
            lines.append(f"  {kind:<10} {_count(len(names), 'tensor')}: {listing(names)}")
    for kind in ("shape", "dtype"):
        if rows := [row for row in result.tensors if row.kind == kind]:
            shown = ", ".join(f"'{show(row.name)}' {row.a} and {row.b}" for row in rows[:3])
            more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
            lines.append(f"  {kind:<10} {_count(len(rows), 'tensor')}: {shown}{more}")
    moved = sorted((row for row in result.tensors if row.deviation is not None), key=_badness)
    if moved:
        lines.append(f"  values     {_count(len(moved), 'tensor')}" + (f", the {SHOWN} farthest apart:" if len(moved) > SHOWN else ":"))  # fmt: skip
        head = ["tensor", "elements that differ", "max |a−b|", "‖a−b‖/‖a‖", "ulps", "first", "a", "b"]
        shown = table([_row(row) for row in moved[:SHOWN]], head)
        lines += [f"    {line}" for line in shown.splitlines()]
        if len(moved) > SHOWN:
            lines.append(f"    and {len(moved) - SHOWN} more; --json lists them")
    lines += [f"  file       {_file(row)}" for row in result.files]
    lines.append(f"  equal      {_count(result.equal, 'tensor')}")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _badness(row: TensorDiff) -> tuple[float, float, str]:
    """Sorts what is farthest apart first; NaN against a number is farther than anything finite."""
    found = row.deviation
    assert found is not None
    far = math.inf if found.nonfinite or found.relative is None else found.relative
    return -far, -found.differing / max(found.numel, 1), row.name


def _row(row: TensorDiff) -> list[str]:
    found = row.deviation
    assert found is not None
    share = f"{found.differing} of {found.numel}"
    if found.nonfinite:
        share += f" ({found.nonfinite} not finite)"
    numbers = [f"{value:.3g}" if value is not None else "" for value in (found.max_abs, found.relative)]
    ulps = "" if found.max_ulps is None else str(found.max_ulps)
    return [row.name, share, *numbers, ulps, str(found.first), *found.values]


def _file(row: FileDiff) -> str:
    if row.kind != "contents":
        return f"{show(row.name)}: {row.kind}"
    keys = [f"{show(key)} {show(one, 40)} and {show(other, 40)}" for key, one, other in row.keys[:KEYS_SHOWN]]
    more = f" and {len(row.keys) - KEYS_SHOWN} more keys" if len(row.keys) > KEYS_SHOWN else ""
    return f"{show(row.name)}: {', '.join(keys)}{more}" if keys else f"{show(row.name)}: other contents"


def as_json(result: DiffResult) -> dict[str, object]:
    """Everything that differs, as data; what is not finite is null."""
    return {
        "format": SCHEMA,
        "a": result.a,
        "b": result.b,
        "same": result.same,
        "equal": result.equal,
        "transfers": [one.as_json() for one in result.transfers],
        "tensors": [_tensor_json(row) for row in result.tensors],
        "files": [
            {
                "name": row.name,
                "kind": row.kind,
                "keys": [{"key": key, "a": _plain(one), "b": _plain(other)} for key, one, other in row.keys],
            }
            for row in result.files
        ],
    }


def _tensor_json(row: TensorDiff) -> dict[str, object]:
    found: dict[str, object] = {"name": row.name, "kind": row.kind}
    for side, spec in (("a", row.a), ("b", row.b)):
        found[side] = None if spec is None else {"dtype": spec.dtype.name, "shape": list(spec.shape)}
    if row.deviation is not None:
        values = asdict(row.deviation)
        one, other = values.pop("values")
        found |= {key: _plain(value) for key, value in values.items()}
        found["first_values"] = {"a": one, "b": other}
    return found


def _plain(value: object) -> object:
    """A value that JSON has a word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
