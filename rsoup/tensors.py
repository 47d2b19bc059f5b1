"""TensorSpec and Header: a checkpoint before its weights are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rsoup.errors import UsageError, show

if TYPE_CHECKING:
    import torch

Kind = Literal["float", "integer", "bool", "complex", "packed"]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: its safetensors name, its size in bits, and what may be done with it."""

    name: str
    bits: int
    kind: Kind
    torch_name: str = ""
    maximum: float = math.inf  # the largest finite value
    significand_bits: int = 0  # with the hidden bit; 0 where it does not apply

    @property
    def itemsize(self) -> int:
        """Bytes per element; raises for sub-byte types, which are never addressed by element."""
        if self.bits % 8:
            msg = f"{self.name} has {self.bits} bits per element"
            raise ValueError(msg)
        return self.bits // 8

    @property
    def overflow(self) -> float:
        """The smallest positive number that rounds to more than `maximum`: half a step beyond it."""
        if math.isinf(self.maximum):
            return math.inf
        return self.maximum + 2.0 ** (math.frexp(self.maximum)[1] - self.significand_bits - 1)

    @property
    def remedy(self) -> str:
        """What to type when a soup's elements are too large for it."""
        if self.name == "F64":
            return "no type is wider: use smaller λ, or leave out the checkpoint that is so large"
        if self.name in ("F32", "BF16"):
            return "store it in the only wider type: --dtype float64"
        return "store it in a wider type: --dtype float32 or --dtype bfloat16"

    @property
    def torch(self) -> torch.dtype:
        """The torch dtype of the same bits."""
        import torch

        found = getattr(torch, self.torch_name)
        assert isinstance(found, torch.dtype)
        return found


DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        DType("F64", 64, "float", "float64", math.inf, 53),
        DType("F32", 32, "float", "float32", (2 - 2.0**-23) * 2.0**127, 24),
        DType("BF16", 16, "float", "bfloat16", (2 - 2.0**-7) * 2.0**127, 8),
        DType("F16", 16, "float", "float16", 65504.0, 11),
        DType("F8_E5M2", 8, "float", "float8_e5m2", 57344.0, 3),
        DType("F8_E4M3", 8, "float", "float8_e4m3fn", 448.0, 4),
        DType("I64", 64, "integer", "int64"),
        DType("I32", 32, "integer", "int32"),
        DType("I16", 16, "integer", "int16"),
        DType("I8", 8, "integer", "int8"),
        DType("U64", 64, "integer", "uint64"),
        DType("U32", 32, "integer", "uint32"),
        DType("U16", 16, "integer", "uint16"),
        DType("U8", 8, "integer", "uint8"),
        DType("BOOL", 8, "bool", "bool"),
        DType("C64", 64, "complex", "complex64"),
        DType("F8_E8M0", 8, "packed", "float8_e8m0fnu"),
        DType("F8_E4M3FNUZ", 8, "packed", "float8_e4m3fnuz"),
        DType("F8_E5M2FNUZ", 8, "packed", "float8_e5m2fnuz"),
        DType("F6_E2M3", 6, "packed"),
        DType("F6_E3M2", 6, "packed"),
        DType("F4", 4, "packed"),
    )
}

_SPELLINGS = {
    "float64": "F64", "fp64": "F64", "f64": "F64", "double": "F64",
    "float32": "F32", "fp32": "F32", "f32": "F32", "float": "F32",
    "bfloat16": "BF16", "bf16": "BF16",
    "float16": "F16", "fp16": "F16", "f16": "F16", "half": "F16",
}  # fmt: skip


def output_dtype(text: str) -> DType:
    """The dtype a user may ask an output to be stored in: float64, float32, bfloat16 or float16.

    The short spellings (`bf16`, `fp32`, …) mean the same. Raises UsageError E0208 for anything else.
    """
    found = _SPELLINGS.get(text.removeprefix("torch.").lower())
    if found is None:
        raise UsageError(
            "E0208",
            f"'{show(text)}' is not a dtype a soup can be stored in",
            hint="one of float32, bfloat16, float16, float64 (or leave it out to keep the ingredients')",
        )
    return DTYPES[found]


def widest(dtypes: Sequence[DType]) -> DType:
    """The one dtype of `dtypes`, or else the narrowest of BF16, F16, F32, F64 that holds all their values."""
    kinds = set(dtypes)
    if len(kinds) == 1:
        return dtypes[0]
    for name in ("BF16", "F16", "F32"):
        candidate = DTYPES[name]
        if all(
            kind.significand_bits <= candidate.significand_bits and kind.maximum <= candidate.maximum
            for kind in kinds
        ):
            return candidate
    return DTYPES["F64"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One row of a header: the element type and the shape of a tensor.

    `kept` is the element type a soup of it is stored in, where that is not the one it is read as: an adapter on
    a bfloat16 base is read as float64.
    """

    dtype: DType
    shape: tuple[int, ...]
    kept: DType | None = None

    @property
    def stored(self) -> DType:
        """The element type a soup of it is stored in."""
        return self.kept or self.dtype

    @property
    def numel(self) -> int:
        """The number of elements: ∏ shape, 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes the elements take, tightly packed, row by row."""
        return self.numel * self.dtype.bits // 8

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


Header = Mapping[str, TensorSpec]
"""Every tensor of a checkpoint by name, in the order of its files."""
