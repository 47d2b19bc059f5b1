"""Paths → names of ingredients: the last part, or as much of the path as tells them apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

_NAME_PARTS: Final = 8
_ENDING: Final = re.compile(r"\.(?:safetensors|bin|pt|pth|ckpt|zip)$")


def names_for(paths: Sequence[str]) -> list[str]:
    """A distinct name for each path: its last part, with more of the path where two are alike.

    `a/checkpoint-9` and `b/checkpoint-9` become `a-checkpoint-9` and `b-checkpoint-9`; a path given
    twice gets `-2`; a series, `run/checkpoint-*`, is called `run`. The word `base` is never given away.
    """
    parts = [_parts(path)[-_NAME_PARTS:] or ["root"] for path in paths]
    shortest = ["-".join(part[-1:]) for part in parts]
    alike = {name for name, count in Counter(shortest).items() if count > 1}
    for deep in range(1, _NAME_PARTS + 1):
        names = [
            _ENDING.sub("", "-".join(part[-deep:]) if short in alike else short)
            for part, short in zip(parts, shortest, strict=True)
        ]
        if len(set(names)) == len(names):
            break
    result: list[str] = []
    taken: set[str] = {"base"}
    copies = Counter[str]()
    for name in names:
        candidate = "base-base" if name == "base" else name
        while candidate in taken:
            copies[name] += 1
            candidate = f"{name}-{copies[name] + 1}"
        taken.add(candidate)
        result.append(candidate)
    return result


def _parts(path: str) -> list[str]:
    """What a path's name is made of: its folders, without a pattern at its end."""
    found = [part for part in path.split("/") if part not in ("", ".")]
    return found[:-1] if len(found) > 1 and "*" in found[-1] else found
