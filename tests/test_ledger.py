"""The ledger keeps every result once it is written, whoever is killed and whatever happens to its bytes."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import statistics
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rsoup.errors import AccessError, RefusedFileError, RsoupError, TargetError, UsageError
from rsoup.sweep import ledger as ledgers
from rsoup.sweep.ledger import DAMAGED, Ledger
from rsoup.sweep.record import NAME, Record, decode, encode, latest
from rsoup.sweep.score import Metric, Score
from rsoup.sweep.scoring import Measured, direction, measure

TEXT = st.text() | st.binary().map(os.fsdecode)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCORES = st.dictionaries(TEXT, st.builds(Score, FINITE, st.none() | FINITE, st.none() | st.booleans()))
ENDS = st.tuples(st.just("done"), SCORES.filter(bool), st.none()) | st.tuples(st.just("failed"), SCORES, TEXT)
RECORDS = st.builds(
    lambda end, **values: Record(**values, status=end[0], scores=end[1], failure=end[2]),
    end=ENDS,
    key=st.binary(min_size=32, max_size=32).map(bytes.hex),
    point=TEXT,
    mix=st.dictionaries(TEXT, TEXT),
    scale=TEXT,
    step=st.none() | st.integers(),
    evaluator=st.integers() | TEXT,
    seed=st.integers(),
    split=st.sampled_from(["select", "report"]),
    seconds=FINITE,
    soup=st.none() | TEXT,
    log=TEXT,
    host=TEXT,
    finished=st.datetimes().map(lambda time: f"{time.isoformat()[:19]}Z"),
    origin=st.sampled_from(["design", "refine", "greedy"]),
    attempt=st.integers(),
)

PROCESSES, EACH = 8, 50
KILLS = 20
SOME = """
import os, random, signal, sys, time
from dataclasses import replace
from rsoup.sweep.ledger import Ledger
from rsoup.sweep.record import Record
from rsoup.sweep.score import Score

SOME = Record(
    key="0" * 64, point="0.5-0.5", mix={"one": "0.5", "two": "0.5"}, scale="1", step=None, evaluator=0, seed=1,
    split="select", status="done", scores={"acc": Score(0.25, 0.125)}, failure=None, seconds=1.5, soup=None,
    log="logs/1", host="here", finished="2026-01-02T03:04:05Z", origin="design", attempt=1,
)

def number(n):
    return replace(SOME, key=f"{n:064x}", seed=n)
"""
WRITERS = (
    SOME
    + """
folder, processes, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
children = []
for process in range(processes):
    child = os.fork()
    if child == 0:
        ledger = Ledger(folder)
        for n in range(each):
            ledger.append(number(process * each + n))
        os._exit(0)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""
)
KILLED = (
    SOME
    + """
folder, kills = sys.argv[1], int(sys.argv[2])
random.seed(0)
for kill in range(kills):
    children = []
    for writer in range(2):
        child = os.fork()
        if child == 0:
            ledger = Ledger(folder)
            for n in range(10_000):
                found = (2 * kill + writer) * 10_000 + n
                ledger.append(number(found))
                os.write(1, b"%d\\n" % found)
            os._exit(0)
        children.append(child)
    for child in children:
        time.sleep(random.uniform(0.001, 0.015))
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    Ledger(folder).records()
"""
)


def number(n: int, **changes: Any) -> Record:
    """A record with a key of its own."""
    record = Record(
        key=f"{n:064x}",
        point="0.5-0.5",
        mix={"one": "0.5", "two": "0.5"},
        scale="1",
        step=None,
        evaluator=0,
        seed=n,
        split="select",
        status="done",
        scores={"acc": Score(0.25, 0.125)},
        failure=None,
        seconds=1.5,
        soup="ab12",
        log="logs/1",
        host="here",
        finished="2026-01-02T03:04:05Z",
        origin="design",
        attempt=1,
    )
    return replace(record, **changes)


def failed(n: int, **changes: Any) -> Record:
    """A record of an evaluation that failed."""
    return number(n, status="failed", scores={}, failure="it ended with 1", **changes)


