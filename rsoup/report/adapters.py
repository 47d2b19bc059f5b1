"""A check of adapters as text for a terminal: what each is, how large its updates are, which way they point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rsoup.errors import listing, show, show_path
from rsoup.family.adapters import AdapterMeasures, AdapterRow
from rsoup.family.checking import CheckResult
from rsoup.report.terminal import columns, head, matrix, number, picture, worst

ONE_BEGINNING = 0.5  # the mean cosine of two adapters' A: training seldom turns A by more
OTHER_BEGINNINGS = 0.1  # chance alone makes less


def text(result: CheckResult, *, unicode: bool = True) -> str:
    """The whole result, the verdict first; `unicode` False keeps to ASCII wherever the words are ours."""
    found = result.adapters
    assert found is not None
    lines = [*head(result), "", *_table(found, unicode=unicode), *_bases(found)]
    if found.total is None:
        lines.append("headers alone: no factor was read; leave out --headers to measure the updates")
        return "\n".join(lines)
    names = [show(name, 24) for name in found.names]
    if len(names) > 1:
        lines += [f"together: {found.modules} modules are changed, {found.shared} of them by all"]
        lines += ["", *matrix("cosine", names, found.cosine), "", *_beginnings(found, names)]
    drawn = _picture(found, names, unicode=unicode)
    return "\n".join([*lines, *(["", *drawn] if drawn else [])])


def _table(found: AdapterMeasures, *, unicode: bool) -> list[str]:
    norm = "‖ΔW‖" if unicode else "norm"
    share = f"{norm}/‖W‖" if unicode else "of base"
    sigma = "σ₁" if unicode else "sigma 1"
    title = ["adapter", "kind", "modules", "rank", "scaling", "parameters", norm, share, sigma, "stable rank"]
    rows = [_row(row, show(row.facts.name, 24)) for row in found.rows]
    keep = [k for k in range(len(title)) if k < 6 or any(row[k] != "-" for row in rows)]
    return columns([title[k] for k in keep], [[row[k] for k in keep] for row in rows])


def _row(row: AdapterRow, name: str) -> list[str]:
    facts = row.facts
    return [
        name, facts.kind, str(facts.modules), _range(facts.ranks), _range(facts.scalings), f"{row.parameters:,}",
        number(facts.norm), number(row.relative), number(row.sigma), number(row.stable_rank, 1),
    ]  # fmt: skip


def _range(ends: tuple[float, float]) -> str:
    """`4`, or `4 to 8`."""
    low, high = (f"{end:.4g}" for end in ends)
    return low if low == high else f"{low} to {high}"


def _bases(found: AdapterMeasures) -> list[str]:
    """What the adapters say of their base, one line for each different answer."""
    having: dict[str, list[str]] = {}
    for row in found.rows:
        revision = f" at revision {show(row.revision)}" if row.revision else ""
        named = f"{show_path(row.base)}{revision}" if row.base else "not named"
        having.setdefault(named, []).append(row.facts.name)
    if len(having) > 1:
        return [f"base: {named}: {listing(names)}" for named, names in having.items()]
    says = "as every adapter says" if found.rows[0].base else "by any adapter"
    return [f"base: {next(iter(having))}{f', {says}' if len(found.rows) > 1 else ''}"]


def _beginnings(found: AdapterMeasures, names: Sequence[str]) -> list[str]:
    """Whether adapters began from the same factors, and what that means to an average of factors."""
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    a = [value for i, j in pairs if (value := found.a_cosine[i][j]) is not None]
    b = [value for i, j in pairs if (value := found.b_cosine[i][j]) is not None]
    if not a:
        return ["no two adapters share factors of one shape: --method factors refuses them"]
    lines = [*matrix("cosine A", names, found.a_cosine), ""] if len(names) > 2 else []
    shown = f"cosine of A {_span(a)}" + (f", of B {_span(b)}" if b else "")
    return [*lines, f"{shown}: {_meaning(a)}", _average(found.factors_distance)]


def _span(values: Sequence[float]) -> str:
    low, high = number(min(values), 3), number(max(values), 3)
    return low if low == high else f"{low} to {high}"


def _meaning(cosines: Sequence[float]) -> str:
    """What the cosines of A say of where adapters began."""
    if min(cosines) >= ONE_BEGINNING:
        return "one beginning"
    if max(cosines) < OTHER_BEGINNINGS:
        return "different beginnings"
    if all(value >= ONE_BEGINNING or value < OTHER_BEGINNINGS for value in cosines):
        return "one beginning for some, another for others"
    return "perhaps one beginning, left far behind"


def _average(distance: float | None) -> str:
    if distance is None:
        return "their factors have no average (other ranks, scalings, targets or kinds): --method factors refuses them; merge makes the soup"
    return f"--method factors, at equal shares, is {number(distance, 3)} of the soup's norm away from the soup; merge without it makes the soup"


def _picture(found: AdapterMeasures, names: Sequence[str], *, unicode: bool) -> list[str]:
    assert found.total is not None
    if any(value is not None for value in found.total.relative):
        what = "‖ΔW‖/‖W‖" if unicode else "size relative to the base"
        return [
            *picture(found.layers, names, unicode=unicode, what=what),
            *worst(found.layers, names, "changes"),
        ]
    layers = [replace(part, relative=part.absolute) for part in found.layers]
    return picture(layers, names, unicode=unicode, what="‖ΔW‖" if unicode else "norm of the updates")
