"""What is made is made on this machine: an address is no place for it."""

from __future__ import annotations

from rsoup.errors import UsageError, show


def check_here(out: str) -> None:
    """Raise UsageError E0213 for an output that is an address: what is made is made here."""
    scheme, mark, _ = out.partition("://")
    if mark and scheme.isalnum():
        push = "rsoup push NAME me/soup" if scheme == "hf" else "your store's own client"
        raise UsageError(
            "E0213",
            f"'{show(out)}' is an address, and outputs are written here",
            hint=f"-o NAME, then {push}",
        )
