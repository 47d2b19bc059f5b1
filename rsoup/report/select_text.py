"""What `rsoup select` found, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsoup.errors import show
from rsoup.report.front_text import value_text
from rsoup.report.lines import fitted, folded

Found = Mapping[str, Any]
_HANGING = 13
_WORDS = {
    "measured": "best measured",
    "lambda": "λ = preference",
    "theory": "λ in theory",
    "predicted": "predicted best",
}


def final(found: Found, width: int | None = None) -> list[str]:
    """What was wanted, every rule's λ side by side, the chosen one, the command; in `width` columns, where one is given.

    The command is one line, to be copied.
    """
    head = [part for line in _wanted(found) for part in fitted(line, width, 2)]
    below = [part for line in _said(found) for part in fitted(line, width, _HANGING)]
    return [*head, "", *_rules(found, width), "", *below, *_made(found)]


def _said(found: Found) -> list[str]:
    lines = _chosen(found)
    question = found["next_question"]
    if question is not None:
        lines.append(f"  ask next   {show(question['a'], 40)} or {show(question['b'], 40)}: it tells most about the preference (now {question['probability_of_a']:.0%} for the first)")  # fmt: skip
    return lines


def _made(found: Found) -> list[str]:
    chosen, lines = found["chosen"], []
    if found["soup"] is not None:
        lines.append(f"  soup       {show(found['soup'])}")
    elif chosen["command"] is not None:
        lines.append(f"  make it    {show(chosen['command'], 4000)}")
    elif chosen["lambda"] is not None and found["can_merge"]:
        lines.append("  make it    the same command with --merge -o soup")
    return lines


def _wanted(found: Found) -> list[str]:
    about = found["preference"]
    if about is None:
        lines = [f"utility {show(found['utility'], 200)}, over the rewards in their own units"]
    else:
        shares = " · ".join(f"{show(name, 24)} {share:.3g}" for name, share in about["weights"].items())
        lines = [f"preference {shares}", f"  {found['unit']}"]
        if (learnt := about["learnt"]) is not None:
            spans = " · ".join(
                f"{show(name, 24)} {learnt['low'][name]:.2f} to {learnt['high'][name]:.2f}"
                for name in about["weights"]
            )
            right = (
                "" if learnt["agreement"] is None else f", {learnt['agreement']:.0%} of which it agrees with"
            )
            lines.append(
                f"learnt from {learnt['comparisons']} comparisons{right}; {learnt['confidence'] * 100:g} % {spans}"
            )
    if found["constraints"]:
        lines.append(f"where {' and '.join(show(text) for text in found['constraints'])}: {len(found['ranking']['points'])} points of {len(found['ranking']['points']) + found['ranking']['not_allowed']}")  # fmt: skip
    return lines


def _rules(found: Found, width: int | None) -> list[str]:
    """A line per rule: λ, the measured rewards, or what is predicted, and said so."""
    names = list(found["rewards"])
    head = ["", "λ", "utility", *(show(name, 20) for name in names), ""]
    rows = []
    for one in found["candidates"]:
        mark = "→ " if one["rule"] == found["rule"] else "  "
        mix = "-" if one["lambda"] is None else ",".join(one["lambda"])
        utility = "-" if one["utility"] is None else value_text(one["utility"], one["error"])
        if one["measured"] is not None:
            values = [value_text(one["measured"][n]["value"], one["measured"][n]["error"]) for n in names]
            remark = "" if one["allowed"] else "does not meet the conditions"
        elif one["predicted"] is not None:
            values = [f"~{one['predicted'][name]:.4g}" for name in names]
            remark = "predicted, not measured" + ("" if one["allowed"] else "; misses the conditions")
        else:
            values = ["-"] * len(names)
            remark = one["why_not"] or "not measured"
        rows.append([f"{mark}{_WORDS[one['rule']]}", mix, utility, *values, remark])
    return folded(head, rows, kept=2, width=width)


def _chosen(found: Found) -> list[str]:
    one, ranking = found["chosen"], found["ranking"]
    lines = []
    if one["point"] is not None:
        lines.append(f"  point      {show(one['point'], 60)}")
    apart = one["reported"] is not None and found["split"] == "select"
    if apart:
        values = " · ".join(
            f"{show(name, 20)} {value_text(score['value'], score['error'])}"
            for name, score in one["reported"].items()
        )
        lines.append(f"  reported   {values} (other seeds than those that chose it: the numbers to quote)")
    if found["rule"] == "measured" and len(ranking["points"]) > 1:
        second = ranking["points"][1]
        text = f"{second['lambda'] or show(second['point'], 40)}, {ranking['lead']:.4g} behind"
        if ranking["lead_error"] is not None:
            text += f" ± {ranking['lead_error']:.2g}" + (
                "" if ranking["beyond_noise"] else ": noise may have decided"
            )
        lines.append(f"  second     {text}")
        if ranking["optimism"] and not apart:
            lines.append(
                f"  too good   by about {ranking['optimism']:.2g}: what noise adds to the best of {len(ranking['points'])}"
            )
    return lines
