"""What `rsoup front` found, as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsoup.errors import show
from rsoup.report.plot import Mark, scatter
from rsoup.report.terminal import columns

Found = Mapping[str, Any]
_ROWS = 40
_WIDTH, _HEIGHT = 64, 14
_FEW = 6


def value_text(value: float, error: float | None) -> str:
    """`0.712 ± 0.009`."""
    return f"{value:.4g}" + ("" if error is None else f" ± {error:.2g}")


def final(found: Found, *, unicode: bool, colour: bool, spider: Sequence[str] = ()) -> list[str]:
    """All sections, the points first; `spider` is drawn instead of two of three and more rewards."""
    drawn = spider or picture(found, unicode=unicode, colour=colour)
    lines = [*table(found, unicode=unicode), "", *drawn, *([""] if drawn else [])]
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
        lines += _compared(other)
    return lines


def table(found: Found, *, unicode: bool) -> list[str]:
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
    lines = columns(head, rows)
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


def _line(name: str, text: str) -> str:
    return f"  {name:<16} {text}"


def _interval(found: Found | None) -> str:
    if found is None:
        return ""
    text = f" ({found['confidence'] * 100:g} % {found['low']:.4g} to {found['high']:.4g}"
    return text + (f"; noise alone lifts it by {found['noise']:.2g})" if abs(found["noise"]) >= 5e-4 else ")")


def _front(found: Found) -> list[str]:
    front = found["front"]
    text = f"{len(front['points'])} of {len(found['points'])} points"
    if front["certain"] is not None:
        text += f"; {len(front['certain'])} certainly, {len(front['possible'])} more possibly on it"
    return [_line("front", text)]


def _hypervolume(found: Found) -> list[str]:
    volume = found["hypervolume"]
    if volume is None:
        return []
    alone = "" if volume["experts"] is None else f", experts alone {volume['experts']:.4f}"
    return [
        _line("hypervolume", f"{volume['value']:.4f}{_interval(volume['interval'])}{alone}"),
        _line("", f"{volume['definition']}"),
    ]


def _expected(found: Found) -> list[str]:
    expected = found["expected_reward"]
    lines = [_line("expected reward", f"{expected['value']:.4f}{_interval(expected['interval'])}, with the best λ per preference")]  # fmt: skip
    if expected["integration_error"]:
        lines[0] += f" (integration error {expected['integration_error']:.1g})"
    same = expected["lambda_is_preference"]
    if same["value"] is not None:
        lines.append(_line("", f"{same['value']:.4f} with λ = the preference"))
    if (experts := expected.get("experts")) is not None:
        at = ", ".join(f"{share:.2f}" for share in experts["at_preference"])
        most = "at most" if experts["exact"] else "at least"
        lines.append(_line("", f"{experts['value']:.4f} with the experts alone, who lack {most} {experts['largest_loss']:.4f} (preference {at})"))  # fmt: skip
    return lines


def _shape(found: Found) -> list[str]:
    lines = []
    if (cover := found["coverage"]) is not None:
        parts = [
            f"{show(name, 20)} {about['share']:.0%}" + (f" and {about['beyond']:+.0%} beyond" if about["beyond"] >= 0.005 else "")
            for name, about in cover["rewards"].items()
            if about["share"] is not None
        ]  # fmt: skip
        if parts:
            lines.append(_line("coverage", f"{' · '.join(parts)} of the range between the experts"))
    spread = found["spread"]
    if spread["gap"] is not None:
        between = " and ".join(show(name, 28) for name in spread["between"])
        lines.append(_line("widest gap", f"{spread['gap']:.3g} spans, between {between}"))
    if (knees := found["knees"]) is not None and knees["points"]:
        lines.append(_line("knee", ", ".join(show(p["point"], 28) for p in knees["points"][:3])))
    return lines


def _connectivity(found: Found) -> list[str]:
    lmc = found["connectivity"]
    if lmc is None:
        return []
    lines = [_line("connectivity", f"{lmc['verdict']}: {lmc['points']} soups against the chord between their experts, tolerance {lmc['tolerance']:g} of the range")]  # fmt: skip
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
            lines.append(_line("", f"{show(name, 20)}{' (guard)' if kind == 'guards' else ''} {text}"))
    return lines


def _transfer(found: Found) -> list[str]:
    about = found["transfer"]
    if about is None or not about["pairs"] or (about["base"] is None and len(about["values"]) < 3):
        return []  # of two experts without the base, each is the other's zero
    pairs = sorted((p for p in about["pairs"] if p["similarity"] is not None), key=lambda p: p["similarity"])
    parts = [f"{' / '.join(show(r, 16) for r in p['rewards'])} {p['similarity']:+.2f}" for p in pairs[:_FEW]]
    lines = [_line("similarity", " · ".join(parts) + (" · …" if len(pairs) > _FEW else ""))] if parts else []
    if lines and about["base"] is None:
        lines.append(
            _line("", "counted from the worst expert, for the base was not measured: no harm can be seen")
        )
    for rewards in about["antagonistic"]:
        lines.append(_line("", f"{' and '.join(show(r, 20) for r in rewards)} are antagonistic: each expert is below the base in the other's reward; a waypoint between them (rsoup sweep --waypoint) or experts trained from a model of both rewards is what the paper advises"))  # fmt: skip
    return lines


def _theory(found: Found) -> list[str]:
    about = found["theory"]
    if about is None:
        return []
    two = about["two_experts"]
    if two is None:
        mix = about["isotropic"]["lambda_for_equal_preferences"]
        if mix is None:
            return []
        shares = ", ".join(f"{show(name, 16)} {share:.2f}" for name, share in mix.items())
        return [_line("λ in theory", f"{shares} for equal preferences (raw rewards; Lemma 1)")]
    if "why_not" in two:
        return [_line("λ in theory", two["why_not"])]
    middle = two["choices"][1]
    shares = ", ".join(f"{show(name, 16)} {share:.2f}" for name, share in middle["lambda"].items())
    return [_line("λ in theory", f"{shares} for equal preferences of the raw rewards (Lemma 3)")]


def _surrogate(found: Found) -> list[str]:
    about = found["surrogate"]
    if about is None:
        return []
    if not about["determined"]:
        return [_line("surrogate", f"not determined: {about['why']}")]
    parts = [
        f"{show(name, 20)} {reward['leave_one_out_of_range']:.1%}"
        for name, reward in about["rewards"].items()
        if reward["leave_one_out_of_range"] is not None
    ]
    error = f"misses {' · '.join(parts)} of the range, leaving one point out" if parts else "meets every point, for there are no more than coefficients"  # fmt: skip
    lines = [_line("surrogate", error)]
    if about["measure_next"]:
        lines.append(_line("measure next", " · ".join(",".join(p["lambda"]) for p in about["measure_next"])))
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


def _lack(who: str, loss: Found) -> str:
    """The most that a set lacks to the other at any preference; below 0 it is ahead at every one."""
    if loss["value"] < 0 and loss["exact"]:
        return f"{who} are ahead by {-loss['value']:.4f} or more"
    return f"{who} lack {'at most' if loss['exact'] else 'at least'} {max(loss['value'], 0):.4f}"


def _compared(other: Found) -> list[str]:
    """One set of other models: who dominates whom, both measures, what the soups are worth."""
    count = len(other["points"])
    volume, expected = other["hypervolume"], other["expected_reward"]
    lines = [
        "",
        f"compared with {show(other['name'], 40)}, {count} {'point' if count == 1 else 'points'}",
        _line("points", f"{other['dominated']} dominated by a soup, {other['dominate']} dominate one, {other['incomparable']} neither" + (f", {other['equal']} equal" if other["equal"] else "")),
        _line("hypervolume", f"soups {volume['soups']:.4f}, others {volume['others']:.4f}, together {volume['together']:.4f}"),
        _line("expected reward", f"soups {expected['soups']:.4f}, others {expected['others']:.4f}; {_lack('the soups', expected['largest_loss_of_soups'])}, {_lack('the others', expected['largest_loss_of_others'])}"),
    ]  # fmt: skip
    above = [point for point in other["points"] if point["relation"] == "dominates"]
    if above:
        names = [f"{show(point['label'] or point['point'], 28)} ({point['distance']:+.3f} spans)" for point in above]  # fmt: skip
        lines.append(_line("beyond", " · ".join(names[:_FEW]) + (" · …" if len(names) > _FEW else "")))
    curve = other["advantage"]
    if curve is not None:
        shown: Sequence[Found] = curve["curve"]
        parts = [f"{row['trainings']}: {row['average']['value']:+.3f}" for row in shown]
        lines.append(_line("advantage", f"over M trainings ({curve['measure'].replace('_', ' ')}, mean over all choices of M)  {' · '.join(parts)}"))  # fmt: skip
        worth = curve["worth"]["average"]
        trainings = curve["soups"]["trainings"]
        most = curve["curve"][-1]["trainings"]
        least = shown[0]["trainings"]
        text = f"fewer than {least}" if worth is None else f"{worth}" + (" or more" if worth == most else "")
        if (between := curve["worth"]["average_between"]) is not None:
            low, high = (f"fewer than {least}" if m is None else f"{m}" for m in between)
            text += f" (within noise {low} to {high})"
        lines.append(_line("worth", f"{text} trainings of {show(other['name'], 24)}, for {trainings:g} trainings and {curve['soups']['evaluations']:g} evaluations"))  # fmt: skip
    return lines
