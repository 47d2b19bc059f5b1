"""Inputs that change, vanish or fail while they are read: told, never mixed in silently."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Folders
from faults import big_models, stray, verify
from warm import Warm

from rsoup import Recipe, make_recipe, merge, reading
from rsoup.errors import RefusedFileError, RsoupError

SIDE_FILES = {"vocab.json": b"{}", "assets/note.txt": b"note"}


class Scene(NamedTuple):
    """Two checkpoints, the recipe that mixes them, and where to."""

    root: Path
    recipe: Recipe
    out: Path

    @property
    def weights(self) -> Path:
        """The weight file that is going to change."""
        return self.root / "two" / "model.safetensors"


@pytest.fixture
def scene(base_and_two: Folders) -> Scene:
    """One and two, with side files in one, half of each."""
    for name, data in SIDE_FILES.items():
        (base_and_two.one / name).parent.mkdir(exist_ok=True)
        (base_and_two.one / name).write_bytes(data)
    recipe = make_recipe([base_and_two.one, base_and_two.two], uniform=True)
    return Scene(base_and_two.root, recipe, base_and_two.root / "soup")


def at_read(monkeypatch: pytest.MonkeyPatch, nth: int, change: Callable[[], object]) -> None:
    """Do something just before weights are read for the `nth` time."""
    count = 0

    def before() -> None:
        nonlocal count
        count += 1
        if count == nth:
            change()

    monkeypatch.setattr(reading, "go_on", before)


@pytest.fixture(params=["at once", "one by one"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of reading weights: compiled, and source by source."""
    if request.param == "one by one":
        monkeypatch.setattr(reading, "_places", lambda *_: None)
    else:
        pytest.importorskip("rsoup.backends.compiled")
    return str(request.param)


def refused(scene: Scene) -> RsoupError:
    """The error of the merge, after which there is no trace of it."""
    with pytest.raises(RsoupError) as caught:
        merge(scene.recipe, scene.out, threads=1)
    assert not scene.out.exists()
    assert stray(scene.root) == []
    return caught.value


