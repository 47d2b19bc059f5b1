"""The tensors of a PyTorch file: what the pickle says of each, checked against the bytes there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from rsoup.errors import RefusedFileError, show
from rsoup.storage.pickled.pickle_values import Call, Global
from rsoup.storage.pickled.stored_tensor import StoredTensor
from rsoup.tensors import DTYPES, DType, TensorSpec

MAX_RANK = 64
MAX_DIMENSION = 1 << 48
MAX_NBYTES = 1 << 62

STORAGES: Mapping[str, str] = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "BFloat16Storage": "BF16",
    "HalfStorage": "F16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
}
"""torch's names for storages of elements, and the dtypes rsoup reads them as."""

UNTYPED = "UntypedStorage"
_OTHER_STORAGES = {
    UNTYPED: 1,
    "ComplexDoubleStorage": 16,
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
    "QInt32Storage": 4,
    "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1,
}
UNTYPED_DTYPES: Mapping[str, str] = {
    dtype.torch_name: dtype.name
    for dtype in DTYPES.values()
    if dtype.torch_name and dtype.name not in STORAGES.values()
}
"""torch's dtypes that have no storage of their own: a tensor of them names its dtype beside the storage."""

_TENSOR_MODULES = frozenset(("torch._utils", "torch._tensor", "torch.nested._internal.nested_tensor"))
_SPECIAL: Mapping[str, str] = {
    "_rebuild_sparse_tensor": "is sparse",
    "_rebuild_qtensor": "is quantised",
    "_rebuild_nested_tensor": "is nested",
    "_rebuild_njt": "is nested",
    "NestedTensor": "is nested",
    "_rebuild_meta_tensor_no_storage": "has no data (device meta)",
    "_rebuild_device_tensor_from_numpy": "lies on a device as numpy values",
    "_rebuild_device_tensor_from_cpu_tensor": "lies on a device as a tensor of the CPU",
    "_rebuild_xla_tensor": "lies on a device as numpy values",
}
_ATTRIBUTES_THAT_ACT = frozenset(
    (
        "data",
        "grad",
        "real",
        "imag",
        "names",
        "requires_grad",
        "shape",
        "mT",
        "T",
        "H",
        "mH",
        "layout",
        "device",
    )
)


