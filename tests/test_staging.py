"""Where a soup may go, and the folder it is made in: storage/target.py, staging.py, journal.py, parts.py, rename.py."""

# ruff: noqa: PT012 - what must fail here is what leaves a with block

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import tree
from faults import IS_ROOT, bound, needs_root, small_disk, stray

from rsoup.errors import AccessError, BusyError, RsoupError, TargetError, UsageError
from rsoup.storage import journal, parts, plain, rename
from rsoup.storage.rename import exchange, rename_new, sync_folder
from rsoup.storage.staging import Staging
from rsoup.storage.target import (
    check_space,
    check_target,
    is_single_file,
    sidecar,
    single_file_format,
    size_text,
    target_error,
)

PLAN = "0123456789abcdef" * 4
OTHER_PLAN = "f" * 64
FILES = {"model.safetensors": (((0, b"head"),), 4096)}


def staging(out: Path, plan: str = PLAN) -> Staging:
    """A staging folder for `out` with one weight file."""
    return Staging(str(out), plan, FILES)


def make(out: Path, content: bytes = b"1", *, overwrite: bool = False) -> None:
    """A finished result with one weight file of 4096 bytes that ends in `content`, and a manifest."""
    with staging(out) as stage:
        stage.write("model.safetensors", 4096 - len(content), memoryview(content))
        stage.commit(
            overwrite=overwrite, last={"rsoup.json": b'{"subject": [{"name": "model.safetensors"}]}'}
        )


def model_folder(path: Path, *more: str) -> Path:
    """A folder that looks like a saved model."""
    path.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", *more):
        (path / name).write_text(name)
    return path


# --- where a soup may go ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/..", "a/.", "./"])
def test_only_a_name_is_an_output(name: str) -> None:
    """An output without a name of its own is a mistake on the command line."""
    with pytest.raises(UsageError) as caught:
        check_target(name, [], overwrite=True)

    assert caught.value.code == "E0213"


@pytest.mark.parametrize(
    "name", ["soup.gguf", "soup.ONNX", "soup.h5", "soup.npz", "soup.tar.gz", "soup.msgpack"]
)
def test_other_formats_are_not_promised(name: str) -> None:
    """An output named like a format rsoup does not write is refused, not made a folder."""
    with pytest.raises(UsageError) as caught:
        is_single_file(name)

    assert caught.value.code == "E0214"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("soup.safetensors", "safetensors"),
        ("a/soup.PT", "torch"),
        ("soup.bin", "torch"),
        ("soup.ckpt", "torch"),
        ("soup.pth", "torch"),
        ("soup.zip", "sb3"),
        ("soup", None),
        ("soup.v1", None),
    ],
)
def test_the_ending_says_the_format(name: str, form: str | None) -> None:
    """An output path means one file of the format its ending names, or a folder."""
    assert single_file_format(name) == form


def test_a_sidecar_lies_beside_its_file() -> None:
    """NAME.safetensors has its manifest in NAME.rsoup.json."""
    assert sidecar("a.b/soup.v1.safetensors") == "a.b/soup.v1.rsoup.json"


def _file(path: Path) -> None:
    path.write_text("mine")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _link_to_folder(path: Path) -> None:
    model_folder(path.parent / "target")
    path.symlink_to("target")


def _link_to_file(path: Path) -> None:
    _file(path.parent / "target")
    path.symlink_to("target")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _model(path: Path) -> None:
    model_folder(path)


OCCUPANTS: dict[str, Callable[[Path], None]] = {
    "file": _file,
    "empty folder": Path.mkdir,
    "model": _model,
    "dangling link": _dangling,
    "link to a folder": _link_to_folder,
    "link to a file": _link_to_file,
    "pipe": _fifo,
    "socket": _socket,
}


@pytest.mark.fault("H1")
@pytest.mark.parametrize("suffix", ["", ".safetensors", "/"])
@pytest.mark.parametrize("occupant", OCCUPANTS)
def test_what_exists_is_not_written_over(tmp_path: Path, occupant: str, suffix: str) -> None:
    """Whatever lies at the output's place, be it an empty folder or a broken link, is refused with exit 6."""
    out = tmp_path / f"out{suffix.rstrip('/')}"
    OCCUPANTS[occupant](out)

    with pytest.raises(TargetError) as caught:
        check_target(f"{out}{'/' * (suffix == '/')}", [], overwrite=False)

    assert caught.value.code == "E0601"
    assert caught.value.exit_code == 6


@pytest.mark.fault("H1")
@pytest.mark.parametrize(
    ("occupant", "code"),
    [
        ("file", "E0607"),
        ("empty folder", None),
        ("model", None),
        ("dangling link", "E0601"),
        ("link to a folder", "E0601"),
        ("link to a file", "E0601"),
        ("pipe", "E0607"),
        ("socket", "E0607"),
    ],
)
def test_overwrite_replaces_a_model_and_nothing_else(tmp_path: Path, occupant: str, code: str | None) -> None:
    """For a folder, --overwrite replaces a model's folder or an empty one; links are never followed."""
    OCCUPANTS[occupant](tmp_path / "out")

    try:
        check_target(str(tmp_path / "out"), [], overwrite=True)
        found = None
    except RsoupError as error:
        found = error.code

    assert found == code


