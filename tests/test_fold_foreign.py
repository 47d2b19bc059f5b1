"""--fold of adapters other than LoRA, and of experts that are fused in the adapter and separate on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import peft
import pytest
import torch
from adapters import KINDS, REFUSED, Kind, Made, base_weights, make, make_base, soup_weights, train
from safetensors.torch import load_file, save_file

import rsoup
from rsoup.errors import IncompatibleError, RsoupError
from rsoup.lora.adapted import AdaptedSource
from rsoup.lora.adapter import read_adapter, read_config
from rsoup.lora.foreign_source import ForeignSource
from rsoup.lora.parameters import parameters
from rsoup.storage.checkpoint import open_checkpoint
from rsoup.storage.protocols import Source

FOREIGN = ("loha", "lokr", "ia3", "oft", "boft", "vera", "hra", "trainable-tokens")
EXPERTS = tuple(name for name, kind in KINDS.items() if kind.moe)
QV = ["q_proj", "v_proj"]
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
NORM = ("Unsupported layer type",)  # what PEFT says of a norm that is not torch's own
TIED = ("Model has `tie_word_embeddings=True` and", "Setting `save_embedding_layers` to `True`")
Tensors = dict[str, torch.Tensor]
Edit = Callable[[dict[str, object], Tensors], object]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all tests of this module share."""
    return tmp_path_factory.mktemp("zoo")


def fold(made: Made, out: Path) -> Tensors:
    """The soup 0.6, 0.4 of a base's adapters as full float64 weights."""
    recipe = rsoup.make_recipe(
        [str(adapter) for adapter in made.adapters], mix=["0.6", "0.4"], base=str(made.base), fold=True,
        dtype="float64", max_distance=float("inf"),
    )  # fmt: skip
    rsoup.merge(recipe, out)
    return {name: value for file in out.glob("*.safetensors") for name, value in load_file(file).items()}


def error(made: Made, out: Path) -> float:
    """How far the fold is from the oracle, as a share of how far the oracle is from the base."""
    got = fold(made, out)
    wanted = soup_weights(made.base, made.adapters, [0.6, 0.4], *made.kind.warns)
    base = base_weights(made.base)
    assert got.keys() == wanted.keys()
    assert all(value.dtype == torch.float64 for value in got.values())
    apart = sum((got[name] - wanted[name]).square().sum().item() for name in wanted)
    moved = sum((wanted[name] - base[name]).square().sum().item() for name in wanted if name in base)
    assert moved > 0
    return (apart / moved) ** 0.5


def two(folder: Path, kind: Kind, base: Path) -> Made:
    """Two adapters of a kind on a base of the test's own."""
    return Made(kind, base, (train(folder / "one", kind, 0, base), train(folder / "two", kind, 1, base)))


def kind(config: type[peft.PeftConfig], warns: tuple[str, ...] = (), **settings: object) -> Kind:
    """A way to make two adapters of one configuration."""
    made = lambda: config(**{"target_modules": QV, "task_type": "CAUSAL_LM", **settings})  # noqa: E731
    return Kind((made, made), warns=warns)


