"""A check's result as text for a terminal: the verdict, tables, and how far each layer moved as a row of blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rsoup.errors import listing, show
from rsoup.family.checking import CheckResult
from rsoup.family.measures import Maybe, Measures, Part, Row

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.:-=+*#"
WIDEST = 64
_SHOWN_REASONS = 8
_SHOWN_MISMATCHES = 20
_WORST = 3


def text(result: CheckResult, *, unicode: bool = True) -> str:
    """The whole result, the verdict first; `unicode` False keeps to ASCII wherever the words are ours."""
    lines = head(result)
    if result.measures is None and not any(mismatch.kind == "adapter" for mismatch in result.mismatches):
        lines.append(
            f"headers alone: {result.tensors} tensors are alike; leave out --headers to measure them"
        )
    elif result.measures is None:
        lines.append("nothing was measured: see above")
    elif result.measures.total is None:
        lines += ["", *_pairs(result.measures, unicode=unicode)]
    else:
        lines += ["", *_moved(result.measures, unicode=unicode)]
    if result.left_out:
        lines.append(f"left out of the measures: {len(result.left_out)} tensors: {listing(list(result.left_out), 3)}")  # fmt: skip
    return "\n".join(lines)


def head(result: CheckResult) -> list[str]:
    """The verdict, why it is what it is, and every mismatch."""
    reasons = [reason.what for reason in result.verdict.reasons if reason.measure != "mismatch"]
    lines = [result.verdict.word, *(f"  {what}" for what in reasons[:_SHOWN_REASONS])]
    if (hidden := len(reasons) - _SHOWN_REASONS) > 0:
        lines.append(f"  and {hidden} more reasons; --json has all")
    return lines + _mismatches(result)


def _mismatches(result: CheckResult) -> list[str]:
    lines = []
    for mismatch in result.mismatches[:_SHOWN_MISMATCHES]:
        lines.append(
            f"  {mismatch.kind}: {mismatch.what}" + (f" ({mismatch.guess})" if mismatch.guess else "")
        )
    if (hidden := len(result.mismatches) - _SHOWN_MISMATCHES) > 0:
        lines.append(f"  and {hidden} more mismatches; --json has all")
    return lines


def _moved(measures: Measures, *, unicode: bool) -> list[str]:
    total = measures.total
    assert total is not None
    names = [show(name, 24) for name in measures.names]
    rows = [
        [name, number(total.relative[i]), share(total.changed[i]), share(measures.unique[i]), number(total.norm_ratio[i])]
        for i, name in enumerate(names)
    ]  # fmt: skip
    lines = columns(["checkpoint", "distance", "changed", "only here", "norm"], rows)
    several = len(names) > 1
    if several:
        parts = [
            f"{share(measures.shared)} changed by all",
            f"{share(measures.conflicts)} of what several changed in opposite directions",
            f"norm ratio {number(measures.norm_ratio, 3)}",
        ]
        lines += [f"together: {', '.join(parts)}"]
        lines += ["", *matrix("cosine", names, measures.cosine), ""]
        lines += matrix("apart", names, measures.pair_relative)
    return [
        *lines,
        "",
        *picture(measures.layers, names, unicode=unicode),
        *worst(measures.layers, names, "moved"),
    ]


def _pairs(measures: Measures, *, unicode: bool) -> list[str]:
    names = [show(name, 24) for name in measures.names]
    if len(names) == 1:
        return ["one checkpoint and no base: there is nothing to hold it against (--base BASE)"]
    root = "√(‖θi‖‖θj‖)" if unicode else "the geometric mean of their norms"
    return [f"no base: distances between the checkpoints, by {root}", *matrix("apart", names, measures.pair_relative)]  # fmt: skip


def worst(layers: Sequence[Part], names: Sequence[str], verb: str) -> list[str]:
    """A line for each checkpoint with the layers it `verb` most."""
    lines = []
    for i, name in enumerate(names):
        found = sorted(((value, part.name) for part in layers if (value := part.relative[i])), reverse=True)
        if found:
            lines.append(f"  {name} {verb} most in {', '.join(f'{part} ({number(value)})' for value, part in found[:_WORST])}")  # fmt: skip
    return lines


def picture(
    parts: Sequence[Part], names: Sequence[str], *, unicode: bool, what: str = "distance"
) -> list[str]:
    """One row of blocks per checkpoint, one block per layer (or the largest of several), all by one scale."""
    layers = [part for part in parts if part.name.startswith("layer ")]
    values = [[value or 0.0 for value in (part.relative[i] for part in layers)] for i in range(len(names))]
    finite = [value for row in values for value in row if math.isfinite(value)]
    highest = max(finite, default=0.0)
    if len(layers) < 2 or highest == 0.0:
        return []
    per = -(-len(layers) // WIDEST)
    blocks = BLOCKS if unicode else ASCII_BLOCKS
    width = max(map(len, names))
    lines = [f"{what} by layer, {layers[0].name[6:]} to {layers[-1].name[6:]}; the highest is {number(highest)}"]  # fmt: skip
    for name, row in zip(names, values, strict=True):
        tops = [max(row[start : start + per]) for start in range(0, len(row), per)]
        lines.append(f"  {name.ljust(width)}  {''.join(block(top / highest, blocks) for top in tops)}")
    return lines


def block(share_of_highest: float, blocks: str) -> str:
    """The block for a share in 0..1: the lowest for 0, the highest from 7/8 on."""
    return blocks[min(len(blocks) - 1, max(0, int(min(share_of_highest, 1.0) * len(blocks))))]


def matrix(title: str, names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """A square table with the names on both sides."""
    return columns([title, *names], [[name, *(number(v, 3) for v in row)] for name, row in zip(names, rows, strict=True)])  # fmt: skip


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in (head, *rows)
    ]  # fmt: skip


def number(value: Maybe, digits: int = 4) -> str:
    """A number of fixed digits, in powers of ten where it would be all zeros; `-` for what is unknown."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "inf"
    small = value != 0 and abs(value) < 0.5 * 10**-digits
    return f"{value:.1e}" if small else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """A share as per cent; what is neither none nor all is never shown as such."""
    if value is None:
        return "-"
    if 0 < value < 0.0001:
        return "<0.01%"
    if 0.9999 < value < 1:
        return ">99.99%"
    return f"{value:.2%}"