@pytest.mark.fault("H1")
@pytest.mark.parametrize(
    ("occupant", "code"), [("file", None), ("model", "E0607"), ("link to a file", "E0601")]
)
def test_overwrite_replaces_a_file_by_a_file(tmp_path: Path, occupant: str, code: str | None) -> None:
    """For a file, --overwrite replaces a regular file, at its own place and at its manifest's."""
    for name in ("out.safetensors", "out2.rsoup.json"):
        OCCUPANTS[occupant](tmp_path / name)
        (tmp_path / "target").exists() and os.rename(tmp_path / "target", tmp_path / f"target of {name}")

    for name in ("out.safetensors", "out2.safetensors"):
        try:
            check_target(str(tmp_path / name), [], overwrite=True)
            found = None
        except RsoupError as error:
            found = error.code
        assert found == code, name


@pytest.mark.fault("H1")
@pytest.mark.parametrize("more", ["checkpoint-500/", ".git/", "notes/", "eval/results.json"], ids=str)
def test_overwrite_never_takes_a_folder_along(tmp_path: Path, more: str) -> None:
    """A model's folder that holds another folder, with whoever's work in it, is not replaced."""
    out = model_folder(tmp_path / "out")
    (out / more).parent.mkdir(exist_ok=True)
    (out / more).mkdir() if more.endswith("/") else (out / more).write_text("{}")

    with pytest.raises(TargetError) as caught:
        check_target(str(out), [], overwrite=True)

    assert caught.value.code == "E0607"
    assert more.split("/", maxsplit=1)[0] in caught.value.message


@pytest.mark.fault("H1")
@pytest.mark.parametrize("names", [["firmware.bin"], ["thesis.tex"], ["model.safetensors"], ["config.json"]])
def test_overwrite_needs_a_whole_model(tmp_path: Path, names: list[str]) -> None:
    """A folder with some .bin or .safetensors file in it is not thereby a model's folder."""
    out = tmp_path / "out"
    out.mkdir()
    for name in names:
        (out / name).write_text("x")

    with pytest.raises(TargetError, match="without a model"):
        check_target(str(out), [], overwrite=True)


@pytest.mark.fault("H1")
def test_overwrite_keeps_what_was_added_to_a_soup(tmp_path: Path) -> None:
    """A soup's folder is replaced as long as all that is in it is what its manifest tells of."""
    out = tmp_path / "soup"
    make(out)
    check_target(str(out), [], overwrite=True)
    (out / "results.json").write_text("{}")

    with pytest.raises(TargetError, match=r"results\.json"):
        check_target(str(out), [], overwrite=True)


def test_overwrite_spares_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is not replaced under its user's feet."""
    monkeypatch.chdir(model_folder(tmp_path / "out"))

    with pytest.raises(TargetError, match="the folder you are in"):
        check_target("../out", [], overwrite=True)


# --- the inputs are safe ----------------------------------------------------------------------------


def _itself(root: Path) -> Path:
    return root / "in"


def _through_a_link(root: Path) -> Path:
    (root / "link").symlink_to("in")
    return root / "link"


def _inside(root: Path) -> Path:
    return root / "in" / "soup"


def _deep_inside_and_not_there(root: Path) -> Path:
    return root / "in" / "new" / "soup"


def _inside_through_a_link(root: Path) -> Path:
    (root / "link").symlink_to("in")
    return root / "link" / "soup"


def _around(root: Path) -> Path:
    return root


def _dots(root: Path) -> Path:
    return root / "in" / ".." / "in"


@pytest.mark.fault("H2")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "place",
    [_itself, _through_a_link, _inside, _deep_inside_and_not_there, _inside_through_a_link, _around, _dots],
)
def test_an_input_is_never_written_to(tmp_path: Path, place: Callable[[Path], Path], overwrite: bool) -> None:
    """An output that is an input, lies in one or around one is refused by inode, whatever path leads there."""
    root = tmp_path / "root"
    model_folder(root / "in")

    with pytest.raises(UsageError) as caught:
        check_target(str(place(root)), [str(root / "in")], overwrite=overwrite)

    assert caught.value.code == "E0213"
    assert caught.value.exit_code == 2


@pytest.mark.fault("H2")
def test_a_hard_link_to_an_input_is_the_input(tmp_path: Path) -> None:
    """A single-file output that is another name of an input file is refused, even with --overwrite."""
    source = tmp_path / "in.safetensors"
    source.write_text("x")
    os.link(source, tmp_path / "out.safetensors")

    with pytest.raises(UsageError, match="is the input"):
        check_target(str(tmp_path / "out.safetensors"), [str(source)], overwrite=True)


@pytest.mark.fault("H2")
def test_an_input_file_beside_the_output_is_fine(tmp_path: Path) -> None:
    """A folder may hold input files and the output beside each other."""
    (tmp_path / "in.safetensors").write_text("x")

    check_target(str(tmp_path / "out.safetensors"), [str(tmp_path / "in.safetensors")], overwrite=False)


