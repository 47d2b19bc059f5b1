"""Where a soup may be written: not over an input, not over anything but a model, not where it cannot fit."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from rsoup.dialects import ADAPTER_CONFIG
from rsoup.errors import AccessError, RsoupError, TargetError, UsageError, listing, show
from rsoup.storage.here import check_here

_FORMATS = {
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
    ".bin": "torch",
    ".ckpt": "torch",
    ".zip": "sb3",
}
_NEVER = (".gguf", ".onnx", ".h5", ".msgpack", ".npz", ".tar", ".gz")


def single_file_format(out: str) -> str | None:
    """The format of the one file this output path means (`safetensors`, `torch`, `sb3`); None for a folder.

    Raises UsageError E0214 for an ending of a format rsoup does not write.
    """
    lowered = out.lower()
    if lowered.endswith(_NEVER):
        raise UsageError(
            "E0214",
            f"rsoup does not write '{show(os.path.splitext(out)[1])}'",
            hint="-o NAME for a folder, -o NAME.safetensors or NAME.pt for one file; then convert it",
        )
    return next((name for ending, name in _FORMATS.items() if lowered.endswith(ending)), None)


def is_single_file(out: str) -> bool:
    """Whether this output path means one file rather than a folder."""
    return single_file_format(out) is not None


def sidecar(out: str) -> str:
    """The manifest's path beside a single output file: `NAME.rsoup.json`."""
    return f"{os.path.splitext(out)[0]}.rsoup.json"


def check_target(out: str, inputs: Iterable[str], *, overwrite: bool) -> None:
    """Refuse an output that exists (E0601) or that is, contains or lies in an input (E0213).

    `inputs` are the paths of checkpoints, folders or files; compared by device and inode, so that links
    and mounts do not hide anything. With `overwrite` an empty folder, a model's folder that holds nothing
    else, or a file (for an output that is one) may be replaced, and nothing else.
    """
    shown = show(out)
    check_here(out)
    single = is_single_file(out)
    out = out.rstrip("/")
    if os.path.basename(out) in ("", ".", ".."):
        raise UsageError(
            "E0213", f"'{shown}' is not a place for a soup", hint="give a folder's name: -o soup"
        )
    _check_apart(out, inputs, shown)
    for path in (out, sidecar(out)) if single else (out,):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise target_error(error, shown) from error
        if single and path != out:
            _check_own_manifest(path, out)
        _check_replaceable(path, status.st_mode, single=single, overwrite=overwrite)
    lost = set(_folders_in(out))
    for path in inputs:
        if _identity(path) in lost:
            raise _touches("contains the input", path, shown)


def _check_own_manifest(path: str, out: str) -> None:
    """E0607 where the manifest's place is taken by that of a file with another ending."""
    named = _listed(path)
    if named and os.path.basename(out) not in named:
        raise TargetError(
            "E0607",
            f"'{show(path)}' is the manifest of {listing(named, 2)}, and would be lost",
            where=show(out),
            hint="choose another name: two soups in one folder differ in more than their ending",
        )


