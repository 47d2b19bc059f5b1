"""The files of a folder that are published: all there, proven, with safe names."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from rsoup import manifest
from rsoup.contents import chunks_of, head_of
from rsoup.errors import Problem, UsageError, listing, show, show_path
from rsoup.progress import OnProgress
from rsoup.proof import claims
from rsoup.proof.canonical import recipe_of
from rsoup.proof.claims import Claims
from rsoup.proof.verifying import verify
from rsoup.publish.redaction import Private, findings
from rsoup.report import card
from rsoup.storage.checkpoint import open_checkpoint
from rsoup.storage.files import open_error, read_whole, safe_name, stays_inside

_LARGEST_TEXT: Final = 512_000_000
_NOT_PUBLISHED: Final = frozenset((".git", ".cache", ".gitattributes", ".gitignore", "__pycache__"))
_STATE: Final = re.compile(r"(?:training_args|optimizer|scheduler|scaler|rng_state|trainer_state)[\w.-]*")
_WEIGHTS: Final = re.compile(
    r".+\.(?:safetensors|bin|pt|pth|ckpt|gguf|h5|msgpack|onnx|distcp|npz)|.+\.index(?:\.[\w-]+)?\.json|policy\.zip",
    re.IGNORECASE,
)
_TELLING: Final = ("adapter_config.json", "model_index.json")  # a library opens the weights these speak of


@dataclass(frozen=True, slots=True)
class Item:
    """One file: its name in the repository, its bytes' number, and where they are: at `path`, or in `data`."""

    name: str
    nbytes: int
    path: str | None = None
    data: bytes | None = field(default=None, repr=False)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The bytes, in order."""
        if self.data is not None:
            yield self.data
        else:
            assert self.path is not None
            yield from chunks_of(self.path, show_path(self.name))

    def sha256(self) -> str:
        """The SHA-256 of the bytes, as the Hub names large files."""
        return self._hashed(hashlib.sha256())

    def blob_id(self) -> str:
        """Git's id of the bytes, as the Hub names small files: SHA-1 of `blob SIZE\\0` and them."""
        return self._hashed(hashlib.sha1(f"blob {self.nbytes}\0".encode(), usedforsecurity=False))

    def _hashed(self, hasher: hashlib._Hash) -> str:
        for chunk in self.chunks():
            hasher.update(chunk)
        return hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class Parcel:
    """A folder's files by name, and its manifest where it is a soup; `card` is its README.md's text.

    `manifest` is the name of that manifest: a soup that is one file has it beside it under a name of its own.
    """

    items: Mapping[str, Item]
    claims: Claims | None
    card: str | None = field(repr=False)
    manifest: str = manifest.NAME

    def with_items(self, added: Iterable[Item]) -> Parcel:
        """The parcel with these files put in, or in the place of those of the same name."""
        return replace(self, items={**self.items, **{item.name: item for item in added}})


def is_weights(name: str) -> bool:
    """Whether a file of a repository belongs to a model's weights: what another model's files must not lie beside."""
    last = name.rpartition("/")[2]
    if _STATE.fullmatch(last):
        return False
    return last in _TELLING or _WEIGHTS.fullmatch(last) is not None


def pack(folder: str, *, progress: OnProgress | None = None) -> Parcel:
    """The files of a soup (a folder or one file) whose manifest holds, structure and digests; or of any other checkpoint that opens.

    Raises MismatchError E0901 for a soup that is not what it says, AccessError and RefusedFileError where it cannot
    be read, UsageError E0720 for what is no folder and for names that cannot be published.
    """
    try:
        mode = os.stat(folder).st_mode
    except (OSError, ValueError) as error:
        raise open_error(error, show_path(folder)) from error
    soup, found = _soup_in(folder), None
    if soup is not None:
        verify(soup, progress=progress)
        found = claims.read(soup)
        about = os.path.basename(claims.manifest_path(soup))
        names = [*(subject.name for subject in found.subjects), about]
        if soup != folder and os.path.isfile(os.path.join(folder, card.NAME)):
            names.append(card.NAME)
        folder = claims.folder_of(soup)
    elif stat.S_ISREG(mode):
        raise UsageError(
            "E0720", "a file alone is published only if it is a soup, with its manifest beside it", where=show_path(folder),
            hint="publish its folder, or merge into one: rsoup merge … -o soup/",
        )  # fmt: skip
    else:
        open_checkpoint(folder).close()
        about, names = manifest.NAME, list(_walk(folder, ""))
    check_names(names)
    items = {
        name: Item(name, os.stat(path).st_size, path)
        for name in names
        if (path := os.path.join(folder, name))
    }
    text = None
    if card.NAME in items:
        path = os.path.join(folder, card.NAME)
        text = read_whole(path, card.NAME, card.MAX_CARD_BYTES).decode("utf-8", "replace")
    elif found is not None:
        text = _new_card(found)
    return Parcel(items, found, text, about)


