"""Law 12: a failed, killed or refused merge leaves the output exactly as it was, and says why."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import read_tensors, related, tree, write_folder
from conftest import Folders
from faults import FailNth, command, needs_root, small_disk, stray, verify, without_run
from warm import Warm

from rsoup.errors import RsoupError, TargetError
from rsoup.library import make_recipe
from rsoup.merging import merge
from rsoup.recipe import Recipe
from rsoup.storage import journal, rename

HALF = ("--lambda", "0.5,0.5")
REFUSALS = {6, 7, 8, 75}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A warm interpreter for this file's command lines."""
    interpreter = Warm(tmp_path_factory.mktemp("warm"))
    yield interpreter
    interpreter.close()


@pytest.fixture
def half(base_and_two: Folders) -> Recipe:
    """Half of one and half of two."""
    return make_recipe([base_and_two.one, base_and_two.two], mix=["1/2", "1/2"], base=base_and_two.base)


@pytest.fixture
def third(base_and_two: Folders) -> Recipe:
    """Another recipe, so that its soup has other bytes."""
    return make_recipe([base_and_two.one, base_and_two.two], mix=["1/3", "2/3"], base=base_and_two.base)


def outputs(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but the runs' own parts of manifests (time, seconds)."""
    return {name: re.sub(rb'"(seconds|finished)": [^\n]*', b"", data) for name, data in tree(folder).items()}


def begin_with(out: Path, recipe: Recipe | None) -> dict[str, bytes]:
    """Let there be nothing at the output's place, or the soup of this recipe; returns what is there."""
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    if recipe is not None:
        merge(recipe, out)
    return tree(out.parent)


# --- what comes out ---------------------------------------------------------------------------------


@pytest.mark.fault("H1")
def test_a_new_output_is_complete(warm: Warm, two_models: list[str], tmp_path: Path) -> None:
    """A merge to a new place, its parents missing, gives a soup that verifies, and nothing else."""
    ended = warm.run("merge", *two_models, *HALF, "-o", "a/b/soup", cwd=tmp_path)

    assert ended.code == 0, ended.err
    verify(tmp_path / "a" / "b" / "soup")
    assert os.listdir(tmp_path / "a" / "b") == ["soup"]


@pytest.mark.fault("H1")
@pytest.mark.parametrize("name", ["soup", "soup.safetensors"])
def test_an_existing_output_is_refused(warm: Warm, two_models: list[str], tmp_path: Path, name: str) -> None:
    """Without --overwrite a second merge to the same place exits 6 and changes nothing."""
    assert warm.run("merge", *two_models, *HALF, "-o", name, cwd=tmp_path).code == 0
    before = tree(tmp_path)

    ended = warm.run("merge", *two_models, "--lambda", "1/3,2/3", "-o", name, cwd=tmp_path)

    assert ended.code == 6
    assert "--overwrite" in ended.err
    assert tree(tmp_path) == before


@pytest.mark.fault("H3")
def test_a_bigger_old_output_leaves_no_shard_behind(half: Recipe, third: Recipe, tmp_path: Path) -> None:
    """After --overwrite nothing of the output before is left: no shard, no index that two loaders read differently."""
    sharded = make_recipe(
        dict.fromkeys("ab", half.ingredients[0].checkpoints), uniform=True, max_shard_size="20kB"
    )
    merge(sharded, tmp_path / "soup")
    assert len(list((tmp_path / "soup").glob("*-of-*.safetensors"))) > 1

    merge(third, tmp_path / "soup", overwrite=True)

    verify(tmp_path / "soup")
    assert sorted(os.listdir(tmp_path / "soup")) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "rsoup.json",
    ]


