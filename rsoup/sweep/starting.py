"""How a process of rsoup's own is started: this rsoup and no other, whatever lies in the folder it starts in."""

from __future__ import annotations

import os
from typing import Final

_ROOT: Final = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


def starter_of(module: str) -> str:
    """What `python -c` runs to call `main` of rsoup.sweep.MODULE with the arguments that follow."""
    return (
        f"import sys; sys.path[:1] = [{_ROOT!r}]; import rsoup.sweep.{module} as worker; "
        "del sys.path[0]; worker.main(sys.argv[1:])"
    )
