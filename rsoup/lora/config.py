"""adapter_config.json → AdapterConfig: what it says of the numbers in the file; what cannot be mixed is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rsoup.errors import IncompatibleError, RefusedFileError, show
from rsoup.storage.files import parse_json

MAX_CONFIG_BYTES: Final = 10_000_000
LOW_RANK: Final = ("LORA", "ADALORA")
TOKENS: Final = "TRAINABLE_TOKENS"  # rows of an embedding and nothing else
FROM_BASE: Final = ("pissa", "olora")
_HARMLESS_INITS: Final = ("gaussian", "orthogonal", "eva", "mica", "true", "false")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The fields of an adapter's configuration that say what its tensors mean, and which model they belong to.

    `init` is how the factors began where that changed the base (`pissa`, `olora`), else None. `raw` is all of it.
    """

    peft_type: str
    r: int
    lora_alpha: float
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    use_dora: bool
    lora_bias: bool
    bias: str
    fan_in_fan_out: bool
    init: str | None
    base: str | None
    revision: str | None
    task_type: str | None
    raw: Mapping[str, object] = field(repr=False)

    @property
    def is_low_rank(self) -> bool:
        """Whether its updates are products of two factors."""
        return self.peft_type in LOW_RANK

    def rank(self, module: str) -> int:
        """The rank this configuration gives a module: the first pattern that fits, else `r`."""
        return int(_by_pattern(self.rank_pattern, module, self.r))

    def scaling(self, module: str, rank: int) -> float:
        """s = α/r, or α/√r with rsLoRA: what B·A of a module with factors of this rank is multiplied by.

        AdaLoRA divides by its initial rank + 10⁻⁵, however many ranks it dropped since. Source: PEFT 0.21, `LoraLayer.update_layer`, `SVDLinear.get_delta_weight`.
        """
        alpha = float(_by_pattern(self.alpha_pattern, module, self.lora_alpha))
        if self.peft_type == "ADALORA":
            return (alpha if alpha > 0 else float(rank)) / (self.r + 1e-5)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def _by_pattern(patterns: Mapping[str, float], module: str, otherwise: float) -> float:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def parse_config(data: bytes, where: str) -> AdapterConfig:
    """The configuration in the bytes of an adapter_config.json.

    Raises RefusedFileError E0808 (not JSON) or E0820 (a field of another form), IncompatibleError E0340 where it
    describes something that no average of weights gives.
    """
    raw = parse_json(data, where)
    if not isinstance(raw, dict):
        raise _wrong("the whole of it", "an object", raw, where)
    peft_type = _typed(raw, "peft_type", str, "a text", where)
    kind = peft_type.upper()
    low_rank = kind in LOW_RANK
    found = AdapterConfig(
        peft_type=kind,
        r=_integer(raw, "init_r" if kind == "ADALORA" else "r", 8, where) if low_rank else 1,
        lora_alpha=_number(raw, "lora_alpha", 8, where) if low_rank else 1.0,
        rank_pattern=_pattern(raw, "rank_pattern", where) if kind == "LORA" else {},
        alpha_pattern=_pattern(raw, "alpha_pattern", where) if low_rank else {},
        use_rslora=_boolean(raw, "use_rslora", where),
        use_dora=_boolean(raw, "use_dora", where),
        lora_bias=_boolean(raw, "lora_bias", where),
        bias=_typed(raw, "bias", str, "a text", where, default="none"),
        fan_in_fan_out=_boolean(raw, "fan_in_fan_out", where),
        init=_init(raw.get("init_lora_weights")) if low_rank else None,
        base=_optional_text(raw, "base_model_name_or_path", where),
        revision=_optional_text(raw, "revision", where),
        task_type=_optional_text(raw, "task_type", where),
        raw=raw,
    )
    if found.is_low_rank:
        if found.peft_type == "LORA" and 0.0 in (found.lora_alpha, *found.alpha_pattern.values()):
            key = "lora_alpha" if found.lora_alpha == 0 else "an α of alpha_pattern"
            raise _wrong(key, "another number than 0, which would undo the adapter", 0, where)
        _refuse(found, where)
    return found