def sealed(values: object) -> bytes:
    """A line of any JSON value whose check is right; without its newline."""
    text = json.dumps(values).encode()
    return b'%b,"check":"%08x"}' % (text[:-1], zlib.crc32(text))


def some(folder: Path, count: int) -> list[bytes]:
    """Lines of records 0 … count − 1, written to the folder's ledger."""
    lines = [encode(number(n)) for n in range(count)]
    (folder / NAME).write_bytes(b"".join(lines))
    return lines


def seeds(ledger: Ledger) -> list[int]:
    """Which records there are, each as it was written."""
    records = ledger.records()
    assert list(records) == [number(record.seed) for record in records]
    return [record.seed for record in records]


def refusal(call: Callable[[], object], kind: type[RsoupError]) -> RsoupError:
    """The error of a call."""
    with pytest.raises(kind) as error:
        call()
    return error.value


# --- one record, one line


@given(RECORDS)
def test_a_record_survives_its_line(record: Record) -> None:
    """decode(encode(r)) = r; a line is ASCII with one newline, at its end."""
    line = encode(record)

    assert decode(line[:-1]) == record
    assert line.isascii()
    assert line.index(b"\n") == len(line) - 1


@given(RECORDS, st.data())
def test_a_flipped_bit_is_noticed(record: Record, data: st.DataObject) -> None:
    """No line that differs in one to four bytes side by side is a record."""
    line = bytearray(encode(record)[:-1])
    at = data.draw(st.integers(0, len(line) - 1))
    new = data.draw(st.binary(min_size=1, max_size=4))
    changed = bytes(line[:at] + new + line[at + len(new) :])[: len(line)]

    assert decode(changed) == (record if changed == line else None)


def test_equal_mappings_of_other_kinds_are_written() -> None:
    """What a record holds may be read-only mappings."""
    record = number(1, mix=MappingProxyType({"a": "1"}), scores=MappingProxyType({"acc": Score(1.0)}))

    assert decode(encode(record)[:-1]) == record


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "0" * 63},
        {"key": "G" * 64},
        {"finished": "yesterday"},
        {"split": "train"},
        {"status": "pruned"},
        {"origin": "luck"},
        {"evaluator": True},
        {"seed": 1.5},
        {"seconds": math.nan},
        {"seconds": math.inf},
        {"seconds": 2**1024 - 1},
        {"mix": {"one": 0.5}},
        {"mix": {1: "0.5"}},
        {"scores": {}},
        {"scores": {"acc": Score(math.nan)}},
        {"scores": {"acc": Score(1.0, math.inf)}},
        {"scores": {"acc": Score(1.0, None, 1)}},  # type: ignore[arg-type]
        {"failure": "but it is done"},
        {"status": "failed"},
        {"point": "\ud83d\ude00"},
        {"seed": 10**5000},
    ],
)
def test_what_could_not_be_read_back_is_not_written(changes: dict[str, Any], tmp_path: Path) -> None:
    """A record with a wrong value raises ValueError before anything is on the disk."""
    with pytest.raises(ValueError, match=r"."):
        Ledger(str(tmp_path)).append(number(1, **changes))
    assert os.listdir(tmp_path) == []


def test_right_checks_do_not_excuse_wrong_values() -> None:
    """A line that verifies and holds no record is damaged: every key is needed, and its kind."""
    values = number(1).to_json()
    assert decode(sealed(values)) == number(1)

    for name in values:
        for wrong in ({k: v for k, v in values.items() if k != name}, {**values, name: [1]}):
            assert decode(sealed(wrong)) is None, name
    for score in ({"value": 1.0}, 1.0, {"value": 10**400, "error": None, "maximise": None}):
        assert decode(sealed({**values, "scores": {"acc": score}})) is None
    assert decode(sealed([values])) is None
    twice = json.dumps(values)[:-1].encode() + b', "seed": 2}'
    assert decode(b'%b,"check":"%08x"}' % (twice[:-1], zlib.crc32(twice))) is None
    deep = b'{"a":' + b"[" * 100_000 + b"}"
    assert decode(b'%b,"check":"%08x"}' % (deep[:-1], zlib.crc32(deep))) is None