@pytest.mark.fault("H2")
def test_a_mounted_input_is_the_input(tmp_path: Path) -> None:
    """A second mount of an input's folder, or of one inside the output, hides neither."""
    inner = model_folder(tmp_path / "model" / "in")
    with bound(inner, tmp_path / "mounted") as mounted:
        for out, given in ((mounted, inner), (inner, mounted), (mounted / "soup", inner)):
            with pytest.raises(UsageError):
                check_target(str(out), [str(given)], overwrite=True)

    outer = tmp_path / "old"
    make(outer)
    (outer / "sub").mkdir()
    (outer / "rsoup.json").write_text('{"subject": [{"name": "model.safetensors"}, {"name": "sub/a"}]}')
    model_folder(outer / "sub" / "in")
    with (
        bound(outer / "sub" / "in", tmp_path / "again") as mounted,
        pytest.raises(UsageError, match="contains"),
    ):
        check_target(str(outer), [str(mounted)], overwrite=True)


# --- errors in words --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "exit_code"),
    [
        (errno.ENOSPC, "E0602", 6),
        (errno.EDQUOT, "E0602", 6),
        (errno.EFBIG, "E0603", 6),
        (errno.EROFS, "E0704", 7),
        (errno.EACCES, "E0704", 7),
        (errno.EPERM, "E0704", 7),
        (errno.ENAMETOOLONG, "E0605", 6),
        (errno.EEXIST, "E0601", 6),
        (errno.EMFILE, "E0606", 6),
        (errno.EIO, "E0604", 6),
        (errno.ESTALE, "E0604", 6),
        (errno.ENOENT, "E0604", 6),
    ],
)
def test_every_failed_write_has_a_code_and_a_hint(number: int, code: str, exit_code: int) -> None:
    """What the system says about a failed write becomes a code, an exit class, and what to do."""
    error = target_error(OSError(number, os.strerror(number)), "soup")

    assert (error.code, error.exit_code) == (code, exit_code)
    assert error.hint


def test_space_is_compared_before_anything_is_written(tmp_path: Path) -> None:
    """More bytes than are free are refused with both figures."""
    with pytest.raises(TargetError, match=r"needs 1\d+ TB and .* are free"):
        check_space(str(tmp_path), 10**14 + 10**13, "soup")

    check_space(str(tmp_path / "not" / "there" / "yet"), 1, "soup")


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_499, "99.5 kB"), (99_500, "100 kB"), (999_500, "1.0 MB"),
     (4_400_000_000, "4.4 GB"), (5e15, "5000 TB")],
)  # fmt: skip
def test_sizes_have_two_or_three_digits(nbytes: float, text: str) -> None:
    """Bytes are told in powers of 1000."""
    assert size_text(nbytes) == text


# --- the staging folder -------------------------------------------------------------------------------


def test_a_result_appears_at_once_and_alone(tmp_path: Path) -> None:
    """Until commit there is only the staging folder; after it only the result, without the journal."""
    out = tmp_path / "soup"
    with staging(out) as stage:
        assert os.listdir(tmp_path) == [os.path.basename(stage.path)]
        stage.write("model.safetensors", 4, memoryview(b"x" * 4092))
        stage.add_file("deep/er/file.json", [b"{}"])
        stage.commit(overwrite=False, last={"rsoup.json": b"{}"})

    assert os.listdir(tmp_path) == ["soup"]
    assert tree(out) == {
        "deep/": b"",
        "deep/er/": b"",
        "deep/er/file.json": b"{}",
        "model.safetensors": b"head" + b"x" * 4092,
        "rsoup.json": b"{}",
    }


def test_files_have_their_place_from_the_start(tmp_path: Path) -> None:
    """A weight file has its final size, its head and its blocks on the disk before any work is done."""
    with Staging(str(tmp_path / "soup"), PLAN, {"w": (((0, b"head"),), 1 << 20)}) as stage:
        status = os.stat(os.path.join(stage.path, "w"))

        assert status.st_size == 1 << 20
        assert status.st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize("error", [TargetError("E0604", "x"), ValueError("a bug"), OSError(5, "x")])
def test_a_failed_run_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    """Leaving by an exception removes the staging folder and the folders that were made for it."""
    with pytest.raises(type(error)), staging(tmp_path / "new" / "er" / "soup"):
        raise error

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_leaves_what_it_did(tmp_path: Path, interruption: type[BaseException]) -> None:
    """Leaving by an interruption keeps the staging folder, with every block that was noted in its journal."""
    out = tmp_path / "soup"
    with pytest.raises(interruption), staging(out) as stage:
        stage.write("model.safetensors", 100, memoryview(b"abc"))
        stage.note({"block": 0})
        raise interruption

    assert not out.exists()
    assert parts.resumable(str(out)) == stage.path
    with staging(out) as again:
        assert again.resumes
        assert list(again.finished()) == [{"block": 0}]
        assert Path(again.path, "model.safetensors").read_bytes()[100:103] == b"abc"


@pytest.mark.fault("H12")
def test_one_run_at_a_time(tmp_path: Path) -> None:
    """A second run to the same output, of the same plan or another, is told to wait (75) and leaves no trace."""
    out = tmp_path / "soup"
    with staging(out) as first:
        for plan in (PLAN, OTHER_PLAN):
            with pytest.raises(BusyError) as caught, staging(out, plan):
                pass
            assert (caught.value.code, caught.value.exit_code) == ("E7501", 75)
        assert os.listdir(tmp_path) == [os.path.basename(first.path)]
        assert parts.is_held(first.path)
        assert not parts.remove_unheld(first.path)
    assert os.listdir(tmp_path) == []


