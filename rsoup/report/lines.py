"""Lines for a terminal's width: entries broken between words, tables folded where they are wider."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rsoup.report.terminal import columns

_HANGING: Final = 19  # where the text of an entry begins


def entry(name: str, text: str) -> str:
    """`  name             text`."""
    return f"  {name:<{_HANGING - 3}} {text}"


def interval_text(found: Mapping[str, Any] | None, *, noise: bool = False) -> str:
    """` (95 % 0.70 to 0.75)`, with `noise` and what that adds; nothing where there is no interval."""
    if found is None:
        return ""
    text = f" ({found['confidence'] * 100:g} % {found['low']:.4g} to {found['high']:.4g}"
    return text + (
        f"; noise alone lifts it by {found['noise']:.2g})" if noise and found["noise"] >= 5e-4 else ")"
    )


def fitted(line: str, width: int | None, hanging: int = _HANGING) -> list[str]:
    """An entry in lines of at most `width` columns, broken at ` · ` where it is a list, else between words.

    Whatever is longer than that alone stays whole; no width, no break.
    """
    if width is None or len(line) <= width:
        return [line]
    indent = " " * hanging
    lines: list[str] = []
    for item in line.split(" · "):
        if lines and len(lines[-1]) + 3 + len(item) <= width:
            lines[-1] += f" · {item}"
        else:
            lines.append(indent + item if lines else item)
    return [
        part
        for one in lines
        for part in textwrap.wrap(
            one, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    ]


def folded(head: Sequence[str], rows: Sequence[Sequence[str]], *, kept: int, width: int | None) -> list[str]:
    """A table in at most `width` columns: those that find no room follow below, the first `kept` again beside them."""
    if width is None:
        return columns(head, rows)
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    room = width - sum(widths[:kept]) - 2 * (kept - 1)
    chunks: list[list[int]] = [[]]
    for i in range(kept, len(head)):
        if chunks[-1] and sum(widths[j] + 2 for j in (*chunks[-1], i)) > room:
            chunks.append([])
        chunks[-1].append(i)
    lines: list[str] = []
    for chunk in chunks:
        picked = [*range(kept), *chunk]
        lines += ["", *columns([head[i] for i in picked], [[row[i] for i in picked] for row in rows])]
    return lines[1:]