def _check_replaceable(path: str, mode: int, *, single: bool, overwrite: bool) -> None:
    shown = show(path)
    if stat.S_ISLNK(mode):
        raise TargetError(
            "E0601",
            "the output is a symbolic link, which is never followed",
            where=shown,
            hint="give the path it points to, or remove it",
        )
    if not overwrite:
        raise TargetError(
            "E0601", "the output exists", where=shown, hint="choose another -o, or replace it: --overwrite"
        )
    if not (stat.S_ISREG if single else stat.S_ISDIR)(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
        what = kinds.get(stat.S_IFMT(mode), "neither a file nor a folder")
        raise _irreplaceable(shown, f"is {what}")
    if not single:
        _check_model_folder(path, shown)


def _check_model_folder(path: str, shown: str) -> None:
    """Nothing, if all that would be lost is a model: its folder is made by rsoup, or looks like a saved model."""
    try:
        with os.scandir(path) as entries:
            folders = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        if not folders:
            return
        if os.path.samefile(path, "."):
            raise _irreplaceable(shown, "is the folder you are in")
        listed = _listed(os.path.join(path, "rsoup.json")) if "rsoup.json" in folders else None
        known = None if listed is None else {"rsoup.json", *(name.partition("/")[0] for name in listed)}
    except OSError as error:
        raise target_error(error, shown) from error
    if known is None:
        weights = any(name.endswith((".safetensors", ".bin")) for name in folders)
        if not weights or not folders.keys() & {"config.json", ADAPTER_CONFIG}:
            raise _irreplaceable(shown, "is a folder without a model in it")
        known = {name for name, is_folder in folders.items() if not is_folder}
    if others := sorted(set(folders) - known):
        raise _irreplaceable(shown, f"holds {listing(others, 3)}, which would be lost")


def _listed(manifest: str) -> list[str]:
    """The names of the files a manifest lists; none where it is no manifest."""
    try:
        with open(manifest, "rb") as file:
            return [str(entry["name"]) for entry in json.load(file)["subject"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _irreplaceable(shown: str, what: str) -> TargetError:
    return TargetError(
        "E0607",
        f"the output exists and {what}; it is not replaced",
        where=shown,
        hint="choose another -o, or move it away yourself",
    )


def _check_apart(out: str, inputs: Iterable[str], shown: str) -> None:
    out_itself, out_above = _identity(out), _above(out)
    for path in inputs:
        itself = _identity(path)
        if itself is None:
            continue
        what = None
        if itself == out_itself:
            what = "is the input"
        elif out_itself is not None and out_itself in _above(path):
            what = "contains the input"
        elif os.path.isdir(path) and itself in out_above:
            what = "lies inside the input"
        if what:
            raise _touches(what, path, shown)


def _touches(what: str, path: str, shown: str) -> UsageError:
    return UsageError(
        "E0213",
        f"the output {what} '{show(path)}'",
        where=shown,
        hint="choose another -o: inputs are never written to",
    )


def _folders_in(out: str) -> Iterator[tuple[int, int]]:
    """(device, inode) of the folders in a folder that may be replaced: an input may be mounted from there."""
    for folder, _, _ in os.walk(out):
        status = os.lstat(folder)
        yield status.st_dev, status.st_ino


def _identity(path: str) -> tuple[int, int] | None:
    """(device, inode) of what is at a path, links followed; None where nothing can be."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            return None
        raise target_error(error, show(path)) from error
    return status.st_dev, status.st_ino


def _above(path: str) -> list[tuple[int, int]]:
    """The identities of the folders above a path, as far as they exist."""
    found = []
    here = os.path.realpath(path)
    while (above := os.path.dirname(here)) != here:
        here = above
        if identity := _identity(here):
            found.append(identity)
    return found


def target_error(error: OSError | ValueError, shown: str) -> RsoupError:
    """The error for a write that failed, in words: no space, file too large, no permission, a failing disk."""
    number = error.errno if isinstance(error, OSError) else errno.EINVAL
    reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return TargetError(
            "E0602",
            "the disk is full, or your quota is",
            where=shown,
            hint="free some space, or write elsewhere: -o /other/disk/soup",
        )
    if number == errno.EFBIG:
        return TargetError(
            "E0603",
            "the file is larger than this file system or your limit allows",
            where=shown,
            hint="write smaller files: --max-shard-size 2GB",
        )
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return AccessError(
            "E0704",
            f"no permission to write here ({reason})",
            where=shown,
            hint="choose an -o in a folder of yours",
        )
    if number == errno.ENAMETOOLONG:
        return TargetError(
            "E0605",
            "the name is too long for this file system (255 bytes, and rsoup adds 24)",
            where=shown,
            hint="choose a shorter -o",
        )
    if number == errno.ENOTDIR:
        return TargetError(
            "E0604", "a part of the path is a file, not a folder", where=shown, hint="choose another -o"
        )
    if number == errno.EEXIST:
        return TargetError(
            "E0601",
            "the output came into being while the soup was made",
            where=shown,
            hint="somebody else made it: compare, then remove one",
        )
    if number == errno.EMFILE:
        return TargetError(
            "E0606",
            "too many open files for this process",
            where=shown,
            hint="raise the limit: ulimit -n 4096",
        )
    return TargetError(
        "E0604",
        f"writing failed: {show(reason)}",
        where=shown,
        hint="check the disk and the folder, then run the same command again",
    )


def check_space(parent: str, needed: int, shown: str) -> None:
    """TargetError E0602 if fewer than `needed` bytes are free on the file system of `parent`."""
    free = free_bytes(parent)
    if free is not None and needed > free:
        raise TargetError(
            "E0602",
            f"the soup needs {size_text(needed)} and {size_text(free)} are free",
            where=shown,
            hint="free some space, or write elsewhere: -o /other/disk/soup",
        )


def free_bytes(path: str) -> int | None:
    """Bytes this user may still write on the file system of `path`, or of the nearest folder above that exists."""
    here = os.path.abspath(path)
    while not os.path.exists(here):
        here = os.path.dirname(here)
    try:
        status = os.statvfs(here)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def size_text(nbytes: float, units: Sequence[str] = ("B", "kB", "MB", "GB", "TB")) -> str:
    """`4.4 GB`: bytes in powers of 1000, two or three digits."""
    unit = 0
    while nbytes >= 999.5 and unit < len(units) - 1:
        nbytes, unit = nbytes / 1000, unit + 1
    return f"{nbytes:.0f} {units[unit]}" if unit == 0 or nbytes >= 99.5 else f"{nbytes:.1f} {units[unit]}"
