"""Stopped or killed at any moment, the same command goes on and ends with the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from checkpoints import tree
from conftest import Folders
from faults import big_models, command, stray, verify, without_run
from warm import Ended, Warm

from rsoup import make_recipe, merge
from rsoup.plan import BLOCK_ELEMENTS
from rsoup.storage import journal, parts

ELEMENTS = 12 * BLOCK_ELEMENTS  # four tensors of three blocks each
QUICK_KILLS = 8
LONG_KILLS = 200
STOPS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


class Field(NamedTuple):
    """A warm interpreter, two models big enough to be hit in the middle, and what an undisturbed run makes of them."""

    warm: Warm
    root: Path
    arguments: list[str]
    wanted: dict[str, bytes]
    manifest: dict[str, object]
    seconds: float

    def place(self) -> Path:
        """A new, empty folder to write to."""
        folder = self.root / "out"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def check(self, folder: Path) -> None:
        """The soup in `folder` is byte for byte the undisturbed one, and nothing else is there."""
        assert os.listdir(folder) == ["soup"]
        assert without_run(verify(folder / "soup")) == self.manifest
        found = tree(folder / "soup")
        assert {name: found[name] for name in self.wanted} == self.wanted


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """The models are mixed with a base, so that distances, too, have to survive."""
    root = tmp_path_factory.mktemp("resume")
    one, two = big_models(root, ELEMENTS)
    warm = Warm(root)
    arguments = [
        "merge",
        str(one),
        str(two),
        "--base",
        str(one),
        "--lambda",
        "1/3,2/3",
        "--threads",
        "2",
        "-o",
        "soup",
    ]
    (root / "undisturbed").mkdir()
    times = []
    for _ in range(2):
        begun = time.monotonic()
        ended = warm.run(*arguments, "--overwrite", cwd=root / "undisturbed")
        times.append(time.monotonic() - begun)
        assert ended.code == 0, ended.err
    manifest = without_run(verify(root / "undisturbed" / "soup"))
    wanted = {
        name: data for name, data in tree(root / "undisturbed" / "soup").items() if name != "rsoup.json"
    }
    yield Field(warm, root, arguments, wanted, manifest, min(times))
    warm.close()


def _resumed_blocks(ended: Ended) -> int:
    return int(json.loads(ended.out)["resumed_blocks"])


def _go_on(field: Field, folder: Path, moment: str) -> int:
    """Type the same again after a kill; returns how many blocks were there already."""
    if (folder / "soup").exists():  # the kill came after the rename
        field.check(folder)
        return 0
    assert len(stray(folder)) <= 1, moment
    ended = field.warm.run(*field.arguments, "--json", cwd=folder)
    assert ended.code == 0, (moment, ended.err, ended.out)
    field.check(folder)
    return _resumed_blocks(ended)


def _kills(field: Field, count: int, seed: int) -> tuple[int, int, int]:
    """(kills that hit a running merge, runs that were resumed, blocks they found done)."""
    chance = random.Random(seed)
    hit = resumed = blocks = 0
    for number in range(count):
        folder = field.place()
        run = field.warm.start(*field.arguments, cwd=folder)
        time.sleep(chance.uniform(0.0, 1.1) * field.seconds)
        run.send(signal.SIGKILL)
        code = run.wait().code
        assert code in (0, -signal.SIGKILL)
        hit += code != 0
        found = _go_on(field, folder, f"kill {number} of seed {seed}")
        resumed += found > 0
        blocks += found
    return hit, resumed, blocks


@pytest.mark.fault("H10")
def test_killed_at_random_moments(field: Field) -> None:
    """kill -9, wherever it falls, leaves the old state or the new; the same command then gives the same bytes."""
    hit, _, _ = _kills(field, QUICK_KILLS, seed=0)

    assert hit > 0


@pytest.mark.long
@pytest.mark.fault("H10")
def test_killed_hundreds_of_times(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    """The same hundreds of times, with the figures: none torn of n bounds the rate at 3/n."""
    hit, resumed, blocks = _kills(field, LONG_KILLS, seed=int(time.time()))

    with capsys.disabled():
        print(
            f"\nkill -9: {LONG_KILLS} tried, {hit} hit a running merge, {resumed} resumed ({blocks} blocks kept); "
            f"0 torn, 0 different (95 % bound {3 / max(hit, 1):.2%})"
        )
    assert hit > LONG_KILLS // 3
    assert resumed > 0


@pytest.mark.long
@pytest.mark.fault("H10")
def test_killed_again_and_again(field: Field) -> None:
    """One merge that is killed many times on its way still ends with the same bytes."""
    chance = random.Random(7)
    folder = field.place()
    for _ in range(30):
        run = field.warm.start(*field.arguments, cwd=folder)
        time.sleep(chance.uniform(0.1, 0.5) * field.seconds)
        run.send(signal.SIGKILL)
        run.wait()

    _go_on(field, folder, "after 30 kills")


def _stopped(field: Field, folder: Path, number: int, after: float) -> Ended:
    """Run from a slow disk until there is something in the journal (or the run ends), then send the signal."""
    run = field.warm.start(*field.arguments, cwd=folder, pause=0.005)
    time.sleep(after)
    limit = time.monotonic() + 20
    while time.monotonic() < limit and not any(
        path.stat().st_size > 100 for path in folder.glob(f"*.part/{journal.NAME}")
    ):
        if (folder / "soup").exists():
            break
        time.sleep(0.001)
    run.send(number)
    return run.wait()


@pytest.mark.fault("H9")
@pytest.mark.parametrize("name", STOPS)
def test_stopped_in_the_middle(field: Field, name: str) -> None:
    """A signal that asks to stop is obeyed with its exit code; what is done is kept, and the message says where."""
    for _ in range(5):
        folder = field.place()
        ended = _stopped(field, folder, getattr(signal, name), 0.0)
        if ended.code:
            break

    assert ended.code == STOPS[name]
    (part,) = stray(folder)
    assert name in ended.err
    assert part in ended.err
    assert "the same command" in ended.err
    assert "Traceback" not in ended.err
    assert not (folder / "soup").exists()
    assert _go_on(field, folder, name) > 0


@pytest.mark.fault("H9")
def test_stopped_at_random_moments(field: Field) -> None:
    """Whenever the signal comes, the end is 0 or 128 + its number, in words, and the same command goes on."""
    chance = random.Random(3)
    for number in range(9):
        name = list(STOPS)[number % 3]
        folder = field.place()
        run = field.warm.start(*field.arguments, cwd=folder)
        time.sleep(chance.uniform(0.02, 1.1) * field.seconds)
        run.send(getattr(signal, name))
        ended = run.wait()

        assert ended.code in (0, STOPS[name])
        assert "Traceback" not in ended.err
        assert "Exception ignored" not in ended.err
        _go_on(field, folder, f"{name} {number}")


@pytest.mark.fault("H9")
def test_stopping_is_told_as_json_too(field: Field) -> None:
    """With --json a stopped run is one document on stdout like every other end."""
    folder = field.place()
    run = field.warm.start(*field.arguments, "--json", cwd=folder)
    time.sleep(field.seconds / 3)
    run.send(signal.SIGTERM)
    ended = run.wait()

    document = json.loads(ended.out)
    if ended.code:
        assert (ended.code, ended.error["code"], ended.error["exit_code"]) == (143, "E7502", 143)
    else:
        assert document["out"] == "soup"


SLOW = """
import os, signal, sys, time
from rsoup import cli, reading
real = reading.go_on

