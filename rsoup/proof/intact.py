"""Is a soup as its manifest says? The files that are there, and every digest, recomputed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from rsoup import manifest
from rsoup.contents import OnBytes, content, head_of, sha256_of, tensor_digests
from rsoup.digests import file_digest
from rsoup.errors import AccessError, RefusedFileError, listing, show, show_path
from rsoup.proof.claims import Claims, Subject, contradictions, folder_of
from rsoup.proof.located import FETCHED
from rsoup.proof.verdict import Difference, Level
from rsoup.remote.transfer import Fetch
from rsoup.storage.checkpoint import open_checkpoint
from rsoup.storage.files import open_error
from rsoup.storage.protocols import Source
from rsoup.storage.safetensors_header import parse_header
from rsoup.workers import each

STRUCTURE = "complete and strictly valid: the files of rsoup.json and no other, its tensors by name"
NOWHERE: Final[Mapping[str, int]] = {}
DIGESTS = "unchanged since rsoup.json was written, which is not signed: who can write it can make it fit"


@contextmanager
def opened(
    out: str,
    claims: Claims,
    *,
    uri: str | None = None,
    elsewhere: Mapping[str, int] = NOWHERE,
    fetch: Fetch = "cache",
) -> Iterator[tuple[Source | None, Level]]:
    """The soup, open, and whether its structure is what the manifest says; no soup where it cannot be opened for that.

    `uri` is what opens it where that is not `out`, and `fetch` how its weights come then; `elsewhere` are bytes of files
    by name that belong to it and are not here. Raises RefusedFileError E08xx for a file that is malformed although the right files are there.
    """
    found = (_files if os.path.isdir(out) else _sizes)(out, claims, elsewhere)
    try:
        source = open_checkpoint(
            uri or out, variant=claims.variant if os.path.isdir(out) else None, fetch=fetch
        )
    except (RefusedFileError, AccessError) as error:
        if not found:
            raise
        cause = Difference(show_path(error.where or out), error.message)
        yield None, Level(0, "structure", STRUCTURE, (*found, cause))
        return
    try:
        found += _tensors(source, claims)
        data = {"files": len(claims.subjects) + 1, "tensors": len(source.header)}
        yield source, Level(0, "structure", STRUCTURE, tuple(found), data)
    finally:
        source.close()


def _files(out: str, claims: Claims, elsewhere: Mapping[str, int]) -> list[Difference]:
    """What is missing, what is not listed, what is no file, what has another size, in a folder."""
    found = []
    there = {**dict.fromkeys(elsewhere, True), **dict(_walk(out, ""))}
    listed = {subject.name for subject in claims.subjects} | {manifest.NAME}
    found += [Difference(show(name), "the manifest does not list it") for name in there if name not in listed]
    for name in sorted(listed & there.keys()):
        if not there[name]:
            found.append(Difference(show(name), "it is a link or no file at all; a soup has regular files"))
    return [*found, *_sizes(out, claims, elsewhere)]


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, bool]]:
    """(relative name, whether it is a regular file or a link of a Hub cache) of everything but folders."""
    try:
        entries = sorted(os.scandir(os.path.join(folder, prefix)), key=lambda entry: entry.name)
    except OSError as error:
        raise open_error(error, show_path(os.path.join(folder, prefix))) from error
    for entry in entries:
        if not prefix and entry.name in FETCHED:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder, f"{prefix}{entry.name}/")
        else:
            fits = entry.is_file(follow_symlinks=False) or _in_hub_cache(folder, entry.path)
            yield prefix + entry.name, fits


def _in_hub_cache(folder: str, path: str) -> bool:
    """Whether this link is one of those a Hub cache has for every file: snapshots/REV/name → blobs/hash."""
    repository, snapshots, _ = os.path.realpath(folder).rpartition("/snapshots/")
    target = os.path.realpath(path)
    return bool(snapshots) and os.path.dirname(target) == f"{repository}/blobs" and os.path.isfile(target)


def _sizes(out: str, claims: Claims, elsewhere: Mapping[str, int]) -> list[Difference]:
    found, folder = [], folder_of(out)
    for subject in claims.subjects:
        if (size := elsewhere.get(subject.name)) is not None:
            if size != subject.size:
                found.append(_of_size(subject, size))
            continue
        try:
            status = os.stat(os.path.join(folder, subject.name))
        except OSError:
            found.append(Difference(show(subject.name), "it is missing"))
            continue
        if stat.S_ISDIR(status.st_mode):
            found.append(Difference(show(subject.name), "it is a folder"))
        elif stat.S_ISREG(status.st_mode) and status.st_size != subject.size:
            found.append(_of_size(subject, status.st_size))
    return found


def _of_size(subject: Subject, nbytes: int) -> Difference:
    return Difference(show(subject.name), f"it has {nbytes} bytes, not {subject.size}")


def _tensors(source: Source, claims: Claims) -> list[Difference]:
    found = []
    weights = {file.name for file in source.files}
    listed = {subject.name for subject in claims.subjects}
    if missing := [name for name in claims.tensors if name not in source.header]:
        found.append(
            Difference("tensors", f"{len(missing)} of the manifest are not there: {listing(missing)}")
        )
    if extra := [name for name in source.header if name not in claims.tensors]:
        found.append(Difference("tensors", f"{len(extra)} are not in the manifest: {listing(extra)}"))
    found += [
        Difference(show(subject.name), "the manifest says it holds weights, and it does not")
        for subject in claims.subjects
        if subject.digest is not None and subject.name not in weights
    ]
    found += [
        Difference(show(name), "it holds the weights, and the manifest does not list it")
        for name in sorted(weights - listed)
    ]
    return found


def digests(
    out: str, source: Source, claims: Claims, *, threads: int | None = None, on_bytes: OnBytes | None = None
) -> Level:
    """Whether every file, tensor and derivable field of the manifest has the digest that the manifest says."""
    folder = folder_of(out)
    found = [Difference(f"rsoup.json: {field}", what) for field, what in contradictions(claims)]
    whole = [subject for subject in claims.subjects if subject.sha256 is not None]
    sums: dict[str, str | None] = {}

    def on_sum(subject: Subject, value: str | None) -> None:
        sums[subject.name] = value
        if on_bytes is not None and subject.digest is None:
            on_bytes(subject.size)

    each(
        whole,
        lambda _: lambda subject: _sha256(folder, subject),
        on_sum,
        threads=threads,
    )
    for subject in whole:
        if sums[subject.name] != subject.sha256:
            what = "its SHA-256 is not that of the manifest" if sums[subject.name] else "it cannot be read"
            found.append(Difference(show(subject.name), what))
    tensors = tensor_digests(source, threads=threads, on_bytes=on_bytes)
    altered = [name for name, digest in tensors.items() if claims.tensors.get(name, digest) != digest]
    found += [
        Difference(f"tensor '{show(name)}'", "its digest is not that of the manifest") for name in altered
    ]
    by_name = {subject.name: subject for subject in claims.subjects}
    found += [
        Difference(show(file.name), "the manifest says nothing of this file")
        for file in source.files
        if file.name not in by_name
    ]
    for file in source.files:
        if file.name in by_name:
            inside = [tensors[name] for name in file.tensors]
            found += _weights(folder, by_name[file.name], inside, claims)
    if content(source.header, tensors) != claims.content:
        found.append(Difference("content", "the digest of all tensors, their dtypes and shapes is another"))
    data = {"bytes": sum(subject.size for subject in claims.subjects), "tensors": len(tensors)}
    return Level(1, "digests", DIGESTS, tuple(found), data)


def _sha256(folder: str, subject: Subject) -> str | None:
    try:
        return sha256_of(os.path.join(folder, subject.name), show_path(subject.name))
    except (AccessError, RefusedFileError) as error:
        if error.code not in ("E0701", "E0807"):  # not there, or no file: what level 0 says
            raise
        return None


def _weights(folder: str, subject: Subject, tensors: list[str], claims: Claims) -> list[Difference]:
    """What is wrong with a weight file as a whole: its first bytes with its tensors' digests, the recipe's hash in it."""
    if subject.digest is None or not subject.name.endswith(".safetensors"):
        return []
    path, shown = os.path.join(folder, subject.name), show_path(subject.name)
    found = []
    head = head_of(path, shown)
    if file_digest(head, tensors) != subject.digest:
        found.append(Difference(show(subject.name), "its digest is not that of the manifest"))
    metadata = parse_header(head[8:], os.stat(path).st_size, shown).metadata
    if metadata.get("rsoup.recipe") != claims.recipe_sha256:
        found.append(
            Difference(show(subject.name), "the recipe's hash in its header is not that of the manifest")
        )
    return found
