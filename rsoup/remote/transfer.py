"""How the weights of a far checkpoint come here: what crosses the network, what stays on the disk, what is proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from rsoup.errors import show
from rsoup.remote.file import StreamedFile

Way = Literal["stream", "cache"]
WAYS: Final = ("stream", "cache")
Fetch = Literal["cache", "stream", "parts", "headers", "cache?", "stream?"]
"""What is brought here of weights: all into the cache; nothing, they are streamed; the same of some tensors, which proves
no file; headers alone, and with "?" it is told what the other would do."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """The weights of the checkpoint `shown`: `network` bytes of them come, `disk` bytes stay in the cache.

    `way` is "here" where they are in the cache already, "copy" where they are copied for one command. `reason` is why they do not stream although that was asked.
    After a stream, `proven` bytes had the SHA-256 that they should have; `again` were fetched once more for that (before
    it: may have to be); `unproven` tells of the others: (a file, why).
    """

    shown: str
    way: Literal["stream", "cache", "copy", "here"]
    files: int
    network: int
    disk: int
    reason: str | None = None
    proven: int | None = None
    again: int = 0
    unproven: tuple[tuple[str, str], ...] = ()

    @property
    def plan(self) -> str:
        """What will be done, in a line."""
        if self.way == "here":
            return f"{show(self.shown)}: in the cache"
        files = _count(self.files, "weight file")
        what = f"{show(self.shown)}: {files}, {_size(self.network)}"
        if self.way == "stream":
            twice = (
                f"; up to {_size(self.again)} twice, as their order is not the soup's" if self.again else ""
            )
            return f"{what}, streamed; nothing of them stays on the disk{twice}"
        because = f" ({self.reason})" if self.reason else ""
        if self.way == "copy":
            return f"{what}, copied into a temporary folder for this command{because}"
        return f"{what}, downloaded into the cache, where they stay{because}"

    @property
    def told(self) -> str:
        """What was done, in a line."""
        if self.proven is None:
            return self.plan
        line = f"{show(self.shown)}: {_count(self.files, 'weight file')} streamed, nothing stored"
        if self.proven:
            part = f"{_size(self.proven)} of it " if self.unproven else ""
            line += f"; {part}proven by the Hub's SHA-256"
        if self.again:
            line += f", {_size(self.again)} fetched once more to prove that"
        if self.unproven:
            name, why = self.unproven[0]
            more = f" and {len(self.unproven) - 1} more files" if len(self.unproven) > 1 else ""
            line += f"; not proven: '{show(name)}'{more} ({why})"
        return line

    def as_json(self) -> dict[str, object]:
        """All of it as JSON's types."""
        return {
            "checkpoint": self.shown,
            "way": self.way,
            "files": self.files,
            "network_bytes": self.network + self.again,
            "disk_bytes": self.disk,
            "reason": self.reason,
            "proven_bytes": self.proven,
            "fetched_again_bytes": self.again,
            "unproven": [{"file": name, "reason": why} for name, why in self.unproven],
        }


def passed(planned: Transfer, files: Sequence[tuple[str, StreamedFile]]) -> Transfer:
    """The transfer after its streams were read: which of the `files` (name, stream) are proven."""
    unproven = [(name, _why(file)) for name, file in files if not file.proven]
    return replace(
        planned,
        proven=sum(file.nbytes for _, file in files if file.proven),
        again=sum(file.again for _, file in files),
        unproven=tuple(unproven),
    )


def _why(file: StreamedFile) -> str:
    if file.sha256 is None:
        return file.unstated
    return "it was not read whole" if file.was_touched else "it was not read"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(nbytes: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} bytes"