@dataclass(frozen=True, slots=True)
class Storage:
    """A stretch of elements that tensors are views of, as the pickle names it."""

    key: str
    kind: str
    numel: int
    location: str

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return _OTHER_STORAGES.get(self.kind) or DTYPES[STORAGES[self.kind]].itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all its elements."""
        return self.numel * self.itemsize


def storage_of(saved: object, shown: str, *, old: bool) -> Storage:
    """The storage a persistent id names, `old` in the format before zip; RefusedFileError E0816 for any other id."""
    match saved:
        case ("storage", Global() as kind, str() as key, str() as location, int() as numel, *rest) if (
            rest == ([None] if old else []) and isinstance(saved, tuple) and not isinstance(numel, bool)
        ):
            known = kind.name in STORAGES or kind.name in _OTHER_STORAGES
            if (
                known
                and kind.module in ("torch", "torch.cuda", "torch.storage")
                and 0 <= numel < MAX_DIMENSION
            ):
                return Storage(key, kind.name, numel, location)
    raise RefusedFileError("E0816", "the pickle names a storage in a way torch does not", where=shown)


def is_tensor(node: object) -> TypeGuard[Call]:
    """Whether a value from a pickle would have been a tensor."""
    if not isinstance(node, Call):
        return False
    module, name = node.function.module, node.function.name
    return (
        module in _TENSOR_MODULES
        or module == "torch.nn.parameter"
        or (module == "torch" and name.endswith("Tensor"))
    )


def holds_tensors(node: object) -> bool:
    """Whether there is a tensor somewhere inside a value that is none."""
    met: set[int] = set()  # values that hold each other twice over could stand for billions
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if id(part) in met:
            continue
        met.add(id(part))
        if is_tensor(part):
            return True
        if isinstance(part, list | tuple):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, Call):
            waiting += [part.args, part.state, part.items, part.table]
    return False


def is_scalar(node: Call) -> bool:
    """Whether a tensor has no dimensions, as counters, losses and learning rates have none."""
    while node.args and isinstance(node.args[0], Call):
        node = node.args[0]
    return len(node.args) > 2 and node.args[2] == ()


class TensorReader:
    """Makes StoredTensors of what a pickle says, for a file whose storages begin at known bytes."""

    def __init__(self, begins: Mapping[str, int], shown: str) -> None:
        self._begins = begins
        self._shown = shown

    def read(self, name: str, node: Call) -> StoredTensor:
        """The tensor `name`, which `node` describes.

        Raises RefusedFileError E0818 (not a plain tensor) and E0816 (what is said of it cannot be).
        """
        function, args = node.function.name, node.args
        if node.built or node.items is not None or node.table is not None:
            raise self._special(name, "is changed after it was made")
        if node.function.module not in _TENSOR_MODULES:
            raise self._special(name, f"is made as a '{show(node.function)}'")
        match function, args:
            case "_rebuild_parameter", (Call() as data, bool(), hooks) if _empty(hooks):
                return self.read(name, data)
            case "_rebuild_parameter_with_state", (Call() as data, bool(), hooks, state) if _empty(hooks):
                self._check_state(name, state)
                return self.read(name, data)
            case "_rebuild_from_type_v2", (Global() as made, Global() as kind, tuple() as inner, state):
                if str(kind) not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
                    raise self._special(name, f"is of the class '{show(kind)}'")
                self._check_state(name, state)
                return self.read(name, Call(made, inner))
            case "_rebuild_tensor", (Storage() as storage, offset, shape, strides):
                return self._plain(name, storage, _dtype(storage), offset, shape, strides)
            case "_rebuild_tensor_v2", (
                Storage() as storage,
                offset,
                shape,
                strides,
                bool() as grad,
                hooks,
                *more,
            ):
                if _empty(hooks) and self._no_metadata(name, more):
                    return self._plain(name, storage, _dtype(storage), offset, shape, strides, grad)
            case "_rebuild_tensor_v3", (
                Storage() as storage, offset, shape, strides, bool() as grad, hooks, Global() as named, *more
            ):  # fmt: skip
                known = named.module == "torch" and storage.kind == UNTYPED and not grad
                if known and _empty(hooks) and self._no_metadata(name, more):
                    dtype = DTYPES.get(UNTYPED_DTYPES.get(named.name, ""))
                    return self._plain(name, storage, dtype or str(named), offset, shape, strides, grad)
        if function in _SPECIAL:
            raise self._special(name, _SPECIAL[function])
        raise self._bad(name, f"is described by '{show(function)}' in a way torch does not")

    def _bad(self, name: str, what: str) -> RefusedFileError:
        return RefusedFileError("E0816", f"tensor '{show(name)}' {what}", where=self._shown)

    def _special(self, name: str, what: str) -> RefusedFileError:
        return RefusedFileError(
            "E0818",
            f"tensor '{show(name)}' {what}; rsoup reads plain tensors",
            where=self._shown,
            hint="load it where you trust it, and save a state dict of plain tensors (to_dense, dequantize)",
        )

    def _no_metadata(self, name: str, more: list[object]) -> bool:
        if len(more) == 1 and isinstance(more[0], dict) and more[0]:
            raise self._special(name, "is a conjugated or negated view")
        return not more or more in ([None], [{}])

    def _check_state(self, name: str, state: object) -> None:
        """Python attributes on a tensor say nothing about its values, save those that torch itself acts on."""
        if isinstance(state, tuple) and len(state) == 2 and not state[1]:
            state = state[0]
        if state is None:
            return
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise self._special(name, "carries a state of its own")
        for key in state:
            if key in _ATTRIBUTES_THAT_ACT or key.startswith(
                ("__", "_backward", "_grad", "_c", "_base", "_post")
            ):
                raise self._special(name, f"carries the attribute '{show(key)}'")

    def _plain(
        self,
        name: str,
        storage: Storage,
        dtype: DType | str,
        offset: object,
        shape: object,
        strides: object,
        grad: bool = False,
    ) -> StoredTensor:
        if isinstance(dtype, str):
            raise self._special(name, f"has the dtype {show(dtype.removeprefix('torch.'))}")
        if storage.location == "meta":
            raise self._special(name, "has no data (device meta)")
        if grad and dtype.kind in ("integer", "bool"):
            raise self._bad(name, f"wants gradients of {dtype.name}")
        sizes, steps = _naturals(shape), _naturals(strides)
        if sizes is None or steps is None or len(sizes) != len(steps) or not _natural(offset):
            raise self._bad(name, "has an impossible shape, stride or offset")
        assert isinstance(offset, int)
        spec = TensorSpec(dtype, sizes)
        if spec.numel * dtype.itemsize >= MAX_NBYTES:
            raise self._bad(name, f"has the impossible shape {show(list(sizes))}")
        span = (
            sum((size - 1) * step for size, step in zip(sizes, steps, strict=True)) + 1 if spec.numel else 0
        )
        if spec.numel > span:
            raise self._bad(name, f"expands its storage: {spec.numel} elements from {span}")
        if (offset + span) * dtype.itemsize > storage.nbytes:
            raise self._bad(
                name, f"needs {(offset + span) * dtype.itemsize} bytes of a storage of {storage.nbytes}"
            )
        begin = self._begins[storage.key] + offset * dtype.itemsize
        return StoredTensor(spec, begin, steps, storage.key)


def _dtype(storage: Storage) -> DType | str:
    """The dtype a storage's own elements have, or the storage's name where rsoup knows none."""
    if storage.kind == UNTYPED:
        return DTYPES["U8"]
    return DTYPES[STORAGES[storage.kind]] if storage.kind in STORAGES else storage.kind


def _empty(hooks: object) -> bool:
    """Whether backward hooks, which torch saves as an empty OrderedDict, are none."""
    if isinstance(hooks, Call):
        return str(hooks.function) == "collections.OrderedDict" and not (
            hooks.args or hooks.table or hooks.items
        )
    return hooks is None or hooks == {}


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < MAX_DIMENSION


def _naturals(value: object) -> tuple[int, ...] | None:
    if isinstance(value, tuple) and len(value) <= MAX_RANK and all(map(_natural, value)):
        return value
    return None
