"""What a soup's manifest claims, read strictly; and what of it does not fit the rest of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rsoup import manifest
from rsoup.digests import DIGEST
from rsoup.errors import AccessError, RefusedFileError, listing, show, show_path
from rsoup.plan import ARITHMETIC
from rsoup.storage.files import parse_json, read_whole
from rsoup.storage.target import sidecar

MAX_BYTES: Final = 1_000_000_000
_BESIDE: Final = f".{manifest.NAME}"
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_VERSIONS: Final = {
    "schema": (manifest.SCHEMA,),
    "arithmetic": (ARITHMETIC, "rsoup-lora/1", "rsoup-extract/1"),
    "digest": (DIGEST,),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """One file the manifest lists, with its size in bytes and `digest` (rsoup-digest/1) or `sha256`."""

    name: str
    size: int
    digest: str | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Claims:
    """A manifest that can be understood: where it is, what it lists, and the whole of it as `value`."""

    shown: str
    data: bytes
    value: Mapping[str, Any]
    subjects: tuple[Subject, ...]
    tensors: Mapping[str, str]
    content: str
    recipe_sha256: str
    canonical: Mapping[str, Any]

    @property
    def contents(self) -> dict[str, str | None]:
        """Name of a checkpoint (`base` for the base) → the content digest the manifest has of it."""
        found = {row["name"]: row["content"] for row in self.value["ingredients"]}
        base = self.value["base"]
        return found if base is None else {**found, "base": base["content"]}

    @property
    def variant(self) -> str | None:
        """The variant whose files the soup's weights are."""
        found = self.canonical.get("variant")
        return found if isinstance(found, str) else None


def manifest_path(out: str) -> str:
    """Where the manifest of the soup at `out` lies: in the folder, or beside the file."""
    return os.path.join(out, manifest.NAME) if os.path.isdir(out) else sidecar(out)


def folder_of(out: str) -> str:
    """The folder in which the soup's files lie."""
    return out if os.path.isdir(out) else os.path.dirname(out) or "."


def lone_file(names: Iterable[str]) -> str | None:
    """The soup that is one file, of files called `names`: the one whose manifest is the only one, beside it."""
    there = [name for name in names if "/" not in name]
    manifests = [name for name in there if name == manifest.NAME or name.endswith(_BESIDE)]
    files = [name for name in there if name not in manifests and sidecar(name) in manifests]
    return files[0] if len(manifests) == len(files) == 1 else None


def read(out: str, called: str | None = None) -> Claims:
    """The manifest of the soup at `out`, a folder that is `called` so where it came from the Hub.

    Raises AccessError E0730 where there is none; RefusedFileError E0805, E0808 (not JSON) or E0830 (not
    a manifest of this version).
    """
    path = manifest_path(out)
    shown = show_path(path)
    if called is not None and called != show_path(out):
        shown = f"{called}/{manifest.NAME}" if os.path.isdir(out) else sidecar(called)
    beside = os.path.join(folder_of(out), manifest.NAME)
    if not os.path.isdir(out) and not os.path.lexists(path) and os.path.lexists(beside):
        raise AccessError(
            "E0730",
            "this is a file of a soup",
            where=show_path(out),
            hint=f"verify its folder: {show_path(folder_of(out))}",
        )
    if not os.path.lexists(path):
        raise AccessError(
            "E0730",
            "there is no manifest: this is no soup of rsoup, or not a complete one",
            where=shown,
            hint="fetch it again with its rsoup.json; or compare two checkpoints: rsoup diff A B",
        )
    data = read_whole(path, shown, MAX_BYTES)
    value = parse_json(data, shown)
    try:
        assert isinstance(value, dict)
        return _claims(shown, data, value)
    except (AssertionError, KeyError, TypeError, AttributeError) as error:
        what = f"its field '{show(error.args[0])}'" if isinstance(error, KeyError) else "one of its fields"
        raise RefusedFileError(
            "E0830",
            f"this is not a manifest that this version of rsoup knows: {what} is missing or has another form",
            where=shown,
            hint="a newer rsoup made it? pip install --upgrade rewarded-soups",
        ) from None


def _claims(shown: str, data: bytes, value: dict[str, Any]) -> Claims:
    for key, known in _VERSIONS.items():
        if value[key] not in known:
            raise KeyError(key)
    subjects = tuple(map(_subject, value["subject"]))
    if len({subject.name for subject in subjects}) != len(subjects) or not subjects:
        raise KeyError("subject")
    tensors, recipe = value["tensors"], value["recipe"]
    for key, fits in _FORMS.items():
        if not fits(value[key]):
            raise KeyError(key)
    assert isinstance(recipe["canonical"], dict)
    return Claims(
        shown, data, value, subjects, tensors, value["content"], recipe["sha256"], recipe["canonical"]
    )


def _hex(value: object) -> bool:
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def _source(row: object) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row["checkpoint"], str)
        and (row["content"] is None or _hex(row["content"]))
    )