def _new_card(found: Claims) -> str:
    """The card of a soup that has none, being one file."""
    recipe = recipe_of(found.canonical, found.shown)
    base = None if recipe.public_base is None else (recipe.public_base, card.NO_CARD)
    archive = any(subject.name.endswith(".zip") for subject in found.subjects)
    about, _ = card.metadata(recipe, [], base, library="stable-baselines3" if archive else None)
    if archive:
        about["pipeline_tag"] = "reinforcement-learning"
    return card.join(about, card.body(recipe, None, None))


def _soup_in(path: str) -> str | None:
    """What `verify` takes for the soup at this path: a folder, or one file with its manifest; None where there is none."""
    if not os.path.isdir(path):
        return path if os.path.lexists(claims.manifest_path(path)) else None
    if os.path.lexists(os.path.join(path, manifest.NAME)):
        return path
    alone = claims.lone_file(os.listdir(path))
    return None if alone is None else os.path.join(path, alone)


def _walk(folder: str, prefix: str) -> Iterator[str]:
    """Names of the regular files of a folder, and of what links lead to."""
    try:
        entries = sorted(os.scandir(os.path.join(folder, prefix)), key=lambda entry: entry.name)
    except OSError as error:
        raise open_error(error, show_path(os.path.join(folder, prefix))) from error
    for entry in entries:
        if entry.name in _NOT_PUBLISHED:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder, f"{prefix}{entry.name}/")
            continue
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            raise open_error(error, show_path(entry.path)) from error
        if not stat.S_ISREG(mode):
            raise UsageError(
                "E0720", "it is no regular file, and cannot be published", where=show_path(entry.path), hint="remove it"
            )  # fmt: skip
        if not stays_inside(folder, prefix + entry.name):
            raise UsageError(
                "E0720", "this link leads out of the folder, and is not followed", where=show_path(entry.path),
                hint="copy the file to where the link is",
            )  # fmt: skip
        yield prefix + entry.name


def check_names(names: Iterable[str]) -> None:
    """Raise UsageError E0720 for names that a repository cannot hold, or that are another file elsewhere."""
    listed = list(names)
    bad = [
        name
        for name in listed
        if not all(map(safe_name, name.split("/")))
        or show(name, len(name)) != name
        or any(part.lower() == ".git" or part.endswith((" ", ".")) for part in name.split("/"))
    ]
    if bad:
        raise UsageError(
            "E0720", f"{listing(bad)} cannot be published under this name", hint="rename it: letters, digits, -, _ and ."
        )  # fmt: skip
    folded: dict[str, str] = {}
    for name in listed:
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise UsageError(
                "E0720",
                f"'{show(other)}' and '{show(name)}' are one file on many machines",
                hint="rename one",
            )


def private_findings(items: Iterable[Item], private: Private) -> list[Problem]:
    """Everything private in the texts among these files, and in the headers of the weights."""
    found: list[Problem] = []
    for item in items:
        text = _text(item)
        if text is not None:
            found += findings(item.name, text, private)
    return found


def _text(item: Item) -> str | None:
    """What is readable of a file: all of a text, the header of a safetensors file; None for other binary files."""
    shown = show_path(item.name)
    if item.name.endswith(".safetensors") and item.path is not None:
        return head_of(item.path, shown)[8:].decode("utf-8", "replace").replace("\\/", "/")
    if is_weights(item.name) and not item.name.endswith(".json"):
        return None
    if item.data is not None:
        data = item.data
    else:
        assert item.path is not None
        if item.nbytes > _LARGEST_TEXT:
            return None
        data = read_whole(item.path, shown, _LARGEST_TEXT)
    if b"\0" in data[:4096]:
        return None
    return data.decode("utf-8", "replace").replace("\\/", "/")
