"""Adapters other than LoRA, folded into the weights of one module at a time by PEFT itself.

The one place where peft is imported: what a LoHa or an (IA)³ adapter means is what PEFT makes of it.
No model is built: a module is put alone at its own path, so that PEFT knows it by its name in the model.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from rsoup.errors import IncompatibleError, Problem, RefusedFileError, RsoupError, listing, show
from rsoup.lora.wholes import EMBEDDINGS

if TYPE_CHECKING:
    import torch

Kind = Literal["linear", "conv1d", "conv2d", "embedding", "norm"]

FOLDABLE: frozenset[str] = frozenset(
    ("BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "GLORA", "GRALORA", "HIRA", "HRA", "IA3",
     "LN_TUNING", "LOHA", "LOKR", "MISS", "OFT", "PEANUT", "PVERA", "ROAD", "SHIRA", "SUPERTUNING",
     "TRAINABLE_TOKENS", "VBLORA", "VERA", "WAVEFT")
)  # fmt: skip

_TOKENS = "it puts virtual tokens before the input and changes no weights"
_DECOMPOSED = "its tensors need a decomposition of the base that is not stored with them"
_WHOLE = "what one module gets depends on all the other modules it adapts"
_INPUT = "what it adds depends on the input, so no weights hold it"
_REASONS: Mapping[str, str] = {
    **dict.fromkeys(("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING"), _TOKENS),
    **dict.fromkeys(("CPT", "CARTRIDGE", "ADAPTION_PROMPT"), _TOKENS),
    **dict.fromkeys(("ADAMSS", "OSF", "PSOFT"), _DECOMPOSED),
    **dict.fromkeys(("FROD", "RANDLORA", "TINYLORA", "UNILORA"), _WHOLE),
    **dict.fromkeys(("LILY", "POLY", "SHADOW", "XLORA"), _INPUT),
    **dict.fromkeys(("LORA", "ADALORA"), "it is not foreign: rsoup folds it without PEFT"),
}

_ROOT, _INNER = "base_model.", "base_model.model."
_NARROWED: Mapping[str, int] = {  # as wide as the widest module: others use the first part of this axis
    "base_model.pvera_A": 1, "base_model.pvera_B": 0, "base_model.vera_A": 1, "base_model.vera_B": 0
}  # fmt: skip
_DRAWN = (*_NARROWED, "supertuning_indices")  # where a file lacks them, PEFT draws them from the whole model
_ELSEWHERE = frozenset(  # which modules, and where from: the tensors of the file answer it
    ("auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "layers_pattern",
     "layers_to_transform", "modules_to_save", "peft_type", "revision", "runtime_config", "target_modules",
     "task_type")
)  # fmt: skip
_DIMENSIONS: Mapping[str, int] = {"linear": 2, "conv1d": 2, "conv2d": 4, "embedding": 2, "norm": 1}
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True, slots=True)
class ForeignKeys:
    """The tensors of an adapter file by what they are for.

    `modules`: module → {name behind the module's: key in the file}. `shared`: keys of tensors that all
    modules use, to be put under the same names into the `state` of each. `replaced`: tensor of the base → key of the
    whole tensor that takes its place.
    """

    modules: dict[str, dict[str, str]]
    shared: tuple[str, ...]
    replaced: dict[str, str]


def modules_of(config: Mapping[str, object], keys: Iterable[str]) -> ForeignKeys:
    """The keys of an adapter file sorted by module, each of them exactly once.

    `config` is the parsed adapter_config.json. Raises IncompatibleError E0840 for a type that cannot be
    folded and RefusedFileError E0841 with the keys that belong to nothing.
    """
    mark = _mark(config)
    modules: dict[str, dict[str, str]] = {}
    shared, replaced, unplaced = list[str](), dict[str, str](), list[str]()
    for key in keys:
        name = key.removeprefix(_INNER)
        module, rest = _split(name, mark)
        if name == key:
            (shared if key.startswith(_ROOT + mark) else unplaced).append(key)
        elif module:
            modules.setdefault(module, {})[rest] = key
        elif _is_replaced(config, name):
            replaced[name] = key
        else:
            unplaced.append(key)
    for own in modules.values():
        unplaced += [] if any(rest.startswith(mark) for rest in own) else own.values()
    if unplaced:
        told = f"The adapter holds tensors that belong to nothing it adapts: {listing(unplaced)}."
        hint = "Save it again with save_pretrained; the modules of whole tensors belong into modules_to_save."
        raise RefusedFileError("E0841", told, hint=hint)
    return ForeignKeys(modules, tuple(shared), replaced)


def adapted_module(
    config: Mapping[str, object],
    module: str,
    state: Mapping[str, torch.Tensor],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kind: Kind,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weight and the bias of `module` with the adapter folded in, as PEFT's merge_and_unload leaves them.

    `config` is the parsed adapter_config.json, `module` the name of the module in the model, `state` its
    tensors and the shared ones as `modules_of` names them, `kind` what it is ("conv1d": GPT-2's transposed
    linear layer). Both results are float64 and shaped like what was given; nothing given is changed.

    Raises IncompatibleError E0840 (a type that cannot be folded), E0844 (PEFT does not apply it to such a
    module), E0845 (the installed PEFT does not know the type), RefusedFileError E0842 (missing, unexpected or
    misshapen tensors) and E0843 (settings that PEFT does not know or refuses).
    """
    import torch

    mark = _mark(config)
    with _undisturbed(), torch.no_grad():
        settings = _settings(config, module)
        model = _wrapped(settings, module, weight, bias, kind)
        _load(model, mark, module, state)
        with _refusals("E0844", module):
            layer = model.merge_and_unload().get_submodule(module)
        folded = layer.weight.detach().contiguous()
        folded_bias = None if bias is None else layer.bias.detach().contiguous()
    if folded.shape != weight.shape or (bias is None and getattr(layer, "bias", None) is not None):
        raise _cannot("E0844", module, "it would have another shape, or a bias it has not")
    return folded, folded_bias


def _mark(config: Mapping[str, object]) -> str:
    """What the names of the adapter's tensors begin with, behind the module's name."""
    peft_type = str(config.get("peft_type", ""))
    if peft_type in FOLDABLE:
        return "hada_" if peft_type == "LOHA" else f"{peft_type.lower()}_"
    reason = _REASONS.get(peft_type, "no version of PEFT that rsoup was tested with has it")
    told = f"an adapter of the type '{show(peft_type)}' cannot be folded into weights here: {reason}"
    hint = f"foldable through PEFT, one module at a time: {', '.join(sorted(FOLDABLE))}"
    raise IncompatibleError("E0840", told, hint=hint)


def _split(name: str, mark: str) -> tuple[str, str]:
    """`name` as (module, what is behind it); the module is empty where the name is no adapter's."""
    parts = name.split(".")
    for at in range(len(parts) - 1, 0, -1):
        if parts[at].startswith(mark) or (parts[at] == "base_layer" and at == len(parts) - 2):
            return ".".join(parts[:at]), ".".join(parts[at:])
    return "", ""


def _is_replaced(config: Mapping[str, object], tensor: str) -> bool:
    """Whether PEFT stores it whole under that name: bias "all", modules_to_save, a grown vocabulary."""
    module, _, leaf = tensor.rpartition(".")
    if config.get("bias") == "all" and leaf == "bias":
        return bool(module)
    parts, saved = module.split("."), config.get("modules_to_save")
    owners = accumulate(parts, "{}.{}".format)
    if isinstance(saved, list) and any(owner.endswith(tuple(map(str, saved))) for owner in owners):
        return bool(module)
    return leaf in ("weight", "bias") and parts[-1] in EMBEDDINGS


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Nothing PEFT does inside is seen outside: no warning, no random number, no CUDA extension built."""
    import torch

    with _ONE_AT_A_TIME, warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        import peft.tuners.boft.layer as boft

        names = vars(boft)
        before = names.get("_FBD_CUDA")
        names["_FBD_CUDA"] = False  # None makes BOFT call a compiler
        try:
            yield
        finally:
            names["_FBD_CUDA"] = before


@contextmanager
def _refusals(code: Literal["E0843", "E0844"], module: str) -> Iterator[None]:
    """What PEFT raises inside, whatever it is, as an error with `code`."""
    try:
        yield
    except (RsoupError, MemoryError):
        raise
    except Exception as error:
        raise _cannot(code, module, f"{type(error).__name__}: {error}") from error


def _cannot(code: Literal["E0843", "E0844"], module: str, what: str) -> RsoupError:
    if code == "E0844":
        told = f"PEFT cannot fold the adapter into the module '{show(module)}': {show(what, 400)}"
        hint = "Check that the adapter was trained on this base model and on a module of this kind."
        return IncompatibleError(code, told, hint=hint)
    told = f"PEFT does not take the settings of the adapter: {show(what, 400)}"
    hint = "Install the PEFT that wrote it: pip install 'peft==VERSION', with the peft_version in this file."
    return RefusedFileError(code, told, where="adapter_config.json", hint=hint)


def _settings(config: Mapping[str, object], module: str) -> Any:
    """PEFT's own form of `config`, for `module` and no other."""
    from peft import __version__
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    forms: dict[str, Any] = {name.value: form for name, form in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if (form := forms.get(peft_type := str(config["peft_type"]))) is None:
        told = f"The installed PEFT {__version__} has no adapters of the type {peft_type}."
        raise IncompatibleError("E0845", told, hint="pip install --upgrade peft")
    known = {field.name for field in fields(form)}
    unknown = sorted(name for name, value in config.items() if value and name not in known | _ELSEWHERE)
    if unknown:
        raise _cannot("E0843", module, f"PEFT {__version__} does not know {listing(unknown)}")
    with _refusals("E0843", module), warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT only warns of a setting whose meaning it has changed
        given = form.check_kwargs(**{k: deepcopy(v) for k, v in config.items() if k in known - _ELSEWHERE})
        warnings.simplefilter("ignore")
        return form(**given, target_modules=re.escape(module), inference_mode=True)


def _wrapped(settings: Any, module: str, weight: torch.Tensor, bias: torch.Tensor | None, kind: Kind) -> Any:
    """A PeftModel of nothing but the one layer, at its own path."""
    from peft import get_peft_model
    from torch import nn

    with _refusals("E0844", module):
        root = parent = nn.Module()
        *outer, last = module.split(".")
        for name in outer:
            parent.add_module(name, nn.Module())
            parent = parent.get_submodule(name)
        parent.add_module(last, _layer(module, weight, bias, kind))
        return get_peft_model(root, settings, autocast_adapter_dtype=False).double().eval()


def _layer(module: str, weight: torch.Tensor, bias: torch.Tensor | None, kind: Kind) -> torch.nn.Module:
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    shape = tuple(weight.shape)
    if len(shape) != _DIMENSIONS[kind] or (kind == "embedding" and bias is not None):
        raise _cannot("E0844", module, f"a weight of the shape {list(shape)} is no {kind}'s")
    forms: dict[Kind, tuple[Any, ...]] = {
        "linear": (nn.Linear, *shape[::-1]), "conv2d": (nn.Conv2d, *shape[1::-1], shape[2:]),
        "conv1d": (Conv1D, *shape[::-1]), "embedding": (nn.Embedding, *shape), "norm": (nn.LayerNorm, shape),
    }  # fmt: skip
    form, *sizes = forms[kind]
    with torch.device("meta"):  # the values come from the base: none are drawn
        layer: nn.Module = form(*sizes)
    for name, given in (("weight", weight), ("bias", bias)):
        own = None if given is None else nn.Parameter(given.detach().to(torch.float64, copy=True), False)
        layer.register_parameter(name, own)
    return layer


def _load(model: Any, mark: str, module: str, state: Mapping[str, torch.Tensor]) -> None:
    """The tensors of `state` put into `model`, all of them and nothing else."""
    from peft.utils.save_and_load import get_peft_model_state_dict, set_peft_model_state_dict

    prefix = f"{_INNER}{module}."
    with _refusals("E0844", module):
        wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    wants = {name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in wanted.items()}
    given = {name: _as_wanted(name, tensor, wants) for name, tensor in state.items()}
    drawn = [n for n in _DRAWN if n.startswith((mark, _ROOT + mark))]
    problems = [Problem(n, "missing") for n in dict.fromkeys((*wants, *drawn)) if n not in given]
    for name, tensor in given.items():
        shape = tuple(tensor.shape)
        if name not in wants and not name.startswith("base_layer."):
            problems.append(Problem(show(name), "not expected"))
        elif shape != wants.get(name, shape):
            problems.append(Problem(name, f"of the shape {list(shape)}, not {list(wants[name])}"))
    if not problems:
        full = {name if name.startswith(_ROOT) else prefix + name: tensor for name, tensor in given.items()}
        with _refusals("E0844", module):
            result: Any = set_peft_model_state_dict(model, full)
        problems = [Problem(show(name), "not taken by PEFT") for name in result.unexpected_keys]
    if problems:
        told = f"The tensors of the adapter for '{show(module)}' are not those its settings call for."
        hint = "Check that adapter_config.json and the weights beside it were saved together."
        raise RefusedFileError("E0842", told, hint=hint, details=tuple(problems))


def _as_wanted(name: str, tensor: torch.Tensor, wants: Mapping[str, tuple[int, ...]]) -> torch.Tensor:
    if name.endswith("_topk_weights"):  # VB-LoRA; PEFT puts their logarithms into a float32 tensor
        return tensor.float()
    axis = _NARROWED.get(name)
    if axis is None or name not in wants or tensor.ndim != 2 or tensor.shape[axis] < wants[name][axis]:
        return tensor
    return tensor.narrow(axis, 0, wants[name][axis])
