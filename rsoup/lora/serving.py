"""What a server of adapters does not accept of one that is about to be written, and the command that serves it.

Read in vLLM 0.33.0 (vllm/lora/peft_helper.py, lora_model.py, utils.py, vllm/config/lora.py), SGLang 0.5.23
(sglang/srt/lora/lora.py, lora_manager.py, mem_pool.py, utils.py) and llama.cpp (convert_lora_to_gguf.py,
src/llama-adapter.h, src/llama-adapter.cpp).
"""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from rsoup.errors import UsageError, listing, show
from rsoup.lora.keys import PREFIX, AdapterKeys, sorted_keys
from rsoup.tensors import Header

SERVERS: Final = ("vllm", "sglang", "llamacpp")
VLLM_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_LABELS: Final = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp"}
_FOLD: Final = "--fold, which writes whole weights"
# Every other init changes the base when PEFT loads the adapter; a server never does that.
_PLAIN_INITS: Final = ("gaussian", "orthogonal", "eva", "mica", "lora_ga", "true", "false")
_VLLM_EMBEDDINGS: Final = ("embed_tokens", "lm_head", "wte")
_VLLM_HEADS: Final = ("classifier", "score")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a server does not accept, and what to type or change."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class _Adapter:
    server: str
    config: Mapping[str, object]
    header: Header
    keys: AdapterKeys

    @property
    def label(self) -> str:
        return _LABELS[self.server]

    def unserved(self, what: str, names: Iterable[str] = (), remedy: str = _FOLD) -> Finding:
        named = listing(list(names))
        return Finding(f"{self.label} serves no {what}{': ' if named else ''}{named}", remedy)

    def table(self, key: str) -> Mapping[str, object]:
        found = self.config.get(key)
        return found if isinstance(found, Mapping) else {}

    def texts(self, key: str) -> list[str]:
        found = self.config.get(key)
        return list(map(str, found)) if isinstance(found, Sequence) and not isinstance(found, str) else []

    def ranks(self) -> dict[str, int]:
        """The rank of every module; that of experts, which share a factor, is the configuration's."""
        r = self.config.get("r")
        stacked = tuple(f".{name.rpartition('.')[0]}" for name in self.texts("target_parameters"))
        ranks = {module: self.header[keys.a].shape[0] for module, keys in self.keys.factors.items()}
        experts = [m for m in ranks if f".{m}".removesuffix(".base_layer").endswith(stacked)]
        return ranks | (dict.fromkeys(experts, r) if isinstance(r, int) else {})


def lint(server: str, config: Mapping[str, object], header: Header) -> list[Finding]:
    """All that `server` would refuse, ignore or compute wrongly in this adapter; none for one it serves exactly.

    `config` is its adapter_config.json, `header` its tensors. Raises UsageError E0210 for an unknown server,
    RefusedFileError E0821, E0822 for tensors that are not an adapter's.
    """
    adapter = _Adapter(_known(server), config, header, sorted_keys(header, "the adapter"))
    numbers = list(_numbers(adapter)) or list(_scalings(adapter))
    return [*numbers, *_methods(adapter), *_whole_tensors(adapter), *_factors(adapter), *_modules(adapter)]


def command(
    server: str, base: str | None, adapter_path: str, config: Mapping[str, object], header: Header
) -> str:
    """The shell command that serves the adapter at `adapter_path` as `soup`; for llama.cpp two, joined by `&&`.

    `base` None is written BASE. llama.cpp takes `owner/name` for a model of the Hub (a folder: `./owner/name`), and
    BASE.gguf is the base, converted. Raises like `lint`.
    """
    adapter = _Adapter(_known(server), config, header, sorted_keys(header, "the adapter"))
    path, model = _path(adapter_path), "BASE" if base is None else _path(base)
    named = [config.get("r"), *adapter.table("rank_pattern").values()]
    rank = max([1, *adapter.ranks().values(), *(value for value in named if isinstance(value, int))])
    if server == "llamacpp":
        return _llamacpp(path, model)
    if server == "sglang":
        largest = ["--max-lora-rank", str(rank)]
        return shlex.join(
            ["sglang", "serve", "--model-path", model, *largest, "--lora-paths", f"soup={path}"]
        )
    largest = ["--max-lora-rank", str(next((step for step in VLLM_RANKS if step >= rank), VLLM_RANKS[-1]))]
    # vLLM takes NAME=PATH for JSON as soon as there is a comma in it; older ones split at every "=".
    module = json.dumps({"name": "soup", "path": path}) if {",", "="} & set(path) else f"soup={path}"
    return shlex.join(["vllm", "serve", model, "--enable-lora", *largest, "--lora-modules", module])


