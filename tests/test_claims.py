"""Of all threads and processes on a sweep one does a point, and a killed one's point is done by the next."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rsoup.errors import RsoupError, TargetError
from rsoup.sweep import claims as claiming
from rsoup.sweep.claims import FOLDER, Claims
from rsoup.sweep.ledger import Ledger

PATIENCE_SECONDS = 20
KEYS, WORKERS, KILLS = 30, 4, 12

HOLDER = """
import subprocess, sys, time
from rsoup.sweep.claims import Claims

folder, key, mark = sys.argv[1:]
claim = Claims(folder).claim(key, mark)
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, close_fds=False)
print(child.pid, flush=True)
time.sleep(60)
"""

SWEEP = """
import os, random, signal, sys, time
from rsoup.sweep.claims import Claims
from rsoup.sweep.ledger import Ledger
from rsoup.sweep.record import Record, latest
from rsoup.sweep.score import Score

folder, keys, workers, kills = sys.argv[1], *map(int, sys.argv[2:])
keys = [f"{n:064x}" for n in range(keys)]

def record(key):
    return Record(
        key=key, point="1", mix={"one": "1"}, scale="1", step=None, evaluator=0, seed=os.getpid(), split="select",
        status="done", scores={"acc": Score(1.0)}, failure=None, seconds=0.0, soup=None, log="", host="",
        finished="2026-01-02T03:04:05Z", origin="design", attempt=1,
    )

def work(slow):
    ledger, claims = Ledger(folder), Claims(folder)
    order = random.Random(os.getpid()).sample(keys, len(keys))
    while left := set(keys) - latest(ledger.records()).keys():
        for key in order:
            if key not in left:
                continue
            mark = f"{os.getpid()}-{key}"
            with claims.claim(key, mark) or claims_of_others() as claim:
                if claim is None or key in latest(ledger.records()):
                    continue
                running = os.path.join(folder, "running", key)
                if os.path.islink(running):  # what the evaluation of a killed one has left
                    assert os.readlink(running) in claim.orphan_marks, "an orphan nobody knows"
                    os.write(1, b"orphan\\n")
                    os.unlink(running)
                os.symlink(mark, running)  # fails if another is at it
                time.sleep(slow)
                ledger.append(record(key))
                os.unlink(running)
        time.sleep(0.001)

class claims_of_others:
    def __enter__(self):
        return None
    def __exit__(self, *_):
        pass

def begin(slow):
    child = os.fork()
    if child:
        return child
    try:
        work(slow)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

random.seed(0)
children = [begin(0.02) for _ in range(workers)]
for kill in range(kills):
    time.sleep(random.uniform(0.005, 0.03))
    killed = children.pop(0)
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    children.append(begin(0.02))
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def marks_of(folder: Path, key: str) -> list[str]:
    """The marks in a claim's file."""
    return [json.loads(line)["mark"] for line in (folder / FOLDER / key).read_text().splitlines()]


def taken(claims: Claims, key: str, mark: str = "mark") -> claiming.Claim:
    """A claim that nobody else has."""
    claim = claims.claim(key, mark)
    assert claim is not None
    return claim


