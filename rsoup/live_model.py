"""A module's parameters and buffers as the place where a soup is written: all of them or an error, in place."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from rsoup.errors import IncompatibleError, Problem, listing, show
from rsoup.tensors import DTYPES, DType, Header, TensorSpec

if TYPE_CHECKING:
    import torch

_SHOWN: Final = 10
_EXTRA: Final = "_extra_state"  # what a module returns from get_extra_state(), which is no weight
_INSIDE: Final = {  # what stands before a model's names → what holds the model, and how to get at it
    "_orig_mod.": "the model is compiled: hand over model._orig_mod",
    "module.": "the model is wrapped (DataParallel, DistributedDataParallel): hand over model.module",
    "base_model.model.": "the model carries adapters (PEFT): hand over what model.unload() gives",
    "model.": "the soup is of a part of this model: hand over model.model",
}
_OUTSIDE: Final = {
    "_orig_mod.": "the ingredients were saved from a compiled model: hand over torch.compile(model)",
    "module.": "the ingredients were saved from a wrapped model: hand over torch.nn.DataParallel(model)",
    "base_model.model.": "the ingredients were saved from a PEFT model: hand over one",
    "model.": "the soup is of a whole model, this is the part below 'model': hand over the whole",
}
Targets = Mapping[str, "torch.Tensor"]
"""Name in the soup → the tensor of a module that it is written to."""


def targets(model: torch.nn.Module, header: Header, *, cast: bool = False) -> dict[str, torch.Tensor]:
    """The tensor of `model` for every one of `header`; every tensor of the model is among them, or tied to one.

    Raises IncompatibleError E0312 with all names and shapes that do not fit, E0313 for dtypes that would have to be
    rounded, unless `cast`.
    """
    own = _own(model)
    problems = _misplaced(own, header)
    problems += _unusables(model, own)
    if problems:
        raise IncompatibleError(
            "E0312",
            "the soup does not fit into the model",
            where=type(model).__name__,
            details=tuple(problems),
            hint=_guess(own, header),
        )
    narrow = {n: f"{header[n].dtype.name} → {_name(own[n])}" for n in header if not _holds(own[n], header[n])}
    if narrow and not cast:
        raise IncompatibleError(
            "E0313",
            f"{len(narrow)} tensors of the model cannot hold the soup's values exactly",
            where=type(model).__name__,
            details=tuple(Problem(f"'{show(name)}'", what) for name, what in list(narrow.items())[:_SHOWN]),
            hint="cast=True rounds them once more; open_soup(…, dtype=…) makes a soup of the model's dtype, rounded once",
        )
    return {name: own[name] for name in header}


def _own(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and persistent buffer under each of its names."""
    found: dict[str, torch.Tensor] = {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if name.rpartition(".")[2] != _EXTRA
    }
    listed = {id(value) for value in found.values()}
    hidden = {name: value for name, value in model.named_parameters() if id(value) not in listed}
    return {**found, **hidden}


def _unusables(model: torch.nn.Module, own: Targets) -> list[Problem]:
    """What nothing can be written to, or would be lost."""
    real = {_memory(value) for value in itertools.chain(model.parameters(), model.buffers())}
    problems = []
    for name, value in own.items():
        why = _unusable(value)
        if why is None and _memory(value) not in real:
            why = "is made by the model's state_dict(): it is no parameter and no buffer"
        if why is not None:
            problems.append(Problem(f"'{show(name)}'", why))
    return problems


def _misplaced(own: Targets, header: Header) -> list[Problem]:
    problems = []
    if missing := [name for name in header if name not in own]:
        problems.append(Problem("not in the model", listing(missing)))
    placed = {_memory(own[name]) for name in header if name in own}
    if left := [name for name, value in own.items() if name not in header and _memory(value) not in placed]:
        problems.append(Problem("not in the soup", listing(left)))
    shapes = [
        Problem(f"'{show(name)}'", f"{list(header[name].shape)} in the soup, {list(shape)} in the model")
        for name in header
        if name in own and (shape := _shape(own[name])) is not None and shape != header[name].shape
    ]
    if len(shapes) > _SHOWN:
        shapes = [*shapes[:_SHOWN], Problem("", f"and {len(shapes) - _SHOWN} more of another shape")]
    return problems + shapes


def _shape(tensor: torch.Tensor) -> tuple[int, ...] | None:
    return None if _unusable(tensor) else tuple(tensor.shape)


def _unusable(tensor: torch.Tensor) -> str | None:
    """Why nothing can be written to a tensor, None if it can be."""
    import torch
    from torch.nn.parameter import is_lazy

    if is_lazy(tensor):
        return "is not initialised yet: run the model once"
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return f"is a {type(tensor).__name__}, whose memory is not plain"
    if tensor.is_meta:
        return "is on the meta device, without memory: model.to_empty(device='cpu') gives it some"
    if tensor.layout != torch.strided:
        return f"is stored as {tensor.layout}"
    return None