def _init(value: object) -> str | None:
    text = str(value).lower()
    return None if value is None or text in _HARMLESS_INITS else text


_CONVERT = (
    "convert each once where it was trained: save_pretrained(…, path_initial_model_for_weight_conversion=…) writes it "
    "as a plain LoRA"
)
_REFUSALS: Sequence[tuple[Callable[[AdapterConfig], bool], str, str]] = (
    (
        lambda c: c.init is not None and c.init not in FROM_BASE,
        "it began from factors taken out of the base by a method that cannot be repeated ({init})",
        _CONVERT,
    ),
    (lambda c: bool(c.raw.get("kasa_config")), "KaSA cut the base's weights before it was trained", _CONVERT),
    (
        lambda c: bool(c.raw.get("use_qalora")),
        "QALoRA pools the inputs of its factors by groups",
        "merge it into its base with PEFT, then mix full checkpoints",
    ),
    (
        lambda c: bool(c.raw.get("monteclora_config")),
        "MonteCLoRA draws its factors at random",
        "there is no one update to average",
    ),
    (
        lambda c: bool(c.raw.get("arrow_config")),
        "Arrow chooses among adapters token by token",
        "mix the adapters it chooses from",
    ),
    (
        lambda c: bool(c.raw.get("layer_replication")),
        "it sits on a model whose layers were replicated",
        "merge it into that model with PEFT, then mix full checkpoints",
    ),
    (
        lambda c: bool(c.raw.get("use_bdlora")),
        "its factors are block-diagonal (BD-LoRA)",
        "merge it into its base with PEFT, then mix full checkpoints",
    ),
    (
        lambda c: bool(c.raw.get("megatron_config")),
        "it was trained on a model split by Megatron",
        "export it as a PEFT adapter of the model as transformers loads it",
    ),
    (
        lambda c: c.use_dora and c.lora_bias,
        "DoRA and biases of the factors together have no defined meaning",
        "PEFT refuses it as well; was the file edited?",
    ),
)


def _refuse(config: AdapterConfig, where: str) -> None:
    for applies, what, hint in _REFUSALS:
        if applies(config):
            raise IncompatibleError(
                "E0340",
                f"this adapter cannot be mixed: {what.format(init=show(config.init))}",
                where=where,
                hint=hint,
            )


def _wrong(key: str, wanted: str, value: object, where: str) -> RefusedFileError:
    return RefusedFileError(
        "E0820",
        f"not an adapter's configuration: {key} is {show(repr(value), 40)}, not {wanted}",
        where=where,
        hint="PEFT writes it beside adapter_model.safetensors: fetch or save the adapter again",
    )


def _typed(
    raw: Mapping[str, object], key: str, kind: type[str], wanted: str, where: str, default: str | None = None
) -> str:
    value = raw.get(key, default)
    if not isinstance(value, kind):
        raise _wrong(key, wanted, value, where)
    return value


def _optional_text(raw: Mapping[str, object], key: str, where: str) -> str | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise _wrong(key, "a text", value, where)
    return value or None


def _boolean(raw: Mapping[str, object], key: str, where: str) -> bool:
    value = raw.get(key, False)
    if value is not None and not isinstance(value, bool):
        raise _wrong(key, "true or false", value, where)
    return bool(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(raw: Mapping[str, object], key: str, default: float, where: str) -> float:
    value = raw.get(key, default)
    if not _is_number(value):
        raise _wrong(key, "a number", value, where)
    assert isinstance(value, int | float)
    return float(value)


def _integer(raw: Mapping[str, object], key: str, default: int, where: str) -> int:
    value = _number(raw, key, default, where)
    if value != int(value) or value < 1:
        raise _wrong(key, "a positive integer", raw.get(key), where)
    return int(value)


def _pattern(raw: Mapping[str, object], key: str, where: str) -> dict[str, float]:
    value = raw.get(key) or {}
    if not isinstance(value, dict) or not all(map(_is_number, value.values())):
        raise _wrong(key, "a table of numbers", value, where)
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            raise _wrong(f"the pattern '{show(pattern)}' of {key}", "a regular expression", str(error), where) from None  # fmt: skip
    return dict(value)
