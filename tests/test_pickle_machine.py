"""Pickles are read as data: attacks are refused by name, limits hold, and what is read is what pickle means."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import pathlib
import pickle
import pickletools
import random
import sys
import time
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch_corpus import text

from rsoup.errors import RefusedFileError
from rsoup.storage.pickled import pickle_instructions
from rsoup.storage.pickled.pickle_machine import PickleEndError, interpret
from rsoup.storage.pickled.pickle_values import Call, Global, Key, Persistent

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 200), 1 << 200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(-(1 << 62), 1 << 62), inner)
    ),
    max_leaves=30,
)


def value_of(data: bytes) -> object:
    """What a pickle holds, all of its bytes read."""
    value, end = interpret(data, "file.pt")
    assert end == len(data)
    return value


def parts(data: bytes) -> list[bytes]:
    """The instructions of a pickle."""
    places = [at for _, _, at in pickletools.genops(data)]
    return [data[a:b] for a, b in zip(places, [*places[1:], len(data)], strict=True)]  # type: ignore[misc]


def refusal(data: bytes) -> RefusedFileError:
    """The refusal of a pickle."""
    with pytest.raises(RefusedFileError) as caught:
        interpret(data, "file.pt")
    assert caught.value.where == "file.pt"
    assert len(caught.value.message) < 400
    return caught.value


@given(PLAIN, st.integers(1, 5))
def test_plain_values_come_back(value: object, protocol: int) -> None:
    """Numbers, texts, bytes, lists, tuples and tables are what they were, in every binary protocol.

    Bytes are the exception: before protocol 3 they are written as a call.
    """
    data = pickle.dumps(value, protocol)
    assume(protocol > 2 or {b"c_codecs\nencode\n", b"c__builtin__\nbytes\n"}.isdisjoint(parts(data)))

    assert value_of(data) == value


@given(st.lists(st.none() | st.booleans() | st.integers(-(1 << 99), 1 << 99) | st.floats(allow_nan=False)))
def test_the_oldest_protocol_is_read(value: list[object]) -> None:
    """Protocol 0, which is text, gives the same numbers."""
    assert value_of(pickle.dumps(value, 0)) == value


@given(st.text())
def test_texts_of_the_oldest_protocol(value: str) -> None:
    """Protocol 0 writes texts with escapes of its own."""
    assert value_of(pickle.dumps({"a": value}, 0)) == {"a": value}


def test_pickles_follow_each_other() -> None:
    """The end of one pickle is where the next begins."""
    data = pickle.dumps(1, 2) + pickle.dumps("two", 4)

    one, middle = interpret(data, "file.pt")
    two, end = interpret(data, "file.pt", start=middle)

    assert (one, two, end) == (1, "two", len(data))


def test_what_holds_itself_is_read() -> None:
    """A list that contains itself, and shared parts, keep their shape."""
    ring: list[object] = [1]
    ring.append(ring)

    found = value_of(pickle.dumps(ring, 2))

    assert isinstance(found, list)
    assert found[1] is found


def test_names_stay_names() -> None:
    """A class is its name, a call of it a note of name and arguments."""
    found = value_of(pickle.dumps(OrderedDict(a=1), 2))

    assert isinstance(found, Call)
    assert found.function == Global("collections", "OrderedDict")
    assert (found.args, found.table) == ((), {"a": 1})


ORDINARY = [
    argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/x")),
    pathlib.Path("runs/1"),
    datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc),
    datetime.timedelta(1),
    defaultdict(list, a=[1]),
    Counter("aab"),
    {1, 2},
    frozenset((1,)),
    slice(1, 2),
    complex(1, 2),
    bytearray(b"abc"),
    b"abc",
    np.float64(3.0),
    np.arange(3),
    np.random.RandomState(0).get_state(),
    np.dtype("float32"),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", ORDINARY, ids=lambda value: type(value).__name__)
def test_what_checkpoints_hold_is_read(value: object, protocol: int) -> None:
    """Options, paths, times, counters and numpy values, which training scripts save along, are no obstacle."""
    assert value_of(pickle.dumps(value, protocol)) is not None


class Reduces(NamedTuple):
    """An object whose pickle asks for a call."""

    call: tuple[object, ...]

    def __reduce__(self) -> tuple[object, ...]:  # type: ignore[override]
        return self.call


CANARY = "rsoup-canary"
TOUCH = f"touch {CANARY}"


def attacks() -> dict[str, bytes]:
    """Programs that run code when they are unpickled, by every instruction that can."""
    shell = text(TOUCH)
    return {
        "REDUCE": pickle.dumps(Reduces((os.system, (TOUCH,))), 2),
        "REDUCE, protocol 0": pickle.dumps(Reduces((os.system, (TOUCH,))), 0),
        "REDUCE, protocol 4": pickle.dumps(Reduces((os.system, (TOUCH,))), 4),
        "eval": pickle.dumps(Reduces((eval, (f"open({CANARY!r}, 'w')",))), 2),
        "exec": pickle.dumps(Reduces((exec, (f"open({CANARY!r}, 'w')",))), 2),
        "getattr": b"\x80\x02cbuiltins\ngetattr\n.",
        "Python 2's name": b"\x80\x02c__builtin__\neval\n" + shell + b"\x85R.",
        "INST": b"(" + shell + b"iposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\n" + shell + b"o.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n" + shell + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n" + shell + b"\x85}\x92.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + shell + b"\x85R.",
        "STACK_GLOBAL from the memo": b"\x80\x04\x8c\x06system\x94\x8c\x05posixh\0\x93" + shell + b"\x85R.",
        "BUILD": b"\x80\x02cargparse\nNamespace\n)\x81}" + text("x") + b"cposix\nsystem\nsb.",
        "__setstate__": b"\x80\x02c__main__\nEvil\n)\x81}b.",
        "dotted": b"\x80\x04\x8c\x05torch\x8c\x14serialization.pickle\x93.",
        "torch.load": b"\x80\x02ctorch.serialization\nload\n" + shell + b"\x85R.",
        "a module": b"\x80\x02ctorch\nhub\n.",
        "storage from bytes": b"\x80\x02ctorch.storage\n_load_from_bytes\nC\1x\x85R.",
        "runpy": b"\x80\x02crunpy\n_run_code\n.",
        "a control code": b"\x80\x04\x8c\x05posix\x8c\x08sys\x1b[2Jm\x93.",
    }


@pytest.mark.fault("D1")
@pytest.mark.parametrize(("name", "program"), attacks().items(), ids=lambda value: str(value)[:30])
def test_attacks_are_refused_by_name(
    name: str, program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle that asks for code ends with the name it asked for; nothing runs, nothing is imported."""
    monkeypatch.chdir(tmp_path)
    modules = set(sys.modules)

    error = refusal(program)

    assert error.code == "E0817"
    assert error.message.startswith("the pickle asks for '")
    assert error.message.endswith("'; rsoup never runs code from a checkpoint")
    assert error.message.isprintable()
    assert "with safetensors" in str(error.hint)
    assert list(tmp_path.iterdir()) == []
    assert set(sys.modules) == modules