@pytest.mark.fault("H3")
@pytest.mark.parametrize("name", ["soup", "soup.safetensors"])
def test_overwrite_never_shows_anything_but_a_whole_output(
    half: Recipe, third: Recipe, tmp_path: Path, name: str
) -> None:
    """Whoever opens the output again and again during --overwrite reads the old file or the new one, whole."""
    merge(half, tmp_path / name)
    weights = tmp_path / name if name.endswith("s") else tmp_path / name / "model.safetensors"
    allowed = {weights.read_bytes()}
    seen: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.add(weights.read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for recipe in (third, half, third):
            merge(recipe, tmp_path / name, overwrite=True)
            allowed.add(weights.read_bytes())
    finally:
        over.set()
        watcher.join()

    assert seen <= allowed
    assert len(allowed) == 2


def test_the_same_recipe_gives_the_same_bytes(half: Recipe, tmp_path: Path) -> None:
    """Two merges of one recipe differ in nothing but the `run` part of the manifest."""
    merge(half, tmp_path / "x" / "soup")
    merge(half, tmp_path / "y" / "soup", threads=1)

    assert outputs(tmp_path / "x") == outputs(tmp_path / "y")
    assert without_run(verify(tmp_path / "x" / "soup")) == without_run(verify(tmp_path / "y" / "soup"))


# --- the inputs -------------------------------------------------------------------------------------


@pytest.mark.fault("H2")
@pytest.mark.parametrize(
    "out",
    ["one", "one/", "one/soup", "two/../one", "base", ".", "link", "link/soup", "one/model.safetensors"],
)
def test_the_output_may_not_touch_an_input(warm: Warm, base_and_two: Folders, out: str) -> None:
    """An output that is, contains or lies in an input is a mistake (2), with --overwrite too; inputs stay."""
    (base_and_two.root / "link").symlink_to("one")
    before = tree(base_and_two.root)

    ended = warm.run(
        "merge", "one", "two", "--base", "base", *HALF, "-o", out, "--overwrite", cwd=base_and_two.root
    )

    assert ended.code == 2, ended.err
    assert tree(base_and_two.root) == before


@pytest.mark.fault("H2")
def test_weights_that_are_links_are_inputs_too(warm: Warm, base_and_two: Folders) -> None:
    """Where an input's weights are links to files elsewhere, that place is not replaced either."""
    real = base_and_two.root / "real"
    base_and_two.one.rename(real)
    base_and_two.one.mkdir()
    for name in ("model.safetensors", "config.json"):
        (base_and_two.one / name).symlink_to(f"../real/{name}")
    before = tree(base_and_two.root)

    ended = warm.run(
        "merge",
        "one",
        "two",
        *HALF,
        "--allow",
        "symlinks",
        "-o",
        "real",
        "--overwrite",
        cwd=base_and_two.root,
    )

    assert ended.code == 2, ended.err
    assert tree(base_and_two.root) == before


@pytest.mark.parametrize("name", ["soup", "soup.safetensors"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_refused_soup_leaves_everything(base_and_two: Folders, name: str, overwrite: bool) -> None:
    """A NaN that is found in the middle of the work ends it, and the output is what it was."""
    good = make_recipe([base_and_two.one, base_and_two.two], uniform=True)
    if overwrite:
        merge(good, base_and_two.root / name)
    broken = dict(base_and_two.family.tuned[1])
    broken["embed.weight"] = broken["embed.weight"].clone()
    broken["embed.weight"][-1, -1] = float("nan")
    write_folder(base_and_two.two, broken)
    before = tree(base_and_two.root)

    with pytest.raises(RsoupError) as caught:
        merge(good, base_and_two.root / name, overwrite=overwrite)

    assert caught.value.code == "E0304"
    assert tree(base_and_two.root) == before


# --- two at a time ------------------------------------------------------------------------------------


@pytest.mark.fault("H12")
@pytest.mark.parametrize("same", [True, False], ids=["one recipe", "twenty recipes"])
def test_of_twenty_runs_one_wins(warm: Warm, two_models: list[str], tmp_path: Path, same: bool) -> None:
    """Twenty runs to one output at once: one makes it, the others exit 75 or 6, and the output verifies."""
    mixes = ["0.5,0.5"] * 20 if same else [f"{i}/40,{40 - i}/40" for i in range(1, 21)]
    runs = [warm.start("merge", *two_models, "--lambda", mix, "-o", "soup", cwd=tmp_path) for mix in mixes]

    codes = sorted(run.wait().code for run in runs)

    assert codes.count(0) == 1, codes
    assert set(codes) <= {0, 6, 75}
    verify(tmp_path / "soup")
    assert stray(tmp_path) == []


@pytest.mark.fault("H12")
def test_twenty_runs_that_overwrite(warm: Warm, two_models: list[str], tmp_path: Path) -> None:
    """Twenty runs with --overwrite: whoever gets a turn leaves a whole output, and nothing lies about."""
    runs = [
        warm.start(
            "merge", *two_models, "--lambda", f"{i}/40,{40 - i}/40", "-o", "soup", "--overwrite", cwd=tmp_path
        )
        for i in range(1, 21)
    ]

    codes = [run.wait().code for run in runs]

    assert 0 in codes
    assert set(codes) <= {0, 75}, codes
    verify(tmp_path / "soup")
    assert stray(tmp_path) == []


# --- disks that end ---------------------------------------------------------------------------------------


@needs_root
@pytest.mark.fault("H4")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_small_disk(warm: Warm, two_models: list[str], tmp_path: Path, overwrite: bool) -> None:
    """On a disk that is too small the merge exits 6 at once with both figures; the old output stays."""
    with small_disk(tmp_path / "disk", "200k" if overwrite else "100k") as disk:
        if overwrite:
            assert warm.run("merge", *two_models, *HALF, "-o", "soup", cwd=disk).code == 0
        before = tree(disk)

        ended = warm.run("merge", *two_models, "--lambda", "1/3,2/3", "-o", "soup", "--overwrite", cwd=disk)

        assert ended.code == 6
        assert re.search(r"needs \d+ kB and [\d.]+ kB are free", ended.err)
        assert tree(disk) == before


@needs_root
@pytest.mark.fault("H4", "H5")
def test_every_size_of_disk(two_models: list[str], tmp_path: Path) -> None:
    """Whatever the disk has room for, page by page: the soup is there and verifies, or exit 6 and nothing is there."""
    recipe = make_recipe(two_models, uniform=True)
    codes: list[int] = []
    left: dict[str, list[str]] = {}
    for pages in range(36, 60):
        with small_disk(tmp_path / str(pages), f"{4 * pages}k") as disk:
            try:
                merge(recipe, disk / "soup")
                codes.append(0)
                verify(disk / "soup")
                assert os.listdir(disk) == ["soup"]
            except TargetError as error:
                codes.append(6)
                left[error.code] = os.listdir(disk)

    assert left == {"E0602": []}
    assert codes == sorted(codes, reverse=True)
    assert {0, 6} == set(codes)


@pytest.mark.fault("H6")
@pytest.mark.parametrize("kilobytes", [1, 64])
def test_a_limit_on_file_size(warm: Warm, two_models: list[str], tmp_path: Path, kilobytes: int) -> None:
    """A file larger than the process may write ends the merge with exit 6 and the way out: smaller shards."""
    ended = subprocess.run(
        ["prlimit", f"--fsize={kilobytes * 1024}", *command("merge", *two_models, *HALF, "-o", "soup")]
        if shutil.which("prlimit")
        else pytest.skip("prlimit is missing"),
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=120,
    )

    assert ended.returncode == 6, ended.stderr
    assert b"--max-shard-size" in ended.stderr
    assert stray(tmp_path) == []
    assert not (tmp_path / "soup").exists()


@needs_root
@pytest.mark.fault("H8")
def test_a_disk_that_may_only_be_read(warm: Warm, two_models: list[str], tmp_path: Path) -> None:
    """On a read-only disk the merge exits 7 and says so."""
    with small_disk(tmp_path / "disk", "64k", "ro") as disk:
        ended = warm.run("merge", *two_models, *HALF, "-o", "soup", cwd=disk)

    assert ended.code == 7
    assert "no permission" in ended.err


@needs_root
@pytest.mark.fault("H8")
def test_a_user_without_permission(two_models: list[str], tmp_path: Path) -> None:
    """A user who may not write to the output's folder gets exit 7, and the folder stays as it is."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing")
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    probe = [
        *nobody,
        sys.executable,
        "-c",
        "import rsoup.merge, sys; open(sys.argv[1])",
        two_models[0] + "/config.json",
    ]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("another user may not even read here")
    (tmp_path / "mine").mkdir(mode=0o755)

    ended = subprocess.run(
        [*nobody, *command("merge", *two_models, *HALF, "-o", tmp_path / "mine" / "soup")],
        capture_output=True,
        check=False,
        timeout=120,
    )

    assert ended.returncode == 7, ended.stderr
    assert os.listdir(tmp_path / "mine") == []


@needs_root
@pytest.mark.fault("H8")
def test_a_folder_that_may_not_change(warm: Warm, two_models: list[str], tmp_path: Path) -> None:
    """A folder with the immutable flag is a matter of permission too (7)."""
    locked = tmp_path / "locked"
    locked.mkdir()
    if (
        shutil.which("chattr") is None
        or subprocess.run(["chattr", "+i", locked], check=False, capture_output=True).returncode
    ):
        pytest.skip("files cannot be made immutable here")
    try:
        ended = warm.run("merge", *two_models, *HALF, "-o", "soup", cwd=locked)
    finally:
        subprocess.run(["chattr", "-i", locked], check=True)

    assert ended.code == 7


@pytest.mark.fault("H18")
def test_a_limit_on_memory(two_models: list[str], tmp_path: Path) -> None:
    """With less memory than its libraries need the merge exits 6 in words, or works; it never ends in a traceback."""
    recipe_args = ["merge", *two_models, *HALF, "--threads", "1"]
    codes = []
    for megabytes in (60, 400, 800):
        limit = megabytes << 20
        out = tmp_path / f"soup{megabytes}"
        ended = subprocess.run(
            command(*recipe_args, "-o", out),
            capture_output=True,
            check=False,
            timeout=120,
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        codes.append(ended.returncode)
        assert b"Traceback" not in ended.stderr, ended.stderr
        assert out.exists() == (ended.returncode == 0)

    assert codes[0] == 6
    assert set(codes) <= {0, 6}
    assert stray(tmp_path) == []


@pytest.mark.fault("H18", "L3")
@pytest.mark.parametrize("failing", ["memory", "threads"])
def test_a_thread_that_cannot_begin_never_leaves_a_hole(
    half: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """If no thread gets its buffers, or none starts, the merge fails; it never commits blocks nobody wrote."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError if failing == "memory" else RuntimeError("can't start new thread")

    if failing == "threads":
        real = threading.Thread.start
        monkeypatch.setattr(
            threading.Thread, "start", lambda self: fail() if self.name.startswith("rsoup-0") else real(self)
        )
    else:
        monkeypatch.setattr("rsoup.scratch.Scratch.__init__", fail)

    with pytest.raises(TargetError) as caught:
        merge(half, tmp_path / "soup")

    assert caught.value.code == "E0608"
    assert not (tmp_path / "soup").exists()
    assert stray(tmp_path) == []


def test_fewer_threads_do_as_well(half: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system gives fewer threads than were asked for, the soup is made by those there are."""
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name in ("rsoup-1", "rsoup-2"):
            raise RuntimeError("can't start new thread")
        real(self)

    merge(half, tmp_path / "wanted")
    monkeypatch.setattr(threading.Thread, "start", start)
    merge(half, tmp_path / "soup", threads=3)

    assert (tmp_path / "soup/model.safetensors").read_bytes() == (
        tmp_path / "wanted/model.safetensors"
    ).read_bytes()


@pytest.mark.fault("L3")
def test_a_limit_on_open_files(tmp_path: Path, base_and_two: Folders) -> None:
    """More shards than the process may open end the merge with exit 6 and the command that helps."""
    many = {f"layers.{i}.weight": torch.ones(8) for i in range(60)}
    for name in ("one", "two"):
        shutil.rmtree(base_and_two.root / name)
        write_folder(base_and_two.root / name, many, shards=60)
    ended = subprocess.run(
        command("merge", "one", "two", *HALF, "-o", "soup"),
        cwd=base_and_two.root,
        capture_output=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150)),
    )

    assert ended.returncode == 6, ended.stderr
    assert b"ulimit -n" in ended.stderr
    assert stray(base_and_two.root) == []


# --- the n-th call fails --------------------------------------------------------------------------------

WRITING = {
    "pwrite": os, "write": os, "fsync": os, "fdatasync": os, "posix_fallocate": os, "mkdir": os, "close": os,
    "unlink": os, "open": os, "_renameat2": rename,
}  # fmt: skip
READING = {
    "open": os,
    "preadv": os,
    "fstat": os,
    "stat": os,
    "lstat": os,
    "scandir": os,
    "listdir": os,
    "close": os,
}


def _each_failure(
    fails: FailNth, run: Callable[[], None], check: Callable[[int | None], None], *, limit: int = 400
) -> int:
    """Let the 1st, 2nd … call fail until a run meets none; `check` gets the exit code (None: done) each time."""
    for nth in range(1, limit):
        fails.arm(nth)
        code: int | None = None
        try:
            run()
        except RsoupError as error:
            code = error.exit_code
        except OSError:
            code = TargetError.exit_code  # what the command line makes of it
        met = fails.hit
        fails.arm(0)
        check(code)
        if not met:
            assert code is None
            return nth - 1
    pytest.fail(f"still failing after {limit} calls")


@pytest.mark.fault("H5", "H7")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["soup", "soup.safetensors"])
def test_every_writing_call_may_fail(
    half: Recipe,
    third: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    overwrite: bool,
    number: int,
) -> None:
    """Whichever call of the protocol fails, the exit class is 6, 7 or 8, and the output is the old one or a whole new one."""
    where = tmp_path / "out"
    begin_with(where / name, half if overwrite else None)
    merge(third, where / name, overwrite=overwrite)
    wanted = outputs(where)
    before = begin_with(where / name, half if overwrite else None)
    fails = FailNth(monkeypatch, number)
    for function, module in WRITING.items():
        fails.watch(module, function)
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 1e9)

    def check(code: int | None) -> None:
        for part in stray(where):  # a removal may be what failed
            shutil.rmtree(where / part)
        if code is None:
            assert outputs(where) == wanted
            before.clear()
            before.update(begin_with(where / name, half if overwrite else None))
        else:
            assert code in REFUSALS
            assert tree(where) == before

    tried = _each_failure(
        fails, lambda: void(merge(third, where / name, overwrite=overwrite, threads=1)), check
    )

    assert tried > 20


def void(_: object) -> None:
    """Nothing, of anything."""


@pytest.mark.fault("I4", "H7")
def test_every_reading_call_may_fail(half: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call that reads the inputs fails with EIO, the exit class is 6, 7 or 8 and nothing is there."""
    fails = FailNth(monkeypatch, errno.EIO)
    for function, module in READING.items():
        fails.watch(module, function)

    def check(code: int | None) -> None:
        for part in stray(tmp_path):
            shutil.rmtree(tmp_path / part)
        if code is None:
            shutil.rmtree(tmp_path / "soup")
        else:
            assert code in REFUSALS
        assert sorted(os.listdir(tmp_path)) == ["base", "one", "two"]

    assert _each_failure(fails, lambda: void(merge(half, tmp_path / "soup", threads=1)), check) > 20


# --- the same with the kernel's own answers -------------------------------------------------------------------


@pytest.mark.fault("H14")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kernel_without_renameat2(
    warm: Warm, two_models: list[str], tmp_path: Path, overwrite: bool
) -> None:
    """Where renameat2 is missing (ENOSYS) the merge works by plain renames."""
    out = tmp_path / "soup"
    if overwrite:
        merge(make_recipe(two_models, uniform=True), out)
    options = ["-e", "trace=renameat2", "-e", "inject=renameat2:error=ENOSYS"]

    ended = warm.traced(options, "merge", *two_models, "--lambda", "1/3,2/3", "-o", out, "--overwrite")

    assert ended.code == 0, ended.err
    assert "1/3" in str(verify(out)["recipe"])
    assert stray(tmp_path) == []


SYSCALLS = {
    "write": ("ENOSPC", "EDQUOT", "EINTR"),
    "pwrite64": ("ENOSPC", "EIO", "EFBIG", "EINTR"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT", "EINTR"),
    "fdatasync": ("EIO",),
    "fallocate": ("ENOSPC", "EOPNOTSUPP", "EINTR", "EDQUOT"),
    "renameat2": ("EIO", "ENOSPC", "EINTR", "EXDEV", "EBUSY"),
    "mkdirat": ("ENOSPC", "EDQUOT"),
    "mkdir": ("ENOSPC", "EACCES"),
    "openat": ("EIO", "ENFILE", "ENOMEM", "EINTR"),
    "close": ("EIO",),
    "unlinkat": ("EIO",),
    "preadv2": ("EIO", "EINTR"),
    "newfstatat": ("EIO", "ESTALE"),
    "flock": ("ENOLCK", "EINTR"),
    "getdents64": ("EIO",),
    "fadvise64": ("EINVAL",),
    "clone3": ("EAGAIN",),
}
QUICK = [("pwrite64", "ENOSPC"), ("fsync", "EIO"), ("renameat2", "EIO"), ("write", "ENOSPC")]


def _system_calls(long: bool) -> list[tuple[str, str]]:
    return [
        (call, number)
        for call, all_ in SYSCALLS.items()
        for number in all_
        if ((call, number) not in QUICK) == long
    ]


@pytest.mark.fault("H5", "H7")
@pytest.mark.parametrize(("call", "number"), QUICK)
def test_some_system_calls_may_fail(
    warm: Warm, base_and_two: Folders, half: Recipe, third: Recipe, tmp_path: Path, call: str, number: str
) -> None:
    """The n-th call of a kind on the output fails, n = 1, 2 … until a run passes: the old output, or the new one whole."""
    assert (
        _each_system_call(warm, half, third, tmp_path, call, number, "soup", overwrite=True, patience=2) >= 1
    )


@pytest.mark.long
@pytest.mark.fault("H5", "H6", "H7", "I4")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["soup", "soup.safetensors"])
@pytest.mark.parametrize(("call", "number"), _system_calls(long=True))
def test_every_system_call_may_fail(
    warm: Warm,
    base_and_two: Folders,
    half: Recipe,
    third: Recipe,
    tmp_path: Path,
    call: str,
    number: str,
    name: str,
    overwrite: bool,
) -> None:
    """The same for every kind of call on inputs and output, and every kind of answer."""
    _each_system_call(warm, half, third, tmp_path, call, number, name, overwrite=overwrite)


def _each_system_call(
    warm: Warm,
    half: Recipe,
    third: Recipe,
    root: Path,
    call: str,
    number: str,
    name: str,
    *,
    overwrite: bool,
    patience: int = 8,
) -> int:
    """How many calls failed, one a run (in each thread), before a run met none."""
    where = root / "out"
    old = half if overwrite else None
    begin_with(where / name, old)
    merge(third, where / name, overwrite=overwrite)
    wanted = outputs(where)
    before = begin_with(where / name, old)
    arguments = [
        "merge",
        "../one",
        "../two",
        "--base",
        "../base",
        "--lambda",
        "1/3,2/3",
        "-o",
        name,
        "--threads",
        "1",
    ]
    arguments += ["--overwrite"] if overwrite else []
    kill = ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO:signal=KILL:when=1"]
    warm.traced(kill, *arguments, cwd=where)
    (part,) = stray(where)
    shutil.rmtree(where / part)
    places = [where, where / part, where / name, *(root / model for model in ("one", "two", "base"))]
    places += [root / model / "model.safetensors" for model in ("one", "two", "base")]
    staged = ("model.safetensors", "soup.safetensors", ".journal", "config.json", "README.md", "rsoup.json")
    places += [where / part / file for file in staged]
    where_only = [] if call == "clone3" else [option for place in places for option in ("-P", str(place))]
    passed = 0
    for nth in range(1, 250):
        options = ["-e", f"trace={call}", *where_only, "-e", f"inject={call}:error={number}:when={nth}"]
        ended = warm.traced(options, *arguments, cwd=where)
        assert ended.code in {0, *REFUSALS}, (nth, ended)
        assert "Traceback" not in ended.err, (nth, ended)
        for left in stray(where):
            assert len(stray(where)) == 1
            shutil.rmtree(where / left)
        if ended.code:
            passed = 0
            assert tree(where) == before, nth
            continue
        assert outputs(where) == wanted, nth
        before = begin_with(where / name, old)
        passed += 1
        if passed == patience:  # calls whose failure is tolerated lie between those whose failure is not
            return nth - passed
    pytest.fail("still failing after 250 calls")


def test_a_soup_reads_as_it_should(half: Recipe, tmp_path: Path) -> None:
    """What was committed is what any reader of safetensors finds: the mean, rounded once."""
    merge(half, tmp_path / "soup")
    one, two = (read_tensors(tmp_path / name)["embed.weight"].double() for name in ("one", "two"))

    assert torch.equal(read_tensors(tmp_path / "soup")["embed.weight"], ((one + two) / 2).to(torch.bfloat16))


def test_related_models_are_what_these_tests_need() -> None:
    """The soups here have more than one slice, so that a write in the middle can fail."""
    assert related(1).base["embed.weight"].numel() > 65_536
