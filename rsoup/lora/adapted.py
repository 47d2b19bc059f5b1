"""An adapter on its base, read as the full checkpoint it stands for: θ₀ + s·B·A, made as it is read."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rsoup.compat.files import config_of
from rsoup.compat.tied import EMBEDDING, HEAD, is_tied
from rsoup.errors import IncompatibleError, Problem, show
from rsoup.lora.adapter import Adapter, without
from rsoup.lora.chunks import Chunked
from rsoup.lora.effective import Factors, factors_of, magnitudes
from rsoup.lora.experts import placed_experts
from rsoup.lora.placed import Placed, does_not_fit, names_in, placed
from rsoup.storage.protocols import FileLayout, Source
from rsoup.storage.views import Aliased
from rsoup.tensors import DTYPES, DType, Header, TensorSpec

if TYPE_CHECKING:
    import torch

_KEPT = 4  # modules whose factors stay in memory: blocks come in order, a few threads at a time
_F64 = DTYPES["F64"]
_TOKENIZER = re.compile(
    r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\..+|merges\.txt|.+\.model|chat_template\..+"
)


class AdaptedSource(Chunked):
    """The full checkpoint that `adapter` makes of `base`: tensors it changes read as float64, the others as stored.

    A header's `kept` dtype is the base's: what a soup of it is stored in. `places` says where each module's update
    lies: in one tensor, or in those of its experts. Reading is exact to the last bits of
    float64 and the same on every machine (`product`). Raises IncompatibleError E0342 and E0343 on opening.
    """

    def __init__(self, base: Source, adapter: Adapter) -> None:
        if adapter.config.raw.get("ensure_weight_tying") and HEAD not in base.header:
            adapter = without(adapter, HEAD)  # the embeddings' again, which the base stores once
        ground, names = _ground(base, adapter)
        super().__init__(ground)
        self.name, self.config = adapter.name, adapter.config
        self.adapter = adapter
        self._placed: Mapping[str, Placed] = {
            **placed(adapter, ground.header, names, (config_of(base) or {}).get("model_type")),
            **placed_experts(adapter, ground.header, names),
        }
        self.places: Mapping[str, Sequence[Placed]] = _by_module(self._placed.values())
        self._replaced = {names.get(name, name): key for name, key in adapter.tensors.items()}
        self._beneath = {names.get(name, name): key for name, key in adapter.beneath.items()}
        self._rows = {names.get(name, name): found for name, found in adapter.rows.items()}
        self._biases = {
            names.get(p.update.bias_tensor, p.update.bias_tensor): p
            for p in self._placed.values()
            if p.update.keys.bias is not None
        }
        self.base, self.ground, self.names = base, ground, names
        self.header: Header = self._header(ground)
        self._own_files = self._tokenizer()
        added = tuple(name for name in self._replaced if name not in ground.header)
        last = ground.files[-1]
        self.files = [*ground.files[:-1], FileLayout(last.name, (*last.tensors, *added))]
        self.changed = frozenset((*self._placed, *self._replaced, *self._biases, *self._beneath))
        _check_resized(self)
        self._cache: OrderedDict[str, Factors] = OrderedDict()
        self._lock = threading.Lock()

    def _header(self, ground: Source) -> dict[str, TensorSpec]:
        header = dict(ground.header)
        wrong = []
        for name in (*self._placed, *self._rows, *self._biases):
            spec = ground.header.get(name)
            if spec is None or spec.dtype.kind != "float":
                wrong.append(Problem(show(name), "the base has no such tensor of floats"))
                continue
            header[name] = TensorSpec(_F64, spec.shape, kept=self.base.header.get(name, spec).stored)
        for name, (indices, key) in self._rows.items():
            shape, ours = header[name].shape if name in header else (), self.adapter.spec(key).shape
            if (
                len(shape) != 2
                or len(ours) != 2
                or shape[1] != ours[1]
                or max(indices, default=0) >= shape[0]
            ):
                wrong.append(Problem(show(name), f"rows of {ours} do not fit {shape}"))
        if wrong:
            raise does_not_fit(self.adapter.name, wrong, len(self.adapter.updates) + len(self.adapter.rows))
        made = {*self._placed, *self._rows, *self._biases}
        for name, key in (*self._beneath.items(), *self._replaced.items()):
            spec = self.adapter.spec(key)
            if name not in header:
                header[name] = spec
            elif name not in made:
                header[name] = TensorSpec(spec.dtype, spec.shape, kept=self._kept(name, spec))
        return header

    def _kept(self, name: str, spec: TensorSpec) -> DType | None:
        """The dtype a soup of a tensor is stored in: the base's, where the base has it."""
        stored = self.base.header.get(name, spec).stored
        return stored if stored != spec.dtype else None

    def _tokenizer(self) -> frozenset[str]:
        """The adapter's own tokenizer files, where it was trained with another vocabulary than the base's."""
        names = [name for name in self._beneath | self._replaced if EMBEDDING.search(name)]
        resized = any(
            name in self.base.header and self.header[name].shape != self.base.header[name].shape
            for name in names
        )
        own = self.adapter.source.side_files if resized else ()
        return frozenset(name for name in own if _TOKENIZER.fullmatch(name))

    @property
    def side_files(self) -> Sequence[str]:
        """The base's side files; the tokenizer's are the adapter's if it has another vocabulary."""
        return [*(n for n in self.source.side_files if n not in self._own_files), *sorted(self._own_files)]

    def side_file(self, name: str, limit: int) -> bytes | None:
        """The contents of a side file."""
        return (self.adapter.source if name in self._own_files else self.source).side_file(name, limit)

    def side_file_chunks(self, name: str) -> Iterator[bytes]:
        """The contents of a side file, piece by piece."""
        return (self.adapter.source if name in self._own_files else self.source).side_file_chunks(name)

    def update_alone(self, tensor: str) -> Placed | None:
        """The update of a tensor that is θ₀ + s·B·A and nothing else: no DoRA, no rows, no bias, no experts."""
        where = self._placed.get(tensor)
        if where is None or where.update.keys.magnitude is not None or where.update.experts > 1:
            return None
        return None if tensor in self._rows or tensor in self._biases else where

    @property
    def identity(self) -> str:
        """Changes when the base's files or the adapter's may have."""
        return f"{self._source.identity}+{self.adapter.source.identity}"

    def inside(self, tensor: str) -> tuple[Source, str] | None:
        """Where the bytes of a tensor are that the adapter leaves alone, or brings whole."""
        if tensor in self._replaced:
            return self.adapter.source, self._replaced[tensor]
        made = tensor in self._placed or tensor in self._rows or tensor in self._biases
        return None if made else (self._source, tensor)

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on; what the adapter changes as float64."""
        if tensor in self._replaced:
            self.adapter.source.read(self._replaced[tensor], start, buffer)
        elif self.header[tensor].dtype is _F64 and (
            tensor in self._placed or tensor in self._rows or tensor in self._biases
        ):
            self.read_made(tensor, start, buffer)
        else:
            self._source.read(tensor, start, buffer)

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Say that these bytes will be read soon, where they are the base's."""
        if tensor in self._replaced:
            return
        ours, theirs = self.header[tensor].dtype.itemsize, self._source.header[tensor].dtype.itemsize
        self._source.prefetch(tensor, start // ours * theirs, nbytes // ours * theirs)

    def width(self, tensor: str) -> int:
        """Elements of a row of a changed tensor."""
        return self._placed[tensor].columns if tensor in self._placed else 1

    def fill(self, tensor: str, begin: int, out: torch.Tensor) -> None:
        """What lies below, with the adapter's rows, biases and update."""
        self.below(tensor, begin, out)
        if tensor in self._rows:
            self._put_rows(tensor, begin, out)
        if tensor in self._biases:
            self._add_bias(self._biases[tensor], begin, out)
        if tensor in self._placed:
            where = self._placed[tensor]
            self.add_update(where, self._factors(where), begin, out)

    def _put_rows(self, tensor: str, begin: int, out: torch.Tensor) -> None:
        indices, key = self._rows[tensor]
        width = self.header[tensor].shape[1]
        rows: torch.Tensor | None = None
        for position, index in enumerate(indices):
            first, last = max(begin, index * width), min(begin + len(out), (index + 1) * width)
            if first < last:
                rows = self.adapter.read(key) if rows is None else rows
                row = rows[position]
                out[first - begin : last - begin] = row[first - index * width : last - index * width]

    def _add_bias(self, where: Placed, begin: int, out: torch.Tensor) -> None:
        assert where.update.keys.bias is not None
        bias = self.adapter.read(where.update.keys.bias).reshape(-1)
        out += bias[begin : begin + len(out)] * where.update.scaling

    def _factors(self, where: Placed) -> Factors:
        """The update's factors, ready to multiply; those read last are kept."""
        with self._lock:
            found = self._cache.get(where.update.module)
            if found is None:
                found = factors_of(self.adapter, where, self._source)
                if where.update.keys.magnitude is not None:
                    found = magnitudes(self.adapter, where, self._source, found)
                self._cache[where.update.module] = found
                while len(self._cache) > _KEPT:
                    self._cache.popitem(last=False)
            else:
                self._cache.move_to_end(where.update.module)
            return found

    def check_sums(self) -> None:
        """Compare the checksums that the files hold of themselves."""
        self._source.check_sums()
        self.adapter.source.check_sums()

    def check_unchanged(self) -> None:
        """Raise if a file of the base or of the adapter has changed."""
        self._source.check_unchanged()
        self.adapter.source.check_unchanged()

    def close(self) -> None:
        """Close the adapter's file; the base is its opener's."""
        self.adapter.source.close()


def _ground(base: Source, adapter: Adapter) -> tuple[Source, dict[str, str]]:
    """(what the updates lie on, adapter's names → base's): the base, with what the file brings of it in its place.

    That is a resized vocabulary or trained biases below an update; and for a tied model whose head is adapted, the
    embeddings under the head's name.
    """
    names = names_in(base.header, _wanted(adapter))
    beneath = {names.get(name, name): (adapter.source, key) for name, key in adapter.beneath.items()}
    if HEAD not in base.header and HEAD not in beneath and HEAD in _wanted(adapter) and is_tied(base):
        embedding = next((name for name in base.header if EMBEDDING.search(name)), None)
        beneath |= {HEAD: (base, embedding)} if embedding is not None else {}
    if not beneath:
        return base, names
    ground = Aliased(base, beneath)
    return ground, names_in(ground.header, _wanted(adapter))


def _by_module(found: Iterable[Placed]) -> dict[str, list[Placed]]:
    places: dict[str, list[Placed]] = {}
    for place in found:
        places.setdefault(place.update.module, []).append(place)
    return places


def _wanted(adapter: Adapter) -> list[str]:
    """Every name of the model that the adapter speaks of, the weights of its updates first."""
    names = [update.tensor for update in adapter.updates.values()]
    names += [update.bias_tensor for update in adapter.updates.values() if update.keys.bias is not None]
    wrapped = [name for update in adapter.updates.values() for name in update.parameters]
    owners = sorted({name.rpartition(".")[0] + "." for name in wrapped})
    return [*owners, *names, *adapter.tensors, *adapter.rows, *adapter.beneath]


def _check_resized(source: AdaptedSource) -> None:
    """Raise IncompatibleError E0342 where an adapter resizes the embeddings and leaves the head as long as it was."""
    embedding = next((name for name in source.base.header if EMBEDDING.search(name)), None)
    if embedding is None or HEAD not in source.base.header:
        return
    (rows, head), (before, head_before) = (
        (header[embedding].shape[:1], header[HEAD].shape[:1])
        for header in (source.header, source.base.header)
    )
    if rows != head and before == head_before:
        name, longer = (HEAD, rows) if head == head_before else (embedding, head)
        raise IncompatibleError(
            "E0342",
            f"'{show(source.name)}' resizes the vocabulary to {longer[0]} words, and has no '{show(name)}' of that length",
            hint="save it again with save_embedding_layers=True",
        )
