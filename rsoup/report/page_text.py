"""How the page writes names, numbers and series, and which colour a series has."""

from __future__ import annotations

import html
import re
from typing import Final

from rsoup.errors import show
from rsoup.report.page_document import Document, Measured, Row, Series

COLOURS: Final = 8
WHOLE: Final = 1 << 16  # of a command or a name that must be read in full
# Besides line ends and tabs, the joiners: harmless, and Persian, Hindi and many emoji are not written without.
_KEPT: Final = re.compile("([\n\t\u200c\u200d])")


def escape(text: object, limit: int = 120) -> str:
    """Text for HTML and for attributes in double quotes, with nothing invisible or of control in it."""
    return html.escape(show(text, limit), quote=True)


def passage(text: str) -> str:
    """A text of several lines for HTML: line ends, tabs and joiners stay, all else is as in `escape`."""
    parts = _KEPT.split(text)
    shown = (part if i % 2 else show(part, len(part)) for i, part in enumerate(parts))
    return html.escape("".join(shown), quote=True)


def number(value: float) -> str:
    """Six significant digits, never more."""
    return f"{value:.6g}"


def measured(score: Measured) -> str:
    """`0.71 ± 0.01 (n = 3)`."""
    error = f" ± {score.error:.2g}" if score.error is not None else ""
    return f"{number(score.value)}{error}" + (f" (n = {score.n})" if score.n and score.n > 1 else "")


def label(series: Series) -> str:
    """`step 200, η = 0.5`; empty for soups without step or scale."""
    step, scale = series
    parts = [f"step {step}"] if step is not None else []
    return ", ".join(parts + ([f"η = {scale}"] if scale != "1" else []))


def by_step(document: Document) -> bool:
    """Whether colours tell the training steps apart; they tell the scales apart where there is one step only."""
    return len(document.steps) > 1 or len(document.scales) == 1


def colours(document: Document) -> dict[Series, int]:
    """The colour of each series, ascending by training step or scale, used again after COLOURS of them."""
    steps = {step: i % COLOURS for i, step in enumerate(document.steps)}
    scales = {scale: i % COLOURS for i, scale in enumerate(document.scales)}
    stepwise = by_step(document)
    return {series: steps[series[0]] if stepwise else scales[series[1]] for series in document.series}


def mix(document: Document, row: Row, limit: int = 120) -> str:
    """`low 0.5, high 0.5`: the λ as they were written, not escaped."""
    return ", ".join(
        f"{show(name, limit)} {share}" for name, share in zip(document.ingredients, row.shown, strict=True)
    )
