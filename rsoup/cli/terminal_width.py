"""How wide the text of a command may be."""

from __future__ import annotations

import os

from rsoup.console import Console

LEAST = 60


def columns_of(console: Console) -> int | None:
    """The columns of the terminal that the text goes to, 60 at least; None where it goes elsewhere."""
    try:
        return (
            max(LEAST, os.get_terminal_size(console.out.fileno()).columns) if console.out.isatty() else None
        )
    except OSError:
        return None