def go_on():
    open("reading", "w").close()
    time.sleep({seconds})
    real()

reading.go_on = go_on
sys.argv = ["rsoup", *sys.argv[1:]]
cli.main()
"""


def _slow(folder: Path, seconds: float, *arguments: str, before: str = "") -> subprocess.Popen[bytes]:
    """A merge in which every read takes so long, when it has begun to read; `before` is said to the shell first."""
    process = subprocess.Popen(
        [
            "sh",
            "-c",
            f'{before}exec "$@"',
            "sh",
            sys.executable,
            "-c",
            SLOW.format(seconds=seconds),
            *arguments,
        ],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    limit = time.monotonic() + 60
    while not (folder / "reading").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    return process


@pytest.mark.fault("H9", "I5")
def test_a_slow_disk_does_not_keep_one_waiting(field: Field) -> None:
    """Where every read takes half a second, Ctrl-C is obeyed within about one more read."""
    folder = field.place()
    process = _slow(folder, 0.5, *field.arguments)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 130, err
    assert time.monotonic() - begun < 3.0  # 16 reads of a block would take 8 s
    assert b"the same command" in err


@pytest.mark.fault("H9")
def test_the_second_signal_ends_at_once(field: Field) -> None:
    """A second Ctrl-C does not wait for anything, not even for a disk that hangs."""
    folder = field.place()
    process = _slow(folder, 30, *field.arguments)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=25)

    assert process.returncode == 130
    assert time.monotonic() - begun < 5


@pytest.mark.fault("H9")
def test_nohup_is_respected(field: Field) -> None:
    """A run that was started to ignore SIGHUP (nohup) goes on when the terminal closes."""
    folder = field.place()
    process = _slow(folder, 0.001, *field.arguments, before="trap '' HUP; ")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)

    assert process.returncode == 0
    verify(folder / "soup")


# --- what is never resumed ----------------------------------------------------------------------------------


def _interrupted(field: Field, folder: Path) -> Path:
    """A staging folder with blocks in its journal, left by a kill."""
    for _ in range(20):
        run = field.warm.start(*field.arguments, cwd=folder)
        limit = time.monotonic() + 20
        while time.monotonic() < limit and not (folder / "soup").exists():
            if any(path.stat().st_size > 400 for path in folder.glob(f"*.part/{journal.NAME}")):
                break
            time.sleep(0.001)
        run.send(signal.SIGKILL)
        run.wait()
        if (found := stray(folder)) and not (folder / "soup").exists():
            return folder / found[0]
        shutil.rmtree(folder / "soup", ignore_errors=True)
    pytest.skip("this machine merges faster than it can be killed")


def test_another_recipe_begins_anew_and_tells_of_the_rest(field: Field) -> None:
    """With another λ nothing of the killed run is used; a note says what it left, and rsoup clean removes it."""
    folder = field.place()
    part = _interrupted(field, folder)
    arguments = ["1/4,3/4" if argument == "1/3,2/3" else argument for argument in field.arguments]

    ended = field.warm.run(*arguments, cwd=folder)

    assert ended.code == 0, ended.err
    assert "from an earlier run" not in ended.out
    assert part.name in ended.err
    assert "rsoup clean" in ended.err
    verify(folder / "soup")
    assert field.warm.run("clean", "--yes", "-q", cwd=folder).out.split() == [f"./{part.name}"]
    assert os.listdir(folder) == ["soup"]


@pytest.mark.parametrize("change", ["touched", "rewritten", "replaced"])
def test_a_changed_input_begins_anew(tmp_path: Path, field: Field, change: str) -> None:
    """A checkpoint that was touched, rewritten in place or replaced since the kill is read again from its start."""
    models = [shutil.copytree(argument, tmp_path / Path(argument).name) for argument in field.arguments[1:3]]
    mine = field._replace(
        arguments=["merge", *map(str, models), "--lambda", "1/3,2/3", "--threads", "2", "-o", "soup"]
    )
    folder = tmp_path / "out"
    folder.mkdir()
    _interrupted(mine, folder)
    weights = models[1] / "model.safetensors"
    if change == "touched":
        os.utime(weights)
    elif change == "rewritten":
        with open(weights, "r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(b"\0\0")
    else:
        shutil.copyfile(field.arguments[1] + "/model.safetensors", tmp_path / "new")
        os.replace(tmp_path / "new", weights)

    ended = mine.warm.run(*mine.arguments, "--json", cwd=folder)

    assert ended.code == 0, ended.err
    assert _resumed_blocks(ended) == 0
    shutil.rmtree(folder)
    folder.mkdir()
    assert mine.warm.run(*mine.arguments, "-o", "again", cwd=folder).code == 0
    verify(folder / "again")


@pytest.mark.parametrize("damage", ["torn", "middle", "header", "gone", "short weights", "long weights"])
def test_a_damaged_rest_gives_the_same_soup(field: Field, damage: str) -> None:
    """Whatever happened to the journal or the weights since the kill, the soup is right in every byte."""
    folder = field.place()
    part = _interrupted(field, folder)
    book = part / journal.NAME
    text = bytearray(book.read_bytes())
    if damage == "torn":
        book.write_bytes(text[:-7])
    elif damage == "middle":
        text[200] ^= 1
        book.write_bytes(text)
    elif damage == "header":
        text[0] ^= 1
        book.write_bytes(text)
    elif damage == "gone":
        book.unlink()
    else:
        weights = part / "model.safetensors"
        os.truncate(weights, weights.stat().st_size + (1 if damage == "long weights" else -1))

    _go_on(field, folder, damage)


def test_unjournalled_blocks_are_cooked_again(field: Field) -> None:
    """Bytes the journal does not name are never believed: zeros, as reserved space reads after a crash, are filled in."""
    folder = field.place()
    part = _interrupted(field, folder)
    lines = (part / journal.NAME).read_bytes().splitlines(keepends=True)
    (part / journal.NAME).write_bytes(lines[0] + lines[1])
    block = json.loads(lines[1].partition(b" ")[2])["block"]
    weights = bytearray((part / "model.safetensors").read_bytes())
    begin = int.from_bytes(weights[:8], "little") + 8 + block * 2 * BLOCK_ELEMENTS
    kept = weights[begin : begin + 2 * BLOCK_ELEMENTS]
    head = begin - block * 2 * BLOCK_ELEMENTS
    weights[head:] = bytes(len(weights) - head)
    weights[begin : begin + 2 * BLOCK_ELEMENTS] = kept
    (part / "model.safetensors").write_bytes(weights)

    assert _go_on(field, folder, "wiped") == 1


# --- rsoup clean -----------------------------------------------------------------------------------------------


def test_clean_lists_and_then_removes(field: Field) -> None:
    """rsoup clean lists what interrupted merges left; with --yes it removes exactly that."""
    folder = field.place()
    part = _interrupted(field, folder)
    (folder / "mine.part").mkdir()

    listed = field.warm.run("clean", str(folder), "--json")
    assert json.loads(listed.out) == {"schema": 1, "found": [str(part)], "removed": False}
    assert part.exists()
    human = field.warm.run("clean", cwd=folder)
    assert part.name in human.out
    assert "--yes" in human.out

    removed = field.warm.run("clean", "--yes", cwd=folder)
    assert (removed.code, "removed" in removed.out) == (0, True)
    assert os.listdir(folder) == ["mine.part"]
    assert field.warm.run("clean", cwd=folder).out == "nothing was left behind\n"


def test_clean_never_touches_a_running_merge(field: Field) -> None:
    """While a merge runs, rsoup clean neither lists nor removes its staging folder."""
    folder = field.place()
    process = _slow(folder, 0.05, *field.arguments)
    try:
        assert stray(folder)
        assert field.warm.run("clean", "--yes", cwd=folder).out == "nothing was left behind\n"
        assert stray(folder)
    finally:
        process.kill()
        process.communicate()
    assert field.warm.run("clean", "--yes", "-q", cwd=folder).out.strip()


def test_clean_of_nowhere(field: Field) -> None:
    """A folder that does not exist is told in words (7)."""
    ended = field.warm.run("clean", "nowhere")

    assert ended.code == 7
    assert "no such" in ended.err


def test_a_finished_soup_has_nothing_to_resume(base_and_two: Folders) -> None:
    """After a merge that ended there is no staging folder to go on from."""
    out = base_and_two.root / "soup"
    merge(make_recipe([base_and_two.one, base_and_two.two], uniform=True), out)

    assert parts.resumable(str(out)) is None


@pytest.mark.fault("L4")
def test_killed_while_it_starts(base_and_two: Folders) -> None:
    """A kill while Python still imports leaves nothing at all."""
    for after in (0.02, 0.1, 0.2):
        process = subprocess.Popen(
            command("merge", "one", "two", "--uniform", "-o", "soup"),
            cwd=base_and_two.root,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(after)
        process.kill()
        process.wait()

        assert sorted(os.listdir(base_and_two.root)) == ["base", "one", "two"]
