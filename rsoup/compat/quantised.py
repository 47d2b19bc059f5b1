"""Quantised checkpoints: codes and scales are no weights, and their average is no model. Pure.

A method is told by the names it writes, and only where codes (fp8, packed numbers, integers of at most 32
bits) lie beside the scales: ordinary models have tensors called `scale` or `codebooks` too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rsoup.compat.headers import Mismatch
from rsoup.errors import listing, show
from rsoup.tensors import Header, TensorSpec

_METHODS = tuple(
    (method, re.compile(pattern))
    for method, pattern in (
        ("bitsandbytes", r"\.(?:absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format)$|\.quant_state\."),
        ("compressed-tensors", r"\.(?:weight_packed|weight_zero_point|weight_g_idx)$"),
        ("GPTQ or AWQ", r"\.(?:qweight|qzeros|g_idx|qscales_hp)$"),
        ("NVFP4", r"\.(?:weight_scale_2|weight_global_scale|weight_sf|weight_sf_rowmajor)$"),
        ("MXFP4", r"_blocks$"),
        ("AQLM", r"\.codebooks$"),
        ("VPTQ", r"\.(?:centroids|res_centroids)(?:\.weight)?$"),
        ("SpQR", r"\.dense_weights$"),
        ("HQQ or SINQ", r"\.W_q$"),
        ("EETQ", r"\.weight_scales$"),
        ("MLX", r"\.(?:qbiases|biases)$"),
        ("HIGGS", r"\.tables2?$"),
        ("quanto", r"\._data$|\._scale$"),
        ("torchao", r"_qdata$|:qdata$|\.tensor_impl"),
    )
)  # fmt: skip
_SCALE = re.compile(r"(?:^|[._])scales?(?:_inv|_weight)?$")
_ORDER = "mix the original checkpoints, then quantise the soup"
_MATRIX = 2


def quantised(name: str, header: Header, config: Mapping[str, object] | None) -> Mismatch | None:
    """How this checkpoint is quantised, as a mismatch; None where its floats are the weights themselves."""
    method, tensors = _by_tensors(header)
    described = _described(config)
    if method is None and described is None:
        return None
    if method is None:
        what = f"the config.json of '{show(name)}' says it is quantised ({show(described)}), and its tensors are plain numbers"
        guess = "were the weights restored? then take quantization_config out of its config.json"
        return Mismatch("quantised", what, (), guess)
    shown = f"{method}; config.json says {show(described)}" if described else method
    what = f"'{show(name)}' is quantised ({shown}): {listing(tensors, 3)} hold codes or scales, not weights"
    return Mismatch("quantised", what, tuple(tensors), _ORDER)


def _described(config: Mapping[str, object] | None) -> str | None:
    """What config.json says of quantisation, at its top or for a text model inside."""
    for part in (config or {}, (config or {}).get("text_config")):
        if not isinstance(part, Mapping):
            continue
        for key in ("quantization_config", "compression_config", "quantization"):
            value = part.get(key)
            if isinstance(value, Mapping) and value:
                return str(value.get("quant_method") or value.get("format") or f"see its {key}")
    return None


def _by_tensors(header: Header) -> tuple[str | None, list[str]]:
    codes = {tensor for tensor, spec in header.items() if _is_code(spec)}
    if not codes:
        return None, []
    near = codes | {_module(tensor) for tensor in codes}
    for method, pattern in _METHODS:
        found = [
            tensor
            for tensor in header
            if (match := pattern.search(tensor)) and (tensor in codes or tensor[: match.start()] in near)
        ]
        if found:
            return method, found
    return _scaled(header, codes)


def _scaled(header: Header, codes: set[str]) -> tuple[str | None, list[str]]:
    """Matrices of codes with scales beside them, or packed numbers without a name we know."""
    matrices = {_module(tensor): tensor for tensor in codes if len(header[tensor].shape) >= _MATRIX}
    found = [tensor for tensor in header if _SCALE.search(tensor) and _module(tensor) in matrices]
    if found:
        kind = header[matrices[_module(found[0])]].dtype
        return ("fp8 with scales" if kind.name.startswith("F8") else f"{kind.name} with scales"), found
    packed = [
        tensor for tensor in codes if header[tensor].dtype.kind == "packed" and not _is_bare(header[tensor])
    ]
    if packed:
        return " and ".join(sorted({header[tensor].dtype.name for tensor in packed})), sorted(packed)
    return None, []


def _is_code(spec: TensorSpec) -> bool:
    if spec.dtype.kind == "integer":
        return spec.dtype.bits <= 32 and spec.numel > 1
    return spec.dtype.kind == "packed" or spec.dtype.name.startswith("F8")


def _is_bare(spec: TensorSpec) -> bool:
    """Whole numbers of their own that only cannot be averaged here: equal ones are copied, others refused."""
    return spec.dtype.name.endswith("FNUZ")


def _module(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def bare_fp8(header: Header) -> list[str]:
    """A note if weights are stored as fp8 without any scale: a mean of them keeps 3 or 4 bits."""
    found = [tensor for tensor, spec in header.items() if spec.dtype.kind == "float" and spec.dtype.bits == 8]
    if not found:
        return []
    return [
        f"stored in fp8 without scales, and so rounded to 3 or 4 bits: {listing(found, 3)}; --dtype bfloat16 keeps more"
    ]
