"""An adapter other than LoRA on its base, read as the full checkpoint it stands for; PEFT makes it, module by module."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rsoup.compat.conv1d import MODELS, is_named_so
from rsoup.compat.files import config_of
from rsoup.compat.tied import EMBEDDING, HEAD, is_tied
from rsoup.errors import IncompatibleError, Problem, show
from rsoup.lora.adapter import read_float64
from rsoup.lora.config import AdapterConfig
from rsoup.lora.foreign import Kind, adapted_module, modules_of
from rsoup.lora.placed import does_not_fit, names_in
from rsoup.storage.protocols import Source
from rsoup.storage.views import Aliased, View
from rsoup.tensors import DTYPES, Header, TensorSpec

if TYPE_CHECKING:
    import torch

    Made = dict[str, torch.Tensor]

_KEPT = 4  # modules that stay in memory: blocks come in order, a few threads at a time
_F64 = DTYPES["F64"]
_EMBEDDINGS: Final = ("shared", "wpe", "position_embeddings", "token_type_embeddings")


class ForeignSource(View):
    """The full checkpoint that an adapter of a type that only PEFT knows makes of `base`, in float64 where it acts.

    A header's `kept` dtype is the base's. A module is made when one of its tensors is first read, and held whole.
    Raises IncompatibleError E0342 on opening, and what `modules_of` and `adapted_module` raise: the smallest module
    is made at once.
    """

    def __init__(self, base: Source, source: Source, config: AdapterConfig) -> None:
        keys = modules_of(config.raw, source.header)
        weights = [f"{module}.weight" for module in keys.modules]
        wanted = [*weights, *(f"{module}.bias" for module in keys.modules), *keys.replaced]
        names = names_in(base.header, wanted)
        self._replaced = {names.get(name, name): key for name, key in keys.replaced.items()}
        ground = _ground(base, source, self._replaced, weights)
        super().__init__(ground)
        self.name, self.base, self.config = source.name, base, config
        self._adapter, self._keys = source, keys
        names |= {HEAD: HEAD} if HEAD in ground.header else {}
        self._tensors = {
            module: tuple(names.get(f"{module}.{leaf}", f"{module}.{leaf}") for leaf in ("weight", "bias"))
            for module in keys.modules
        }
        self._modules = {
            tensor: module
            for module, tensors in self._tensors.items()
            for tensor in tensors
            if tensor in ground.header
        }
        self.header: Header = self._header(ground)
        self.changed = frozenset((*self._modules, *self._replaced))
        self._config_of_base = config_of(base) or {}
        self._cache: OrderedDict[str, Made] = OrderedDict()
        self._lock = threading.Lock()
        if self._tensors:  # what is wrong with its settings is said before anything is written
            self._made(min(self._tensors, key=lambda module: ground.header[self._tensors[module][0]].numel))

    def _header(self, ground: Source) -> dict[str, TensorSpec]:
        header = dict(ground.header)
        for name in self._replaced:
            header[name] = self._kept(name, ground.header[name])
        touched = [*(weight for weight, _ in self._tensors.values()), *self._modules]
        wrong = [
            Problem(show(name), "the base has no such tensor of floats")
            for name in dict.fromkeys(touched)
            if name not in header or header[name].dtype.kind != "float"
        ]
        if wrong:
            raise does_not_fit(self.name, wrong, len(self._tensors))
        for name in self._modules:
            header[name] = self._kept(name, TensorSpec(_F64, header[name].shape))
        return header

    def _kept(self, name: str, spec: TensorSpec) -> TensorSpec:
        """How a tensor is seen: a soup of it is stored in the base's dtype, where the base has it."""
        stored = self.base.header.get(name, self._source.header[name]).stored
        return TensorSpec(spec.dtype, spec.shape, kept=stored if stored != spec.dtype else None)

    @property
    def identity(self) -> str:
        """Changes when the base's files or the adapter's may have."""
        return f"{self._source.identity}+{self._adapter.identity}"

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on; what the adapter acts on as float64."""
        import torch

        if tensor not in self._modules:
            self._source.read(tensor, start, buffer)
            return
        if start < 0 or start % 8 or len(buffer) % 8 or start + len(buffer) > self.header[tensor].nbytes:
            msg = f"bytes {start} to {start + len(buffer)} are not all in {tensor}, or no whole elements"
            raise ValueError(msg)
        if len(buffer):
            made = self._made(self._modules[tensor])[tensor].reshape(-1)
            begin, count = start // 8, len(buffer) // 8
            torch.frombuffer(buffer, dtype=torch.float64).copy_(made[begin : begin + count])

    def inside(self, tensor: str) -> tuple[Source, str] | None:
        """Where the bytes of a tensor are that the adapter leaves alone, or brings whole."""
        return None if tensor in self._modules else (self._source, tensor)

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Say that these bytes will be read soon, where they are not made."""
        if tensor not in self._modules:
            self._source.prefetch(tensor, start, nbytes)

    def _made(self, module: str) -> Made:
        """The tensors of a module with the adapter in them; those of the modules read last are kept."""
        with self._lock:
            found = self._cache.get(module)
            if found is None:
                found = self._cache[module] = self._make(module)
                while len(self._cache) > _KEPT:
                    self._cache.popitem(last=False)
            else:
                self._cache.move_to_end(module)
            return found

    def _make(self, module: str) -> Made:
        weight_name, bias_name = self._tensors[module]
        weight = read_float64(self._source, weight_name, self.base.name)
        bias = (
            read_float64(self._source, bias_name, self.base.name)
            if bias_name in self._source.header
            else None
        )
        kind = self._kind(module, weight.dim())
        weight, bias = adapted_module(self.config.raw, module, dict(self._state(module)), weight, bias, kind)
        return {weight_name: weight} | ({bias_name: bias} if bias is not None else {})

    def _state(self, module: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The adapter's tensors of a module, and those all modules share, as they are stored."""
        own = self._keys.modules[module]
        for rest, key in (*own.items(), *((key, key) for key in self._keys.shared)):
            yield rest, _as_stored(self._adapter, key)

    def _kind(self, module: str, dimensions: int) -> Kind:
        leaf = module.rpartition(".")[2]
        if dimensions == 1:
            return "norm"
        if dimensions == 4:
            return "conv2d"
        if EMBEDDING.search(f"{module}.weight") or leaf in _EMBEDDINGS:
            return "embedding"
        inputs_first = self.config.fan_in_fan_out or self._config_of_base.get("model_type") in MODELS
        return "conv1d" if inputs_first and is_named_so(module) else "linear"

    def check_sums(self) -> None:
        """Compare the checksums that the files hold of themselves."""
        self._source.check_sums()
        self._adapter.check_sums()

    def check_unchanged(self) -> None:
        """Raise if a file of the base or of the adapter has changed."""
        self._source.check_unchanged()
        self._adapter.check_unchanged()

    def close(self) -> None:
        """Close the adapter's file; the base is its opener's."""
        self._adapter.close()


def _ground(base: Source, source: Source, replaced: dict[str, str], weights: Sequence[str]) -> Source:
    """What the adapter acts on: the base with the whole tensors the file brings, and a tied head that is adapted."""
    aliases = {name: (source, key) for name, key in replaced.items()}
    if HEAD in weights and HEAD not in base.header and HEAD not in aliases and is_tied(base):
        embedding = next((name for name in base.header if EMBEDDING.search(name)), None)
        aliases |= {HEAD: (base, embedding)} if embedding is not None else {}
    return Aliased(base, aliases) if aliases else base


def _as_stored(source: Source, key: str) -> torch.Tensor:
    """A tensor of the adapter in its own dtype. Raises IncompatibleError E0304 where an element is not finite."""
    import torch

    spec = source.header[key]
    if spec.numel == 0:
        return torch.zeros(spec.shape, dtype=spec.dtype.torch)
    buffer = bytearray(spec.nbytes)
    source.read(key, 0, memoryview(buffer))
    found = torch.frombuffer(buffer, dtype=spec.dtype.torch).reshape(spec.shape)
    if spec.dtype.kind == "float" and not bool(found.isfinite().all()):
        raise IncompatibleError(
            "E0304",
            f"tensor '{show(key)}' of '{show(source.name)}' is NaN or infinite in some of its elements",
            hint=f"leave '{show(source.name)}' out: its training broke",
        )
    return found
