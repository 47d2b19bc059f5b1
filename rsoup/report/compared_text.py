"""What `rsoup front --compare` found, as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsoup.errors import show
from rsoup.report.lines import entry, interval_text

Found = Mapping[str, Any]
_FEW = 6


def _lack(who: str, loss: Found) -> str:
    """The most that a set lacks to the other at any preference; below 0 it is ahead at every one."""
    between = interval_text(loss["interval"])
    if loss["value"] < 0 and loss["exact"]:
        return f"{who} are ahead by {-loss['value']:.4f}{between} or more"
    if loss["value"] < 5e-5 and loss["exact"]:
        return f"{who} lack nothing{between}"
    return f"{who} lack {'at most' if loss['exact'] else 'at least'} {max(loss['value'], 0):.4f}{between}"


def compared(other: Found) -> list[str]:
    """One set of other models: who dominates whom, both measures, what the soups are worth."""
    count = len(other["points"])
    volume, expected = other["hypervolume"], other["expected_reward"]
    lines = [
        "",
        f"compared with {show(other['name'], 40)}, {count} {'point' if count == 1 else 'points'}",
        entry("points", f"{other['dominated']} dominated by a soup, {other['dominate']} dominate one, {other['incomparable']} neither" + (f", {other['equal']} equal" if other["equal"] else "")),
        entry("hypervolume", f"soups {volume['soups']:.4f}, others {volume['others']:.4f}, together {volume['together']:.4f}"),
        entry("expected reward", f"soups {expected['soups']:.4f}, others {expected['others']:.4f}"),
        entry("", f"{_lack('the soups', expected['largest_loss_of_soups'])}, {_lack('the others', expected['largest_loss_of_others'])}"),
    ]  # fmt: skip
    above = [point for point in other["points"] if point["relation"] == "dominates"]
    if above:
        names = [f"{show(point['label'] or point['point'], 28)} ({point['distance']:+.3f} spans)" for point in above]  # fmt: skip
        lines.append(entry("beyond", " · ".join(names[:_FEW]) + (" · …" if len(names) > _FEW else "")))
    return lines if other["advantage"] is None else [*lines, *_advantage(other)]


def _advantage(other: Found) -> list[str]:
    curve = other["advantage"]
    shown: Sequence[Found] = curve["curve"]
    values = " · ".join(f"{row['trainings']}: {row['average']['value']:+.3f}" for row in shown)
    lines = [
        entry("advantage", f"over M trainings ({curve['measure'].replace('_', ' ')}, mean over all choices)"),
        entry("", values),
    ]
    worth = curve["worth"]["average"]
    most, least = shown[-1]["trainings"], shown[0]["trainings"]
    text = f"fewer than {least}" if worth is None else f"{worth}" + (" or more" if worth == most else "")
    if (between := curve["worth"]["average_between"]) is not None:
        low, high = (f"fewer than {least}" if m is None else f"{m}" for m in between)
        text += f" (within noise {low} to {high})"
    lines.append(entry("worth", f"{text} trainings of {show(other['name'], 24)}, for {curve['soups']['trainings']:g} trainings and {curve['soups']['evaluations']:g} evaluations"))  # fmt: skip
    return lines