@contextlib.contextmanager
def in_thread(call: Callable[[], None]) -> Iterator[threading.Thread]:
    """A call that goes on in a thread, and has ended well at the end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield thread
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert errors == []


# --- one claim


def test_a_claim_is_one_claimers(tmp_path: Path) -> None:
    """None while somebody has it, be it the same process; other keys are free; free again when it is released."""
    one, two = Claims(str(tmp_path)), Claims(str(tmp_path))
    first = taken(one, "a")
    assert one.claim("a", "x") is None
    assert two.claim("a", "x") is None
    other = taken(two, "b")

    first.release(done=True)
    again = taken(two, "a")
    first.release(done=True)  # it has nothing more to let go of
    assert one.claim("a", "x") is None
    again.release(done=False)
    other.release(done=True)
    assert taken(one, "a").orphan_marks == ("mark",)


def test_done_leaves_nothing(tmp_path: Path) -> None:
    """The file of a claim is there from its begin to its end; its next claimer finds no marks."""
    claims = Claims(str(tmp_path))
    claim = taken(claims, "a", "m1")
    assert marks_of(tmp_path, "a") == ["m1"]
    claim.release(done=True)
    assert os.listdir(tmp_path / FOLDER) == []
    assert taken(claims, "a").orphan_marks == ()


def test_not_done_leaves_its_mark(tmp_path: Path) -> None:
    """Each next claimer gets all marks whose evaluation did not end in order, each once, in their order."""
    claims = Claims(str(tmp_path))
    for mark, orphans in (("m1", ()), ("m2", ("m1",)), ("m1", ("m1", "m2")), ("m3", ("m1", "m2"))):
        claim = taken(claims, "a", mark)
        assert claim.orphan_marks == orphans
        claim.release(done=False)

    with taken(claims, "a", "m4") as claim:
        assert claim.orphan_marks == ("m1", "m2", "m3")
    assert os.listdir(tmp_path / FOLDER) == []

    with pytest.raises(KeyboardInterrupt), taken(claims, "a", "m5"):
        raise KeyboardInterrupt
    assert taken(claims, "a").orphan_marks == ("m5",)


def test_who_has_it_stands_in_the_file(tmp_path: Path) -> None:
    """Process, its start, the boot, the mark."""
    taken(Claims(str(tmp_path)), "a", "m1")
    found = json.loads((tmp_path / FOLDER / "a").read_text())
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert found == {"pid": os.getpid(), "start": start, "boot": boot, "mark": "m1"}


def test_marks_of_another_boot_and_torn_lines_are_nothing(tmp_path: Path) -> None:
    """What the machine's restart ended is no orphan; a line that is no mark began nothing, and hides no other."""
    claims = Claims(str(tmp_path))
    taken(claims, "a", "m1").release(done=False)
    path = tmp_path / FOLDER / "a"
    own = path.read_bytes()
    other_boot = json.dumps({**json.loads(own), "boot": "another", "mark": "old"}).encode() + b"\n"
    no_text = json.dumps({**json.loads(own), "mark": 7}).encode() + b"\n"
    junk = b"\xff\n[1]\nnull\n" + b"[" * 100_000 + b"\n"
    path.write_bytes(other_boot + no_text + junk + own + own[: len(own) // 2])

    claim = taken(claims, "a", "m2")
    assert claim.orphan_marks == ("m1",)
    claim.release(done=False)
    assert taken(claims, "a").orphan_marks == ("m1", "m2")


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "../a", "a\n", "a\0", "ä", "a" * 129])
def test_other_keys_are_no_names(key: str, tmp_path: Path) -> None:
    """A key that could name anything else than a file of its own is a ValueError."""
    with pytest.raises(ValueError, match="name"):
        Claims(str(tmp_path)).claim(key, "mark")
    assert os.listdir(tmp_path / FOLDER) == []