@pytest.mark.fault("I1")
@pytest.mark.parametrize("left", [0, 8, 1000, 100_000, -2])
def test_truncated_while_read(scene: Scene, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """A file that is cut while it is read ends the merge with exit 8, not with a bus error."""
    size = left if left >= 0 else scene.weights.stat().st_size + left
    at_read(monkeypatch, 1, lambda: os.truncate(scene.weights, size))

    error = refused(scene)

    assert (error.code, error.exit_code) == ("E0804", 8)
    assert "two/model.safetensors" in str(error.where)


@pytest.mark.fault("I1")
def test_truncated_at_any_moment(tmp_path: Path) -> None:
    """A thread that cuts and restores the file all the time leads to exit 8 or to the right soup, never to a wrong one."""
    one, two = big_models(tmp_path, 400_000)
    recipe = make_recipe([one, two], uniform=True)
    merge(recipe, tmp_path / "wanted")
    wanted = (tmp_path / "wanted" / "model.safetensors").read_bytes()
    weights = two / "model.safetensors"
    data = weights.read_bytes()
    over = threading.Event()

    def cut() -> None:
        while not over.is_set():
            os.truncate(weights, len(data) // 2)
            weights.write_bytes(data)
            time.sleep(0.002)

    writer = threading.Thread(target=cut)
    writer.start()
    codes = []
    try:
        for number in range(30):
            out = tmp_path / f"soup{number}"
            try:
                merge(recipe, out)
                codes.append(0)
            except RefusedFileError as error:
                codes.append(error.exit_code)
            if out.exists():
                assert (out / "model.safetensors").read_bytes() == wanted
    finally:
        over.set()
        writer.join()

    assert set(codes) <= {0, 8}
    assert 8 in codes


@pytest.mark.fault("I2")
@pytest.mark.parametrize("nth", [1, 2])
def test_rewritten_in_place(scene: Scene, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """A file of the same size with other bytes in it, written while it is read, is noticed at the end."""

    def rewrite() -> None:
        with open(scene.weights, "r+b") as file:
            file.seek(-64, os.SEEK_END)
            file.write(b"\1" * 64)

    at_read(monkeypatch, nth, rewrite)

    error = refused(scene)

    assert (error.code, error.exit_code) == ("E0804", 8)


@pytest.mark.fault("I2")
def test_grown_while_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows is not what was opened, even if all that was read is still the same."""

    def grow() -> None:
        with open(scene.weights, "ab") as file:
            file.write(b"more")

    at_read(monkeypatch, 1, grow)

    assert refused(scene).code == "E0804"


@pytest.mark.fault("I3")
def test_replaced_by_a_rename(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file another one takes the name of is read to its end as it was: one version, never two."""
    merge(scene.recipe, scene.root / "wanted")

    def replace() -> None:
        shutil.copyfile(scene.root / "one" / "model.safetensors", scene.root / "new")
        os.replace(scene.root / "new", scene.weights)

    at_read(monkeypatch, 1, replace)
    merge(scene.recipe, scene.out, threads=1)

    names = ("model.safetensors", "config.json")
    assert all((scene.out / n).read_bytes() == (scene.root / "wanted" / n).read_bytes() for n in names)
    verify(scene.out)


@pytest.mark.fault("I6")
def test_deleted_while_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight file that is deleted (a cache is cleaned) stays open and is read to its end."""
    at_read(monkeypatch, 1, scene.weights.unlink)

    merge(scene.recipe, scene.out, threads=1)

    verify(scene.out)


@pytest.mark.fault("I6")
@pytest.mark.parametrize("name", [*SIDE_FILES, "config.json"])
def test_a_side_file_that_vanishes(scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A side file that is gone when it is its turn was there before: changed while read, exit 8."""
    at_read(monkeypatch, 1, (scene.root / "one" / name).unlink)

    error = refused(scene)

    assert (error.code, error.exit_code) == ("E0804", 8)
    assert name in str(error.where)


@pytest.mark.fault("I6")
def test_the_whole_folder_vanishes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ingredient's folder is deleted meanwhile: the same."""
    at_read(monkeypatch, 1, lambda: shutil.rmtree(scene.root / "one"))

    assert refused(scene).exit_code == 8


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A warm interpreter for this file's command lines."""
    interpreter = Warm(tmp_path_factory.mktemp("warm"))
    yield interpreter
    interpreter.close()


@pytest.mark.fault("I4")
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_disk_that_cannot_be_read(warm: Warm, scene: Scene, nth: int) -> None:
    """EIO on any read ends the merge with exit 8 and the file and byte where it was."""
    options = ["-P", str(scene.weights), "-e", "trace=preadv,preadv2"]
    options += ["-e", f"inject=preadv,preadv2:error=EIO:when={nth}"]

    ended = warm.traced(options, "merge", "one", "two", "--uniform", "-o", "soup", cwd=scene.root)

    assert ended.code == 8, ended
    assert "E0806" in ended.err
    assert "two/model.safetensors" in ended.err
    assert "Input/output error" in ended.err
    assert stray(scene.root) == []
    assert not scene.out.exists()


@pytest.mark.fault("I4")
@pytest.mark.parametrize("base", [(), ("--base", "base")])
def test_a_disk_that_cannot_be_read_at_once(warm: Warm, scene: Scene, base: tuple[str, ...]) -> None:
    """EIO in the compiled reading alone: the plain one finds nothing wrong, and still it is exit 8."""
    pytest.importorskip("rsoup.backends.compiled")
    options = ["-P", str(scene.weights), "-e", "trace=pread64", "-e", "inject=pread64:error=EIO:when=3+"]

    ended = warm.traced(options, "merge", "one", "two", "--uniform", "-o", "soup", *base, cwd=scene.root)

    assert ended.code == 8, ended
    assert "E0806" in ended.err
    assert "failed for a moment" in ended.err
    assert "Input/output error" in ended.err
    assert stray(scene.root) == []
    assert not scene.out.exists()


@pytest.mark.fault("I4")
def test_a_read_that_comes_in_pieces(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that gives fewer bytes than asked for at a time is asked again until all are there."""
    merge(scene.recipe, scene.root / "wanted")
    real = os.preadv

    def few(fd: int, buffers: list[memoryview], start: int) -> int:
        return real(fd, [buffers[0][: max(1, len(buffers[0]) // 3)]], start)

    monkeypatch.setattr(os, "preadv", few)
    merge(scene.recipe, scene.out)

    wanted = (scene.root / "wanted" / "model.safetensors").read_bytes()
    assert (scene.out / "model.safetensors").read_bytes() == wanted


@pytest.mark.fault("I2")
def test_changed_before_it_is_opened_is_fine(scene: Scene) -> None:
    """What changed before a merge opened it is simply the input."""
    os.utime(scene.weights, (0, 0))

    merge(scene.recipe, scene.out)

    verify(scene.out)