def _memory(tensor: torch.Tensor) -> tuple[object, ...]:
    """Equal for tied tensors: what tells where the elements of a tensor lie."""
    if _unusable(tensor) or tensor.numel() == 0:
        return (id(tensor),)
    where = tensor.untyped_storage().data_ptr(), tensor.storage_offset()
    return (*where, tensor.device, tensor.dtype, tensor.shape, tensor.stride())


def _guess(own: Targets, header: Header) -> str:
    """What probably stands between a soup's names and a model's."""
    ours, theirs = header.keys() - own.keys(), own.keys() - header.keys()
    if any(".base_layer." in name for name in theirs):
        return _INSIDE["base_model.model."]
    guesses = [
        (len({prefix + name for name in ours} & theirs), text) for prefix, text in _INSIDE.items()
    ] + [
        (len({prefix + name for name in theirs} & ours), text) for prefix, text in _OUTSIDE.items()
    ]  # fmt: skip
    count, text = max(guesses, key=lambda guess: guess[0])
    if count:
        return text
    return (
        "the names must be those of model.state_dict(); open_soup(…, drop=[…]) leaves tensors out of the soup"
    )


def _name(tensor: torch.Tensor) -> str:
    known = _dtype(tensor)
    return str(tensor.dtype) if known is None else known.name


def _dtype(tensor: torch.Tensor) -> DType | None:
    text = str(tensor.dtype).removeprefix("torch.")
    return next((dtype for dtype in DTYPES.values() if dtype.torch_name == text), None)


def _holds(tensor: torch.Tensor, spec: TensorSpec) -> bool:
    """Whether every value of a soup's tensor is one of the model's dtype, too."""
    ours, theirs = spec.dtype, _dtype(tensor)
    if theirs is None or theirs == ours:
        return theirs == ours
    return (
        theirs.kind == ours.kind == "float"
        and theirs.name in ("F32", "F64")
        and ours.significand_bits <= theirs.significand_bits
        and ours.maximum <= theirs.maximum
    )


def tied(found: Targets) -> list[list[str]]:
    """The names that share one tensor of the model, where there are several."""
    names: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in found.items():
        names.setdefault(_memory(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def empty(name: str, spec: TensorSpec) -> torch.Tensor:
    """A tensor to write to, on the CPU. Raises IncompatibleError E0313 for a dtype that torch has not."""
    import torch

    dtype = getattr(torch, spec.dtype.torch_name or "-", None)
    if dtype is None:
        raise IncompatibleError(
            "E0313",
            f"torch has no dtype for '{show(name)}', which is {spec}",
            hint="rsoup merge can write it",
        )
    return torch.empty(spec.shape, dtype=dtype)


@contextlib.contextmanager
def writing(found: Targets, header: Header) -> Iterator[TensorSink]:
    """A sink into tensors; afterwards, also after an error, autograd knows that each of them was changed."""
    import torch

    devices = {tensor.device for tensor in found.values()} - {torch.device("cpu")}
    _wait_for(devices)
    try:
        yield TensorSink(found, header)
    finally:
        _wait_for(devices)
        for tensor in found.values():
            if not tensor.is_inference():
                torch.autograd.graph.increment_version(tensor)


def _wait_for(devices: set[torch.device]) -> None:
    """Threads copy on streams of their own: neither may overtake the caller's."""
    import torch

    for device in devices:
        torch.accelerator.synchronize(device)


class TensorSink:
    """A Sink into tensors: straight into the memory of plain ones, by way of one staged tensor into others."""

    def __init__(self, found: Targets, header: Header) -> None:
        self._targets, self._header = found, header
        self._memory = {name: _bytes(value) for name, value in found.items() if _plain(value, header[name])}
        self._staged: dict[str, torch.Tensor] = {}
        self._left = {n: header[n].nbytes for n in found if n not in self._memory}
        self._lock = threading.Lock()

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Keep `data` as the bytes of `tensor` from byte `start` on."""
        memory = self._memory.get(tensor)
        if memory is not None:
            memory[start : start + len(data)] = data
            return
        with self._lock:
            if tensor not in self._staged:
                self._staged[tensor] = empty(tensor, self._header[tensor])
            staged = self._staged[tensor]
        _bytes(staged)[start : start + len(data)] = data
        with self._lock:
            self._left[tensor] -= len(data)
            complete = self._left[tensor] == 0
            if complete:
                del self._staged[tensor]
        if complete:
            _copy(staged, self._targets[tensor])


def _plain(tensor: torch.Tensor, spec: TensorSpec) -> bool:
    """Whether the bytes of a soup's tensor are the bytes of a module's, one by one."""
    return (
        tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not tensor.is_conj()
        and not tensor.is_neg()
        and _dtype(tensor) == spec.dtype
    )


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    data: memoryview = tensor.detach().reshape(-1).view(torch.uint8).numpy().data
    return data


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors of one dtype have the same bits, NaN and the sign of zero included."""
    import torch

    ours, theirs = (value.contiguous().reshape(-1).view(torch.uint8) for value in (one, other))
    return torch.equal(ours, theirs)


def _copy(staged: torch.Tensor, target: torch.Tensor) -> None:
    import torch

    mode = torch.inference_mode() if target.is_inference() else torch.no_grad()  # of this thread
    with mode:
        target.copy_(staged)