@pytest.mark.fault("H12")
def test_of_many_runs_with_different_plans_one_goes_on(tmp_path: Path) -> None:
    """Of runs that begin at the same moment exactly one gets the output; they do not all shy away."""
    for attempt in range(5):
        out = tmp_path / f"soup{attempt}"
        barrier = threading.Barrier(8)
        over = threading.Event()
        won, busy = [], []

        def go(number: int) -> None:
            barrier.wait()  # noqa: B023
            try:
                with staging(out, f"{number:012x}".ljust(64, "0")):  # noqa: B023
                    won.append(number)  # noqa: B023
                    over.wait()  # noqa: B023
            except BusyError:
                busy.append(number)  # noqa: B023
            if len(busy) == 7:  # noqa: B023
                over.set()  # noqa: B023

        threads = [threading.Thread(target=go, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)

        assert (len(won), len(busy)) == (1, 7)
    assert stray(tmp_path) == []


@pytest.mark.fault("H12")
def test_the_rename_decides_a_race(tmp_path: Path) -> None:
    """If the output came into being meanwhile, commit refuses (75) and touches neither."""
    out = tmp_path / "soup"
    with pytest.raises(BusyError), staging(out) as stage:
        out.mkdir()
        stage.commit(overwrite=False, last={})

    assert os.listdir(tmp_path) == ["soup"]
    assert os.listdir(out) == []


@pytest.mark.fault("H1")
def test_commit_looks_again_at_what_it_replaces(tmp_path: Path) -> None:
    """--overwrite that began with nothing in its place does not replace what somebody else put there since."""
    out = tmp_path / "soup"
    with pytest.raises(TargetError), staging(out) as stage:
        out.mkdir()
        (out / "thesis.tex").write_text("years")
        stage.commit(overwrite=True, last={})

    assert tree(tmp_path) == {"soup/": b"", "soup/thesis.tex": b"years"}


def test_overwrite_swaps_and_cleans_up(tmp_path: Path) -> None:
    """--overwrite leaves the new result and nothing of the old one."""
    make(tmp_path / "soup", b"old")
    make(tmp_path / "soup", b"new!", overwrite=True)

    assert (tmp_path / "soup" / "model.safetensors").read_bytes().endswith(b"\0new!")
    assert os.listdir(tmp_path) == ["soup"]


def test_a_replaced_result_is_not_taken_for_a_staging_folder(tmp_path: Path) -> None:
    """After the swap the old result lies under the staging folder's name, and is held until it is gone."""
    make(tmp_path / "soup", b"old")
    held: list[bool] = []
    remove = plain.shutil.rmtree

    def watching(path: str, **options: object) -> None:
        held.append(parts.is_held(path))
        remove(path, ignore_errors=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsoup.storage.staging.shutil.rmtree", watching)
        make(tmp_path / "soup", b"new", overwrite=True)

    assert held == [True]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interruption_at_the_last_step(tmp_path: Path, overwrite: bool, moment: str) -> None:
    """A signal just before the rename leaves the output as it was, just after it a finished output."""
    out = tmp_path / "soup"
    if overwrite:
        make(out, b"old")
    name = "exchange" if overwrite else "rename_new"
    real = getattr(rename, name)

    def stop(*arguments: object, **options: object) -> None:
        if moment == "after":
            real(*arguments, **options)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"rsoup.storage.staging.{name}", stop)
        make(out, b"new", overwrite=overwrite)

    assert stray(tmp_path) == []
    if moment == "after":
        assert (out / "model.safetensors").read_bytes().endswith(b"new")
    elif overwrite:
        assert (out / "model.safetensors").read_bytes().endswith(b"old")
    else:
        assert not out.exists()


@pytest.mark.fault("H7", "H14")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("number", "passes"), [(errno.EIO, False), (errno.EINVAL, True)])
def test_a_folder_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool, overwrite: bool
) -> None:
    """EINVAL from fsync of a folder is tolerated (network disks); EIO takes the result back: it is not durable."""
    out = tmp_path / "soup"
    if overwrite:
        make(out, b"old")
    before = tree(tmp_path)
    real = os.fsync

    def fail(fd: int) -> None:
        if os.path.isdir(f"/dev/fd/{fd}"):
            raise OSError(number, os.strerror(number))
        real(fd)

    monkeypatch.setattr(os, "fsync", fail)
    if passes:
        make(out, b"new", overwrite=overwrite)
        assert (out / "model.safetensors").read_bytes().endswith(b"new")
    else:
        with pytest.raises(TargetError) as caught:
            make(out, b"new", overwrite=overwrite)
        assert caught.value.code == "E0604"
        assert tree(tmp_path) == before


@pytest.mark.fault("H7")
def test_a_failed_fsync_is_never_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fsync of the data nothing is journalled any more and the run fails: the second would lie."""
    calls = []

    def fail(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.01)
    with pytest.raises(TargetError) as caught, staging(tmp_path / "soup") as stage:
        for number in range(1000):
            stage.note({"block": number})
            threading.Event().wait(0.005)

    assert caught.value.code == "E0604"
    assert len(calls) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.fault("H13")
@pytest.mark.parametrize("step", ["side file", "commit"])
def test_a_deleted_parent_is_not_made_again(tmp_path: Path, step: str) -> None:
    """If somebody deletes the output's folder during the run, the run fails (6) and nothing comes back."""
    parent = tmp_path / "outputs"
    with pytest.raises(TargetError) as caught, staging(parent / "soup") as stage:
        if step == "commit":
            stage.add_file("a/b.json", [b"{}"])
        subprocess.run(["rm", "-rf", str(parent)], check=True)
        if step == "side file":
            stage.add_file("a/b.json", [b"{}"])
        stage.commit(overwrite=False, last={"rsoup.json": b"{}"})

    assert caught.value.exit_code == 6
    assert os.listdir(tmp_path) == []


