"""`rsoup methods`: the table of ways to mix."""

from __future__ import annotations

from rsoup.console import Console, table
from rsoup.methods import METHODS


def run(console: Console) -> None:
    """Print every method's name, formula, need of a base, and source."""
    rows = [[m.name, m.formula, "yes" if m.needs_base else "no", m.source] for m in METHODS.values()]
    data = {
        "methods": [
            {"name": m.name, "formula": m.formula, "needs_base": m.needs_base, "source": m.source}
            for m in METHODS.values()
        ]
    }
    console.result(table(rows, ["method", "formula", "base", "source"]), data, "\n".join(METHODS))
