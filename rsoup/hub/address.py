"""`org/name@revision`, `hf://…`, a browser's URL → Address. Nobody is asked, nothing is opened."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote

from rsoup.errors import UsageError, show_path

SCHEME: Final = "hf://"
_PART: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?![.-])|(?<!-)-)*"
_REPO: Final = re.compile(rf"({_PART})/({_PART})")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_REVISION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+#-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+#-]*)*")
_BROWSER: Final = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<rest>[^?#]*)(?:[?#].*)?")
_SPECIAL: Final = re.compile(r"(refs/(?:pr|convert)/[^/]+)(?:/(.*))?")
_OTHER_KINDS: Final = ("datasets", "spaces", "buckets", "kernels")
_HINT: Final = "org/name, org/name@revision or hf://org/name@revision/folder"
_LONGEST: Final = 96


@dataclass(frozen=True, slots=True)
class Address:
    """A model on the Hub, or a folder or file in it: `revision` None is the main branch, `path` '' the whole."""

    repo: str
    revision: str | None = None
    path: str = ""

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit's id, whose files never change."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    @property
    def uri(self) -> str:
        """`hf://org/name@revision/path`, which `parse` reads back; `/` in a revision is written %2F."""
        at = "" if self.revision is None else "@" + self.revision.replace("/", "%2F")
        return f"{SCHEME}{self.repo}{at}" + (f"/{self.path}" if self.path else "")

    @property
    def shown(self) -> str:
        """`org/name@revision/path`: what is said of it, and what a manifest records once it is pinned."""
        at = f"@{self.revision}" if self.revision is not None else ""
        return f"{self.repo}{at}" + (f"/{self.path}" if self.path else "")

    def at(self, commit: str) -> Address:
        """The same place in this commit."""
        return replace(self, revision=commit)


def parse(uri: str) -> Address | None:
    """The address that a text is by its form alone; None for what can only be a path.

    Raises UsageError E0710 for a text that must be meant as an address and is none: `hf://` and the Hub's URLs.
    """
    if uri.startswith(SCHEME):
        return _strict(uri[len(SCHEME) :].removeprefix("models/"), uri)
    if (found := _BROWSER.fullmatch(uri)) is not None:
        return _browsed(found["rest"], uri)
    if "://" in uri:
        return None
    repo, at, revision = uri.partition("@")
    if not _is_repo(repo) or (at and not _is_revision(revision)):
        return None
    return Address(repo, revision if at else None)


def address_of(uri: str, folder: str = "") -> Address | None:
    """The address that `uri` is; None for a path: what lies there (in `folder`) under the whole text, what can be no
    address, and `runs/a` where there is a folder `runs` (`hf://runs/a` is meant as an address).

    Raises UsageError E0710.
    """
    here = os.path.join(folder, uri)
    if os.path.lexists(here):
        return None
    found = parse(uri)
    return None if found is not None and "://" not in uri and os.path.isdir(os.path.dirname(here)) else found


def seen_from(folder: str, text: str) -> str:
    """A path of a recipe in `folder` (each part of `CHECKPOINT+ADAPTER`); absolute paths and addresses as they are."""
    if not folder or os.path.isabs(text) or "://" in text:
        return text
    whole = os.path.normpath(os.path.join(folder, text))
    parts = [text] if os.path.lexists(whole) else text.split("+")
    if len(parts) > 1:
        return "+".join(seen_from(folder, part) for part in parts)
    address = address_of(text, folder)
    return whole if address is None else address.uri


def halves(uri: str) -> tuple[str, str] | None:
    """(checkpoint, adapter) of `CHECKPOINT+ADAPTER` where one of both is an address; None for anything else."""
    if "+" not in uri or os.path.lexists(uri):
        return None
    for at in (i for i in range(len(uri) - 1, 0, -1) if uri[i] == "+"):
        both = uri[:at], uri[at + 1 :]
        try:
            far = [address_of(part) is not None for part in both]
        except UsageError:
            continue
        elsewhere = both[1].startswith(SCHEME) and "://" in both[0]  # a base in an object store
        if any(far) and (
            elsewhere or all(one or os.path.lexists(part) for one, part in zip(far, both, strict=True))
        ):
            return both
    return None


def _strict(text: str, uri: str) -> Address:
    parts = text.split("/")
    if parts[0] in _OTHER_KINDS:
        raise _wrong(uri, "this is no model: rsoup reads model repositories")
    if len(parts) < 2:
        raise _wrong(uri)
    name, at, revision = parts[1].partition("@")
    rest = parts[2:]
    if at and (special := _SPECIAL.fullmatch("/".join([revision, *rest]))):
        revision, rest = special[1], special[2].split("/") if special[2] else []
    return _checked(f"{parts[0]}/{name}", unquote(revision) if at else None, "/".join(rest).rstrip("/"), uri)


def _browsed(rest: str, uri: str) -> Address:
    parts = [unquote(part) for part in rest.rstrip("/").split("/")]
    if parts[0] in _OTHER_KINDS:
        raise _wrong(uri, "this is no model: rsoup reads model repositories")
    if len(parts) == 2:
        return _checked("/".join(parts), None, "", uri)
    if len(parts) < 4 or parts[2] not in ("tree", "blob", "resolve"):
        raise _wrong(uri)
    special = _SPECIAL.fullmatch("/".join(parts[3:]))
    revision, path = (special[1], special[2] or "") if special else (parts[3], "/".join(parts[4:]))
    return _checked("/".join(parts[:2]), revision, path, uri)


def _checked(repo: str, revision: str | None, path: str, uri: str) -> Address:
    if not _is_repo(repo):
        raise _wrong(uri)
    if revision is not None and not _is_revision(revision):
        raise _wrong(uri, "this is no revision that the Hub could have")
    if path and not is_inside(path):
        raise _wrong(uri, "this path leads out of the repository")
    return Address(repo, revision, path)


def _is_repo(text: str) -> bool:
    match = _REPO.fullmatch(text)
    return match is not None and all(
        len(part) <= _LONGEST
        and "--" not in part
        and ".." not in part
        and not part.endswith((".", "-", ".git"))
        for part in match.groups()
    )


def _is_revision(text: str) -> bool:
    return len(text) <= 255 and ".." not in text and _REVISION.fullmatch(text) is not None


def is_inside(path: str) -> bool:
    """Whether a repository may hold a file of this relative path and a folder here may, too, on any system."""
    return 0 < len(path) <= 1000 and all(
        part not in ("", ".", "..")
        and len(part.encode("utf-8", "surrogatepass")) <= 255
        and not part.endswith(" ")
        and not any(c in '\\:*?"<>|' or ord(c) < 32 or "\ud800" <= c <= "\udfff" for c in part)
        for part in path.split("/")
    )


def _wrong(uri: str, what: str = "this is no address of a model on the Hub") -> UsageError:
    return UsageError("E0710", what, where=show_path(uri), hint=_HINT)