def _llamacpp(path: str, model: str) -> str:
    base = ["--base-model-id" if re.fullmatch(r"\w[\w.-]*/[\w.-]+", model) else "--base", model]
    # llama-server splits what follows --lora at commas.
    out = "soup.gguf" if "," in path else f"{path}.gguf"
    convert = ["python", "convert_lora_to_gguf.py", *base, "--outtype", "f32", "--outfile", out, path]
    return f"{shlex.join(convert)} &&\n{shlex.join(['llama-server', '--model', 'BASE.gguf', '--lora', out])}"


def _path(text: str) -> str:
    bare = text.rstrip("/") or text
    return f"./{bare}" if bare.startswith("-") else bare


def _known(server: str) -> str:
    if server in SERVERS:
        return server
    near = difflib.get_close_matches(server, SERVERS, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(SERVERS)}"
    raise UsageError("E0210", f"there is no server '{show(server)}'", hint=hint)


def _numbers(adapter: _Adapter) -> Iterator[Finding]:
    """SGLang cuts its buffers at r, vLLM asks ranks of patterns for an int, llama.cpp takes α = 0 for s = 1."""
    remedy = "write them so in adapter_config.json"
    ranks = {"r": adapter.config.get("r"), **adapter.table("rank_pattern")}
    alphas = {"lora_alpha": adapter.config.get("lora_alpha"), **adapter.table("alpha_pattern")}
    if bad := [key for key, value in ranks.items() if type(value) is not int or value < 1]:
        yield Finding(f"{adapter.label} takes whole numbers from 1 as ranks; not so {listing(bad)}", remedy)
    if bad := [key for key, value in alphas.items() if type(value) not in (int, float) or not value]:
        yield Finding(f"{adapter.label} takes numbers other than 0 as alphas; not so {listing(bad)}", remedy)


def _scalings(adapter: _Adapter) -> Iterator[Finding]:
    server, r, ranks = adapter.server, adapter.config["r"], adapter.ranks()
    remedy = f"--rank {min(ranks.values(), default=1)}, one rank and scaling for all; or {_FOLD}"
    high = {module: rank for module, rank in ranks.items() if rank > VLLM_RANKS[-1]}
    if server == "vllm" and high:
        what = f"vLLM serves ranks up to {VLLM_RANKS[-1]}; {max(high.values())} in {listing(list(high))}"
        yield Finding(what, f"--rank {VLLM_RANKS[-1]}")
    other = [module for module, rank in ranks.items() if rank != r]
    if server == "sglang" and other:
        yield Finding(f"SGLang serves one rank, here r = {r}; another in {listing(other)}", remedy)
    wrong = [m for m, rank in ranks.items() if not math.isclose(_meant(adapter, m, rank), _applied(adapter, rank))]  # fmt: skip
    if wrong:
        # 0.33.0 reads the patterns; releases that people run may not.
        label = "an older vLLM" if server == "vllm" else adapter.label
        by = "lora_alpha / its rank" if server == "llamacpp" else "lora_alpha and r"
        yield Finding(f"{label} scales every module by {by} alone: wrong for {listing(wrong)}", remedy)


def _meant(adapter: _Adapter, module: str, rank: int) -> float:
    """α/r as PEFT has it; the first pattern that fits the module's name wins."""
    patterns = adapter.table("alpha_pattern").items()
    fitting = (alpha for pattern, alpha in patterns if re.match(rf"(.*\.)?({pattern})$", module))
    alpha = cast("float", next(fitting, adapter.config["lora_alpha"]))
    return alpha / math.sqrt(rank) if adapter.config.get("use_rslora") else alpha / rank


def _applied(adapter: _Adapter, rank: int) -> float:
    """α/r as the server has it: one lora_alpha for all, rsLoRA in vLLM alone, r of each tensor in llama.cpp."""
    config, server = adapter.config, adapter.server
    divisor = rank if server == "llamacpp" else cast("int", config["r"])
    root = server == "vllm" and config.get("use_rslora")
    return cast("float", config["lora_alpha"]) / (math.sqrt(divisor) if root else divisor)


