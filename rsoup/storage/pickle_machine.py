"""What a pickle describes, read as data: nothing is imported, nothing is called, nothing is built.

A pickle is a program for a small stack machine. This one knows every instruction that makes or moves
data; where a program asks for a class or a function it gets its name, and where it calls one it gets a
note of the call. Who reads the result decides what such a note means.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rsoup.errors import RefusedFileError, show
from rsoup.storage.pickle_names import SPELLED, allowed

MAX_OPCODES = 5_000_000
MAX_MARKS = 1000
MAX_DEPTH = 200
MAX_INT_BYTES = 256
MAX_LINE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function by name; nobody has looked whether it exists."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Call:
    """A call that was asked for and not made, with what would have been put into its result."""

    function: Global
    args: tuple[object, ...]
    state: object = None
    built: bool = False
    items: list[object] = field(default_factory=list)
    table: dict[object, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A dictionary's key that is no text, number or nothing: equal only to itself, so that no hash is taken."""

    value: object


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """An object the pickle leaves to its reader, by the id it gives."""

    id: object


_HINT = "where you trust the file: load it with torch, save the state dict alone with safetensors"
_INT = re.compile(rb"-?[0-9]{1,600}")
_FLOAT = re.compile(rb"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,4})?|-?inf|nan")
_TEXT = re.compile(rb"(['\"])([^\\\n]*)\1")
_ADDED_TO = frozenset(("append", "add", "deque", "set", "frozenset"))


class PickleEndError(RefusedFileError):
    """The bytes end before the pickle does: more of them may help."""


def interpret(
    data: bytes,
    shown: str,
    *,
    start: int = 0,
    persistent: Callable[[object], object] = Persistent,
) -> tuple[object, int]:
    """The value of the pickle that begins at byte `start` of `data`, and the byte after its end.

    Persistent ids are given to `persistent`, whose answer stands for the object. Raises RefusedFileError
    E0816 (malformed, or beyond the limits) and E0817 (asks for a name that no state dict needs).
    """
    machine = _Machine(data, shown, start, persistent)
    try:
        value = machine.run()
    except (LookupError, ValueError, TypeError, struct.error, OverflowError, AttributeError) as error:
        if machine.at > len(data) or isinstance(error, struct.error):
            raise PickleEndError("E0816", "the pickle ends in the middle", where=shown) from None
        raise _malformed(shown, f"it breaks off at byte {machine.at - start}") from None
    _check_depth(value, shown)
    return value, machine.at


def _malformed(shown: str, what: str) -> RefusedFileError:
    return RefusedFileError("E0816", f"the pickle is malformed: {what}", where=shown)


def _check_depth(value: object, shown: str) -> None:
    """Refuse what is nested so deeply that a recursive reader would fail; what refers to itself is met once."""
    level: list[object] = [value]
    seen: set[int] = set()
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for node in level:
            kind = type(node)
            if (kind is not dict and kind is not list and kind is not tuple and kind is not Call) or not node:
                continue
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, dict):
                inner += node.values()
            elif isinstance(node, Call):
                inner += (node.args, node.state, node.items, node.table)
            elif isinstance(node, (list, tuple)):
                inner += node
        if not inner:
            return
        level = inner
    raise _malformed(shown, f"it is nested more than {MAX_DEPTH} deep")