def test_every_field_is_checked() -> None:
    """The table of kinds names the fields of a record, no more and no fewer."""
    assert {f.name for f in fields(Record)} == number(1).to_json().keys() - {"schema"}
    for name in (f.name for f in fields(Record)):
        with pytest.raises(ValueError, match=f"'{name}' is missing"):
            Record.from_json({k: v for k, v in number(1).to_json().items() if k != name})


def test_a_later_rsoup_of_the_same_schema_is_read() -> None:
    """Keys it does not know are left out; rsoup-ledger/1.7 is read."""
    assert decode(sealed({**number(1).to_json(), "schema": "rsoup-ledger/1.7", "watts": 3})) == number(1)


@pytest.mark.parametrize(
    "schema", ["rsoup-ledger/0", "rsoup-ledger/", "other/1", "rsoup-ledger/1\n", 1, None]
)
def test_other_schemas_are_damage(schema: object) -> None:
    """A line that names no schema of a ledger is no record."""
    assert decode(sealed({**number(1).to_json(), "schema": schema})) is None


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """E0829 from reading and from repairing, and nothing is changed: what is not understood is not damaged."""
    lines = some(tmp_path, 2)
    newer = sealed({**number(2).to_json(), "schema": "rsoup-ledger/2"}) + b"\n"
    data = lines[0] + b"torn\n" + newer + lines[1]
    (tmp_path / NAME).write_bytes(data)
    ledger = Ledger(str(tmp_path))

    for call in (ledger.records, ledger.records, ledger.repair):
        error = refusal(call, RefusedFileError)
        assert error.code == "E0829"
        assert "pip install -U" in str(error.hint)
    assert (tmp_path / NAME).read_bytes() == data
    assert os.listdir(tmp_path) == [NAME]


# --- the file


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    """In the order it was appended, by the one who wrote it and by others; only what is new is parsed."""
    one, two = Ledger(str(tmp_path)), Ledger(str(tmp_path))
    assert one.records() == ()
    for n in range(5):
        (one, two)[n % 2].append(number(n))
        assert seeds(one) == list(range(n + 1))
    assert seeds(two) == list(range(5))
    assert one.damage() is None
    assert one.damaged == ()


