"""--fold: adapters and their base in one, as full weights. What is written is θ₀ + Σλᵢ(θᵢ − θ₀), rounded once."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import adapters as zoo
import peft
import pytest
import torch
import transformers
from checkpoints import cooked, read_tensors, tree, write_folder
from faults import interrupted, stray
from safetensors.torch import load_file, save_file
from warm import rsoup

import rsoup as library
from rsoup.errors import IncompatibleError, UsageError
from rsoup.lora import chunks
from rsoup.merging import MergeResult
from rsoup.prepare import prepared
from rsoup.storage.files import OpenFile

Tensors = dict[str, torch.Tensor]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
LOW_RANK = [name for name, kind in zoo.KINDS.items() if not kind.fold_only]
EXACT = 1e-12  # relative to ‖soup − base‖


def fold(made: zoo.Made, out: Path, mix: Sequence[str] = ("0.6", "0.4"), **options: object) -> MergeResult:
    """The soup of a kind's adapters and their base at `out`, as full weights."""
    settings = {"base": made.base, "fold": True, **options}
    recipe = library.make_recipe(list(made.adapters), mix=list(mix), **settings)  # type: ignore[arg-type]
    return library.merge(recipe, out)


def soup_of(made: zoo.Made, mix: Sequence[str] = ("0.6", "0.4")) -> Tensors:
    """The dense float64 soup that PEFT's own merges give."""
    return zoo.soup_weights(made.base, made.adapters, [float(Fraction(m)) for m in mix], *made.kind.warns)


def gap(found: Tensors, wanted: Tensors, base: Path) -> float:
    """‖found − wanted‖/‖wanted − base‖ over all tensors, which must be the same."""
    start = zoo.base_weights(base)
    assert found.keys() == wanted.keys()
    apart = sum(float((found[n].double() - wanted[n]).square().sum()) for n in wanted)
    alike = [n for n in wanted if n in start and start[n].shape == wanted[n].shape]
    moved = sum(float((wanted[n] - start[n]).square().sum()) for n in alike)
    return float((apart / moved) ** 0.5)


def tolerance(kind: zoo.Kind) -> float:
    """What PEFT's own float32 beginnings and bfloat16 residuals cost the reference."""
    if kind.init_mutates_base:
        return 4e-2 if kind.base_dtype == torch.bfloat16 else 1e-4
    return EXACT


def nearest(found: Tensors, wanted: Tensors) -> float:
    """The share of elements that no neighbour in their dtype is nearer to the float64 reference than."""
    right = total = 0
    for name, value in found.items():
        bits = value.view({2: torch.int16, 4: torch.int32}[value.element_size()])
        error = (value.double() - wanted[name]).abs()
        worse = torch.zeros_like(error, dtype=torch.bool)
        for step in (-1, 1):
            worse |= ((bits + step).view(value.dtype).double() - wanted[name]).abs() < error
        right += int((~worse).sum())
        total += worse.numel()
    return right / total


def full_tune(base: Path, folder: Path, seed: int = 0, step: float = 0.05) -> Path:
    """A full fine-tune of a base: every tensor moved by `step` of its norm."""
    generator = torch.Generator().manual_seed(seed)
    shutil.copytree(base, folder)
    moved = {}
    for name, value in load_file(base / "model.safetensors").items():
        noise = torch.randn(value.shape, generator=generator)
        moved[name] = (value + step * noise * value.double().square().mean().sqrt()).to(value.dtype)
    save_file(moved, folder / "model.safetensors", {"format": "pt"})
    return folder


# --- every kind


