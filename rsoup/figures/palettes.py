"""Colours that colour-blind readers tell apart: Okabe and Ito's eight, a ramp by order, a diverging scale.

Okabe & Ito 2008, "Color Universal Design"; the ramp is viridis (CC0) without its yellow end.
"""

from __future__ import annotations

from typing import Final

from rsoup.figures.drawing import PAPER

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
LINES: Final = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, "#8C6D1F")
DASHES: Final = ("", "7 3", "2 2.5", "9 3 2 3")
COMPARED: Final = (PURPLE, VERMILLION, YELLOW, SKY)
_RAMP = ("#8fd744", "#44bf70", "#21918c", "#31688e", "#443983", "#440154")
_WORSE, _EVEN, _BETTER = "#D55E00", "#ffffff", "#0072B2"

Colour = tuple[float, float, float]


def ramp(share: float) -> str:
    """From light green at 0 to dark violet at 1, darker all the way: first to last."""
    place = min(1.0, max(0.0, share)) * (len(_RAMP) - 1)
    index = min(int(place), len(_RAMP) - 2)
    return _mixed(_RAMP[index], _RAMP[index + 1], place - index)


def diverging(value: float) -> str:
    """From vermillion at −1 over white at 0 to blue at 1."""
    value = min(1.0, max(-1.0, value))
    return _mixed(_EVEN, _BETTER if value > 0 else _WORSE, abs(value))


def ink_on(colour: str) -> str:
    """Black or white, whichever has the higher contrast on the colour: 4.58 at least on any."""
    return max((BLACK, PAPER), key=lambda ink: contrast(ink, colour))


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours, 1 to 21, as WCAG 2 defines it."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (part / 255 for part in _parts(colour))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _parts(colour: str) -> Colour:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _mixed(first: str, second: str, share: float) -> str:
    mixed = (round(a + share * (b - a)) for a, b in zip(_parts(first), _parts(second), strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)
