"""What a pickle may hold once it was read as data: notes of names and calls, and the names allowed in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rsoup.errors import RefusedFileError, show

MAX_DEPTH = 200


# None of these but Global has a repr: what a hostile pickle nests would be written out a billion times.


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function by name; nobody has looked whether it exists."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A call that was asked for and not made, with what would have been put into its result."""

    function: Global
    args: tuple[object, ...]
    state: object = None
    built: bool = False
    items: list[object] | None = None
    table: dict[object, object] | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Key:
    """A table's key that is no text, small number or nothing: equal only to itself, so that no hash is taken."""

    value: object


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Persistent:
    """An object the pickle leaves to its reader, by the id it gives."""

    id: object


SPELLED: Mapping[str, str] = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "torch.tensor": "torch._tensor",
    "UserDict": "collections",
    "pathlib._local": "pathlib",
}
"""Modules that had another name in Python 2, in an old torch or a new Python."""

_NAMES: Mapping[str, str] = {
    "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter "
    "_rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor _rebuild_nested_tensor "
    "_rebuild_meta_tensor_no_storage _rebuild_wrapper_subclass _rebuild_device_tensor_from_numpy "
    "_rebuild_device_tensor_from_cpu_tensor _rebuild_xla_tensor",
    "torch._tensor": "_rebuild_from_type_v2",
    "torch.nn.parameter": "Parameter Buffer UninitializedParameter UninitializedBuffer",
    "torch.serialization": "_get_layout",
    "torch.storage": "UntypedStorage TypedStorage",
    "torch": "Size Tensor device dtype Generator BoolTensor ByteTensor CharTensor DoubleTensor FloatTensor "
    "HalfTensor IntTensor LongTensor ShortTensor BFloat16Tensor UntypedStorage strided sparse_coo sparse_csr "
    "float16 float32 float64 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz "
    "float8_e8m0fnu float4_e2m1fn_x2 uint8 uint16 uint32 uint64 int8 int16 int32 int64 bool complex32 complex64 "
    "complex128 half float double short int long cfloat cdouble qint8 qint32 quint8 quint4x2 quint2x4 bits8 "
    "bits16 bits1x8 bits2x4 bits4x2 per_tensor_affine per_tensor_symmetric per_channel_affine "
    "per_channel_symmetric per_channel_affine_float_qparams preserve_format contiguous_format channels_last",
    "collections": "OrderedDict defaultdict Counter deque UserDict UserList",
    "builtins": "set frozenset slice bytearray complex range list dict tuple int float str bytes bool object",
    "argparse": "Namespace",
    "types": "SimpleNamespace",
    "copyreg": "_reconstructor",
    "datetime": "datetime date time timedelta timezone",
    "pathlib": "Path PurePath PosixPath WindowsPath PurePosixPath PureWindowsPath",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID SafeUUID",
    "_codecs": "encode",
    "_io": "BytesIO",
    "typing": "Any",
    "numpy": "ndarray dtype bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "numpy.core.numeric": "_frombuffer",
    "numpy._core.numeric": "_frombuffer",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "lightning.pytorch.utilities.parsing": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "lightning.fabric.utilities.data": "AttributeDict",
    "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping": "EarlyStopping",
    "torch.nested._internal.nested_tensor": "NestedTensor _rebuild_njt",
    "torch._dynamo.decorators": "_DimRange",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.nodes": "AnyNode StringNode IntegerNode FloatNode BooleanNode EnumNode PathNode BytesNode",
}
_ALLOWED = frozenset((module, name) for module, names in _NAMES.items() for name in names.split())
TABLES = frozenset(("OrderedDict", "defaultdict", "Counter", "dict", "AttributeDict", "UserDict"))
"""Classes whose entries a pickle sets one by one."""

_UNHASHABLE = frozenset(
    ("set", "list", "dict", "bytearray", "deque", "OrderedDict", "defaultdict", "Counter")
)
_STORAGES = frozenset(("torch", "torch.cuda"))


def allowed(module: str, name: str) -> bool:
    """Whether state dicts and training checkpoints ordinarily hold this name, which rsoup keeps as a name."""
    if (module, name) in _ALLOWED:
        return True
    if module == "numpy.dtypes":
        return name.endswith("DType") and name.isidentifier()
    return module in _STORAGES and name.endswith("Storage") and name.isidentifier()


def not_allowed(module: str, name: str, shown: str) -> RefusedFileError:
    """The refusal of a pickle that asks for anything else."""
    return RefusedFileError(
        "E0817",
        f"the pickle asks for '{show(f'{module[:200]}.{name[:200]}')}'; rsoup never runs code from a checkpoint",
        where=shown,
        hint="where you trust the file: load it with torch, then save the state dict alone, with safetensors",
    )


def may_be_called(function: Global, args: tuple[object, ...]) -> bool:
    """Whether torch itself could make this call: dtypes and storages are no functions, a table takes one table."""
    if function.module in ("torch", "torch.cuda", "torch.storage"):
        return function.name in ("Size", "device", "Generator") or function.name.endswith("Tensor")
    if function.name != "OrderedDict" or not args:
        return True
    return len(args) == 1 and isinstance(args[0], list | tuple | dict)


def _unhashable(key: object) -> bool:
    """Whether Python would refuse this as a table's key, being or holding a list or a table."""
    met: set[int] = set()  # tuples that hold each other twice over could stand for billions
    waiting = [key]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list | dict) or (isinstance(part, Call) and part.function.name in _UNHASHABLE):
            return True
        if isinstance(part, tuple) and id(part) not in met:
            met.add(id(part))
            waiting += part
    return False


def add_entry(table: dict[object, object], key: object, value: object, shown: str) -> None:
    """Put an entry into a table read from a pickle; the same key twice is refused, for readers would differ."""
    if type(key) is not str:
        if _unhashable(key):
            raise RefusedFileError(
                "E0816", "the pickle is malformed: a table's key is a list or a table", where=shown
            )
        small = isinstance(key, int) and -(1 << 63) <= key < 1 << 63
        if not small and key is not None and type(key) is not bytes:
            # Hashes of numbers and tuples can be made to collide: a few megabytes of them would take hours.
            key = Key(key)
    size = len(table)
    table[key] = value
    if len(table) == size:
        brief = key[:200] if isinstance(key, str | bytes) else key
        raise RefusedFileError("E0816", f"the key '{show(brief)}' occurs twice in one table", where=shown)


def too_deep(value: object) -> bool:
    """Whether a value is nested so deeply that a recursive reader would fail; what holds itself is met once."""
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
                inner += [key.value for key in node if type(key) is Key]
            elif isinstance(node, Call):
                inner += [part for part in (node.args, node.state, node.items, node.table) if part]
            elif isinstance(node, list | tuple):
                inner += node
        if not inner:
            return False
        level = inner
    return True