@pytest.mark.parametrize("name", LOW_RANK)
def test_folds_of_every_kind_are_exact(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """In float64 the weights are those of θ₀ + Σλᵢ(θᵢ − θ₀) to the last bits, under the base's names."""
    made = zoo.make(name, zoo_folder)

    fold(made, tmp_path / "soup", dtype="float64")

    found = read_tensors(tmp_path / "soup")
    assert {value.dtype for value in found.values()} == {torch.float64}
    assert gap(found, soup_of(made), made.base) < tolerance(made.kind)


@pytest.mark.parametrize("name", [n for n in LOW_RANK if not zoo.KINDS[n].vocabulary])
def test_affine_folds_are_exact(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """Σλ ≠ 1 and a negative λ: the base has what is left."""
    made = zoo.make(name, zoo_folder)

    fold(made, tmp_path / "soup", ("1.5", "-0.7"), dtype="float64", affine=True)

    found = read_tensors(tmp_path / "soup")
    assert gap(found, soup_of(made, ("1.5", "-0.7")), made.base) < tolerance(made.kind)


@pytest.mark.parametrize("name", ["bf16", "bf16-base", "head-bf16", "plain", "dora", "gpt2", "embed-tied", "conv-bias", "lora-bias", "tokens-both", "head-one", "moe-mixtral"])  # fmt: skip
def test_every_element_is_rounded_once(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """Stored as the base is; no other number of that dtype is nearer to the soup."""
    made = zoo.make(name, zoo_folder)

    fold(made, tmp_path / "soup")

    found = read_tensors(tmp_path / "soup")
    assert {value.dtype for value in found.values()} == {made.kind.base_dtype}
    assert nearest(found, soup_of(made)) >= 0.9999


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", ["plain", "rslora", "patterns", "gpt2", "embed", "conv", "dora", "adalora", "lora-bias", "head-one", "tokens-both", "moe-gpt-oss"])  # fmt: skip
def test_one_hot_is_what_peft_merges(name: str, which: int, zoo_folder: Path, tmp_path: Path) -> None:
    """λ = eᵢ is `merge_and_unload` of adapter i."""
    made = zoo.make(name, zoo_folder)
    mix = ["0", "0"]
    mix[which] = "1"

    fold(made, tmp_path / "soup", mix, dtype="float64")

    wanted = zoo.adapted_weights(made.base, made.adapters[which], *made.kind.warns)
    assert gap(read_tensors(tmp_path / "soup"), wanted, made.base) < EXACT


# --- with full checkpoints, and on them


@pytest.mark.parametrize("name", ["plain", "targets", "gpt2", "dora-lora", "head-both", "tokens-both", "lora-bias", "embed-tied", "resized", "moe-mixtral"])  # fmt: skip
def test_a_fold_is_the_soup_of_full_weights(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """Each adapter folded alone, then mixed as any fine-tunes are: the fold of the soup."""
    made = zoo.make(name, zoo_folder)
    fold(made, tmp_path / "soup", dtype="float64")
    for side, adapter in zip(("one", "two"), made.adapters, strict=True):
        alone = library.make_recipe([adapter], base=made.base, fold=True, dtype="float64")
        library.merge(alone, tmp_path / side)

    library.merge(
        library.make_recipe([tmp_path / "one", tmp_path / "two"], mix=["0.6", "0.4"]), tmp_path / "full"
    )

    assert gap(read_tensors(tmp_path / "full"), read_tensors(tmp_path / "soup"), made.base) < EXACT


@pytest.mark.parametrize("name", ["plain", "dora", "gpt2", "embed"])
def test_an_adapter_and_a_full_fine_tune(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """They mix as they are: full weights, without --fold."""
    made = zoo.make(name, zoo_folder)
    other = full_tune(made.base, tmp_path / "other")
    recipe = library.make_recipe(
        {"adapter": made.adapters[0], "full": other}, mix=["0.7", "0.6"], affine=True, base=made.base,
        dtype="float64",
    )  # fmt: skip

    library.merge(recipe, tmp_path / "soup")

    start, full = zoo.base_weights(made.base), zoo.base_weights(other)
    adapted = zoo.adapted_weights(made.base, made.adapters[0], *made.kind.warns)
    wanted = {n: start[n] + 0.7 * (adapted[n] - start[n]) + 0.6 * (full[n] - start[n]) for n in start}
    assert gap(read_tensors(tmp_path / "soup"), wanted, made.base) < EXACT


@pytest.mark.parametrize("name", ["plain", "dora", "pissa"])
def test_an_adapter_on_another_checkpoint(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """CHECKPOINT+ADAPTER is an ingredient: the adapter on that checkpoint, whatever the base is."""
    made = zoo.make(name, zoo_folder)
    other = full_tune(made.base, tmp_path / "other")
    adapter = zoo.train(tmp_path / "third", made.kind, 0, other)
    recipe = library.make_recipe(
        {"stacked": f"{other}+{adapter}", "plain": made.adapters[1]}, mix=["0.6", "0.4"], base=made.base,
        dtype="float64",
    )  # fmt: skip

    library.merge(recipe, tmp_path / "soup")

    one = zoo.adapted_weights(other, adapter, *made.kind.warns)
    two = zoo.adapted_weights(made.base, made.adapters[1], *made.kind.warns)
    wanted = {n: 0.6 * one[n] + 0.4 * two[n] for n in one}
    assert gap(read_tensors(tmp_path / "soup"), wanted, made.base) < tolerance(made.kind)


@pytest.mark.parametrize("name", ["plain", "dora"])
def test_a_base_with_an_adapter_in_it(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """The paper's LLaMA runs: experts trained on LLaMA with Alpaca folded in, mixed on CHECKPOINT+ADAPTER."""
    made = zoo.make("plain", zoo_folder)
    alpaca = made.adapters[0]
    library.merge(
        library.make_recipe([alpaca], base=made.base, fold=True, dtype="float64"), tmp_path / "folded"
    )
    experts = zoo.KINDS[name]
    held = tmp_path / "held"  # the same weights in the base's float32, which training needs
    library.merge(library.make_recipe([alpaca], base=made.base, fold=True), held)
    adapters = tuple(zoo.train(tmp_path / f"expert{i}", experts, i, held, seed=3) for i in (0, 1))
    recipe = library.make_recipe(
        list(adapters), mix=["0.6", "0.4"], base=f"{made.base}+{alpaca}", fold=True, dtype="float64"
    )

    library.merge(recipe, tmp_path / "soup")

    wanted = zoo.soup_weights(tmp_path / "folded", adapters, [0.6, 0.4])
    assert gap(read_tensors(tmp_path / "soup"), wanted, tmp_path / "folded") < EXACT


@pytest.mark.parametrize("names", [("plain", "ranks"), ("dora", "plain"), ("plain", "dora")])
def test_adapters_on_adapters(names: tuple[str, str], zoo_folder: Path, tmp_path: Path) -> None:
    """CHECKPOINT+ADAPTER+ADAPTER: one after the other."""
    first, second = (zoo.make(name, zoo_folder) for name in names)
    one, two = first.adapters[0], second.adapters[1]

    recipe = library.make_recipe([f"{first.base}+{one}+{two}"], base=first.base, dtype="float64")
    library.merge(recipe, tmp_path / "soup")

    library.merge(library.make_recipe([one], base=first.base, fold=True, dtype="float64"), tmp_path / "below")
    wanted = zoo.adapted_weights(tmp_path / "below", two)
    assert gap(read_tensors(tmp_path / "soup"), wanted, first.base) < EXACT


def test_an_adapter_soup_on_a_base_with_an_adapter(zoo_folder: Path, tmp_path: Path) -> None:
    """A DoRA soup needs its base's weights, and CHECKPOINT+ADAPTER is one: the same soup as on the folded base."""
    plain, dora = zoo.make("plain", zoo_folder), zoo.make("dora", zoo_folder)
    library.merge(
        library.make_recipe([plain.adapters[0]], base=plain.base, fold=True, dtype="float64"),
        tmp_path / "folded",
    )

    for side, base in (("one", f"{plain.base}+{plain.adapters[0]}"), ("two", tmp_path / "folded")):
        recipe = library.make_recipe(list(dora.adapters), mix=["0.6", "0.4"], base=base)
        library.merge(recipe, tmp_path / side)

    one, two = (load_file(tmp_path / side / WEIGHTS) for side in ("one", "two"))
    assert all(torch.allclose(one[key], two[key], rtol=1e-6, atol=0) for key in two)


@pytest.mark.parametrize("stacked", [True, False])
def test_a_head_on_a_base_of_float64(stacked: bool, zoo_folder: Path, tmp_path: Path) -> None:
    """A head that replaces one which is read as float64: of CHECKPOINT+ADAPTER, or stored so."""
    below, heads = zoo.make("lm-head", zoo_folder), zoo.make("head-both", zoo_folder)
    base: object = f"{below.base}+{below.adapters[0]}"
    if not stacked:
        first = library.make_recipe([below.adapters[0]], base=below.base, fold=True, dtype="float64")
        library.merge(first, tmp_path / "base")
        base = tmp_path / "base"

    fold(heads, tmp_path / "soup", base=base, dtype="float64")

    one, two = (load_file(a / WEIGHTS)["base_model.model.lm_head.weight"].double() for a in heads.adapters)
    found = read_tensors(tmp_path / "soup")["lm_head.weight"]
    assert torch.allclose(found, 0.6 * one + 0.4 * two, rtol=1e-14, atol=0)


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_biases_of_a_model_without_its_head(bias: str, zoo_folder: Path, tmp_path: Path) -> None:
    """An adapter of the bare BERT, on the checkpoint of BERT with a head: the same tensors under longer names."""
    base = zoo.make("bert-score", zoo_folder).base
    wanted: list[Tensors] = []
    for number in (0, 1):
        torch.manual_seed(number)
        model = transformers.AutoModel.from_pretrained(base)
        config = peft.LoraConfig(r=4, target_modules=["query", "value"], bias=bias)  # type: ignore[arg-type]
        with zoo.expected_warnings():
            trained = peft.get_peft_model(model, config)
        with torch.no_grad():
            for weight in trained.parameters():
                if weight.requires_grad:
                    weight.add_(0.02 * torch.randn_like(weight))
        trained.save_pretrained(str(tmp_path / str(number)))
        merged = trained.double().merge_and_unload().state_dict()
        wanted.append({f"bert.{name}": value for name, value in merged.items()})
    recipe = library.make_recipe(
        [tmp_path / "0", tmp_path / "1"], mix=["0.6", "0.4"], base=base, fold=True, dtype="float64"
    )

    library.merge(recipe, tmp_path / "soup")

    found, start = read_tensors(tmp_path / "soup"), zoo.base_weights(base)
    assert found.keys() == start.keys()
    for name, value in found.items():
        mean = 0.6 * wanted[0][name] + 0.4 * wanted[1][name] if name in wanted[0] else start[name]
        assert torch.allclose(value, mean, rtol=1e-12, atol=1e-14), name


@pytest.mark.parametrize("exponent", [3, 6, 12])
@pytest.mark.parametrize("name", ["plain", "dora", "embed"])
def test_unbalanced_factors_lose_nothing(name: str, exponent: int, zoo_folder: Path, tmp_path: Path) -> None:
    """A rank whose A is a million times larger and whose B is as much smaller: the same product."""
    made = zoo.make(name, zoo_folder)
    sizes = torch.tensor([10.0**exponent, 10.0**-exponent, 1.0, 1.0])

    def scaled(tensors: Tensors) -> None:
        for key, value in tensors.items():
            if ".lora_A" in key or key.endswith("embedding_A"):
                tensors[key] = value * sizes[:, None]
            elif ".lora_B" in key or key.endswith("embedding_B"):
                tensors[key] = value / sizes[None, :]

    adapters = tuple(zoo.edited(a, tmp_path / f"{i}", None, scaled) for i, a in enumerate(made.adapters))
    skewed = zoo.Made(made.kind, made.base, adapters)

    fold(skewed, tmp_path / "soup", dtype="float64")

    assert gap(read_tensors(tmp_path / "soup"), soup_of(skewed), made.base) < EXACT


@pytest.mark.parametrize(
    ("name", "code", "what"),
    [
        ("alora", "E0340", "only after its invocation tokens"),
        ("conv-groups", "E0340", "a convolution of 2 groups"),
        ("lora-bias-nowhere", "E0342", "does not fit this base"),
        ("resized-half", "E0342", "has no 'lm_head.weight' of that length"),
    ],
)
def test_what_no_weights_hold(name: str, code: str, what: str, zoo_folder: Path, tmp_path: Path) -> None:
    """Adapters that PEFT writes and that cannot be folded, or not into a model that loads."""
    made = zoo.make(name, zoo_folder)

    with pytest.raises(IncompatibleError) as error:
        fold(made, tmp_path / "soup")

    assert error.value.code == code
    assert what in str(error.value)
    assert error.value.hint
    assert tree(tmp_path) == {}


# --- the base


def test_the_base_is_the_one_the_adapters_name(zoo_folder: Path, tmp_path: Path) -> None:
    """Without --base a folder of that name is used, and it is said."""
    made = zoo.make("plain", zoo_folder)

    result = fold(made, tmp_path / "soup", base=None)
    fold(made, tmp_path / "wanted")

    assert f"the base is the one the adapters name: {made.base}" in result.notes
    assert read_tensors(tmp_path / "soup").keys() == read_tensors(tmp_path / "wanted").keys()
    name = "model.safetensors"
    assert (tmp_path / "soup" / name).read_bytes()[-60_000:] == (tmp_path / "wanted" / name).read_bytes()[-60_000:]  # fmt: skip


@pytest.mark.parametrize(
    ("named", "what"),
    [
        (("org/model", "org/model"), "they name 'org/model', which is no folder here"),
        (("org/model", "other"), "they do not name one: 'org/model' and 'other'"),
        ((None, None), "need the base it was trained on"),
    ],
)
def test_a_base_that_is_nowhere(
    named: tuple[str | None, ...], what: str, zoo_folder: Path, tmp_path: Path
) -> None:
    """A name of the Hub, two names, no name: --base is asked for."""
    made = zoo.make("plain", zoo_folder)
    sides = [
        zoo.edited(adapter, tmp_path / str(i), {"base_model_name_or_path": name})
        for i, (adapter, name) in enumerate(zip(made.adapters, named, strict=True))
    ]

    with pytest.raises(UsageError, match="need the base") as error:
        library.merge(library.make_recipe(sides, uniform=True, fold=True), tmp_path / "soup")

    assert error.value.code == "E0207"
    assert what in str(error.value)
    assert error.value.hint == "add --base BASE"
    assert not (tmp_path / "soup").exists()


@pytest.mark.parametrize("flag", [True, False])
def test_an_adapter_is_no_base(flag: bool, zoo_folder: Path, tmp_path: Path) -> None:
    """Neither for full weights nor for an adapter; it is said that it is the base which is meant."""
    made = zoo.make("plain", zoo_folder)

    with pytest.raises(UsageError, match="the base is an adapter") as error:
        fold(made, tmp_path / "soup", base=made.adapters[0], fold=flag)

    assert error.value.code == "E0207"
    assert tree(tmp_path) == {}


def test_a_quantised_base_is_refused(zoo_folder: Path, tmp_path: Path) -> None:
    """What the base stores are no weights to add anything to."""
    made = zoo.make("plain", zoo_folder)
    base = shutil.copytree(made.base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))

    with pytest.raises(IncompatibleError) as error:
        fold(zoo.Made(made.kind, base, made.adapters), tmp_path / "soup")

    assert error.value.code == "E0302"
    assert error.value.hint
    assert not (tmp_path / "soup").exists()


def test_the_base_of_another_model_is_refused(zoo_folder: Path, tmp_path: Path) -> None:
    """E0342 names the tensors and both shapes."""
    made = zoo.make("plain", zoo_folder)
    base = zoo.make_base(tmp_path / "base", hidden_size=48)

    with pytest.raises(IncompatibleError) as error:
        fold(zoo.Made(made.kind, base, made.adapters), tmp_path / "soup")

    assert error.value.code == "E0342"
    assert any("the update is 32 × 32" in problem.what for problem in error.value.details)
    assert not (tmp_path / "soup").exists()


# --- what lies beside the weights


@pytest.mark.parametrize(
    "name", ["embed-tied", "lm-head-tied", "head-tied", "embed-gpt2", "tokens-tied", "embed-tied-ensured"]
)
def test_tied_models_load_as_they_were(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """Where one side of a tied pair is changed, both are stored and config.json says so; transformers agrees."""
    made = zoo.make(name, zoo_folder)

    fold(made, tmp_path / "soup")

    untied = "lm_head.weight" in read_tensors(tmp_path / "soup")
    config = json.loads((tmp_path / "soup" / "config.json").read_text())
    assert untied == (name not in ("tokens-tied", "embed-tied-ensured"))
    if untied:
        assert config["tie_word_embeddings"] is False
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "soup", dtype=torch.float64, output_loading_info=True
    )
    assert not any(info.values()), info
    assert zoo.logit_error(model.eval(), soup_of(made), made.base) < 1e-5


@pytest.mark.parametrize("name", ["resized", "resized-embed"])
def test_a_resized_vocabulary_is_in_the_configuration(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """config.json says 70 words where the base had 64; transformers loads them."""
    made = zoo.make(name, zoo_folder)

    fold(made, tmp_path / "soup")

    assert json.loads((tmp_path / "soup" / "config.json").read_text())["vocab_size"] == 70
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "soup", output_loading_info=True
    )
    assert not any(info.values()), info
    assert model.get_input_embeddings().weight.shape[0] == 70


def test_new_rows_need_all_of_lambda(zoo_folder: Path, tmp_path: Path) -> None:
    """Σλ ≠ 1 of rows that the base has not got means nothing."""
    made = zoo.make("resized", zoo_folder)

    with pytest.raises(IncompatibleError) as error:
        fold(made, tmp_path / "soup", ("0.6", "0.6"), affine=True)

    assert error.value.code == "E0345"
    assert error.value.hint
    assert not (tmp_path / "soup").exists()


def test_other_files_are_the_bases(zoo_folder: Path, tmp_path: Path) -> None:
    """Tokenizer, template and generation settings come from the base; nothing comes of an adapter's folder."""
    made = zoo.make("plain", zoo_folder)
    base = shutil.copytree(made.base, tmp_path / "base")
    (base / "tokenizer.json").write_text('{"version": "1.0"}')
    (base / "chat_template.jinja").write_text("{{ messages }}")
    adapter = zoo.edited(made.adapters[0], tmp_path / "adapter")
    (adapter / "of-the-adapter.json").write_text("{}")

    fold(zoo.Made(made.kind, base, (adapter, made.adapters[1])), tmp_path / "soup")

    files = tree(tmp_path / "soup")
    assert set(files) == {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "README.md", "rsoup.json"}  # fmt: skip
    for name in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert files[name] == (base / name).read_bytes()


def test_shards_stay_as_they_were(zoo_folder: Path, tmp_path: Path) -> None:
    """Each tensor lies in the shard it lies in in the base, in the same order; the index is true."""
    made = zoo.make("plain", zoo_folder)
    weights = load_file(made.base / "model.safetensors")
    config = json.loads((made.base / "config.json").read_text())
    base = write_folder(tmp_path / "base", weights, shards=3, config=config)

    fold(zoo.Made(made.kind, base, made.adapters), tmp_path / "soup")

    index = "model.safetensors.index.json"
    ours, theirs = (json.loads((side / index).read_text()) for side in (tmp_path / "soup", base))
    assert ours["weight_map"] == theirs["weight_map"]
    for file in set(theirs["weight_map"].values()):
        assert list(load_file(tmp_path / "soup" / file)) == list(load_file(base / file))
        assert (tmp_path / "soup" / file).stat().st_size >= (base / file).stat().st_size
    assert gap(read_tensors(tmp_path / "soup"), soup_of(made), made.base) < 1e-5


def test_one_file_is_enough(zoo_folder: Path, tmp_path: Path) -> None:
    """-o NAME.safetensors: full weights fit into one file."""
    made = zoo.make("plain", zoo_folder)

    fold(made, tmp_path / "soup.safetensors")

    assert set(tree(tmp_path)) == {"soup.safetensors", "soup.rsoup.json"}
    assert gap(read_tensors(tmp_path / "soup.safetensors"), soup_of(made), made.base) < 1e-5


# --- how much of a small update survives


@pytest.mark.parametrize("shrink", [1.0, 0.05, 0.002])
def test_what_the_dtype_rounds_away_is_told(shrink: float, zoo_folder: Path, tmp_path: Path) -> None:
    """`update_error` is ‖written − soup‖/‖soup − base‖: bfloat16 eats a small ΔW, and says how much of it."""
    made = zoo.make("bf16-base", zoo_folder)

    def shrunk(tensors: Tensors) -> None:
        for name in tensors:
            tensors[name] = tensors[name] * (shrink if "lora_B" in name else 1.0)

    adapters = tuple(zoo.edited(a, tmp_path / f"{i}", None, shrunk) for i, a in enumerate(made.adapters))
    small = zoo.Made(made.kind, made.base, adapters)

    result = fold(small, tmp_path / "soup")

    told = gap(read_tensors(tmp_path / "soup"), soup_of(small), made.base)
    assert result.update_error == pytest.approx(told, rel=1e-6)
    assert (told > 0.5) == (shrink < 0.01)


def test_the_remedy_is_told(zoo_folder: Path, tmp_path: Path) -> None:
    """More than a percent rounded away: the command says so and names --dtype float32, which keeps it."""
    made = zoo.make("bf16-base", zoo_folder)
    arguments = ("merge", *made.adapters, "--uniform", "--fold", "--base", made.base)

    narrow = rsoup(*arguments, "-o", tmp_path / "narrow")
    wide = rsoup(*arguments, "-o", tmp_path / "wide", "--dtype", "float32")

    assert "of it is rounded away by the stored dtype; --dtype float32 keeps it" in narrow.stdout
    assert "0.00% of it is rounded away by the stored dtype\n" in wide.stdout


# --- laws


@pytest.mark.parametrize("name", ["all-linear", "dora", "embed", "conv", "gpt2", "moe-gpt-oss", "tokens-both", "lora-bias", "pissa"])  # fmt: skip
def test_blocks_and_threads_change_nothing(
    name: str, zoo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at any element, made by any number of threads: the same bytes."""
    made = zoo.make(name, zoo_folder)
    recipe = library.make_recipe(list(made.adapters), mix=["0.6", "0.4"], base=made.base, fold=True)

    soups = []
    for block, threads, chunk in ((None, 1, None), (7, 1, None), (33, 3, 7), (1000, 2, 50)):
        if chunk is not None:
            monkeypatch.setattr(chunks, "_CHUNK", chunk)
        with prepared(recipe, str(tmp_path / "soup")) as ready:
            *sides, base = ready.sources
            soups.append(cooked(recipe, sides, base, threads=threads, block_elements=block))

    assert all(found == soups[0] for found in soups[1:])


def test_nothing_is_held_but_blocks_and_factors(
    zoo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No read of the base is longer than a block, none of an adapter longer than a factor."""
    made = zoo.make("all-linear", zoo_folder)
    recipe = library.make_recipe(list(made.adapters), mix=["0.6", "0.4"], base=made.base, fold=True)
    largest: dict[str, int] = {}
    real = OpenFile.read

    def read(self: OpenFile, start: int, buffer: memoryview) -> None:
        place = Path(self.path).name
        largest[place] = max(largest.get(place, 0), len(buffer))
        real(self, start, buffer)

    with prepared(recipe, str(tmp_path / "soup")) as ready:
        monkeypatch.setattr(OpenFile, "read", read)
        monkeypatch.setattr(chunks, "_CHUNK", 128)
        *sides, base = ready.sources
        cooked(recipe, sides, base, block_elements=128)

    factors = [t.numel() * t.element_size() for a in made.adapters for t in load_file(a / WEIGHTS).values()]
    assert largest["model.safetensors"] <= 128 * 4
    assert largest[WEIGHTS] == max(factors)


@pytest.mark.parametrize("name", ["bf16-base", "dora", "tokens-one"])
def test_what_no_adapter_touches_is_copied(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """Byte for byte, and counted as copied."""
    made = zoo.make(name, zoo_folder)

    result = fold(made, tmp_path / "soup")

    found, start = read_tensors(tmp_path / "soup"), load_file(made.base / "model.safetensors")
    wanted = soup_of(made)
    still = [n for n in start if torch.equal(wanted[n], start[n].double())]
    assert result.copied == len(still) > 10
    assert all(torch.equal(found[n].view(torch.uint8), start[n].view(torch.uint8)) for n in still)


def test_an_untrained_adapter_is_noted(zoo_folder: Path, tmp_path: Path) -> None:
    """Every B zero: it adds nothing, and is named."""
    made = zoo.make("plain", zoo_folder)

    def zero(tensors: Tensors) -> None:
        for name in tensors:
            tensors[name] = tensors[name] * (0.0 if "lora_B" in name else 1.0)

    fresh = zoo.edited(made.adapters[0], tmp_path / "fresh", None, zero)

    result = fold(zoo.Made(made.kind, made.base, (fresh, made.adapters[1])), tmp_path / "soup")

    assert "'fresh' is untrained: every B is zero, so it adds nothing" in result.notes
    half = zoo.soup_weights(made.base, made.adapters[1:], [0.4])
    assert gap(read_tensors(tmp_path / "soup"), half, made.base) < 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_factor_that_is_not_finite(value: float, zoo_folder: Path, tmp_path: Path) -> None:
    """E0304 with the tensor of the file and the adapter's name; nothing is there afterwards."""
    made = zoo.make("plain", zoo_folder)

    def broken(tensors: Tensors) -> None:
        tensors[next(n for n in tensors if "lora_A" in n)].view(-1)[5] = value

    bad = zoo.edited(made.adapters[0], tmp_path / "bad", None, broken)

    with pytest.raises(IncompatibleError) as error:
        fold(zoo.Made(made.kind, made.base, (bad, made.adapters[1])), tmp_path / "soup")

    assert error.value.code == "E0304"
    assert "lora_A" in str(error.value)
    assert "'bad'" in str(error.value)
    assert not (tmp_path / "soup").exists()


def test_too_large_for_float16(zoo_folder: Path, tmp_path: Path) -> None:
    """What float16 cannot hold is refused, not stored as infinity."""
    made = zoo.make("plain", zoo_folder)

    with pytest.raises(IncompatibleError) as error:
        fold(made, tmp_path / "soup", ("1e6", "1"), affine=True, dtype="float16")

    assert error.value.code == "E0305"
    assert error.value.hint
    assert not (tmp_path / "soup").exists()


def test_too_far_from_the_base(zoo_folder: Path, tmp_path: Path) -> None:
    """--max-distance holds for what an adapter makes of the base."""
    made = zoo.make("plain", zoo_folder)

    with pytest.raises(IncompatibleError) as error:
        fold(made, tmp_path / "soup", max_distance="0.01")

    assert error.value.code == "E0306"
    assert not (tmp_path / "soup").exists()


@pytest.mark.parametrize("name", ["plain", "dora", "pissa", "embed-tied", "tokens-both", "moe-mixtral", "resized"])  # fmt: skip
@pytest.mark.parametrize("how", [{"rederive": True}, {"sample": "50%"}], ids=["rederive", "sample"])
def test_folds_are_verified(name: str, how: dict[str, object], zoo_folder: Path, tmp_path: Path) -> None:
    """verify makes the weights, or blocks of them, again from adapters and base."""
    made = zoo.make(name, zoo_folder)
    fold(made, tmp_path / "soup")

    found = library.verify(tmp_path / "soup", list(made.adapters), base=made.base, **how)  # type: ignore[arg-type]

    assert found.holds


@pytest.mark.parametrize("options", [{"rank": 4}, {"max_error": "0.1"}])
def test_full_weights_have_no_rank(options: dict[str, object], zoo_folder: Path, tmp_path: Path) -> None:
    """--rank and --max-error beside --fold, or beside a full fine-tune, are refused rather than ignored."""
    made = zoo.make("plain", zoo_folder)

    mixed = zoo.Made(made.kind, made.base, (made.adapters[0], made.base))
    for sides, flag in ((made, True), (mixed, False)):
        with pytest.raises(UsageError) as error:
            fold(sides, tmp_path / "soup", fold=flag, **options)
        assert error.value.code == "E0206"

    assert tree(tmp_path) == {}


# --- stopped in the middle


@pytest.mark.parametrize("nth", [12, 60, 110])
def test_an_interrupted_fold_is_begun_again(nth: int, zoo_folder: Path, tmp_path: Path) -> None:
    """Ctrl-C leaves no soup; the same command then makes what an undisturbed run makes, and leaves nothing else."""
    made = zoo.make("all-linear", zoo_folder)
    arguments = ("merge", *made.adapters, "--uniform", "--fold", "--base", made.base, "-o")

    ended = interrupted(nth, *arguments, "soup", cwd=tmp_path)

    assert ended.returncode in (130, -signal.SIGINT), ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "soup").exists()
    assert rsoup(*arguments, "soup", cwd=tmp_path).returncode == 0
    assert stray(tmp_path) == []
    assert rsoup(*arguments, "wanted", cwd=tmp_path).returncode == 0
    ours, theirs = (read_tensors(tmp_path / side) for side in ("soup", "wanted"))
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)


# --- inputs stay


@pytest.mark.parametrize(
    "side",
    [
        "base",
        "adapter",
        "other",
    ],
)
def test_no_input_is_written_over(side: str, zoo_folder: Path, tmp_path: Path) -> None:
    """The base, an adapter, and the checkpoint of CHECKPOINT+ADAPTER: no output is ever put there."""
    made = zoo.make("plain", zoo_folder)
    shutil.copytree(made.base, tmp_path / "base")
    shutil.copytree(made.base, tmp_path / "other")
    shutil.copytree(made.adapters[0], tmp_path / "adapter")
    before = tree(tmp_path)
    recipe = library.make_recipe(
        [f"{tmp_path / 'other'}+{tmp_path / 'adapter'}", tmp_path / "adapter"], uniform=True,
        base=tmp_path / "base",
    )  # fmt: skip

    with pytest.raises(UsageError) as error:
        library.merge(recipe, tmp_path / side, overwrite=True)

    assert error.value.code == "E0213"
    assert tree(tmp_path) == before


@pytest.mark.parametrize("side", ["base", "below"])
def test_what_lies_under_a_base_is_not_written_over(side: str, zoo_folder: Path, tmp_path: Path) -> None:
    """An adapter soup on CHECKPOINT+ADAPTER: both are inputs."""
    made = zoo.make("dora", zoo_folder)
    shutil.copytree(made.base, tmp_path / "base")
    shutil.copytree(zoo.make("plain", zoo_folder).adapters[0], tmp_path / "below")
    before = tree(tmp_path)
    recipe = library.make_recipe(
        list(made.adapters), uniform=True, base=f"{tmp_path / 'base'}+{tmp_path / 'below'}"
    )

    with pytest.raises(UsageError) as error:
        library.merge(recipe, tmp_path / side, overwrite=True)

    assert error.value.code == "E0213"
    assert tree(tmp_path) == before


# --- summed before they meet the base


@pytest.mark.parametrize("name", ["plain", "ranks", "targets", "gpt2", "embed", "conv", "pissa"])
def test_a_sum_of_adapters_is_the_sum_of_their_checkpoints(
    name: str, zoo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One product of all factors gives what reading each adapted checkpoint gives; so do distances and cosines."""
    made = zoo.make(name, zoo_folder)
    recipe = library.make_recipe(
        list(made.adapters), mix=["0.6", "0.4"], base=made.base, fold=True, dtype="float64", max_distance=99.0
    )
    summed = library.merge(recipe, tmp_path / "summed")
    monkeypatch.setattr("rsoup.lora.fused._updates", lambda *_: None)
    apart = library.merge(recipe, tmp_path / "apart")

    ours, theirs = read_tensors(tmp_path / "summed"), read_tensors(tmp_path / "apart")

    assert all(torch.allclose(ours[key], theirs[key], rtol=1e-12, atol=1e-14) for key in theirs)
    assert summed.distances is not None
    assert apart.distances is not None
    assert summed.distances.relative == pytest.approx(apart.distances.relative, rel=1e-9)
    assert summed.distances.cosine[0][1] == pytest.approx(apart.distances.cosine[0][1], abs=1e-9)
    assert summed.update_error == pytest.approx(apart.update_error, abs=1e-12)


def test_updates_of_one_name_and_two_tensors(tmp_path: Path) -> None:
    """What PEFT calls `m` is the wrapped parameter of `m`: another one in each adapter."""
    generator = torch.Generator().manual_seed(0)
    names = ("m.first", "m.second")
    weights = {name: torch.randn(8, 8, generator=generator, dtype=torch.float64) for name in names}
    write_folder(tmp_path / "base", weights)
    for name in names:
        folder = tmp_path / name.removeprefix("m.")
        folder.mkdir()
        b, a = (torch.randn(8, 2, generator=generator), torch.randn(2, 8, generator=generator))
        save_file(
            {"base_model.model.m.lora_A.weight": a, "base_model.model.m.lora_B.weight": b}, folder / WEIGHTS
        )
        settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_parameters": [name]}
        (folder / CONFIG).write_text(json.dumps({**settings, "target_modules": []}))
        weights[name] = weights[name] + 0.5 * (b.double() @ a.double())
    recipe = library.make_recipe(
        [tmp_path / "first", tmp_path / "second"],
        uniform=True,
        base=tmp_path / "base",
        fold=True,
        max_distance=99.0,
    )

    library.merge(recipe, tmp_path / "soup", threads=1)

    found = read_tensors(tmp_path / "soup")
    assert all(torch.allclose(found[name], weights[name], rtol=0, atol=1e-12) for name in names)


def test_a_resized_vocabulary_brings_its_tokenizer(zoo_folder: Path, tmp_path: Path) -> None:
    """The tokenizer that knows the new tokens is the adapter's; without a resize it stays the base's."""
    for name, wanted in (("resized", "adapter's"), ("plain", "base's")):
        made = zoo.make(name, zoo_folder)
        base = tmp_path / name / "base"
        shutil.copytree(made.base, base)
        (base / "chat_template.jinja").write_text("base's")
        adapters = []
        for number, adapter in enumerate(made.adapters):
            adapters.append(tmp_path / name / f"adapter-{number}")
            shutil.copytree(adapter, adapters[-1])
            (adapters[-1] / "chat_template.jinja").write_text("adapter's")

        library.merge(
            library.make_recipe(adapters, uniform=True, base=base, fold=True, max_distance=99.0),
            tmp_path / name / "soup",
        )

        assert (tmp_path / name / "soup" / "chat_template.jinja").read_text() == wanted


# --- what there is nothing to measure from


@pytest.mark.parametrize("name", ["resized", "score"])
def test_tensors_the_base_lacks_have_no_distance(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """Distances and cosine are those of the tensors the base has, in any order of the ingredients."""
    made = zoo.make(name, zoo_folder)
    start = zoo.base_weights(made.base)
    if name == "score":  # a head of their own, which a causal model's checkpoint has not
        del start["score.weight"]
        base = write_folder(tmp_path / "base", {n: v.float() for n, v in start.items()}, config=None)
        shutil.copy(made.base / "config.json", base)
    else:
        base = made.base
    deltas = []
    for adapter in made.adapters:
        full = zoo.adapted_weights(made.base, adapter, *made.kind.warns)
        own = [n for n in start if full[n].shape == start[n].shape]
        deltas.append(torch.cat([(full[n] - start[n]).flatten() for n in own]))
    norm = sum(float(start[n].norm()) ** 2 for n in own) ** 0.5

    for order in ((0, 1), (1, 0)):
        result = library.merge(
            library.make_recipe(
                [made.adapters[i] for i in order], uniform=True, base=base, fold=True, max_distance=99.0
            ),
            tmp_path / f"soup-{order[0]}",
        )
        assert result.distances is not None
        assert result.distances.relative == pytest.approx(
            [float(deltas[i].norm()) / norm for i in order], rel=1e-9
        )
        cosine = float(deltas[0] @ deltas[1] / deltas[0].norm() / deltas[1].norm())
        assert result.distances.cosine[0][1] == pytest.approx(cosine, abs=1e-9)
    assert library.verify(tmp_path / "soup-0", list(made.adapters), base=base, rederive=True).holds


def test_another_base_than_the_named_one_is_noted(zoo_folder: Path, tmp_path: Path) -> None:
    """A copy under another path is another base as far as paths tell: the merge goes on, and says so."""
    made = zoo.make("plain", zoo_folder)
    shutil.copytree(made.base, tmp_path / "copy")

    for fold in (False, True):
        for base, noted in ((tmp_path / "copy", True), (made.base, False)):
            recipe = library.make_recipe(list(made.adapters), uniform=True, base=base, fold=fold)
            notes = library.merge(recipe, tmp_path / f"soup-{fold}-{noted}").notes
            assert any("which the adapters name" in note for note in notes) is noted