_FORMS: Mapping[str, Callable[[Any], bool]] = {
    "content": _hex,
    "tensors": lambda v: isinstance(v, dict) and all(map(_hex, v.values())),
    "recipe": lambda v: _hex(v["sha256"]) and isinstance(v["canonical"], dict),
    "ingredients": lambda v: isinstance(v, list) and all(_source(r) and isinstance(r["name"], str) for r in v),
    "base": lambda v: v is None or _source(v),
    "checks": lambda v: isinstance(v["nonfinite_kept"], dict)
    and all(isinstance(v[key], kind) for key, kind in (("mixed", int), ("copied", int), ("dropped", list))),
    "overrides": lambda v: isinstance(v, list) and all(isinstance(item, str) for item in v),
    "files_from": lambda v: isinstance(v, str),
    "tool": lambda v: v["name"] == "rsoup" and isinstance(v["version"], str),
    "run": lambda v: re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", v["finished"]) is not None
    and isinstance(v["seconds"], int | float)
    and all(isinstance(v[key], str) for key in ("python", "torch", "platform")),
}  # fmt: skip


def _subject(row: Any) -> Subject:
    name, size, digest, sha256 = row["name"], row["size"], row.get("digest"), row.get("sha256")
    parts = name.split("/")
    fits = isinstance(size, int) and size >= 0 and "\0" not in name and not {"", ".", ".."} & {*parts}
    if not fits or not (_hex(digest) or _hex(sha256)) or not all(v is None or _hex(v) for v in (digest, sha256)):  # fmt: skip
        raise KeyError("subject")
    return Subject(name, size, digest, sha256)


def canonical_sha256(form: Mapping[str, object]) -> str:
    """The hash of a recipe's canonical form, as `Recipe.sha256` takes it."""
    text = json.dumps(form, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def contradictions(claims: Claims) -> list[tuple[str, str]]:
    """(field, what is wrong) wherever the manifest contradicts itself, without a look at any other file."""
    found: list[tuple[str, str]] = []
    try:
        found += _contradictions(claims)
        found += _checks(claims)
    except (KeyError, TypeError, AttributeError, ValueError):
        found.append(("recipe or checks", "a field is missing or has another form"))
    return found


def _contradictions(claims: Claims) -> Iterator[tuple[str, str]]:
    value, form = claims.value, claims.canonical
    if claims.recipe_sha256 != canonical_sha256(form):
        yield "recipe", "sha256 is not the hash of canonical"
    if _encoded(value) != claims.data:
        yield "(all of it)", "it is not written as rsoup writes JSON"
    rows = _checkpoints(form)
    if [(row["name"], row["checkpoint"]) for row in value["ingredients"]] != rows:
        yield "ingredients", f"they are not the recipe's: {listing([name for name, _ in rows])}"
    base = value["base"]
    if (base and base["checkpoint"]) != form["base"]:
        yield "base", "it is not that of the recipe"
    if value["files_from"] not in {*dict(rows), *(["base"] if base else [])}:
        yield "files_from", "no checkpoint is called so"


def _encoded(value: Mapping[str, object]) -> bytes:
    try:
        return manifest.encode(value)
    except ValueError:  # Infinity, which JSON has no word for
        return b""


def _checkpoints(form: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (row["name"] if len(row["checkpoints"]) == 1 else f"{row['name']}/{number}", checkpoint)
        for row in form["ingredients"]
        for number, checkpoint in enumerate(row["checkpoints"], 1)
    ]


def _checks(claims: Claims) -> Iterator[tuple[str, str]]:
    value, form, checks = claims.value, claims.canonical, claims.value["checks"]
    if checks["mixed"] + checks["copied"] != len(claims.tensors):
        yield "checks", f"mixed and copied do not make {len(claims.tensors)} tensors"
    if checks["dropped"] != sorted(checks["dropped"]) or claims.tensors.keys() & {*checks["dropped"]}:
        yield "checks.dropped", "it holds a tensor of the soup, or is not sorted"
    if not checks["nonfinite_kept"].keys() <= claims.tensors.keys():
        yield "checks.nonfinite_kept", "it names a tensor that is not in the soup"
    measured = value["arithmetic"] == ARITHMETIC and value["base"] is not None
    if ("distances" in checks) != measured:
        yield "checks.distances", "they are there with a base, and only then"
    elif "distances" in checks:
        cosine = checks["distances"]["cosine"]
        names = [name for name, _ in _checkpoints(form)]
        symmetric = cosine == [list(row) for row in zip(*cosine, strict=True)]
        if checks["distances"]["checkpoints"] != names or not symmetric:
            yield "checks.distances", "they are not of these checkpoints"
    wanted = [f"--drop {glob}" for glob in form["drop"]]
    wanted += [f"--buffers-from {form['buffers_from']}"] if form["buffers_from"] else []
    if [text for text in value["overrides"] if text.startswith(("--drop ", "--buffers-from "))] != wanted:
        yield "overrides", "they are not what the recipe says"
