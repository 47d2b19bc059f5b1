"""What a pickle describes, read as data: nothing is imported, nothing is called, nothing is built.

A pickle is a program for a small stack machine. This one knows every instruction that makes or moves
data; where a program asks for a class or a function it gets its name, and where it calls one it gets a
note of the call. Who reads the result decides what such a note means.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping

from rsoup.errors import RefusedFileError
from rsoup.storage.pickled.pickle_instructions import U8, U16, U32, U64, Machine, Names
from rsoup.storage.pickled.pickle_values import Persistent, too_deep

_I32, _DOUBLE = struct.Struct("<i"), struct.Struct(">d")
_LONG = re.compile(rb"-?[0-9]{1,600}L?")
_FLOAT = re.compile(rb"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,4})?|-?inf|nan")
_QUOTED = re.compile(rb"'[^'\\]*'|\"[^\"\\]*\"")


class PickleEndError(RefusedFileError):
    """The bytes end before the pickle does: more of them may help."""


def interpret(
    data: bytes,
    shown: str,
    *,
    start: int = 0,
    persistent: Callable[[object], object] = Persistent,
    also: Names = frozenset(),
) -> tuple[object, int]:
    """The value of the pickle that begins at byte `start` of `data`, and the byte after its end.

    Persistent ids are given to `persistent`, whose answer stands for the object; `also` are names (module, class)
    it may hold beside those of state dicts. Raises RefusedFileError
    E0816 (malformed, or beyond the limits) and E0817 (asks for a name that no state dict needs).
    """
    machine = Machine(data, shown, start, persistent, also)
    try:
        value = machine.run(_TABLE)
    except (LookupError, ValueError, TypeError, OverflowError, struct.error) as error:
        if isinstance(error, struct.error) or (isinstance(error, IndexError) and machine.at >= len(data)):
            raise PickleEndError("E0816", "the pickle ends in the middle", where=shown) from None
        raise machine.bad(f"byte {machine.at - start} makes no sense") from None
    if too_deep(value):
        raise machine.bad("it is nested too deeply")
    return value, machine.at


def _push(make: Callable[[Machine], object]) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        value = make(machine)
        machine.stack.append(value)

    return push


def _text_line(machine: Machine) -> None:
    machine.old_text(machine.line(_QUOTED)[1:-1])


def _memo_line(machine: Machine) -> None:
    machine.memo[machine.index()] = machine.stack[-1]


_MEANINGS: Mapping[bytes, Callable[[Machine], None]] = {
    # what every pickle has; not what throws values away (0, 1, 2), for nobody would have looked at them
    b".": Machine.stop,
    b"\x80": Machine.protocol,
    b"\x95": Machine.frame,
    b"(": Machine.mark,
    # plain values
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"K": Machine.small_int,
    b"M": _push(lambda m: m.number(U16)),
    b"J": _push(lambda m: m.number(_I32)),
    b"I": Machine.int_line,
    b"L": _push(lambda m: int(m.line(_LONG).removesuffix(b"L"))),
    b"\x8a": lambda m: m.long(m.number(U8)),
    b"\x8b": lambda m: m.long(m.number(U32)),
    b"F": _push(lambda m: float(m.line(_FLOAT))),
    b"G": _push(lambda m: m.number(_DOUBLE)),
    # texts and bytes
    b"X": Machine.unicode,
    b"\x8c": _push(lambda m: str(m.sized(U8), "utf-8", "surrogatepass")),
    b"\x8d": _push(lambda m: str(m.sized(U64), "utf-8", "surrogatepass")),
    b"V": _push(lambda m: str(m.line(), "raw-unicode-escape")),
    b"S": _text_line,
    b"U": lambda m: m.old_text(m.sized(U8)),
    b"T": lambda m: m.old_text(m.sized(U32)),
    b"C": _push(lambda m: m.sized(U8)),
    b"B": _push(lambda m: m.sized(U32)),
    b"\x8e": _push(lambda m: m.sized(U64)),
    b"\x96": _push(lambda m: m.sized(U64)),
    # tuples, lists, sets, tables
    b")": lambda m: m.stack.append(()),
    b"\x85": lambda m: m.gather(1),
    b"\x86": lambda m: m.gather(2),
    b"\x87": lambda m: m.gather(3),
    b"t": _push(lambda m: tuple(m.since_mark())),
    b"]": lambda m: m.stack.append([]),
    b"l": _push(lambda m: m.since_mark()),
    b"a": lambda m: m.add([m.stack.pop()]),
    b"e": lambda m: m.add(m.since_mark()),
    b"\x8f": lambda m: m.call(m.find("builtins", "set"), ()),
    b"\x90": lambda m: m.add(m.since_mark()),
    b"\x91": lambda m: m.call(m.find("builtins", "frozenset"), (m.since_mark(),)),
    b"}": lambda m: m.stack.append({}),
    b"d": Machine.table,
    b"s": Machine.set_item,
    b"u": lambda m: m.set_items(m.since_mark()),
    # the memo
    b"q": Machine.put,
    b"r": Machine.put_far,
    b"p": _memo_line,
    b"\x94": lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    b"h": Machine.get,
    b"j": _push(lambda m: m.memo[m.number(U32)]),
    b"g": _push(lambda m: m.memo[m.index()]),
    # names and calls: notes, never done
    b"c": _push(Machine.find_line),
    b"\x93": Machine.find_stack,
    b"R": Machine.reduce,
    b"\x81": Machine.new,
    b"\x92": Machine.new_with_names,
    b"i": Machine.instance,
    b"o": Machine.object,
    b"b": Machine.build,
    b"P": _push(lambda m: m.persistent(m.line().decode())),
    b"Q": _push(lambda m: m.persistent(m.stack.pop())),
}
_TABLE = tuple(_MEANINGS.get(bytes([code]), Machine.never) for code in range(256))
