"""The cells of a CSV or TSV file: rows by column, every cell a text."""

from __future__ import annotations

from collections.abc import Sequence

from rsoup.errors import show
from rsoup.measured import strict
from rsoup.measured.foreign import Cells, chart_rows, check_head


def csv_rows(data: bytes, shown: str, delimiter: str = ",") -> Sequence[Cells]:
    """Rows by column, every cell a text; an empty cell is left out. Raises RefusedFileError E0808, UsageError E0276, E0279."""
    import csv
    import io

    try:
        lines = list(
            csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True, delimiter=delimiter)
        )
    except UnicodeDecodeError:
        strict.refuse("it is not UTF-8", shown)
    except csv.Error as error:
        strict.refuse(show(error), shown)
    head, *body = [line for line in lines if any(cell.strip() for cell in line)] or [[]]
    _check_head(head, shown)
    if len(set(head)) != len(head):
        strict.refuse("a column occurs twice", shown)
    if {"point", "scale", "step", "front"} <= set(head):
        strict.refuse(
            "it is the points.csv of a sweep; the sweep's folder, or its metrics.json, says more", shown
        )
    if wrong := next((number for number, line in enumerate(body, 1) if len(line) != len(head)), None):
        strict.refuse(
            f"row {wrong} under the header has {len(body[wrong - 1])} cells, not {len(head)}", shown
        )
    rows = [
        {name: Text(cell) for name, cell in zip(head, line, strict=True) if cell.strip()} for line in body
    ]
    return chart_rows(head, rows, shown)


def _check_head(head: Sequence[str], shown: str) -> None:
    if len(head) == 1 and (other := next((mark for mark in ";\t" if mark in head[0]), None)):
        name, remedy = ("tabs", ": call it .tsv") if other == "\t" else ("semicolons", "")
        strict.refuse(f"{name} separate its columns, not commas{remedy}", shown)
    check_head(head, shown)
    if head and all(map(_is_number, head)):
        strict.refuse("its first line has numbers, not the names of columns", shown)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class Text(str):
    """A cell of a CSV file, whose numbers are texts too."""

    __slots__ = ()
