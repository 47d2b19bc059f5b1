"""What is asked of a soup that is an adapter before it is written."""

from __future__ import annotations

from dataclasses import dataclass

from rsoup.errors import UsageError


@dataclass(frozen=True, slots=True)
class Gates:
    """The largest relative error that is not refused, and the server that must take the adapter; None for neither."""

    fail_above_error: float | None = None
    serve: str | None = None

    def refuse(self) -> None:
        """Raise UsageError E0206 if anything is asked: the soup is full weights."""
        given = [
            flag
            for flag, value in (("--serve", self.serve), ("--fail-above-error", self.fail_above_error))
            if value is not None
        ]
        if given:
            raise UsageError(
                "E0206",
                f"{' and '.join(given)}: means something to a soup that is an adapter only",
                hint="leave it out",
            )