@pytest.mark.fault("H13")
def test_a_moved_parent_takes_the_result_along(tmp_path: Path) -> None:
    """If the output's folder is renamed during the run, the result appears in it, and nowhere else."""
    parent = tmp_path / "outputs"
    parent.mkdir()
    with staging(parent / "soup") as stage:
        parent.rename(tmp_path / "moved")
        stage.add_file("a/b.json", [b"{}"])
        stage.commit(overwrite=False, last={"rsoup.json": b"{}"})

    assert os.listdir(tmp_path) == ["moved"]
    assert sorted(os.listdir(tmp_path / "moved" / "soup")) == ["a", "model.safetensors", "rsoup.json"]


def test_a_part_of_the_path_may_not_be_a_file(tmp_path: Path) -> None:
    """An output below a file is refused in words, and nothing is made."""
    (tmp_path / "file").write_text("x")

    with pytest.raises(TargetError, match="not a folder"), staging(tmp_path / "file" / "new" / "soup"):
        pass

    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.fault("E14")
@pytest.mark.parametrize(
    "name", ["n" * 232, "n" * 256, "ü" * 128, "n" * 300 + "/soup", "/".join(["n" * 200] * 30)]
)
def test_a_name_that_is_too_long(tmp_path: Path, name: str) -> None:
    """A name of more than 231 bytes, which leaves no room for the staging folder's, is refused at once (6)."""
    with pytest.raises(TargetError) as caught, staging(tmp_path / name):
        pass

    assert caught.value.code == "E0605"
    assert os.listdir(tmp_path) == []


@pytest.mark.fault("E14")
def test_the_longest_name(tmp_path: Path) -> None:
    """A name of 231 bytes works."""
    make(tmp_path / ("n" * 231))

    assert os.listdir(tmp_path) == ["n" * 231]


@pytest.mark.fault("E13")
@pytest.mark.parametrize(
    "name", [" ", "a b", "ü→x", "new\nline", "-o", "*?[a]", "\udcff\udcfe", "'\"$(x)", ".hidden"]
)
def test_any_name_works(tmp_path: Path, name: str) -> None:
    """Spaces, newlines, patterns and bytes that are no text: an output may have any name a file may have."""
    make(tmp_path / name)

    assert os.listdir(tmp_path) == [name]


@pytest.mark.fault("H15")
@pytest.mark.parametrize(
    ("mask", "folder", "file"), [(0o077, 0o700, 0o600), (0, 0o777, 0o666), (0o022, 0o755, 0o644)]
)
def test_modes_follow_the_umask(tmp_path: Path, mask: int, folder: int, file: int) -> None:
    """Folders are 0777 and files 0666 less the umask, as if the user had made them."""
    before = os.umask(mask)
    try:
        with staging(tmp_path / "soup") as stage:
            stage.add_file("sub/config.json", [b"{}"])
            stage.commit(overwrite=False, last={"rsoup.json": b"{}"})
    finally:
        os.umask(before)

    modes = {
        path.name: path.stat().st_mode & 0o7777
        for path in [tmp_path / "soup", *(tmp_path / "soup").rglob("*")]
    }
    assert modes == {
        "soup": folder,
        "sub": folder,
        "model.safetensors": file,
        "config.json": file,
        "rsoup.json": file,
    }


@pytest.mark.fault("H15")
@needs_root
def test_a_shared_folder_keeps_its_group(tmp_path: Path) -> None:
    """In a set-group-id folder the result belongs to the folder's group, subfolders included."""
    os.chown(tmp_path, -1, 12345)
    tmp_path.chmod(0o2775)

    with staging(tmp_path / "soup") as stage:
        stage.add_file("sub/config.json", [b"{}"])
        stage.commit(overwrite=False, last={"rsoup.json": b"{}"})

    found = [tmp_path / "soup", *(tmp_path / "soup").rglob("*")]
    assert {path.stat().st_gid for path in found} == {12345}
    assert all(path.stat().st_mode & 0o2000 for path in found if path.is_dir())


@needs_root
def test_somebody_elses_staging_folder_is_not_used(tmp_path: Path) -> None:
    """A folder of the staging folder's name that another user made beforehand is not written into."""
    part = tmp_path / parts.part_name("soup", PLAN)
    part.mkdir()
    os.chown(part, 12345, 12345)

    with pytest.raises(TargetError, match="somebody else"), staging(tmp_path / "soup"):
        pass

    assert os.listdir(tmp_path) == [part.name]
    assert os.listdir(part) == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_only_a_folder_is_a_staging_folder(tmp_path: Path, kind: str) -> None:
    """A file or a link of the staging folder's name is not followed and not removed."""
    part = tmp_path / parts.part_name("soup", PLAN)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    part.write_text("x") if kind == "file" else part.symlink_to("elsewhere")
    before = tree(tmp_path)

    with pytest.raises(TargetError), staging(tmp_path / "soup"):
        pass

    assert tree(tmp_path) == before