def test_only_what_is_new_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is decoded once by each reader."""
    some(tmp_path, 10)
    ledger = Ledger(str(tmp_path))
    ledger.records()
    parsed: list[bytes] = []

    def counted(line: bytes) -> Record | None:
        parsed.append(line)
        return decode(line)

    monkeypatch.setattr(ledgers, "decode", counted)
    assert seeds(ledger) == list(range(10))
    assert parsed == []
    Ledger(str(tmp_path)).append(number(10))
    assert seeds(ledger) == list(range(11))
    assert parsed == [encode(number(10))[:-1]]


@pytest.mark.fault("J12")
def test_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When append returns, its bytes and the file's name were flushed, in this order."""
    flushed: list[bytes | str] = []

    def fsync(fd: int) -> None:
        named = os.readlink(f"/proc/self/fd/{fd}")
        flushed.append("folder" if os.path.isdir(named) else Path(named).read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    ledger = Ledger(str(tmp_path))
    first, second = encode(number(1)), encode(number(2))
    ledger.append(number(1))
    ledger.append(number(2))
    assert flushed == [first, "folder", first + second]


@pytest.mark.fault("J12")
def test_torn_at_any_byte(tmp_path: Path) -> None:
    """A last line that ends anywhere is not there yet; the next record is right, and the torn one is reported."""
    lines = some(tmp_path, 3)
    whole, last = b"".join(lines[:2]), lines[2]
    for cut in range(len(last)):
        (tmp_path / NAME).write_bytes(whole + last[:cut])
        ledger = Ledger(str(tmp_path))
        assert seeds(ledger) == [0, 1]
        assert ledger.damaged == ()

        ledger.append(number(3))

        complete = cut == len(last) - 1  # only its newline was missing
        for reader in (ledger, Ledger(str(tmp_path))):
            assert seeds(reader) == ([0, 1, 2, 3] if complete else [0, 1, 3])
            assert reader.damaged == (() if complete or cut == 0 else (3,))


@pytest.mark.fault("J16")
def test_any_byte_of_a_middle_line_changed(tmp_path: Path) -> None:
    """The line is reported by its number, the others are kept; without its newline it takes the next one with it."""
    lines = some(tmp_path, 3)
    start, end = len(lines[0]), len(lines[0] + lines[1])
    for at in range(start, end):
        old = lines[1][at - start]
        for new in {old ^ 1, old ^ 4, old ^ 32, old ^ 128, 0, 10, 34} - {old}:
            data = bytearray(b"".join(lines))
            data[at] = new
            (tmp_path / NAME).write_bytes(data)
            ledger = Ledger(str(tmp_path))
            assert seeds(ledger) == ([0] if at == end - 1 else [0, 2])
            assert ledger.damaged == ((2, 3) if new == 10 else (2,))


@pytest.mark.fault("J16")
@given(
    st.lists(
        st.integers(0, 5).map(lambda n: encode(number(n)))
        | st.integers(0, 5).map(lambda n: encode(number(n))[:-20] + b"\n")
        | st.binary(max_size=30).map(lambda junk: junk.replace(b"\n", b"") + b"\n")
    ),
    st.binary(max_size=30),
)
def test_whatever_the_file_holds(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], rest: bytes
) -> None:
    """Read, added to, repaired: the sound lines in their order, before and after, and every other byte set aside."""
    folder = tmp_path_factory.mktemp("ledger")
    rest = rest.replace(b"\n", b"")
    (folder / NAME).write_bytes(b"".join(lines) + rest)
    sound = [line for line in lines if decode(line[:-1])]
    bad = [line for line in lines if not decode(line[:-1])] + ([rest + b"\n"] if rest else [])
    ledger, other = Ledger(str(folder)), Ledger(str(folder))
    for reader in (ledger, other):
        assert [encode(record) for record in reader.records()] == sound
        assert len(reader.damaged) == len(bad) - bool(rest)

    ledger.append(number(9))
    assert [encode(record) for record in other.records()] == [*sound, encode(number(9))]
    assert len(other.damaged) == len(bad)

    assert ledger.repair() == len(bad)
    assert (folder / NAME).read_bytes() == b"".join([*sound, encode(number(9))])
    assert ((folder / DAMAGED).read_bytes() if bad else b"") == b"".join(bad)
    for reader in (ledger, other):
        assert [encode(record) for record in reader.records()] == [*sound, encode(number(9))]
        assert reader.damaged == ()
    assert ledger.repair() == 0


def test_damage_is_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    """E0828: which lines, that the others are used, and how to take them out; None while there is none."""
    lines = some(tmp_path, 3)
    ledger = Ledger(str(tmp_path))
    ledger.records()
    assert ledger.damage() is None

    (tmp_path / NAME).write_bytes(b"torn\n" + lines[0] + b"\n" + lines[1])
    assert seeds(ledger) == [0, 1]
    error = ledger.damage()
    assert error is not None
    assert error.code == "E0828"
    assert [problem.where for problem in error.details] == [f"{tmp_path / NAME}:{n}" for n in (1, 3)]
    assert error.hint is not None
    assert error.hint.startswith("rsoup sweep RUN --repair")
    assert DAMAGED in error.hint


@pytest.mark.fault("J16")
def test_repair_adds_to_what_was_set_aside(tmp_path: Path) -> None:
    """Nothing that was ever set aside is lost; a repair that was killed before its end is done again."""
    lines = some(tmp_path, 2)
    ledger = Ledger(str(tmp_path))
    (tmp_path / "results.jsonl.new").write_bytes(b"half of a repair that was killed" * 100)
    for n, torn in enumerate((b"one\n", b"two\n")):
        (tmp_path / NAME).write_bytes(lines[0] + torn + lines[1])
        assert ledger.repair() == 1
        assert (tmp_path / NAME).read_bytes() == b"".join(lines)
        assert (tmp_path / DAMAGED).read_bytes() == (b"one\n", b"one\ntwo\n")[n]
    assert sorted(os.listdir(tmp_path)) == [NAME, DAMAGED]


