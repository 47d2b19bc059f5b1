"""What `rsoup front` writes: everything is drawn first, every place is looked at, and only then written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsoup.analysis.data import Data
from rsoup.analysis.drawn import KINDS, Subject, drawn
from rsoup.cli.reading import Reading
from rsoup.errors import TargetError, UsageError, show, show_path
from rsoup.measured.table import FILE, MAX_BYTES
from rsoup.measured.values import Table

_NEEDS = {
    "front": "it needs two rewards",
    "spider": "it needs three to eight rewards, and two models such as two experts",
    "connectivity": "it needs two ingredients, each measured alone",
    "advantage": "it needs --compare with at least two points",
    "training": "it needs points of two training steps",
    "transfer": "it needs every ingredient measured alone, and two rewards",
}


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is written: `plots` are [KIND=]FILE, `figures` a folder, `page` a file."""

    plots: tuple[str, ...] = ()
    figures: str | None = None
    page: str | None = None
    smooth: bool = False
    overwrite: bool = False


def parsed_plots(outputs: Outputs) -> list[tuple[str, str]]:
    """(kind, file) of every --plot. Raises UsageError E0256, E0269 before anything is read."""
    from rsoup.figures.raster import format_of

    found = []
    for text in outputs.plots:
        kind, equals, path = text.partition("=")
        if not equals or os.path.sep in kind:
            kind, path = "front", text
        if kind not in KINDS or not path:
            raise UsageError(
                "E0256", f"--plot '{show(text)}' is not KIND=FILE", hint=f"KIND is one of {', '.join(KINDS)}"
            )
        format_of(path)
        found.append((kind, path))
    for path in [*(path for _, path in found), *([outputs.page] if outputs.page else [])]:
        _check_free(path, outputs.overwrite)
    return found


def write(
    outputs: Outputs, plots: Sequence[tuple[str, str]], subject: Subject, reading: Reading
) -> list[str]:
    """The paths written. Raises UsageError E0256 (no such figure, one file twice), TargetError E0601 and E060x."""
    figures = [place for kind, path in plots for place in _placed(kind, path, subject)]
    if outputs.figures is not None:
        figures += [
            (os.path.join(outputs.figures, f"{name}.svg"), svg)
            for kind in KINDS
            for name, svg in drawn(kind, subject).items()
        ]
    text = None if outputs.page is None else _page(reading, subject.table, subject.data)
    places = [path for path, _ in figures] + ([] if outputs.page is None else [outputs.page])
    real = [os.path.realpath(path) for path in places]
    if len(set(real)) < len(real):
        twice = next(path for path in real if real.count(path) > 1)
        raise UsageError(
            "E0256", "one file cannot be two outputs", where=show_path(twice), hint="another name"
        )
    for path in places:
        _check_free(path, outputs.overwrite)
    _save(figures, outputs.figures)
    if outputs.page is not None and text is not None:
        from rsoup.storage.whole import write_whole

        write_whole(outputs.page, text.encode())
    return places


def _check_free(path: str, overwrite: bool) -> None:
    """Nothing is replaced that was not asked to be. Raises TargetError E0601."""
    if os.path.lexists(path) and not overwrite:
        raise TargetError(
            "E0601", "the output exists", where=show_path(path), hint="--overwrite, or another name"
        )


def _placed(kind: str, path: str, subject: Subject) -> list[tuple[str, str]]:
    figures = drawn(kind, subject)
    if not figures:
        raise UsageError("E0256", f"these points have no figure of {kind}", hint=_NEEDS[kind])
    if len(figures) == 1:
        return [(path, next(iter(figures.values())))]
    stem, ending = os.path.splitext(path)
    return [(f"{stem}{name.removeprefix(kind)}{ending}", svg) for name, svg in figures.items()]


def _save(figures: Sequence[tuple[str, str]], folder: str | None) -> None:
    from rsoup.figures.raster import save
    from rsoup.storage.here import check_here
    from rsoup.storage.target import target_error

    if folder is not None:
        check_here(folder)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise target_error(error, show_path(folder)) from error
    for path, svg in figures:
        save(svg, path)


def _page(reading: Reading, table: Table, data: Data) -> str:
    """The page of the sweep's own document where there is one and all of it is meant, else of the table."""
    from rsoup.analysis.metrics import metrics_document
    from rsoup.report.page import page
    from rsoup.storage.files import parse_json, read_whole

    source = os.path.join(reading.path, FILE) if os.path.isdir(reading.path) else reading.path
    narrowed = reading.rewards or reading.guards or reading.where
    if os.path.basename(source) == FILE and not narrowed:
        found = parse_json(read_whole(source, show_path(source), MAX_BYTES), show_path(source))
    else:
        found = json.loads(json.dumps(metrics_document(table, data)))
    assert isinstance(found, Mapping)
    return page(found)