@needs_root
@pytest.mark.fault("H4")
def test_a_full_disk_is_noticed_at_once(tmp_path: Path) -> None:
    """More than is free, and more than can be reserved although it seems free: exit 6 before work begins."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "precious").write_bytes(b"x" * 4096)
        for size in (1 << 20, 60 << 10):
            with (
                pytest.raises(TargetError) as caught,
                Staging(str(disk / "new" / "soup"), PLAN, {"w": (((0, b"h"),), size)}),
            ):
                pass
            assert caught.value.code == "E0602"
            assert tree(disk) == {"precious": b"x" * 4096}


@needs_root
@pytest.mark.fault("H8")
def test_a_disk_that_may_only_be_read(tmp_path: Path) -> None:
    """A read-only file system is a matter of permission (7), told in words."""
    with small_disk(tmp_path / "disk", "64k", "ro") as disk:
        with pytest.raises(AccessError) as caught, staging(disk / "soup"):
            pass
        assert caught.value.code == "E0704"


@pytest.mark.fault("H8")
@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
def test_a_folder_one_may_not_write_to(tmp_path: Path) -> None:
    """A folder without write permission is refused with exit 7."""
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(AccessError), staging(tmp_path / "soup"):
            pass
    finally:
        tmp_path.chmod(0o755)


def test_a_file_system_that_cannot_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where space cannot be reserved the file still has its size from the start."""

    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    make(tmp_path / "soup")

    assert (tmp_path / "soup" / "model.safetensors").stat().st_size == 4096


# --- single files -------------------------------------------------------------------------------------


def make_file(out: Path, content: bytes, *, overwrite: bool = False) -> None:
    """A finished single-file result and its manifest."""
    with Staging(str(out), PLAN, {out.name: (((0, b"head"),), 100)}) as stage:
        stage.write(out.name, 4, memoryview(content))
        stage.commit(overwrite=overwrite, last={"rsoup.json": b'{"of": "%s"}' % content})


def test_a_single_file_and_its_manifest(tmp_path: Path) -> None:
    """NAME.safetensors appears with NAME.rsoup.json beside it, and the staging folder is gone."""
    make_file(tmp_path / "soup.safetensors", b"new")

    assert sorted(os.listdir(tmp_path)) == ["soup.rsoup.json", "soup.safetensors"]
    assert (tmp_path / "soup.rsoup.json").read_bytes() == b'{"of": "new"}'


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_single_file_is_replaced_with_its_manifest(tmp_path: Path, with_manifest: bool) -> None:
    """--overwrite replaces both files, also where the old one had no manifest."""
    make_file(tmp_path / "soup.safetensors", b"old")
    if not with_manifest:
        (tmp_path / "soup.rsoup.json").unlink()

    make_file(tmp_path / "soup.safetensors", b"new", overwrite=True)

    assert sorted(os.listdir(tmp_path)) == ["soup.rsoup.json", "soup.safetensors"]
    assert (tmp_path / "soup.rsoup.json").read_bytes() == b'{"of": "new"}'
    assert b"new" in (tmp_path / "soup.safetensors").read_bytes()


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("overwrite", [False, True])
def test_both_files_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, failing: int
) -> None:
    """If the second of the two files cannot take its place, the first one goes back."""
    out = tmp_path / "soup.safetensors"
    if overwrite:
        make_file(out, b"old")
    before = tree(tmp_path)
    calls = []
    real = rename._renameat2

    def fail(old: str, new: str, flags: int, dir_fd: int | None) -> bool:
        calls.append(new)
        if len(calls) == failing:
            raise OSError(errno.EIO, "I/O error", new)
        return real(old, new, flags, dir_fd)

    monkeypatch.setattr(rename, "_renameat2", fail)
    with pytest.raises(TargetError):
        make_file(out, b"new", overwrite=overwrite)

    assert tree(tmp_path) == before


def test_an_interruption_between_the_two_files(tmp_path: Path) -> None:
    """A signal after the first of the two files took its place lets the second one follow."""
    real = rename.rename_new

    def stop(old: str, new: str, **options: int) -> None:
        real(old, new, **options)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("rsoup.storage.staging.rename_new", stop)
        make_file(tmp_path / "soup.safetensors", b"new")

    assert sorted(os.listdir(tmp_path)) == ["soup.rsoup.json", "soup.safetensors"]


# --- the journal --------------------------------------------------------------------------------------


def interrupted(out: Path, records: int = 5) -> Path:
    """A staging folder an interruption left, with so many records in its journal."""
    with pytest.raises(KeyboardInterrupt), staging(out) as stage:
        for number in range(records):
            stage.note({"block": number, "sum": 0.1 + number})
        raise KeyboardInterrupt
    return Path(stage.path)


def resumed(out: Path) -> list[object] | None:
    """The blocks the next run takes as done; None if it begins from nothing."""
    with staging(out) as again:
        return [record["block"] for record in again.finished()] if again.resumes else None


