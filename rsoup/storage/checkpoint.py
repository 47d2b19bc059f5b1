"""Checkpoints on a disk: one weight file, or a folder as `save_pretrained` writes it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rsoup.dialects import adapter_folder_of, split_stacked
from rsoup.errors import RefusedFileError, RsoupError, show, show_path
from rsoup.hub.address import Address, address_of, halves, parse
from rsoup.hub.place import Place, place
from rsoup.remote.transfer import Fetch
from rsoup.storage.checkpoint_source import CheckpointSource, twins
from rsoup.storage.files import open_error, open_regular, stays_inside
from rsoup.storage.folder import CARD, find_parts, list_folder, side_files
from rsoup.storage.index import Index, check_index
from rsoup.storage.lora_file import recognised
from rsoup.storage.pickled.dcp import is_distributed, open_distributed
from rsoup.storage.weight_file import WeightFile, open_weight_file
from rsoup.stores.address import is_store
from rsoup.stores.address import parse as parse_store
from rsoup.stores.place import place as stored

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Leniency:
    """What a user may allow beyond the rules: links out of the folder, tensors the index does not list."""

    symlinks: bool = False
    unindexed: bool = False


STRICT = Leniency()


def open_checkpoint(
    uri: str,
    *,
    name: str | None = None,
    variant: str | None = None,
    key: str | None = None,
    leniency: Leniency = STRICT,
    fetch: Fetch = "cache",
) -> CheckpointSource:
    """The checkpoint at `uri` (a folder, a weight file, an address on the Hub or in an object store), everything but the weights checked.

    A file is safetensors, what torch.save wrote (`key` is its entry that holds the weights), or an archive of
    Stable-Baselines3; a folder is a model's, a pipeline's of diffusers, or holds one such file.
    Of an address, `fetch` says whether the weights come into the Hub's cache, as a stream, or only their headers.

    Raises AccessError E070x (not there, no permission, no such variant) and RefusedFileError E08xx
    (malformed, hostile, incomplete, not a format rsoup reads); for addresses E0710 to E0719 and E7510, too.
    """
    shown = show_path(uri)
    if sys.byteorder != "little":
        raise RefusedFileError("E0815", "safetensors are little-endian, this machine is not", where=shown)
    if (both := halves(uri)) is not None:
        return _open_stacked(both, uri, name, variant, key, leniency, fetch)
    if (both := split_stacked(uri)) is not None:
        return _open_stacked(both, uri, name, variant, key, leniency, fetch)
    if (address := address_of(uri)) is not None:
        return _open_address(address, name, variant, key, leniency, fetch)
    if is_store(uri) and not os.path.lexists(uri):
        far = parse_store(uri)
        called = name or far.path.rpartition("/")[2] or far.root
        return _open_place(stored(far, variant=variant, fetch=fetch), called, variant, key, leniency)
    if "://" in uri and not os.path.lexists(uri):
        raise RefusedFileError(
            "E0810",
            "rsoup reads checkpoints of this machine, of the Hub and of object stores",
            where=shown,
            hint="copy it to a folder first, or name a model of the Hub: org/name",
        )
    return _open_here(uri, shown, name, variant, key, leniency)


def _open_address(
    address: Address, name: str | None, variant: str | None, key: str | None, leniency: Leniency, fetch: Fetch
) -> CheckpointSource:
    called = name or address.shown.rpartition("/")[2].partition("@")[0]
    return _open_place(place(address, variant=variant, fetch=fetch), called, variant, key, leniency)


def _open_place(
    found: Place, called: str, variant: str | None, key: str | None, leniency: Leniency
) -> CheckpointSource:
    try:
        source = _open_here(found.path, found.shown, called, variant, key, leniency)
    except BaseException:
        found.close()
        raise
    source.notes = (*found.notes, *source.notes)
    source.on_close, source.on_transfer = found.close, found.transfer
    return source


def _open_here(
    uri: str, shown: str, name: str | None, variant: str | None, key: str | None, leniency: Leniency
) -> CheckpointSource:
    try:
        status = os.stat(uri)
    except (OSError, ValueError) as error:
        raise _not_there(error, uri, shown) from error
    folder = uri if stat.S_ISDIR(status.st_mode) else adapter_folder_of(uri)
    if folder is not None:
        called = name or os.path.basename(os.path.abspath(folder))
        at = shown if folder == uri else shown.rpartition("/")[0] or show_path(folder)
        return _open_folder(folder, called, at, variant, key, leniency)
    file_name = os.path.basename(uri)
    with _opened([(uri, shown)], key) as opened:
        found = CheckpointSource(name or file_name, os.path.dirname(uri) or ".", [(file_name, "", opened[0])])
        found.is_one_file = True
        return recognised(found, shown)


def _open_stacked(
    both: tuple[str, str],
    uri: str,
    name: str | None,
    variant: str | None,
    key: str | None,
    leniency: Leniency,
    fetch: Fetch,
) -> CheckpointSource:
    under = open_checkpoint(both[0], name=name, variant=variant, key=key, leniency=leniency, fetch=fetch)
    try:
        called = name or os.path.basename(uri.rstrip("/"))
        adapter = open_checkpoint(both[1], name=called, leniency=leniency, fetch=fetch)
    except BaseException:
        under.close()
        raise
    adapter.under = under
    return adapter


def _not_there(error: OSError | ValueError, uri: str, shown: str) -> RsoupError:
    """The error for a path that leads nowhere, with what may have been meant."""
    found = open_error(error, shown)
    if isinstance(error, FileNotFoundError) and found.code == "E0701":
        if parse(uri) is not None:
            found.hint = f"check the spelling; a model of the Hub would be hf://{shown}"
        elif "," in uri:
            found.hint = "several checkpoints of one reward are one ingredient: NAME=PATH,PATH"
    return found


def _open_folder(
    folder: str, name: str, shown: str, variant: str | None, key: str | None, leniency: Leniency
) -> CheckpointSource:
    names = list_folder(folder, shown)
    if is_distributed(folder):
        distributed = open_distributed(folder, shown, key)
        whole = CheckpointSource(name, folder, [("model.distcp", "", distributed)], *side_files(names, ()))
        try:
            return recognised(whole, shown)
        except RsoupError:
            whole.close()
            raise
    parts = find_parts(folder, names, variant, shown)
    weights = [f"{part}{file}" for part, found in parts.items() for file in found.names]
    indices = [f"{part}{found.index_name}" for part, found in parts.items() if found.index_name]
    along, skipped = side_files(names, {*weights, *indices})
    read_later = [file for file in names if file in along or file == CARD]
    if not leniency.symlinks:
        for file in (*weights, *indices, *read_later):
            if not stays_inside(folder, file):
                raise RefusedFileError(
                    "E0813",
                    "this link leads out of the checkpoint's folder",
                    where=f"{shown}/{show(file)}",
                    hint="if that is meant: --allow symlinks",
                )
    for file in read_later:  # a broken link or a pipe is found now, not after hours of work
        open_regular(os.path.join(folder, file), f"{shown}/{show(file)}").close()
    places = [(os.path.join(folder, file), f"{shown}/{show(file)}") for file in weights]
    with _opened(places, key) as opened:
        files = dict(zip(weights, opened, strict=True))
        notes = [note for found in parts.values() for note in found.notes]
        notes += twins("files", (*weights, *along))
        for part, found in parts.items():
            if found.index is not None:
                mine = {file: files[f"{part}{file}"] for file in found.names}
                at = f"{shown}/{show(part)}{show(found.index_name)}"
                notes += _check_index(found.index, mine, at, leniency)
        prefix = {f"{part}{file}": part for part, found in parts.items() for file in found.names}
        rows = [(file, prefix[file], opened) for file, opened in files.items()]
        return recognised(CheckpointSource(name, folder, rows, along, skipped, notes), shown)


def _check_index(
    index: Index, files: Mapping[str, WeightFile], at: str, leniency: Leniency
) -> tuple[str, ...]:
    placed = {tensor: name for name, file in files.items() for tensor in file.header}
    nbytes = sum(spec.nbytes for file in files.values() for spec in file.header.values())
    return check_index(index, placed, nbytes, at, unindexed=leniency.unindexed)


@contextmanager
def _opened(places: Iterable[tuple[str, str]], key: str | None) -> Iterator[list[WeightFile]]:
    """The weight files at `places` (path, what to call it); closed again if anything goes wrong."""
    with ExitStack() as stack:
        opened = []
        for path, shown in places:
            opened.append(open_weight_file(path, shown, key))
            stack.callback(opened[-1].file.close)
        yield opened
        stack.pop_all()