def _methods(adapter: _Adapter) -> Iterator[Finding]:
    config, server = adapter.config, adapter.server
    kind, init = str(config.get("peft_type", "LORA")), config.get("init_lora_weights")
    if kind.upper() != "LORA":
        yield adapter.unserved(f"peft_type {show(kind, 40)}")
    magnitudes = [module for module, keys in adapter.keys.factors.items() if keys.magnitude]
    if config.get("use_dora") or magnitudes:
        yield adapter.unserved("DoRA (use_dora)", magnitudes)
    if init is not None and str(init).lower() not in _PLAIN_INITS:
        yield adapter.unserved(f"init_lora_weights {show(init, 40)}, which changes the base")
    if config.get("alora_invocation_tokens") and server != "llamacpp":
        yield adapter.unserved("activated LoRA (alora_invocation_tokens)", remedy="--serve llamacpp")
    if (parameters := adapter.texts("target_parameters")) and server != "vllm":
        yield adapter.unserved("stacked experts (target_parameters)", parameters, f"--serve vllm; or {_FOLD}")


def _whole_tensors(adapter: _Adapter) -> Iterator[Finding]:
    """Tensors beside the factors: vLLM and llama.cpp's converter stop at them, SGLang passes over most."""
    config, keys, on_vllm = adapter.config, adapter.keys, adapter.server == "vllm"
    saved = adapter.texts("modules_to_save")
    full = [name for name in keys.tensors if not any(f".{part}." in f".{name}" for part in saved)]
    if refused := [name for name in saved if not on_vllm or name.rpartition(".")[2] not in _VLLM_HEADS]:
        yield adapter.unserved("whole modules (modules_to_save)", refused)
    biases = [part.bias.removeprefix(PREFIX) for part in keys.factors.values() if part.bias]
    biases += [name for name in full if name.endswith(".bias")]
    if config.get("lora_bias") or config.get("bias", "none") != "none" or biases:
        yield adapter.unserved("biases (bias, lora_bias)", biases)
    if config.get("trainable_token_indices") or keys.rows:
        yield adapter.unserved("trained token rows (trainable_token_indices)", keys.rows)
    skipped = (".embed_tokens.weight", ".lm_head.weight")
    others = [name for name in full if not name.endswith(".bias")]
    others += [name for name in keys.beneath if on_vllm and not f".{name}".endswith(skipped)]
    if others:
        yield adapter.unserved("tensors beside lora_A and lora_B", others)


def _factors(adapter: _Adapter) -> Iterator[Finding]:
    pairs = {m: (adapter.header[keys.a], adapter.header[keys.b]) for m, keys in adapter.keys.factors.items()}
    if convolutions := [m for m, pair in pairs.items() if any(len(spec.shape) > 2 for spec in pair)]:
        yield adapter.unserved("convolutions", convolutions)
    if packed := [m for m, pair in pairs.items() if any(spec.dtype.kind != "float" for spec in pair)]:
        yield adapter.unserved("factors of other than floating-point numbers", packed, "--dtype bfloat16")


def _modules(adapter: _Adapter) -> Iterator[Finding]:
    factors, leaf = adapter.keys.factors, {m: m.rpartition(".")[2] for m in adapter.keys.factors}
    heads = [module for module, name in leaf.items() if name == "lm_head"]
    if adapter.server == "llamacpp" and heads:
        remedy = f"nothing where the base has an lm_head of its own; else {_FOLD}"
        yield adapter.unserved("lm_head that is tied to the embedding", heads, remedy)
    strange = [m for m, keys in factors.items() if keys.embedding and leaf[m] not in _VLLM_EMBEDDINGS]
    if adapter.server == "vllm" and strange:
        yield adapter.unserved(f"embeddings but {', '.join(_VLLM_EMBEDDINGS)}", strange)
    if adapter.server == "sglang":
        yield from _sglang(adapter, leaf)


def _sglang(adapter: _Adapter, leaf: Mapping[str, str]) -> Iterator[Finding]:
    targets = adapter.config.get("target_modules")
    if not isinstance(targets, list) and targets not in ("all", "all-linear"):
        remedy = f'"target_modules": {show(json.dumps(sorted(set(leaf.values()))))} in adapter_config.json'
        yield Finding(f"SGLang takes a list as target_modules; this is {show(targets, 60)}", remedy)
    if outside := [m for m in leaf if not re.search(r"layers\.\d+\.|embed_tokens|lm_head", m)]:
        yield adapter.unserved("modules outside layers.N, embed_tokens and lm_head", outside)
    # It joins the three into one matrix, and fills in nothing but a missing k_proj.
    joined: dict[str, set[str]] = {}
    for module, name in leaf.items():
        if name in ("q_proj", "k_proj", "v_proj"):
            joined.setdefault(module.rpartition(".")[0], set()).add(name)
    if partial := [parent for parent, names in joined.items() if not {"q_proj", "v_proj"} <= names]:
        yield adapter.unserved("attention without an adapter on both q_proj and v_proj", partial)