class _Machine:
    """The stack, the marks and the memo; one method for each kind of instruction."""

    __slots__ = ("at", "data", "done", "globals", "marks", "memo", "persistent", "shown", "stack")

    def __init__(self, data: bytes, shown: str, at: int, persistent: Callable[[object], object]) -> None:
        self.data = data
        self.shown = shown
        self.at = at
        self.persistent = persistent
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.globals: dict[tuple[str, str], Global] = {}
        self.done = False

    def run(self) -> object:
        data, table = self.data, _INSTRUCTIONS
        for _ in range(MAX_OPCODES):
            at = self.at
            self.at = at + 1
            instruction = table[data[at]]
            instruction(self)
            if self.done:
                if self.marks or len(self.stack) != 1:
                    raise self.bad("something is left over at its end")
                return self.stack[0]
        raise self.bad(f"it has more than {MAX_OPCODES} instructions")

    def bad(self, what: str) -> RefusedFileError:
        return _malformed(self.shown, what)

    def take(self, count: int) -> bytes:
        begin = self.at
        self.at = end = begin + count
        if end > len(self.data):
            raise IndexError
        return self.data[begin:end]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at, self.at + MAX_LINE_BYTES)
        if end < 0:
            if self.at + MAX_LINE_BYTES > len(self.data):
                self.at = len(self.data) + 1
            raise ValueError
        begin, self.at = self.at, end + 1
        return self.data[begin:end]

    def number(self, kind: struct.Struct) -> int:
        found: int = kind.unpack_from(self.data, self.at)[0]
        self.at += kind.size
        return found

    def sized(self, kind: struct.Struct, limit: int | None = None) -> bytes:
        count = self.number(kind)
        if count < 0 or (limit is not None and count > limit):
            raise self.bad(f"a number of {count} bytes")
        return self.take(count)

    def matching(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        found = pattern.fullmatch(self.line())
        if found is None:
            raise ValueError
        return found

    def since_mark(self) -> list[object]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    # --- instructions

    def stop(self) -> None:
        self.done = True

    def proto(self) -> None:
        if self.take(1)[0] > 5:
            raise self.bad("its protocol is newer than 5")

    def frame(self) -> None:
        if self.number(_U64) > len(self.data) - self.at:
            self.at = len(self.data) + 1
            raise IndexError

    def mark(self) -> None:
        if len(self.marks) >= MAX_MARKS:
            raise self.bad(f"it is nested more than {MAX_MARKS} deep")
        self.marks.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def integer_line(self) -> None:
        text = self.line()
        if text in (b"00", b"01"):
            self.stack.append(text == b"01")
        elif _INT.fullmatch(text):
            self.stack.append(int(text))
        else:
            raise ValueError

    def long_line(self) -> None:
        text = self.line()
        if not _INT.fullmatch(text.removesuffix(b"L")):
            raise ValueError
        self.stack.append(int(text.removesuffix(b"L")))

    def long(self, kind: struct.Struct) -> None:
        self.stack.append(int.from_bytes(self.sized(kind, MAX_INT_BYTES), "little", signed=True))

    def unicode(self, kind: struct.Struct) -> None:
        self.stack.append(str(self.sized(kind), "utf-8", "surrogatepass"))

    def short_unicode(self) -> None:
        """Texts under four gigabytes, which are nearly all: the same as `unicode`, in one step."""
        begin = self.at + 4
        self.at = end = begin + _U32.unpack_from(self.data, self.at)[0]
        if end > len(self.data):
            raise IndexError
        self.stack.append(str(self.data[begin:end], "utf-8", "surrogatepass"))

    def text(self, data: bytes) -> None:
        """A string of Python 2, which was bytes: text where it is UTF-8, as torch reads it."""
        try:
            self.stack.append(data.decode("utf-8"))
        except UnicodeDecodeError:
            self.stack.append(data)

    def tuple1(self) -> None:
        self.stack[-1] = (self.stack[-1],)

    def tuple2(self) -> None:
        second, first = self.stack.pop(), self.stack.pop()
        self.stack.append((first, second))

    def tuple3(self) -> None:
        third, second, first = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append((first, second, third))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def binput(self) -> None:
        self.memo[self.data[self.at]] = self.stack[-1]
        self.at += 1

    def long_binput(self) -> None:
        self.memo[_U32.unpack_from(self.data, self.at)[0]] = self.stack[-1]
        self.at += 4

    def binget(self) -> None:
        self.stack.append(self.memo[self.data[self.at]])
        self.at += 1

    def bin_int1(self) -> None:
        self.stack.append(self.data[self.at])
        self.at += 1

    def append(self, items: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target += items
        elif isinstance(target, Call) and target.function.name in _ADDED_TO:
            target.items += items
        else:
            raise self.bad("it appends to what is no list")

    def set_items(self, items: list[object]) -> None:
        target = self.stack[-1]
        table = target.table if isinstance(target, Call) else target
        if not isinstance(table, dict) or len(items) % 2:
            raise self.bad("it sets entries of what is no table")
        for i in range(0, len(items), 2):
            add_entry(table, items[i], items[i + 1], self.shown)

    def dictionary(self) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.set_items(items)

    def find(self, module: object, name: object) -> Global:
        """The name a program asks for, if a state dict may; the only place where a Global is made."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError
        found = self.globals.get((module, name))
        if found is None:
            spelled = SPELLED.get(module, module)
            if not allowed(spelled, name):
                raise RefusedFileError(
                    "E0817",
                    f"the pickle asks for '{show(f'{module}.{name}')}'; rsoup never runs code from a checkpoint",
                    where=self.shown,
                    hint=_HINT,
                )
            found = self.globals[module, name] = Global(spelled, name)
        return found

    def global_line(self) -> Global:
        module = self.line().decode()
        return self.find(module, self.line().decode())

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.find(module, name))

    def call(self, function: object, args: object, *, named: object = None) -> None:
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise self.bad("it calls what is no function")
        self.stack.append(Call(function, args, named or None))

    def reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.call(function, args)

    def new_object_ex(self) -> None:
        named, args, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.call(function, args, named=named)

    def object(self) -> None:
        items = self.since_mark()
        self.call(items[0], tuple(items[1:]))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Call):
            raise self.bad("it builds on what is no object")
        target.state, target.built = (target.state, state) if target.built else state, True

    def never(self) -> None:
        raise self.bad("it uses an instruction no checkpoint needs")


def add_entry(table: dict[object, object], key: object, value: object, shown: str) -> None:
    """Put an entry into a table read from a pickle; the same key twice is refused, for readers would differ."""
    small = isinstance(key, int) and -(1 << 63) <= key < 1 << 63
    if isinstance(key, list | dict | bytearray):
        raise _malformed(shown, "a key of a table is a list or a table")
    if not (small or key is None or isinstance(key, str | bytes)):
        # Hashes of numbers and tuples can be made to collide, a few megabytes of them to take hours.
        key = Key(key)
    size = len(table)
    table[key] = value
    if len(table) == size:
        raise RefusedFileError("E0816", f"the key '{show(key)}' occurs twice in the pickle", where=shown)


_U8, _U16, _U32, _U64 = (struct.Struct(f"<{kind}") for kind in "BHIQ")
_I32, _BE_DOUBLE = struct.Struct("<i"), struct.Struct(">d")
_PUSH = _Machine  # methods below are taken from the class, so that a call costs one look-up


def _pushed(make: Callable[[_Machine], object]) -> Callable[[_Machine], None]:
    def push(machine: _Machine) -> None:
        value = make(machine)
        machine.stack.append(value)

    return push


def _persistent(machine: _Machine) -> object:
    return machine.persistent(machine.stack.pop())


_NAMED: Mapping[bytes, Callable[[_Machine], None]] = {}
_INSTRUCTIONS: list[Callable[[_Machine], None]] = []
