"""What `rsoup front` found, as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsoup.errors import show
from rsoup.report.compared_text import compared
from rsoup.report.lines import entry, fitted, folded, interval_text
from rsoup.report.plot import Mark, scatter
from rsoup.report.terminal import columns

Found = Mapping[str, Any]
_ROWS = 40
_WIDTH, _HEIGHT = 64, 14
_FEW = 6


def value_text(value: float, error: float | None) -> str:
    """`0.712 ± 0.009`."""
    return f"{value:.4g}" + ("" if error is None else f" ± {error:.2g}")


def final(
    found: Found, *, unicode: bool, colour: bool, spider: Sequence[str] = (), width: int | None = None
) -> list[str]:
    """All sections, the points first; `spider` is drawn instead of two of three and more rewards.

    Nothing but a picture is wider than `width` columns, where one is given.
    """
    drawn = spider or picture(found, unicode=unicode, colour=colour)
    lines = []
    for section in (
        _front,
        _hypervolume,
        _expected,
        _shape,
        _connectivity,
        _transfer,
        _theory,
        _surrogate,
        _training,
    ):
        lines += section(found)
    for other in found["compared"]:
        lines += compared(other)
    head = [*table(found, unicode=unicode, width=width), "", *drawn, *([""] if drawn else [])]
    return head + [part for line in lines for part in fitted(line, width)]


def table(found: Found, *, unicode: bool, width: int | None = None) -> list[str]:
    """The points with λ and rewards, those of the front marked; the front alone where there are many."""
    front = set(found["front"]["points"])
    points = (
        found["points"]
        if len(found["points"]) <= _ROWS
        else [p for p in found["points"] if p["point"] in front]
    )
    mark, letter = ("●", "λ") if unicode else ("*", "lambda")
    mixed = any(point["lambda"] for point in points)
    chance = found["front"]["probability"]
    head = [
        "",
        "point",
        *([f"{letter} {','.join(show(n, 12) for n in found['ingredients'])}"] if mixed else []),
    ]
    head += [
        show(name, 20) + (" (min)" if way == "minimise" else "") for name, way in found["rewards"].items()
    ]
    head += ["P(front)"] if chance else []
    rows = []
    for point in points:
        mix = point["lambda"] or {}
        shares = list(mix.values()) if isinstance(mix, Mapping) else list(mix)
        row = [mark if point["point"] in front else "", show(point["label"] or point["point"], 28)]
        row += [",".join(shares)] if mixed else []
        row += [value_text(v["value"], v["error"]) for v in point["rewards"].values()]
        rows.append([*row, *([f"{chance[point['point']]:.2f}"] if chance else [])])
    lines = folded(head, rows, kept=2, width=width)
    if len(points) < len(found["points"]):
        lines.append(f"the front alone, {len(points)} of {len(found['points'])} points")
    return lines


def picture(found: Found, *, unicode: bool, colour: bool) -> list[str]:
    """The first two rewards of all points; nothing where there is but one reward or one point."""
    rewards = list(found["rewards"])
    if len(rewards) < 2 or len(found["points"]) < 2:
        return []
    x, y = rewards[:2]
    front = set(found["front"]["points"])
    marks: list[tuple[float, float, Mark]] = []
    for point in found["points"]:
        kind: Mark = "front" if point["point"] in front else "dominated"
        mix = point["lambda"]
        if (
            isinstance(mix, Mapping)
            and list(mix.values()).count("1") == 1
            and set(mix.values()) <= {"0", "1"}
        ):
            kind = "expert"
        marks.append((point["rewards"][x]["value"], point["rewards"][y]["value"], kind))
    return scatter(marks, width=_WIDTH, height=_HEIGHT, labels=(show(x, 24), show(y, 24)), unicode=unicode, colour=colour)  # fmt: skip


def _front(found: Found) -> list[str]:
    front = found["front"]
    text = f"{len(front['points'])} of {len(found['points'])} points"
    text += ", found by the select values" if found["split"] == "report" else ""
    if front["certain"] is not None:
        text += f"; {len(front['certain'])} certainly, {len(front['possible'])} more possibly on it"
    return [entry("front", text)]


def _hypervolume(found: Found) -> list[str]:
    volume = found["hypervolume"]
    if volume is None:
        return []
    alone = "" if volume["experts"] is None else f", experts alone {volume['experts']:.4f}"
    return [
        entry("hypervolume", f"{volume['value']:.4f}{interval_text(volume['interval'], noise=True)}{alone}"),
        entry("", f"{volume['definition']}"),
    ]


def _expected(found: Found) -> list[str]:
    expected = found["expected_reward"]
    text = f"{expected['value']:.4f}{interval_text(expected['interval'], noise=True)}, with the best λ per preference"
    text += ", chosen by the select values" if found["split"] == "report" else ""
    if expected["integration_error"]:
        text += f" (integration error {expected['integration_error']:.1g})"
    lines = [entry("expected reward", text)]
    same = expected["lambda_is_preference"]
    if same["value"] is not None:
        lines.append(entry("", f"{same['value']:.4f} with λ = the preference"))
    if (experts := expected.get("experts")) is not None:
        at = _weights(experts["at_preference"], list(found["rewards"]))
        most = "at most" if experts["exact"] else "at least"
        lines.append(entry("", f"{experts['value']:.4f} with the experts alone, who lack {most} {experts['largest_loss']:.4f}{interval_text(experts['interval'])} (preference {at})"))  # fmt: skip
    return lines


def _weights(shares: Sequence[float], names: Sequence[str]) -> str:
    """Two shares in order; of more those that count, with their rewards."""
    if len(shares) < 3:
        return ", ".join(f"{share:.2f}" for share in shares)
    return ", ".join(f"{show(n, 16)} {s:.2f}" for n, s in zip(names, shares, strict=True) if s >= 0.005)


def _shape(found: Found) -> list[str]:
    lines = []
    if (cover := found["coverage"]) is not None:
        texts = [
            f"{show(name, 20)} {about['share']:.0%}{_percent(about['share_interval'])}"
            + (f" and {about['beyond']:+.0%}{_percent(about['beyond_interval'])} beyond" if about["beyond"] >= 0.005 else "")
            for name, about in cover["rewards"].items()
            if about["share"] is not None
        ]  # fmt: skip
        if texts:
            lines.append(entry("coverage", f"of the range between the experts: {' · '.join(texts)}"))
    spread = found["spread"]
    if spread["gap"] is not None:
        between = " and ".join(show(name, 28) for name in spread["between"])
        lines.append(entry("widest gap", f"{spread['gap']:.3g} spans, between {between}"))
    if (knees := found["knees"]) is not None and knees["points"]:
        lines.append(entry("knee", " · ".join(show(p["point"], 28) for p in knees["points"][:3])))
    return lines


def _percent(found: Found | None) -> str:
    """The interval of a share of a range, where it has a width that is seen."""
    if found is None or found["high"] - found["low"] < 0.005:
        return ""
    return f" ({found['low']:.0%} to {found['high']:.0%})"


def _connectivity(found: Found) -> list[str]:
    lmc = found["connectivity"]
    if lmc is None:
        return []
    lines = [entry("connectivity", f"{lmc['verdict']}: {lmc['points']} soups against the chord between their experts, tolerance {lmc['tolerance']:g} of the range")]  # fmt: skip
    for kind in ("rewards", "guards"):
        for name, about in lmc[kind].items():
            worst = about["worst"]
            text = about["verdict"]
            if worst is not None:
                size = (
                    f"{worst['gap']:+.4g}"
                    if worst["of_range"] is None
                    else f"{worst['of_range']:+.1%} of the range"
                )
                text += f", worst {size}" + (
                    "" if worst["in_errors"] is None else f" ({worst['in_errors']:+.1f} errors)"
                )
                text += f" at {show(worst['point'] or ','.join(worst['lambda']), 28)}"
            lines.append(entry("", f"{show(name, 20)}{' (guard)' if kind == 'guards' else ''} {text}"))
    return lines


def _transfer(found: Found) -> list[str]:
    about = found["transfer"]
    if about is None or not about["pairs"] or (about["base"] is None and len(about["values"]) < 3):
        return []  # of two experts without the base, each is the other's zero
    pairs = sorted((p for p in about["pairs"] if p["similarity"] is not None), key=lambda p: p["similarity"])
    texts = [f"{' / '.join(show(r, 16) for r in p['rewards'])} {p['similarity']:+.2f}" for p in pairs[:_FEW]]
    lines = [entry("similarity", " · ".join(texts) + (" · …" if len(pairs) > _FEW else ""))] if texts else []
    if lines and about["base"] is None:
        lines.append(
            entry("", "counted from the worst expert, for the base was not measured: no harm can be seen")
        )
    for rewards in about["antagonistic"]:
        lines.append(entry("", f"{' and '.join(show(r, 20) for r in rewards)} are antagonistic: each expert is below the base in the other's reward; a waypoint between them (rsoup sweep --waypoint) or experts trained from a model of both rewards is what the paper advises"))  # fmt: skip
    return lines


def _theory(found: Found) -> list[str]:
    about = found["theory"]
    if about is None:
        return []
    two, all_ = about["two_experts"], about["isotropic"]
    if two is not None and "why_not" in two:
        return [entry("λ in theory", two["why_not"])]
    chosen = None if two is None else two["choices"][1]
    mix = all_["lambda_for_equal_preferences"] if chosen is None else chosen["lambda"]
    if mix is None:
        return []
    between = all_["interval"] if chosen is None else chosen["interval"]
    texts = [
        f"{show(name, 16)} {share:.2f}" + ("" if between is None else f" ({between['low'][name]:.2f} to {between['high'][name]:.2f})")
        for name, share in mix.items()
    ]  # fmt: skip
    how = "Lemma 1" if two is None else "Lemma 3"
    return [
        entry("λ in theory", " · ".join(texts)),
        entry("", f"for equal preferences of the raw rewards ({how})"),
    ]


def _surrogate(found: Found) -> list[str]:
    about = found["surrogate"]
    if about is None:
        return []
    if not about["determined"]:
        return [entry("surrogate", f"not determined: {about['why']}")]
    texts = [
        f"{show(name, 20)} {reward['leave_one_out_of_range']:.1%}"
        for name, reward in about["rewards"].items()
        if reward["leave_one_out_of_range"] is not None
    ]
    error = f"leaving one point out misses, of the range: {' · '.join(texts)}" if texts else "meets every point, for there are no more than coefficients"  # fmt: skip
    lines = [entry("surrogate", error)]
    if about["measure_next"]:
        lines.append(entry("measure next", " · ".join(",".join(p["lambda"]) for p in about["measure_next"])))
    return lines


def _training(found: Found) -> list[str]:
    if not found["training"]:
        return []
    head = ["step", "front", "hypervolume", "expected", "connectivity", "worst gap"]
    rows = [
        [
            str(step["step"]), f"{len(step['front'])}/{step['points']}",
            "-" if step["hypervolume"] is None else f"{step['hypervolume']:.4f}", f"{step['expected_reward']:.4f}",
            step["connectivity"] or "-", "-" if step["worst_gap"] is None else f"{step['worst_gap']:+.1%}",
        ]
        for step in found["training"]
    ]  # fmt: skip
    return ["", *columns(head, rows)]