@pytest.mark.fault("D1")
def test_the_name_in_the_message_is_what_was_asked_for() -> None:
    """os.system is posix.system to a pickle, and to us."""
    assert "'posix.system'" in refusal(attacks()["REDUCE"]).message or os.name != "posix"


MALFORMED = {
    "nothing": b"",
    "no end": b"\x80\x02}",
    "an empty stack": b"\x80\x02.",
    "left over": b"\x80\x02NN.",
    "an open mark": b"\x80\x02(N.",
    "no such instruction": b"\x80\x02\xff.",
    "protocol 6": b"\x80\x06N.",
    "an extension": b"\x80\x02\x82\1.",
    "a buffer from elsewhere": b"\x80\x05\x97.",
    "a read-only buffer": b"\x80\x05N\x98.",
    "memo without entry": b"\x80\x02h\7.",
    "negative place": b"g-1\n.",
    "append to a number": b"K\1K\2a.",
    "append to a tuple": b")K\2a.",
    "an entry of a list": b"]K\1K\2s.",
    "half an entry": b"}(K\1u.",
    "a list as key": b"}]K\1s.",
    "a set as key": b"}\x8fK\1s.",
    "call of a number": b"K\1)R.",
    "call of a call": b"ccollections\nOrderedDict\n)R)R.",
    "arguments in a list": b"ccollections\nOrderedDict\n]R.",
    "a storage called": b"ctorch\nFloatStorage\n)R.",
    "built on a list": b"]}b.",
    "no name": b"K\1K\2\x93.",
    "text cut": b"X\xff\0\0\0abc.",
    "text of four gigabytes": b"X\xff\xff\xff\xffabc.",
    "text not UTF-8": b"X\1\0\0\0\xff.",
    "bytes of 2^63": b"\x8e" + b"\xff" * 8 + b".",
    "frame beyond the end": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "negative length": b"\x8b\xff\xff\xff\xff.",
    "letters for a number": b"Iabc\n.",
    "underscores in a number": b"I1_0\n.",
    "a number with a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "a float with letters": b"F1e\n.",
    "a text without quotes": b"Sabc\n.",
    "a line without end": b"V" + b"a" * 10_000,
    "the same key twice": b"}(" + text("w") + b"N" + text("w") + b"Nu.",
    "the same key twice, one by one": b"}" + text("w") + b"Ns" + text("w") + b"Ns.",
    "a value thrown away": b"NN0.",
    "a group thrown away": b"N(N1.",
    "a value doubled": b"N2\x86.",
    "tuple from below a mark": b"NN(\x86.",
}