@pytest.mark.fault("J16")
@pytest.mark.parametrize("call", ["write_all", "sync_folder", "replace"])
def test_a_repair_that_fails_loses_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of it is E0602; the results are the old ones or the new ones."""
    lines = some(tmp_path, 2)
    (tmp_path / NAME).write_bytes(lines[0] + b"torn\n" + lines[1])

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, call) if call == "replace" else (ledgers, call)), full)
        assert refusal(Ledger(str(tmp_path)).repair, TargetError).code == "E0602"
    ledger = Ledger(str(tmp_path))
    assert seeds(ledger) == [0, 1]
    assert ledger.repair() == (0 if call == "sync_folder" else 1)
    assert seeds(ledger) == [0, 1]
    assert b"torn\n" in (tmp_path / DAMAGED).read_bytes()


def test_another_file_is_read_from_its_start(tmp_path: Path) -> None:
    """Replaced, cut, rewritten in place, removed: the records are those of the file that is there."""
    path = tmp_path / NAME
    lines = some(tmp_path, 6)
    ledger = Ledger(str(tmp_path))
    assert seeds(ledger) == list(range(6))

    (tmp_path / "new").write_bytes(b"".join(lines[::-1]))
    os.replace(tmp_path / "new", path)
    assert seeds(ledger) == list(range(6))[::-1]

    os.truncate(path, len(lines[0]))
    assert seeds(ledger) == [5]

    path.write_bytes(b"x\n" + b"".join(lines[2:]))
    assert seeds(ledger) == [2, 3, 4, 5]
    assert list(ledger.damaged) == [1]

    path.unlink()
    assert ledger.records() == ()
    assert ledger.damaged == ()
    ledger.append(number(3))
    assert seeds(ledger) == [3]


def test_an_append_waits_for_others(tmp_path: Path) -> None:
    """While somebody has the file locked nothing is added to it."""
    some(tmp_path, 1)
    ledger, done = Ledger(str(tmp_path)), threading.Event()

    def append() -> None:
        Ledger(str(tmp_path)).append(number(1))
        done.set()

    with open(tmp_path / NAME, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=append, daemon=True)
        thread.start()
        assert not done.wait(0.1)
        assert seeds(ledger) == [0]
    thread.join(20)
    assert done.is_set()
    assert seeds(ledger) == [0, 1]


def test_replaced_while_waiting_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record goes to the file that has the name, not to one that a repair has just replaced."""
    lines = some(tmp_path, 2)
    flock, calls = fcntl.flock, []

    def replaced(fd: int, operation: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            (tmp_path / "new").write_bytes(lines[1])
            os.replace(tmp_path / "new", tmp_path / NAME)
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", replaced)
    ledger = Ledger(str(tmp_path))
    ledger.append(number(7))
    assert len(calls) == 2
    assert seeds(ledger) == [1, 7]


@pytest.mark.parametrize(
    ("number_of_error", "kind", "code"),
    [
        (errno.ENOSPC, TargetError, "E0602"),
        (errno.EFBIG, TargetError, "E0603"),
        (errno.EIO, TargetError, "E0604"),
        (errno.EACCES, AccessError, "E0704"),
    ],
)
def test_a_write_that_fails_leaves_nothing(
    number_of_error: int, kind: type[RsoupError], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a line that no longer fits is taken back; the next record follows as if nothing had been."""
    before = b"".join(some(tmp_path, 2)) + b"torn"
    (tmp_path / NAME).write_bytes(before)
    ledger = Ledger(str(tmp_path))

    def half(fd: int, data: memoryview) -> None:
        os.write(fd, data[: len(data) // 2])
        assert (tmp_path / NAME).read_bytes() != before
        raise OSError(number_of_error, os.strerror(number_of_error))

    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "write_all", half)
        assert refusal(lambda: ledger.append(number(2)), kind).code == code
    assert (tmp_path / NAME).read_bytes() == before
    ledger.append(number(2))
    assert seeds(ledger) == [0, 1, 2]
    assert ledger.damaged == (3,)


def test_places_that_are_no_ledger(tmp_path: Path) -> None:
    """No folder, no file to repair: E0701; a link, a folder, a pipe under its name: refused, nothing is written."""
    absent = Ledger(str(tmp_path / "absent"))
    for call in (absent.records, absent.repair, lambda: absent.append(number(1))):
        assert refusal(call, AccessError).code == "E0701"
    assert refusal(Ledger(str(tmp_path)).repair, AccessError).code == "E0701"
    assert os.listdir(tmp_path) == []

    path, elsewhere = tmp_path / NAME, tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not yours")
    makers: list[Callable[[], None]] = [
        lambda: path.symlink_to(elsewhere),
        path.mkdir,
        lambda: os.mkfifo(path),
    ]
    for make in makers:
        make()
        ledger = Ledger(str(tmp_path))
        for call in (ledger.records, ledger.repair, lambda ledger=ledger: ledger.append(number(1))):
            refusal(call, RsoupError)
        os.rmdir(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    assert elsewhere.read_bytes() == b"not yours"


# --- several processes


@pytest.mark.fault("J15")
def test_processes_append_at_once(tmp_path: Path) -> None:
    """Every record of eight processes is there once, in each one's order; a reader meanwhile sees a growing list."""
    ledger = Ledger(str(tmp_path))
    writers = subprocess.Popen([sys.executable, "-c", WRITERS, str(tmp_path), str(PROCESSES), str(EACH)])
    seen: list[Record] = []
    while writers.poll() is None:
        now = list(ledger.records())
        assert now[: len(seen)] == seen
        seen = now

    assert writers.returncode == 0
    found = [record.seed for record in ledger.records()]
    assert sorted(found) == list(range(PROCESSES * EACH))
    for process in range(PROCESSES):
        assert [n for n in found if n // EACH == process] == list(range(process * EACH, (process + 1) * EACH))
    assert ledger.damaged == ()


@pytest.mark.fault("J12", "J15")
def test_killed_writers_lose_nothing_they_completed(tmp_path: Path) -> None:
    """kill -9, twenty times, two writers at once: all that append returned for is there, once, and at most one more each."""
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(KILLS)], capture_output=True, check=True, text=True
    )
    completed = [int(line) for line in ended.stdout.split()]
    assert len({n // 10_000 for n in completed}) > KILLS // 2  # of twice as many writers; the kills hit work

    ledger = Ledger(str(tmp_path))
    found = [record.seed for record in ledger.records()]
    assert len(found) == len(set(found))
    extra = set(found) - set(completed)
    assert set(completed) <= set(found)
    assert len({n // 10_000 for n in extra}) == len(extra)
    ledger.append(number(1_000_000))
    assert ledger.records()[-1].seed == 1_000_000
    ledger.repair()
    assert [record.seed for record in ledger.records()] == [*found, 1_000_000]


# --- what the records say


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans())))
def test_the_last_done_record_holds(ends: list[tuple[int, bool]]) -> None:
    """latest: by key its last done record, else its last failed one."""
    records = [(number if good else failed)(key, attempt=n) for n, (key, good) in enumerate(ends)]
    wanted = {record.key: record for record in records if record.status == "failed"}
    wanted |= {record.key: record for record in records if record.status == "done"}
    assert latest(records) == wanted


ACC = Metric("acc", "$.acc")


def scored(values: list[float], error: float | None = None) -> list[Record]:
    """One record per value."""
    return [number(n, scores={"acc": Score(value, error)}) for n, value in enumerate(values)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
@example([0.1] * 10)
@example([1e6, 1e6 + 1e-9, 1e6 - 1e-9])
def test_means_and_standard_errors(values: list[float]) -> None:
    """The mean and s/√n of the statistics module; the evaluations' own errors are not added."""
    found = measure(scored(values, 0.5), [ACC])["acc"]

    assert found.n == len(values)
    assert found.value == statistics.mean(values)
    assert found.error is not None
    assert found.error == pytest.approx(
        statistics.stdev(values) / math.sqrt(len(values)), rel=1e-12, abs=1e-320
    )


@given(st.lists(FINITE, min_size=2, max_size=9))
@example([sys.float_info.max, -sys.float_info.max])
@example([sys.float_info.max] * 3)
@example([5e-324, 0.0])
def test_any_values_have_a_mean(values: list[float]) -> None:
    """No overflow, no nan, whatever finite numbers there are: error² = Σ(x − mean)²/n/(n − 1), exactly computed."""
    found = measure(scored(values), [ACC])["acc"]

    n, mean = len(values), sum(map(Fraction, values)) / len(values)
    square = sum((Fraction(value) - mean) ** 2 for value in values) / n / (n - 1)
    assert found.value == float(mean)
    assert found.error is not None
    error = Fraction(found.error)
    close, least = Fraction(1, 10**12), Fraction(5e-324)
    assert max(Fraction(0), error * (1 - close) - least) ** 2 <= square <= (error * (1 + close) + least) ** 2


def test_one_evaluation_keeps_its_error() -> None:
    """With one evaluation its own error is all that is known, or nothing is."""
    assert measure(scored([0.5], 0.1), [ACC]) == {"acc": Measured(0.5, 0.1, 1)}
    assert measure(scored([0.5]), [ACC]) == {"acc": Measured(0.5, None, 1)}


def test_failures_and_repeated_keys_do_not_count() -> None:
    """Failed evaluations are left out, each key counts once with its last score; an unmeasured metric is absent."""
    cost = Metric("cost", "$.cost")
    records = [
        number(1, scores={"acc": Score(9.0), "cost": Score(1.0, 0.25)}),
        number(1, scores={"acc": Score(1.0), "cost": Score(2.0, 0.5)}),
        failed(1, attempt=3),
        number(2, scores={"acc": Score(2.0)}),
        replace(failed(3), scores={"acc": Score(100.0)}),
    ]
    assert measure(records, [ACC, cost]) == {"acc": Measured(1.5, 0.5, 2), "cost": Measured(2.0, 0.5, 1)}
    assert measure(records[-1:], [ACC, cost]) == {}
    assert measure([], [ACC]) == {}


def test_directions() -> None:
    """The metric's word counts, else what all files say that say something."""
    open_ = Metric("acc", "$.acc", maximise=None)
    up, down = ([number(n, scores={"acc": Score(1.0, None, is_up)})] for n, is_up in ((1, True), (2, False)))
    silent = [number(3), number(4, scores={"other": Score(1.0, None, False)}), failed(5)]

    assert direction(Metric("acc", "$.acc", maximise=False), up) is False
    assert direction(Metric("acc", "$.acc", maximise=True), []) is True
    assert direction(open_, up + silent) is True
    assert direction(open_, silent + down + down) is False


@pytest.mark.parametrize(
    ("said", "words"),
    [((), "no result says"), ((None,), "no result says"), ((True, None, False), "do not agree")],
)
def test_directions_nobody_knows(said: tuple[bool | None, ...], words: str) -> None:
    """E0229 where the files say nothing or contradict each other, naming the points and what to write."""
    name = "acc\x1b[2J"
    records = [
        number(n, point=f"point-{n}", scores={name: Score(1.0, None, is_up)}) for n, is_up in enumerate(said)
    ]
    error = refusal(lambda: direction(Metric(name, "$.acc", maximise=None), records), UsageError)
    assert error.code == "E0229"
    assert words in str(error)
    assert "\x1b" not in str(error)
    assert "maximise: true" in str(error.hint)
    assert re.findall(r"point-(\d)", error.where or "") == [str(n) for n in range(len(said))]