def test_places_that_cannot_hold_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, a file in its place, a link or a pipe as a claim, no locks, no space: an error, and nothing is held."""
    with pytest.raises(TargetError):
        Claims(str(tmp_path / "absent"))
    (tmp_path / FOLDER).write_bytes(b"")
    for key in ("a", "b"):
        with pytest.raises(TargetError, match="a file, not a folder"):
            Claims(str(tmp_path)).claim(key, "mark")
    (tmp_path / FOLDER).unlink()

    claims = Claims(str(tmp_path))
    (tmp_path / FOLDER / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / FOLDER / "pipe")
    (tmp_path / FOLDER / "folder").mkdir()
    opened = len(os.listdir("/proc/self/fd"))
    for key in ("link", "pipe", "folder"):
        with pytest.raises(RsoupError):
            claims.claim(key, "mark")
    assert not (tmp_path / "elsewhere").exists()

    def refuse(number: int) -> Callable[..., None]:
        def refusing(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return refusing

    for place, name, number, code in (
        (fcntl, "flock", errno.ENOLCK, "E0604"),
        (claiming, "write_all", errno.ENOSPC, "E0602"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, refuse(number))
            with pytest.raises(TargetError) as error:
                claims.claim("a", "mark")
            assert error.value.code == code
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
        with pytest.raises(TargetError), claims.hold("merge"):
            pass
    assert len(os.listdir("/proc/self/fd")) == opened
    taken(claims, "a").release(done=True)


def test_removed_while_waiting_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that its last holder has just removed is no claim: the next one would have one, too."""
    claims, flock = Claims(str(tmp_path)), fcntl.flock
    path, calls = tmp_path / FOLDER / "a", []

    def removed(fd: int, operation: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            path.unlink()
        flock(fd, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", removed)
        claim = taken(claims, "a", "m1")
    assert len(calls) == 2
    assert marks_of(tmp_path, "a") == ["m1"]
    assert claims.claim("a", "m2") is None
    claim.release(done=True)


def test_a_copy_in_a_child_holds_nothing(tmp_path: Path) -> None:
    """What a program that is just being started has inherited does not keep a claim that was released."""
    claims = Claims(str(tmp_path))
    claim = taken(claims, "a")
    copy = os.dup(claim._fd)
    try:
        claim.release(done=False)
        taken(claims, "a").release(done=True)
    finally:
        os.close(copy)


# --- threads


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    """Eight threads on one key, fifty times: one at a time has it."""
    claims, inside, times = Claims(str(tmp_path)), [], []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait(PATIENCE_SECONDS)
        got = 0
        while got < 50:
            claim = claims.claim("a", "mark")
            if claim is None:
                time.sleep(0)
                continue
            inside.append(got)
            assert len(inside) == 1
            inside.pop()
            claim.release(done=got % 2 == 0)
            got += 1
        times.append(got)

    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(in_thread(work))
    assert times == [50] * 8


def test_hold_waits_or_does_not(tmp_path: Path) -> None:
    """False at once where it does not wait; else it waits for the holder's end; other names are free."""
    one, two = Claims(str(tmp_path)), Claims(str(tmp_path))
    events: list[str] = []

    def waiting() -> None:
        with two.hold("merge") as held:
            assert held
            events.append("second")

    with contextlib.ExitStack() as stack, one.hold("merge") as held:
        assert held
        with two.hold("merge", wait=False) as refused:
            assert refused is False
        with one.hold("merge", wait=False) as refused:
            assert refused is False
        with two.hold("other", wait=False) as other:
            assert other is True
        taken(two, "merge").release(done=True)
        thread = stack.enter_context(in_thread(waiting))
        thread.join(0.1)
        assert thread.is_alive()
        events.append("first")
    assert events == ["first", "second"]
    assert os.listdir(tmp_path / FOLDER) == []


def test_hold_ends_with_an_error(tmp_path: Path) -> None:
    """Whatever happens inside, the lock is free afterwards."""
    claims = Claims(str(tmp_path))
    with pytest.raises(KeyboardInterrupt), claims.hold("merge"):
        raise KeyboardInterrupt
    with claims.hold("merge", wait=False) as held:
        assert held


# --- processes


@pytest.mark.fault("J12", "J15")
def test_a_killed_ones_claim_is_free_at_once(tmp_path: Path) -> None:
    """Though a program it started still runs; the next one gets its mark, to end that."""
    claims = Claims(str(tmp_path))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), "a", "m1"], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            assert claims.claim("a", "m2") is None
            assert marks_of(tmp_path, "a") == ["m1"]
            holder.kill()
            holder.wait()
            os.kill(child, 0)
            claim = taken(claims, "a", "m3")
            assert claim.orphan_marks == ("m1",)
            claim.release(done=True)
        finally:
            holder.kill()
            os.kill(child, signal.SIGKILL)


@pytest.mark.fault("J12", "J15")
def test_every_key_is_done_once(tmp_path: Path) -> None:
    """Four processes on thirty keys, twelve killed on the way: each key once in the ledger, no two at one at a time."""
    (tmp_path / "running").mkdir()
    arguments = [str(tmp_path), *map(str, (KEYS, WORKERS, KILLS))]
    ended = subprocess.run(
        [sys.executable, "-c", SWEEP, *arguments], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    records = Ledger(str(tmp_path)).records()
    assert sorted(record.key for record in records) == [f"{n:064x}" for n in range(KEYS)]
    assert len({record.seed for record in records}) > 1
    assert "orphan" in ended.stdout  # some were killed in the middle
    claims = Claims(str(tmp_path))
    for n in range(KEYS):
        taken(claims, f"{n:064x}").release(done=True)