@pytest.mark.fault("D13")
@pytest.mark.parametrize("program", MALFORMED.values(), ids=MALFORMED)
def test_malformed_pickles_are_refused(program: bytes) -> None:
    """Whatever is wrong with a pickle, it is E0816 and no other exception."""
    assert refusal(program).code == "E0816"


@pytest.mark.fault("D13")
@given(st.data())
def test_a_cut_pickle_says_so(data: st.DataObject) -> None:
    """Every beginning of a pickle is told apart from a malformed one: more bytes may help."""
    whole = pickle.dumps({"a": [1.5, b"x" * 300, ("t", 1 << 70)], "b": OrderedDict(c=None)}, 2)

    with pytest.raises(PickleEndError):
        interpret(whole[: data.draw(st.integers(0, len(whole) - 1))], "file.pt")


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Random bytes are a value or a refusal."""
    try:
        interpret(b"\x80\x02" + data, "file.pt")
    except RefusedFileError as error:
        assert error.code in ("E0816", "E0817")  # noqa: PT017


def nested(depth: int) -> bytes:
    """Lists in lists."""
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def rings(count: int) -> bytes:
    """Two tuples that are the halves of the next two, and so on: 2^count paths through little memory."""
    return b"\x80\x02N" + b"".join(b"r" + i.to_bytes(4, "little") + b"j" + i.to_bytes(4, "little") + b"\x86" for i in range(count)) + b"."  # fmt: skip


BOMBS = {
    "200,000 nested lists": nested(200_000),
    "200,000 nested tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
    "nested by marks": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
    "nested calls": b"\x80\x02ctorch\nSize\n)R" + b"\x85" * 400 + b".",
    "5,000,001 instructions": b"\x80\x02]" + b"Na" * 2_500_000 + b".",
    "5,000,000 empty sets": b"\x80\x04(" + b"\x8f" * 5_000_000 + b"t.",
    "a key nested 100,000 deep": b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",
    "a huge number": b"\x80\x02\x8b\0\0\0\x01" + b"\x7f" * (1 << 24) + b".",
    "2^300 paths": rings(300),
}  # fmt: skip


@pytest.mark.fault("D14")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if "sets" in name else name for name in BOMBS]
)
def test_bombs_end_soon(name: str) -> None:
    """What would take forever, all memory or the whole stack of C is refused in seconds."""
    begun = time.process_time()

    assert refusal(BOMBS[name]).code == "E0816"
    assert time.process_time() - begun < 15


def test_shared_parts_are_walked_once() -> None:
    """A pickle of a hundred bytes that stands for 2^60 values is read at once, without being written out."""
    assert isinstance(value_of(rings(60)), tuple)
    assert isinstance(value_of(b"\x80\x02}" + rings(60)[2:-1] + b"Ns."), dict)


@pytest.mark.fault("D14")
def test_numbers_whose_hashes_collide_are_no_keys() -> None:
    """Large numbers and tuples as keys are kept without taking their hash, of which anybody can make a million alike."""
    prime = (1 << 61) - 1
    entries = b"".join(pickle.dumps(prime * (i + 5), 2)[2:-1] + b"N" for i in range(100_000))
    begun = time.process_time()

    found = value_of(b"\x80\x02}(" + entries + b"u.")

    assert isinstance(found, dict)
    assert len(found) == 100_000
    assert all(isinstance(key, Key) for key in found)
    assert time.process_time() - begun < 10


def test_the_limits_let_models_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly as many instructions as are allowed are followed."""
    monkeypatch.setattr(pickle_instructions, "MAX_OPCODES", 4)

    with pytest.raises(RefusedFileError, match="more than 4 instructions"):
        interpret(b"\x80\x02]Na.", "file.pt")
    assert interpret(b"]Na.", "file.pt") == ([None], 4)


