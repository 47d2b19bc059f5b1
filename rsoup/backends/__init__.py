"""What computes: compiled passes where the installation has them, NumPy elsewhere; the same bits of everything."""

from __future__ import annotations

from rsoup.backends.passes import Backend, Kind, Row

__all__ = ["Backend", "Kind", "Row", "make"]


def make(kind: Kind | None = None) -> Backend:
    """A backend for one thread: the fastest there is, or the one named. Raises ImportError for what is not installed."""
    if kind != "numpy":
        try:
            from rsoup.backends.with_compiled import CompiledBackend
        except ImportError:
            if kind is not None:
                raise
        else:
            return CompiledBackend()
    from rsoup.backends.with_numpy import NumpyBackend

    return NumpyBackend()
