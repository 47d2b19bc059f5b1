"""What a Hub holds: repositories as git sees them, large objects by their sha256.

Ids are git's own (blobs, LFS pointers, trees, commits), so a client that checks one is really checked.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

LARGE_SUFFIXES = (".safetensors", ".bin", ".pt")
LARGE_BYTES = 10_000_000
FIRST_DATE = 1_767_225_600  # 2026-01-01, one second a commit: the same history has the same ids


class Refusal(Exception):
    """An answer other than success: its status, the Hub's error code and message."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree: `oid` is the git id of the blob (of the pointer where `sha256` is set)."""

    path: str
    size: int
    oid: str
    sha256: str | None = None
    data: bytes = field(default=b"", repr=False)

    @property
    def etag(self) -> str:
        """What the Hub calls the file's ETag: the sha256 of a large file, else the git id."""
        return self.sha256 or self.oid


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: `files` are the paths it adds, changes or removes; `tree` all it holds."""

    id: str
    parent: str | None
    title: str
    description: str
    date: str
    files: tuple[str, ...]
    tree: Mapping[str, Entry] = field(repr=False)


@dataclass(slots=True)
class PullRequest:
    """A pull request: its commits lie on `ref`, started from `base`."""

    number: int
    title: str
    description: str
    status: str
    ref: str
    base: str


@dataclass(slots=True)
class Repository:
    """A model repository; `refs` maps full names (refs/heads/main, refs/pr/1) to commit ids."""

    id: str
    private: bool = False
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    history: dict[str, Commit] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)

    def ref(self, revision: str) -> str | None:
        """The full name of the reference that `revision` names, None where there is none."""
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.refs), None)

    def commit(self, revision: str) -> Commit:
        """The commit a branch, tag, full reference or commit id names."""
        name = self.ref(revision)
        found = self.history.get(self.refs[name] if name else revision)
        if found is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def log(self, revision: str) -> list[Commit]:
        """Newest first."""
        at: Commit | None = self.commit(revision)
        found = []
        while at is not None:
            found.append(at)
            at = self.history[at.parent] if at.parent else None
        return found

    def write(
        self, revision: str, tree: Mapping[str, Entry], title: str, description: str = "", *, seconds: int
    ) -> Commit:
        """Put a commit that holds `tree` on a branch or pull request, made where it isn't there."""
        name = self.ref(revision) or f"refs/heads/{revision}"
        before = self.history.get(self.refs.get(name, ""))
        old = before.tree if before else {}
        changed = sorted(path for path in {*old, *tree} if old.get(path) != tree.get(path))
        date = FIRST_DATE + seconds
        message = f"{title}\n\n{description}\n" if description else f"{title}\n"
        lines = [f"tree {tree_id(tree)}"]
        lines += [f"parent {before.id}"] if before else []
        lines += [f"author me <me@example.org> {date} +0000", f"committer me <me@example.org> {date} +0000"]
        oid = git_id("commit", ("\n".join(lines) + "\n\n" + message).encode())
        minutes, second = divmod(seconds, 60)
        stamp = f"2026-01-01T{minutes // 60 % 24:02}:{minutes % 60:02}:{second:02}.000Z"
        made = Commit(
            oid, before.id if before else None, title, description, stamp, tuple(changed), dict(tree)
        )
        self.history[oid] = made
        self.refs[name] = oid
        return made


class Store:
    """Everything one Hub holds; `lock` is held by whoever changes it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.objects: dict[str, bytes] = {}
        self.repositories: dict[str, Repository] = {}
        self.moved: dict[str, str] = {}
        self.clock = 0

    def tick(self) -> int:
        """Seconds since the first date: one more at each call."""
        self.clock += 1
        return self.clock

    def entry(self, path: str, data: bytes) -> Entry:
        """The tree's entry for a file's bytes; a large file's go to the objects."""
        if is_large(path, len(data)):
            sha256 = hashlib.sha256(data).hexdigest()
            self.objects[sha256] = data
            return self.pointer(path, sha256)
        return Entry(path, len(data), git_id("blob", data), None, data)

    def pointer(self, path: str, sha256: str) -> Entry:
        """The entry of a large file whose bytes are here already."""
        size = len(self.objects[sha256])
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return Entry(path, size, git_id("blob", text), sha256, text)

    def content(self, entry: Entry) -> bytes:
        """The file's bytes, wherever they lie."""
        return self.objects[entry.sha256] if entry.sha256 else entry.data


def is_large(path: str, size: int) -> bool:
    """Whether the Hub keeps a file outside git."""
    return size > 0 and (size > LARGE_BYTES or path.endswith(LARGE_SUFFIXES))


def git_id(kind: str, data: bytes) -> str:
    """Git's SHA-1 object id."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def tree_id(tree: Mapping[str, Entry]) -> str:
    """Git's id of a folder tree given as path -> entry."""
    files: list[tuple[bytes, bytes, str]] = []
    folders: dict[str, dict[str, Entry]] = {}
    for path, entry in tree.items():
        head, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(head, {})[rest] = entry
        else:
            files.append((head.encode(), b"100644", entry.oid))
    files += [(name.encode() + b"/", b"40000", tree_id(inner)) for name, inner in folders.items()]
    rows = [mode + b" " + name.rstrip(b"/") + b"\0" + bytes.fromhex(oid) for name, mode, oid in sorted(files)]
    return git_id("tree", b"".join(rows))
