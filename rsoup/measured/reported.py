"""Report values that a table keeps in columns of their own: REWARD measured again, with other seeds or samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rsoup.errors import UsageError, listing, show
from rsoup.measured.values import Row, Table


def with_report(table: Table, pairs: Mapping[str, str]) -> Table:
    """The table with each metric of `pairs` (reward → metric) as the report values of its reward, and no metric itself.

    Raises UsageError E0280 for one that is not there, and where the reward has report values already.
    """
    if not pairs:
        return table
    for name in [*pairs, *pairs.values()]:
        if name not in table.metrics:
            raise UsageError(
                "E0280", f"--reported names '{show(name)}', and there is no such metric", where=table.shown,
                hint=f"there are {listing(list(table.metrics), 20)}",
            )  # fmt: skip
    if twice := next((r for r in pairs if any(r in row.report for row in table.rows)), None):
        raise UsageError(
            "E0280", f"'{show(twice)}' has report values already", where=table.shown,
            hint=f"leave out --reported {show(twice)}=…",
        )  # fmt: skip
    gone = set(pairs.values())
    metrics = {name: quality for name, quality in table.metrics.items() if name not in gone}
    return replace(table, metrics=metrics, rows=tuple(_moved(row, pairs, gone) for row in table.rows))


def _moved(row: Row, pairs: Mapping[str, str], gone: set[str]) -> Row:
    found = {reward: row.select[metric] for reward, metric in pairs.items() if metric in row.select}
    left = {name: one for name, one in row.select.items() if name not in gone}
    return replace(row, select=left, report={**row.report, **found})