def edited(made: Made, folder: Path, edit: Edit) -> Made:
    """The first adapter twice, `edit`ed: its configuration and its tensors."""
    shutil.copytree(made.adapters[0], folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    edit(config, tensors)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return Made(made.kind, made.base, (folder, made.adapters[1]))


def refusal(made: Made, out: Path) -> RsoupError:
    """What a fold is refused with; nothing may have been written."""
    with pytest.raises(RsoupError) as found:
        fold(made, out)
    assert not out.exists()
    return found.value


@pytest.mark.parametrize("name", [*FOREIGN, *EXPERTS])
def test_a_fold_is_the_soup_of_what_peft_merges(zoo: Path, tmp_path: Path, name: str) -> None:
    """Every type and every way to store experts, in float64."""
    assert error(make(name, zoo), tmp_path / "out") < 1e-10


@pytest.mark.parametrize(
    ("arch", "made"),
    [
        ("llama-biases", kind(peft.IA3Config, feedforward_modules=[])),  # multiplies the bias as well
        ("llama-biases", kind(peft.OFTConfig, oft_block_size=8, bias="all")),
        ("gpt2", kind(peft.IA3Config, target_modules=["c_attn", "c_proj"], feedforward_modules=["c_proj"], fan_in_fan_out=True)),
        ("gpt2", kind(peft.VeraConfig, target_modules=["c_attn"], r=4, fan_in_fan_out=True)),
        ("conv", kind(peft.LoHaConfig, target_modules=["first", "last"], task_type=None, r=2, alpha=4)),
        ("llama", kind(peft.LNTuningConfig, NORM, target_modules=["input_layernorm", "norm"])),
        ("llama", kind(peft.LoKrConfig, r=4, alpha=8, modules_to_save=["lm_head"])),
        ("llama-tied", kind(peft.LoHaConfig, TIED, r=4, alpha=8, target_modules=[*QV, "lm_head"])),
    ],
)  # fmt: skip
def test_layers_of_every_kind_fold(tmp_path: Path, arch: str, made: Kind) -> None:
    """Biases, GPT-2's transposed layers, convolutions, norms, whole tensors, a head tied to the embeddings."""
    base = make_base(tmp_path / "base", arch)
    assert error(two(tmp_path, made, base), tmp_path / "out") < 1e-10


def test_a_fold_keeps_the_dtype_of_the_base(zoo: Path, tmp_path: Path) -> None:
    """Without --dtype the soup is stored as the base is."""
    made = make("loha", zoo)
    recipe = rsoup.make_recipe(
        [str(adapter) for adapter in made.adapters], uniform=True, base=str(made.base), fold=True,
        max_distance=float("inf"),
    )  # fmt: skip
    rsoup.merge(recipe, tmp_path / "out")

    assert {v.dtype for v in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("name", ["loha", "moe-mixtral", "moe-gpt-oss"])
def test_any_part_of_a_tensor_is_the_same_bytes(zoo: Path, name: str) -> None:
    """Pieces that end inside rows and experts, and pieces that are no elements."""
    made = make(name, zoo)
    base = open_checkpoint(str(made.base), name="base")
    adapter = open_checkpoint(str(made.adapters[0]), name="one")
    config = read_config(adapter)
    source: ForeignSource | AdaptedSource = (
        AdaptedSource(base, read_adapter(adapter))
        if config.is_low_rank
        else ForeignSource(base, adapter, config)
    )
    for tensor in sorted(source.changed):
        whole = whole_of(source, tensor)
        pieces = bytearray()
        while len(pieces) < len(whole):
            piece = bytearray(min(8 * 37, len(whole) - len(pieces)))
            source.read(tensor, len(pieces), memoryview(piece))
            pieces += piece
        assert bytes(pieces) == whole
        with pytest.raises(ValueError, match="no whole elements"):
            source.read(tensor, 4, memoryview(bytearray(8)))
    source.close()
    base.close()


def whole_of(source: Source, tensor: str) -> bytes:
    """All bytes of a tensor."""
    buffer = bytearray(source.header[tensor].nbytes)
    source.read(tensor, 0, memoryview(buffer))
    return bytes(buffer)


def test_square_experts_lie_as_the_others_of_their_module(tmp_path: Path) -> None:
    """GPT-OSS is square where hidden and intermediate size are equal: the other parameter says which way round."""
    base = make_base(tmp_path / "base", "gpt_oss", intermediate_size=32)
    made = two(tmp_path, kind(peft.LoraConfig, target_modules=[], target_parameters=BOTH, r=4), base)

    assert error(made, tmp_path / "out") < 1e-10


def test_square_experts_alone_are_refused(tmp_path: Path) -> None:
    """Nothing says which way round they are."""
    base = make_base(tmp_path / "base", "gpt_oss", intermediate_size=32)
    made = two(tmp_path, kind(peft.LoraConfig, target_modules=[], target_parameters=BOTH[1:], r=4), base)

    found = refusal(made, tmp_path / "out")

    assert (found.code, type(found)) == ("E0343", IncompatibleError)
    assert "square" in str(found)


def _old(config: dict[str, object], _: Tensors) -> None:
    config["peft_version"] = "0.18.1"


def _ageless(config: dict[str, object], _: Tensors) -> None:
    del config["peft_version"]


def _unsure(config: dict[str, object], _: Tensors) -> None:
    config["target_parameters"] = ["mlp.experts.w1", "mlp.experts.w2"]
    config["rank_pattern"] = {"w1": 2}


def _odd_rank(config: dict[str, object], _: Tensors) -> None:
    config["r"] = 3


def _fewer(config: dict[str, object], tensors: Tensors) -> None:
    config["r"] = 8


def _nan(_: dict[str, object], tensors: Tensors) -> None:
    tensors[next(iter(tensors))].view(-1)[0] = float("nan")


def _elsewhere(_: dict[str, object], tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[name.replace("q_proj", "z_proj")] = tensors.pop(name)


def _half(_: dict[str, object], tensors: Tensors) -> None:
    del tensors[next(name for name in tensors if name.endswith("hada_w1_a"))]


def _stray(_: dict[str, object], tensors: Tensors) -> None:
    tensors["base_model.model.model.layers.0.self_attn.q_proj.strange"] = torch.ones(2)


def _unknown(config: dict[str, object], _: Tensors) -> None:
    config["new_idea"] = "loud"


@pytest.mark.parametrize(
    ("name", "edit", "code"),
    [
        ("moe-mixtral", _old, "E0343"),
        ("moe-gpt-oss", _old, "E0343"),
        ("moe-qwen3", _ageless, "E0343"),
        ("moe-mixtral", _unsure, "E0343"),
        ("moe-mixtral", _odd_rank, "E0824"),
        ("moe-mixtral", _fewer, "E0342"),
        ("loha", _nan, "E0304"),
        ("loha", _elsewhere, "E0342"),
        ("loha", _half, "E0842"),
        ("loha", _stray, "E0841"),
        ("loha", _unknown, "E0843"),
    ],
)
def test_what_is_not_certain_is_refused(zoo: Path, tmp_path: Path, name: str, edit: Edit, code: str) -> None:
    """Before anything is written: every way an adapter may be broken, or say too little."""
    found = refusal(edited(make(name, zoo), tmp_path / "edited", edit), tmp_path / "out")

    assert found.code == code
    assert found.hint


@pytest.mark.parametrize(
    ("name", "base"), [("moe-mixtral", "qwen3_moe"), ("loha", "gpt2"), ("moe-qwen3", "llama")]
)
def test_an_adapter_of_another_model_is_refused(zoo: Path, tmp_path: Path, name: str, base: str) -> None:
    """E0342 counts the updates without a place."""
    made = make(name, zoo)
    found = refusal(Made(made.kind, make_base(tmp_path / "base", base), made.adapters), tmp_path / "out")

    assert (found.code, type(found)) == ("E0342", IncompatibleError)
    assert "does not fit this base" in str(found)


def test_a_missing_expert_is_named(zoo: Path, tmp_path: Path) -> None:
    """A base with fewer experts, or more, is not the one that was trained on."""
    made = make("moe-mixtral", zoo)
    for count in (3, 5):
        base = make_base(tmp_path / f"base{count}", "mixtral", num_local_experts=count)
        found = refusal(Made(made.kind, base, made.adapters), tmp_path / "out")
        assert found.code == "E0342"
        assert "no such experts of that number and shape, the update is 4 × 96 × 32" in str(found.details)


def test_virtual_tokens_are_no_weights(zoo: Path, tmp_path: Path) -> None:
    """A type that changes no weights is refused by name."""
    assert "prompt-tuning" in REFUSED
    found = refusal(make("prompt-tuning", zoo), tmp_path / "out")

    assert (found.code, type(found)) == ("E0840", IncompatibleError)


def test_without_fold_another_type_is_refused(zoo: Path, tmp_path: Path) -> None:
    """No adapter is the soup of LoHa adapters."""
    made = make("loha", zoo)
    recipe = rsoup.make_recipe([str(adapter) for adapter in made.adapters], uniform=True)
    with pytest.raises(IncompatibleError) as found:
        rsoup.merge(recipe, tmp_path / "out")

    assert found.value.code == "E0341"


@pytest.mark.parametrize(
    ("modules", "settings", "wanted"),
    [
        (["a.experts", "a.experts.base_layer"], {}, {"a.experts": ("a.experts.down_proj",), "a.experts.base_layer": ("a.experts.gate_up_proj",)}),
        (["a.experts"], {}, {"a.experts": ("a.experts.gate_up_proj", "a.experts.down_proj")}),
        (["a.gate", "a.q_proj"], {"target_modules": ["q_proj"]}, {"a.gate": ("a.gate.weight",)}),
        (["a.q_proj"], {"target_modules": r".*\.q_proj"}, {}),
        (["a.q_proj"], {"target_modules": "("}, {"a.q_proj": ("a.q_proj.gate_up_proj", "a.q_proj.down_proj")}),
        (["a.experts"], {"target_parameters": None}, {}),
    ],
)  # fmt: skip
def test_the_parameter_of_an_update(
    zoo: Path, modules: list[str], settings: Mapping[str, object], wanted: Mapping[str, tuple[str, ...]]
) -> None:
    """The innermost wrapper is the parameter registered first; a module that is a target is no parameter."""
    raw: dict[str, object] = {"target_parameters": ["gate_up_proj", "gate.weight", "down_proj"], **settings}
    adapter = open_checkpoint(str(make("plain", zoo).adapters[0]), name="plain")
    config = read_config(adapter)
    adapter.close()
    object.__setattr__(config, "raw", raw)

    assert parameters(modules, config) == wanted
