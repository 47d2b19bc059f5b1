"""The parts of the pickle machine: its stack, marks and memo, and the instructions that need more than a line."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence

from rsoup.errors import RefusedFileError
from rsoup.storage.pickled.pickle_values import (
    SPELLED,
    TABLES,
    Call,
    Global,
    add_entry,
    allowed,
    may_be_called,
    not_allowed,
)

MAX_OPCODES = 5_000_000
MAX_MARKS = 1000
MAX_INT_BYTES = 256
MAX_LINE_BYTES = 4096
U8, U16, U32, U64 = (struct.Struct(f"<{kind}") for kind in "BHIQ")
INT = re.compile(rb"-?[0-9]{1,600}")

_ADDED_TO = frozenset(("deque", "set", "frozenset", "list", "UserList"))
Names = frozenset[tuple[str, str]]


class Machine:
    """A pickle half read: the stack, the marks, the memo, and where it stands."""

    __slots__ = ("also", "at", "data", "done", "globals", "marks", "memo", "persistent", "shown", "stack")

    def __init__(
        self, data: bytes, shown: str, at: int, persistent: Callable[[object], object], also: Names
    ) -> None:
        self.data = data
        self.also = also
        self.shown = shown
        self.at = at
        self.persistent = persistent
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.globals: dict[tuple[str, str], Global] = {}
        self.done = False

    def run(self, table: Sequence[Callable[[Machine], None]]) -> object:
        """Follow the instructions, `table` naming what each byte means, until one says stop."""
        data = self.data
        for _ in range(MAX_OPCODES):
            at = self.at
            self.at = at + 1
            table[data[at]](self)
            if self.done:
                if self.marks or len(self.stack) != 1:
                    raise self.bad("something is left over at its end")
                return self.stack[0]
        raise self.bad(f"it has more than {MAX_OPCODES} instructions")

    def bad(self, what: str) -> RefusedFileError:
        """The refusal of this pickle, saying `what`."""
        return RefusedFileError("E0816", f"the pickle is malformed: {what}", where=self.shown)

    # --- operands

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        begin = self.at
        end = begin + count
        if end > len(self.data):
            self.at = len(self.data)
            raise IndexError
        self.at = end
        return self.data[begin:end]

    def number(self, kind: struct.Struct) -> int:
        """A number of fixed size."""
        found: int = kind.unpack_from(self.data, self.at)[0]
        self.at += kind.size
        return found

    def sized(self, kind: struct.Struct) -> bytes:
        """Bytes after a number that says how many."""
        return self.take(self.number(kind))

    def line(self, pattern: re.Pattern[bytes] | None = None) -> bytes:
        """The bytes up to the next line break, of the form `pattern`."""
        end = self.data.find(b"\n", self.at, self.at + MAX_LINE_BYTES)
        if end < 0:
            self.take(MAX_LINE_BYTES)
            raise ValueError
        text, self.at = self.data[self.at : end], end + 1
        if pattern is not None and not pattern.fullmatch(text):
            raise ValueError
        return text

    def index(self) -> int:
        """A place in the memo, in digits."""
        return int(self.line(INT))

    def since_mark(self) -> list[object]:
        """Everything pushed after the last mark, taken off with it."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    # --- instructions of more than a line

    def mark(self) -> None:
        """Begin a group."""
        if len(self.marks) >= MAX_MARKS:
            raise self.bad("it is nested too deeply")
        self.marks.append(self.stack)
        self.stack = []

    def stop(self) -> None:
        """End the program."""
        self.done = True

    def protocol(self) -> None:
        """Say the version; there have been six."""
        if self.number(U8) > 5:
            raise self.bad("its protocol is newer than 5")

    def frame(self) -> None:
        """Say how many bytes follow at least."""
        if self.number(U64) > len(self.data) - self.at:
            self.at = len(self.data)
            raise IndexError

    def int_line(self) -> None:
        """A number, or a truth value, in digits."""
        text = self.line(INT)
        self.stack.append(text == b"01" if text in (b"00", b"01") else int(text))

    def long(self, size: int) -> None:
        """A number of `size` bytes."""
        if size > MAX_INT_BYTES:
            raise self.bad(f"it holds a number of {size} bytes")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def unicode(self) -> None:
        """The commonest text, as `sized` would read it, in one step."""
        begin = self.at + 4
        end = begin + U32.unpack_from(self.data, self.at)[0]
        if end > len(self.data):
            raise struct.error
        self.at = end
        self.stack.append(str(self.data[begin:end], "utf-8", "surrogatepass"))

    def old_text(self, data: bytes) -> None:
        """A string of Python 2, whose strings were bytes: text where it is UTF-8, as torch takes it."""
        try:
            self.stack.append(data.decode("utf-8"))
        except UnicodeDecodeError:
            self.stack.append(data)

    def get(self) -> None:
        """Push what was kept at a place of one byte."""
        self.stack.append(self.memo[self.data[self.at]])
        self.at += 1

    def put(self) -> None:
        """Keep the last value at a place of one byte."""
        self.memo[self.data[self.at]] = self.stack[-1]
        self.at += 1

    def put_far(self) -> None:
        """Keep the last value at a place of four bytes."""
        self.memo[U32.unpack_from(self.data, self.at)[0]] = self.stack[-1]
        self.at += 4

    def small_int(self) -> None:
        """A number of one byte."""
        self.stack.append(self.data[self.at])
        self.at += 1

    def gather(self, count: int) -> None:
        """Make the last `count` values a tuple."""
        if len(self.stack) < count:
            raise LookupError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def add(self, items: list[object]) -> None:
        """Put `items` at the end of a list, a set, a queue."""
        target = self.stack[-1]
        if isinstance(target, list):
            target += items
        elif isinstance(target, Call) and target.function.name in _ADDED_TO:
            if target.items is None:
                target.items = []
            target.items += items
        else:
            raise self.bad("it adds to what is no list")

    def set_items(self, items: list[object]) -> None:
        """Put keys and values, in turns, into a table."""
        target = self.stack[-1]
        if isinstance(target, Call) and target.function.name in TABLES:
            target.table = table = {} if target.table is None else target.table
        elif isinstance(target, dict):
            table = target
        else:
            raise self.bad("it sets entries of what is no table")
        if len(items) % 2:
            raise self.bad("a table's key has no value")
        for i in range(0, len(items), 2):
            add_entry(table, items[i], items[i + 1], self.shown)

    def set_item(self) -> None:
        """Put one key and one value into a table."""
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def table(self) -> None:
        """A table of the keys and values since the mark."""
        items = self.since_mark()
        self.stack.append({})
        self.set_items(items)

    def find(self, module: object, name: object) -> Global:
        """The name a program asks for, if a state dict may; no other place makes a Global."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        found = self.globals.get((module, name))
        if found is None:
            spelled = SPELLED.get(module, module)
            if not allowed(spelled, name) and (spelled, name) not in self.also:
                raise not_allowed(module, name, self.shown)
            found = self.globals[module, name] = Global(spelled, name)
        return found

    def find_line(self) -> Global:
        """The name on the next two lines."""
        module = self.line().decode()
        return self.find(module, self.line().decode())

    def find_stack(self) -> None:
        """The name in the last two values."""
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.find(module, name))

    def call(self, function: object, args: object, named: object = None) -> None:
        """Note that `function` would be called with `args`."""
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise self.bad("it calls what is no function")
        if not may_be_called(function, args):
            raise self.bad(f"it calls '{function}', which cannot be called so")
        self.stack.append(Call(function, args, named, bool(named)))

    def reduce(self) -> None:
        """Note a call of the last value but one with the last."""
        args, function = self.stack.pop(), self.stack.pop()
        self.call(function, args)

    def new(self) -> None:
        """Note that an object of the class in the last value but one would be made with the last."""
        args, kind = self.stack.pop(), self.stack.pop()
        if (
            isinstance(kind, Global)
            and kind.name.startswith("_")
            and (kind.module, kind.name) not in self.also
        ):
            raise self.bad(f"it makes an object of '{kind}', which is no class")
        self.call(kind, args)

    def new_with_names(self) -> None:
        """Note a call with arguments that have names."""
        named, args, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.call(function, args, named)

    def instance(self) -> None:
        """Note a call of the name on the next two lines with what follows the mark."""
        function = self.find_line()
        self.call(function, tuple(self.since_mark()))

    def object(self) -> None:
        """Note a call of what follows the mark."""
        function, *args = self.since_mark()
        self.call(function, tuple(args))

    def build(self) -> None:
        """Note what an object would be told about its state."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Call):
            raise self.bad("it builds on what is no object")
        target.state, target.built = state, True

    def never(self) -> None:
        """Refuse: torch, Python and numpy write no such instruction."""
        raise self.bad(f"the instruction {self.data[self.at - 1]:#04x} has no place in a checkpoint")
