"""An adapter on its base, read as the full checkpoint it stands for: θ₀ + s·B·A, made as it is read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rsoup.compat.tied import EMBEDDING, HEAD, is_tied
from rsoup.errors import Problem, show
from rsoup.lora.adapter import Adapter, LowRank, without
from rsoup.lora.effective import Factors, factors_of, magnitudes
from rsoup.lora.experts import placed_experts
from rsoup.lora.placed import Placed, does_not_fit, names_in, placed
from rsoup.storage.protocols import FileLayout, Source
from rsoup.storage.views import Aliased, View
from rsoup.tensors import DTYPES, DType, Header, TensorSpec

if TYPE_CHECKING:
    import torch

_KEPT = 4  # modules whose factors stay in memory: blocks come in order, a few threads at a time
_CHUNK = 1 << 16  # elements that are made at once: enough rows for a product to be worth its call
_F64 = DTYPES["F64"]


class AdaptedSource(View):
    """The full checkpoint that `adapter` makes of `base`: tensors it changes read as float64, the others as stored.

    A header's `kept` dtype is the base's: what a soup of it is stored in. Reading is exact to the last bits of
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
            **placed(adapter, ground.header, names),
            **placed_experts(adapter, ground.header, names),
        }
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
        added = tuple(name for name in self._replaced if name not in ground.header)
        last = ground.files[-1]
        self.files = [*ground.files[:-1], FileLayout(last.name, (*last.tensors, *added))]
        self.changed = frozenset((*self._placed, *self._replaced, *self._biases, *self._beneath))
        self._cache: OrderedDict[str, Factors] = OrderedDict()
        self._lock = threading.Lock()
        self._spare = threading.local()

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

    def place(self, update: LowRank) -> Placed | None:
        """Where one of the adapter's updates lies in the base."""
        return next((found for found in self._placed.values() if found.update == update), None)

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
            self._read_changed(tensor, start, buffer)
        else:
            self._source.read(tensor, start, buffer)

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Say that these bytes will be read soon, where they are the base's."""
        if tensor in self._replaced:
            return
        ours, theirs = self.header[tensor].dtype.itemsize, self._source.header[tensor].dtype.itemsize
        self._source.prefetch(tensor, start // ours * theirs, nbytes // ours * theirs)

    def _read_changed(self, tensor: str, start: int, buffer: memoryview) -> None:
        import torch

        if start < 0 or start % 8 or len(buffer) % 8 or start + len(buffer) > self.header[tensor].nbytes:
            msg = f"bytes {start} to {start + len(buffer)} are not all in {tensor}, or no whole elements"
            raise ValueError(msg)
        out = torch.frombuffer(buffer, dtype=torch.float64) if len(buffer) else torch.empty(0)
        begin, end = start // 8, start // 8 + len(out)
        at = begin
        while at < end:
            first, chunk = self._chunk(tensor, at)
            count = min(first + len(chunk) - at, end - at)
            out[at - begin : at - begin + count] = chunk[at - first : at - first + count]
            at += count

    def _chunk(self, tensor: str, at: int) -> tuple[int, torch.Tensor]:
        """(first element, elements) of the whole rows around element `at`, or of a piece of one that is very long.

        This thread keeps the last ones: slices come in order, and a product of few rows is not worth its call.
        """
        kept: tuple[str, int, torch.Tensor] | None = getattr(self._spare, "chunk", None)
        if kept is not None and kept[0] == tensor and kept[1] <= at < kept[1] + len(kept[2]):
            return kept[1:]
        self._spare.chunk = None
        width = self._placed[tensor].columns if tensor in self._placed else 1
        start = at // width * width if width > _CHUNK else 0
        step = _CHUNK // width * width if width <= _CHUNK else _CHUNK
        begin = start + (at - start) // step * step
        end = min(begin + step, start + width if width > _CHUNK else self.header[tensor].numel)
        out = self._buffer("out", end - begin)
        self._base_elements(tensor, begin, out)
        if tensor in self._rows:
            self._put_rows(tensor, begin, out)
        if tensor in self._biases:
            self._add_bias(self._biases[tensor], begin, out)
        if tensor in self._placed:
            self._add_update(self._placed[tensor], begin, end, out)
        self._spare.chunk = (tensor, begin, out)
        return begin, out

    def _base_elements(self, tensor: str, begin: int, out: torch.Tensor) -> None:
        import torch

        dtype = self._source.header[tensor].dtype
        raw = self._bytes(len(out) * dtype.itemsize)
        self._source.read(tensor, begin * dtype.itemsize, raw)
        out.copy_(torch.frombuffer(raw, dtype=dtype.torch))

    def _bytes(self, size: int) -> memoryview:
        """Bytes of this thread's own, made once and again only where they are too few."""
        found: bytearray | None = getattr(self._spare, "raw", None)
        if found is None or len(found) < size:
            found = self._spare.raw = bytearray(size)
        return memoryview(found)[:size]

    def _buffer(self, name: str, size: int) -> torch.Tensor:
        """Float64 numbers of this thread's own, made once and again only where they are too few."""
        import torch

        found: torch.Tensor | None = getattr(self._spare, name, None)
        if found is None or len(found) < size:
            found = torch.empty(size, dtype=torch.float64)
            setattr(self._spare, name, found)
        return found[:size]

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

    def _add_update(self, where: Placed, begin: int, end: int, out: torch.Tensor) -> None:
        """Add the update to elements that are whole rows, or a piece of one."""
        factors = self._factors(where)
        at = begin
        while at < end:
            row, column = divmod(at, where.columns)
            expert, inside = divmod(row, where.rows)
            rows = max(1, min((end - at) // where.columns, where.rows - inside))
            columns = slice(column, min(where.columns, column + end - at))
            count = rows * (columns.stop - column)
            first = where.first + inside
            target = out[at - begin : at - begin + count].view(rows, -1)
            self._add_rows(factors, where.expert + expert, slice(first, first + rows), columns, target)
            at += count

    def _add_rows(
        self, factors: Factors, expert: int, rows: slice, columns: slice, target: torch.Tensor
    ) -> None:
        delta = self._buffer("delta", target.numel()).view(target.shape)
        spare = self._buffer("spare", target.numel()).view(target.shape)
        factors.products[expert].rows(rows, columns, delta, spare)
        target.add_(delta.mul_(factors.scaling))
        if factors.row_scale is not None:
            target.mul_(factors.row_scale[rows, None])
        if factors.column_scale is not None:
            target.mul_(factors.column_scale[None, columns])

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


def _wanted(adapter: Adapter) -> list[str]:
    """Every name of the model that the adapter speaks of, the weights of its updates first."""
    names = [update.tensor for update in adapter.updates.values()]
    names += [update.bias_tensor for update in adapter.updates.values() if update.keys.bias is not None]
    wrapped = [name for update in adapter.updates.values() for name in update.parameters]
    owners = sorted({name.rpartition(".")[0] + "." for name in wrapped})
    return [*owners, *names, *adapter.tensors, *adapter.rows, *adapter.beneath]