def test_only_what_is_durable_is_journalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block's line is written after every weight file was made durable, and is itself made durable."""
    events: list[str] = []
    real_sync, real_write = os.fdatasync, os.write

    def sync(fd: int) -> None:
        events.append(f"sync {os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))}")
        real_sync(fd)

    def write(fd: int, data: bytes) -> int:
        if b"block" in bytes(data):
            events.append(f"lines {bytes(data).count(b'block')}")
        return real_write(fd, data)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(os, "write", write)
    two = dict.fromkeys(("a.safetensors", "b.safetensors"), (((0, b"h"),), 10))
    with pytest.raises(KeyboardInterrupt), Staging(str(tmp_path / "soup"), PLAN, two) as stage:
        stage.note({"block": 0})
        stage.note({"block": 1})
        assert events == []
        raise KeyboardInterrupt

    assert events == ["sync a.safetensors", "sync b.safetensors", "lines 2", "sync .journal"]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_not_trusted(tmp_path: Path, cut: int) -> None:
    """A journal that ends in the middle of a line counts as far as its last whole line, and can be written on."""
    out = tmp_path / "soup"
    path = interrupted(out) / journal.NAME
    path.write_bytes(path.read_bytes()[:-cut])

    with pytest.raises(KeyboardInterrupt), staging(out) as again:
        assert [record["block"] for record in again.finished()] == [0, 1, 2, 3]
        again.note({"block": 9})
        raise KeyboardInterrupt

    assert resumed(out) == [0, 1, 2, 3, 9]


def test_every_damaged_byte_of_a_journal_is_noticed(tmp_path: Path) -> None:
    """Whichever byte of the journal changes, no record is believed that is not exactly one that was written."""
    out = tmp_path / "soup"
    part = interrupted(out, records=3)
    whole = (part / journal.NAME).read_bytes()
    wanted = [{"block": number, "sum": 0.1 + number} for number in range(3)]
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x04
        (part / journal.NAME).write_bytes(damaged)
        folder = os.open(part, os.O_RDONLY)
        try:
            if not journal.belongs(folder, PLAN):
                assert position <= len(PLAN)
                continue
            book = journal.Journal(folder, PLAN, [], resumes=True)
            found = list(book.records())
            book.close()
        finally:
            os.close(folder)
        assert found == wanted[: len(found)]
        assert len(found) < 3


def _wrong_size(part: Path) -> None:
    os.truncate(part / "model.safetensors", 4095)


def _wrong_head(part: Path) -> None:
    with open(part / "model.safetensors", "r+b") as file:
        file.write(b"HEAD")


def _no_weights(part: Path) -> None:
    (part / "model.safetensors").unlink()


def _link(part: Path) -> None:
    os.rename(part / "model.safetensors", part.parent / "elsewhere")
    (part / "model.safetensors").symlink_to("../elsewhere")


def _pipe(part: Path) -> None:
    (part / "model.safetensors").unlink()
    os.mkfifo(part / "model.safetensors")


def _no_journal(part: Path) -> None:
    (part / journal.NAME).unlink()


def _empty_journal(part: Path) -> None:
    os.truncate(part / journal.NAME, 0)


def _journal_of_another_plan(part: Path) -> None:
    text = (part / journal.NAME).read_bytes()
    (part / journal.NAME).write_bytes(OTHER_PLAN.encode() + text[64:])