def test_persistent_ids_go_to_the_reader() -> None:
    """An object the pickle leaves out is what the reader says, and its id where nobody says anything."""
    program = b"\x80\x02(" + text("storage") + text("7") + b"tQ."

    assert interpret(program, "file.pt", persistent=lambda saved: ("mine", saved))[0] == (
        "mine",
        ("storage", "7"),
    )
    kept = value_of(program)
    assert isinstance(kept, Persistent)
    assert kept.id == ("storage", "7")
    assert interpret(b"Pabc\n.", "file.pt", persistent=str.upper)[0] == "ABC"  # type: ignore[arg-type]


def test_strings_of_python_2_are_text() -> None:
    """Python 2 wrote its strings as bytes: text where they are UTF-8, bytes where not."""
    assert value_of(b"U\3abc.") == "abc"
    assert value_of(b"T\2\0\0\0\xc3\xa9.") == "é"
    assert value_of(b"U\1\xff.") == b"\xff"
    assert value_of(b"S'abc'\n.") == "abc"


DATA_OPS = (
    *(b"N", b"\x88", b"\x89", b"K\1", b"K\2", b"M\1\2", b"J\xff\xff\xff\xff", b"\x8a\1\xff", b"\x8a\0", b"G?\xf0" + bytes(6)),
    *(text("a"), text("b"), b"\x8c\1a", b"C\1x", b"I7\n", b"I01\n", b"I00\n", b"L-5L\n", b"F1.5\n", b"Va\\u00e9\n", b"S'q'\n"),
    *(b"(", b"(", b"(", b")", b"]", b"}", b"]", b"}", b"t", b"l", b"d", b"\x85", b"\x86", b"\x87"),
    *(b"a", b"e", b"s", b"u", b"a", b"e", b"s", b"u"),
    *(b"q\0", b"q\1", b"r\2\0\0\0", b"p3\n", b"\x94", b"h\0", b"h\1", b"j\2\0\0\0", b"g3\n"),
)  # fmt: skip


def plain(value: object, depth: int = 0) -> object:
    """A value with its keys unwrapped, in a form that tells 1 from True; None where it is too deep."""
    if depth > 20:
        return None
    if isinstance(value, list | tuple):
        return type(value).__name__, [plain(part, depth + 1) for part in value]
    if isinstance(value, dict):
        keys = [key.value if isinstance(key, Key) else key for key in value]
        return "dict", [
            (plain(k, depth + 1), plain(v, depth + 1)) for k, v in zip(keys, value.values(), strict=True)
        ]
    return type(value).__name__, value


def test_programs_mean_what_python_takes_them_for() -> None:
    """Random programs of data instructions are refused, or give exactly what Python's own pickle makes of them."""
    dice = random.Random(5)
    accepted = 0
    for _ in range(30_000):
        program = b"\x80\x04" + b"".join(dice.choices(DATA_OPS, k=dice.randint(1, 12))) + b"."
        try:
            found, _ = interpret(program, "file.pt")
        except RefusedFileError:
            continue
        accepted += 1
        with contextlib.suppress(TypeError):  # a key that is a tuple with a list in it: we take no hash of it
            assert plain(found) == plain(pickle.loads(program)), program
    assert accepted > 300