@pytest.mark.parametrize(
    "damage",
    [
        _wrong_size,
        _wrong_head,
        _no_weights,
        _link,
        _pipe,
        _no_journal,
        _empty_journal,
        _journal_of_another_plan,
    ],
)
def test_what_is_not_as_it_was_left_is_not_trusted(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A staging folder whose files have another size, head or kind, or no journal, is begun anew."""
    out = tmp_path / "soup"
    damage(interrupted(out))

    assert resumed(out) is None


def test_files_of_an_earlier_end_do_not_stay(tmp_path: Path) -> None:
    """Side files that an interrupted run had written already do not get into the result by themselves."""
    out = tmp_path / "soup"
    part = interrupted(out)
    (part / "vocab.json").write_text("old")
    (part / "sub").mkdir()
    (part / "sub" / "a.json").write_text("old")

    with staging(out) as again:
        assert again.resumes
        again.commit(overwrite=False, last={"rsoup.json": b"{}"})

    assert sorted(os.listdir(out)) == ["model.safetensors", "rsoup.json"]


def test_another_plan_never_resumes(tmp_path: Path) -> None:
    """The staging folder's name is the plan's: another recipe or other inputs begin their own."""
    out = tmp_path / "soup"
    part = interrupted(out)

    with staging(out, OTHER_PLAN) as other:
        assert not other.resumes
        assert other.path != str(part)

    assert stray(tmp_path) == [part.name]


def test_leftovers_are_told_from_other_folders(tmp_path: Path) -> None:
    """Only folders of exactly the staging folders' form are taken for them, hidden ones too."""
    mine = [f"{name}.rsoup-0123456789ab.part" for name in (".hidden", "a\nb", "soup")]
    for name in [*mine, "x.rsoup-mine.part", "rsoup-0123456789ab.part", "soup.rsoup-0123456789ab.part.old"]:
        (tmp_path / name).mkdir()
    (tmp_path / "file.rsoup-0123456789ab.part").write_text("x")

    assert parts.leftovers(str(tmp_path)) == sorted(mine)
    assert parts.leftovers(str(tmp_path), "soup") == ["soup.rsoup-0123456789ab.part"]


# --- renaming -----------------------------------------------------------------------------------------


@pytest.fixture(params=["renameat2", "fallback"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the system call that refuses and exchanges, and as where it is missing."""
    if request.param == "fallback":
        monkeypatch.setattr(rename, "_renameat2", lambda *_: False)
    elif not sys.platform.startswith("linux"):
        pytest.skip("Linux only")
    return str(request.param)


@pytest.mark.fault("H14")
@pytest.mark.parametrize("old", ["folder", "file"])
@pytest.mark.parametrize("new", ["empty folder", "full folder", "file", "dangling link"])
def test_rename_new_replaces_nothing(tmp_path: Path, way: str, old: str, new: str) -> None:
    """Renaming to a name that exists fails, whatever either is, and changes nothing."""
    (tmp_path / "old").mkdir() if old == "folder" else (tmp_path / "old").write_text("old")
    if new.endswith("folder"):
        (tmp_path / "new").mkdir()
        if new == "full folder":
            (tmp_path / "new" / "x").write_text("x")
    else:
        OCCUPANTS[new](tmp_path / "new")
    before = tree(tmp_path)

    with pytest.raises(FileExistsError):
        rename_new(str(tmp_path / "old"), str(tmp_path / "new"))

    assert tree(tmp_path) == before


@pytest.mark.fault("H14")
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_rename_new_renames(tmp_path: Path, way: str, kind: str) -> None:
    """A free name is taken, relative to an open folder if one is given."""
    (tmp_path / "old").mkdir() if kind == "folder" else (tmp_path / "old").write_text("old")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        rename_new("old", "new", dir_fd=folder)
    finally:
        os.close(folder)

    assert os.listdir(tmp_path) == ["new"]


@pytest.mark.fault("H14")
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_exchange_exchanges(tmp_path: Path, way: str, kind: str) -> None:
    """Two things change places; nothing else is left."""
    for name in ("a", "b"):
        if kind == "folder":
            (tmp_path / name).mkdir()
            (tmp_path / name / name).write_text(name)
        else:
            (tmp_path / name).write_text(name)
    exchange(str(tmp_path / "a"), str(tmp_path / "b"))

    wanted = {"a/": b"", "a/b": b"b", "b/": b"", "b/a": b"a"} if kind == "folder" else {"a": b"b", "b": b"a"}
    assert tree(tmp_path) == wanted


@pytest.mark.fault("H14")
def test_exchange_by_hand_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the system call, if the new one cannot be renamed, the old one gets its place back."""
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    monkeypatch.setattr(rename, "_renameat2", lambda *_: False)
    real, calls = os.rename, []

    def fail(old: str, new: str, **options: int | None) -> None:
        calls.append(new)
        if len(calls) == 2:
            raise OSError(errno.EIO, "I/O error")
        real(old, new, **options)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="I/O"):
        exchange(str(tmp_path / "a"), str(tmp_path / "b"))

    assert tree(tmp_path) == {"a": b"a", "b": b"b"}


@pytest.mark.fault("H14")
def test_what_a_crash_set_aside_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name.rsoup-old from a crash in the middle of an exchange is never written over."""
    for name in ("a", "b", "b.rsoup-old"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(rename, "_renameat2", lambda *_: False)

    with pytest.raises(OSError, match="in the way"):
        exchange(str(tmp_path / "a"), str(tmp_path / "b"))

    assert tree(tmp_path) == {name: name.encode() for name in ("a", "b", "b.rsoup-old")}


@pytest.mark.fault("H14")
def test_the_whole_protocol_without_the_system_call(tmp_path: Path, way: str) -> None:
    """New, refused, replaced and single-file results come out the same where renameat2 is missing."""
    make(tmp_path / "soup", b"one")
    make(tmp_path / "soup", b"two", overwrite=True)
    make_file(tmp_path / "file.safetensors", b"one")
    make_file(tmp_path / "file.safetensors", b"two", overwrite=True)

    assert sorted(os.listdir(tmp_path)) == ["file.rsoup.json", "file.safetensors", "soup"]
    assert (tmp_path / "soup" / "model.safetensors").read_bytes().endswith(b"two")
    assert b"two" in (tmp_path / "file.safetensors").read_bytes()


def test_sync_folder_tells_of_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO from fsync of a folder is an error, EINVAL is not."""

    def fail(number: int) -> Callable[[int], None]:
        def fsync(fd: int) -> None:
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    sync_folder(str(tmp_path))
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="error"):
        sync_folder(str(tmp_path))


def test_a_manifest_of_another_file_is_never_lost(tmp_path: Path) -> None:
    """soup.safetensors would take the manifest of soup.pt: refused, with --overwrite too; its own is replaced."""
    (tmp_path / "soup.pt").write_bytes(b"weights")
    (tmp_path / "soup.rsoup.json").write_text('{"subject": [{"name": "soup.pt"}]}')

    for overwrite in (False, True):
        with pytest.raises(TargetError) as caught:
            check_target(str(tmp_path / "soup.safetensors"), [], overwrite=overwrite)
        assert caught.value.code == "E0607"
        assert "the manifest of 'soup.pt'" in caught.value.message
    check_target(str(tmp_path / "soup.pt"), [], overwrite=True)
