"""rsoup extract and rsoup resize: full fine-tunes as adapters, held against dense float64 and against PEFT itself."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import adapters
import pytest
import torch
from checkpoints import tree
from safetensors.torch import load_file, save_file
from warm import Ended, Warm

import rsoup
from rsoup.errors import GateError, IncompatibleError, RsoupError, TargetError, UsageError
from rsoup.lora import reducing
from rsoup.lora.changes import Change, blocks_of_experts, fan_in_fan_out, kind_of, parted
from rsoup.lora.delta import DIRECT, best, left_over, spectrum, square, with_rest
from rsoup.lora.extracted import levelled, named, targets
from rsoup.tensors import DTYPES, TensorSpec

Tensors = dict[str, torch.Tensor]
Pick = Callable[[str, torch.Tensor], bool]

EXPERTS = ("The following rank_pattern", "The following alpha_pattern")


def is_matrix(name: str, value: torch.Tensor) -> bool:
    """Whether this is the weight of a linear module of one of the tiny models."""
    return (
        value.dim() == 2
        and name.endswith("weight")
        and not any(part in name for part in ("embed", "wte", "wpe"))
    )


def called(*parts: str) -> Pick:
    """Tensors with one of these parts in their names."""
    return lambda name, _: any(part in name for part in parts)


def any_matrix(_: str, value: torch.Tensor) -> bool:
    """Every tensor of two dimensions, embeddings among them."""
    return value.dim() == 2


def everything(_: str, value: torch.Tensor) -> bool:
    """Every tensor of floats."""
    return value.is_floating_point()


def tuned(base: Path, folder: Path, pick: Pick, *, rank: int = 3, noise: float = 0.02, seed: int = 0) -> Path:
    """A fine-tune: to every tensor that is picked a product of this rank and some noise is added."""
    shutil.copytree(base, folder)
    generator = torch.Generator().manual_seed(seed)
    weights = load_file(base / "model.safetensors")
    for name, value in weights.items():
        if not pick(name, value):
            continue
        change = torch.randn(value.shape, generator=generator) * noise * value.std()
        if value.dim() == 2:
            left, right = (torch.randn(shape, generator=generator) for shape in ((value.shape[0], rank), (rank, value.shape[1])))  # fmt: skip
            change += left @ right * (0.1 * value.norm() / (left @ right).norm())
        weights[name] = (value.double() + change.double()).to(value.dtype)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny bases by architecture, each made once."""
    root = tmp_path_factory.mktemp("bases")

    def base(arch: str) -> Path:
        return root / arch if (root / arch).exists() else adapters.make_base(root / arch, arch)

    return base


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A warm interpreter for this file's command lines."""
    interpreter = Warm(tmp_path_factory.mktemp("warm"))
    yield interpreter
    interpreter.close()


def dense(base: Path, fine: Path) -> Tensors:
    """Δ of every tensor, float64."""
    before, after = adapters.base_weights(base), adapters.base_weights(fine)
    return {name: value - before[name] for name, value in after.items() if name in before}


def product(folder: Path, name: str) -> torch.Tensor:
    """B·A of a module's stored factors, as the base's tensor has it."""
    stored = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    stem = f"base_model.model.{name.removesuffix('.weight')}."
    if f"{stem}lora_embedding_A" in stored:
        return (stored[f"{stem}lora_embedding_B"].double() @ stored[f"{stem}lora_embedding_A"].double()).T
    made = stored[f"{stem}lora_B.weight"].double() @ stored[f"{stem}lora_A.weight"].double()
    return made.T if config["fan_in_fan_out"] else made


def refused(
    folder: Path, fine: Path, base: Path, kind: type[RsoupError], code: str, **options: object
) -> RsoupError:
    """The refusal of an extraction; fails if there is none, or if it leaves anything in `folder`."""
    before = tree(folder)

    with pytest.raises(kind) as error:
        rsoup.extract(fine, folder / "refused", base=base, **{"rank": 2, **options})  # type: ignore[arg-type]

    assert error.value.code == code
    assert before == tree(folder)
    return error.value


# --- the algebra of one matrix -------------------------------------------------------------------------------------


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """A matrix whose singular values fall over three orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    side = min(rows, columns)
    left = torch.randn(rows, side, generator=generator, dtype=torch.float64)
    right = torch.randn(side, columns, generator=generator, dtype=torch.float64)
    return left * torch.logspace(0, -3, side, dtype=torch.float64) @ right / math.sqrt(rows * columns)


SHAPES = [(1, 7), (7, 1), (40, 30), (30, 40), (300, 280), (280, 300)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 4, 1000])
def test_factors_are_the_best_of_their_rank(shape: tuple[int, int], rank: int) -> None:
    """Their product is Eckart and Young's, their error the tail of torch's own singular values."""
    delta = matrix(*shape)
    values = torch.linalg.svdvals(delta)
    pair = best(delta, rank, exact=True)
    kept = min(rank, *shape)
    lost = (delta - pair.left @ pair.right).norm().item()

    assert (pair.left.shape, pair.right.shape) == ((shape[0], kept), (kept, shape[1]))
    assert lost == pytest.approx(values[kept:].square().sum().sqrt().item(), rel=1e-9, abs=1e-13)
    assert list(pair.values) == pytest.approx(values[:kept].tolist(), rel=1e-9, abs=1e-12)
    assert math.sqrt(left_over(delta, pair.left, pair.right)) == pytest.approx(lost, rel=1e-9, abs=1e-13)
    assert square(delta) == pytest.approx(delta.square().sum().item(), rel=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_spectrum_is_all_singular_values(shape: tuple[int, int]) -> None:
    """Whichever way it is taken, it is what torch's dense SVD says to 10⁻⁸ of the largest."""
    delta = matrix(*shape)
    values = torch.linalg.svdvals(delta)

    assert list(spectrum(delta)) == pytest.approx(values.tolist(), abs=1e-8 * values[0].item())


def test_both_sides_are_balanced_and_their_signs_fixed() -> None:
    """A and B have the same norms, and −Δ gives the same left side with the right one turned."""
    pair, other = (best(sign * matrix(300, 290), 5, exact=True) for sign in (1, -1))

    assert pair.left.norm(dim=0).tolist() == pytest.approx(pair.right.norm(dim=1).tolist(), rel=1e-9)
    assert torch.allclose(pair.left, other.left, rtol=1e-7, atol=1e-12)
    assert torch.allclose(pair.right, -other.right, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    "delta", [torch.zeros(300, 290, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)]
)
def test_nothing_has_factors_of_nothing(delta: torch.Tensor) -> None:
    """A zero matrix has zero factors, finite ones."""
    pair = best(delta, 3, exact=True)

    assert not (pair.left @ pair.right).any()
    assert pair.left.isfinite().all()
    assert pair.right.isfinite().all()


def test_a_large_matrix_comes_out_of_a_randomised_range() -> None:
    """Within half a percent of the best, a projection, the same each time; `exact` is exact all the same."""
    delta = matrix(DIRECT + 8, DIRECT + 12)[:, :].contiguous()
    pair = best(delta, 8, exact=False)
    lost = left_over(delta, pair.left, pair.right)
    optimum = square(delta) - sum(value * value for value in best(delta, 8, exact=True).values)

    assert optimum * (1 - 1e-9) <= lost <= optimum * 1.01
    assert lost == pytest.approx(square(delta) - sum(value * value for value in pair.values), rel=1e-9)
    assert torch.equal(pair.left, best(delta, 8, exact=False).left)
    assert with_rest((3.0,), -1e-20) == (3.0, 0.0)


# --- what a tensor is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (4, 4), "linear"),
        ("lm_head.weight", (4, 4), "linear"),
        ("embed_out.weight", (4, 4), "linear"),
        ("model.embed_tokens.weight", (4, 4), "embedding"),
        ("transformer.wpe.weight", (4, 4), "embedding"),
        ("bert.embeddings.token_type_embeddings.weight", (4, 4), "embedding"),
        ("encoder.embed_positions.weight", (4, 4), "embedding"),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (4, 4), "embedding"),
        ("model.norm.weight", (4,), "vector"),
        ("model.layers.0.self_attn.q_proj.bias", (4,), "bias"),
        ("visual.patch_embed.proj.weight", (4, 3, 2, 2), "convolution"),
        ("model.layers.0.mlp.experts.gate_up_proj", (2, 4, 4), "parameter"),
        ("cls_token", (1, 1, 4), "parameter"),
        ("m.gate.weight", (4, 4), "router"),
        ("other.gate.weight", (4, 4), "linear"),
    ],
)
def test_kinds_are_told_by_names_and_shapes(name: str, shape: tuple[int, ...], kind: str) -> None:
    """Nothing else is known of a checkpoint's modules."""
    mixtures = blocks_of_experts(["m.experts.0.w1.weight"])

    assert kind == kind_of(name, TensorSpec(DTYPES["F32"], shape), mixtures)


def test_what_is_no_float_is_neither() -> None:
    """Integers have no two factors."""
    assert kind_of("a.weight", TensorSpec(DTYPES["I64"], (2, 2))) == "other"


def test_targets_are_named_as_shortly_as_they_are_certain() -> None:
    """The last names where they mean these modules and no other, else the whole names."""
    header = {
        f"l.{i}.{leaf}.weight": TensorSpec(DTYPES["F32"], (2, 2)) for i in (0, 1) for leaf in ("q", "v")
    }

    assert targets(["l.0.q", "l.1.q"], header) == ["q"]
    assert targets(["l.0.q"], header) == ["l.0.q"]


def test_experts_share_a_rank() -> None:
    """All of them have the highest one; the others keep theirs."""
    assert levelled({"m.experts.0.w1": 2, "m.experts.1.w1": 5, "q": 1}) == {"m.experts.0.w1": 5, "m.experts.1.w1": 5, "q": 1}  # fmt: skip


def test_a_base_in_the_hubs_cache_is_known_by_its_name() -> None:
    """The repository and the revision are read off the folder; any other path stays what it is."""
    revision = "0123456789" * 4
    assert named(f"/x/models--org--name/snapshots/{revision}/") == ("org/name", revision)
    assert named("base/") == ("base/", None)


# --- real models, and PEFT's own reading of them ----------------------------------------------------------------------

ARCHES = ["llama", "gpt2", "llama-tied", "llama-biases"]


@pytest.mark.parametrize("arch", ARCHES)
def test_at_full_rank_it_is_the_fine_tune(arch: str, bases: Callable[[str], Path], tmp_path: Path) -> None:
    """PEFT loads it without a word, and its logits are the fine-tune's; every module that changed is in it."""
    base = bases(arch)
    fine = tuned(base, tmp_path / "fine", is_matrix)
    made = rsoup.extract(fine, tmp_path / "out", base=base, rank=1000)
    model = adapters.load_adapter_strictly(base, tmp_path / "out")

    assert adapters.logit_error(model, adapters.base_weights(fine), base) < 1e-5
    assert made.figures.ranks.error < 1e-6
    assert set(made.figures.ranks.chosen) == {n.removesuffix(".weight") for n, d in dense(base, fine).items() if d.any()}  # fmt: skip
    assert made.config["fan_in_fan_out"] == (arch == "gpt2")
    assert made.config["r"] == made.config["lora_alpha"]


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_errors_are_what_the_stored_factors_have(
    arch: str, dtype: str, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    """‖Δ − B·A‖/‖Δ‖ overall and of each module, to 10⁻⁶; the table says what other ranks would have."""
    base = bases(arch)
    fine = tuned(base, tmp_path / "fine", is_matrix)
    made = rsoup.extract(fine, tmp_path / "out", base=base, rank=2, dtype=dtype)
    found, deltas = made.figures, dense(base, fine)
    lost, whole = 0.0, 0.0
    for module, error in found.errors.items():
        delta = deltas[f"{module}.weight"]
        left = (delta - product(tmp_path / "out", f"{module}.weight")).norm().item()
        assert error == pytest.approx(left / delta.norm().item(), abs=1e-6)
        lost, whole = lost + left**2, whole + delta.norm().item() ** 2
    optimum = math.sqrt(sum(torch.linalg.svdvals(deltas[f"{m}.weight"])[1:].square().sum().item() for m in found.errors) / whole)  # fmt: skip

    assert found.ranks.error == pytest.approx(math.sqrt(lost / whole), abs=1e-6)
    assert found.ranks.norm == pytest.approx(math.sqrt(whole), rel=1e-9)
    assert found.ranks.worst[0][1] == max(found.errors.values())
    assert dict(found.ranks.table)[1] == pytest.approx(optimum, rel=1e-6)
    assert 0.1 < found.ranks.error < optimum


@pytest.mark.parametrize("limit", ["0.5", "0.1", "0.01"])
def test_an_error_is_kept_with_the_fewest_ranks(
    limit: str, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    """The true error is at most the limit, and one rank less anywhere would be too many lost."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", is_matrix)
    made = rsoup.extract(fine, tmp_path / "out", base=base, max_error=limit)
    foreseen = rsoup.extract(fine, tmp_path / "none", base=base, max_error=limit, dry_run=True)
    values = {m: torch.linalg.svdvals(dense(base, fine)[f"{m}.weight"]) for m in made.figures.ranks.chosen}
    chosen = made.figures.ranks.chosen
    total = sum(v.square().sum().item() for v in values.values())
    lost = sum(v[chosen[m] :].square().sum().item() for m, v in values.items())
    next_one = min(v[chosen[m] - 1].item() ** 2 for m, v in values.items() if chosen[m] > 1)

    assert math.sqrt(lost / total) == pytest.approx(made.figures.ranks.error, abs=1e-6)
    assert (
        made.figures.ranks.error
        <= float(limit) * (1 + 1e-6)
        < math.sqrt((lost + next_one) / total) * (1 + 1e-6)
    )
    assert foreseen.figures.ranks.chosen == chosen
    assert foreseen.figures.ranks.error == pytest.approx(made.figures.ranks.error, abs=1e-6)
    assert not (tmp_path / "none").exists()
    adapters.load_adapter_strictly(base, tmp_path / "out")


@pytest.mark.parametrize("arch", [*ARCHES, "bert-score"])
def test_what_is_kept_whole_is_the_fine_tunes(
    arch: str, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    """Norms, embeddings (a tied head too) and biases are there, where PEFT looks for them."""
    base = bases(arch)
    fine = tuned(base, tmp_path / "fine", everything)
    made = rsoup.extract(fine, tmp_path / "out", base=base, rank=1000, save_modules=True)
    model = adapters.load_adapter_strictly(base, tmp_path / "out")

    assert adapters.logit_error(model, adapters.base_weights(fine), base) < 1e-5
    assert not made.figures.left_out
    assert made.config.get("ensure_weight_tying", False) == (arch in ("gpt2", "llama-tied"))
    assert made.config["bias"] == {"llama": "none", "llama-tied": "none"}.get(arch, "lora_only")


@pytest.mark.parametrize("arch", ARCHES)
def test_folded_again_it_is_the_fine_tune(arch: str, bases: Callable[[str], Path], tmp_path: Path) -> None:
    """`merge ADAPTER --base BASE --fold` makes every tensor of the fine-tune again, and no other."""
    base = bases(arch)
    fine = tuned(base, tmp_path / "fine", everything)
    rsoup.extract(fine, tmp_path / "out", base=base, rank=1000, save_modules=True)
    rsoup.merge(rsoup.make_recipe([tmp_path / "out"], base=base, fold=True), tmp_path / "again")
    again, wanted = load_file(tmp_path / "again" / "model.safetensors"), load_file(fine / "model.safetensors")

    assert again.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (again[name] - value).abs().max() <= 2e-6 * value.abs().max()


def test_a_tied_model_stays_tied(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """Loaded by PEFT into the model as it is, with one tensor for embeddings and head, it is the fine-tune too."""
    base = bases("llama-tied")
    fine = tuned(base, tmp_path / "fine", everything)
    rsoup.extract(fine, tmp_path / "out", base=base, rank=1000, save_modules=True)
    with adapters.expected_warnings():
        model = adapters.peft.PeftModel.from_pretrained(adapters.opened(base), str(tmp_path / "out")).double()

    assert adapters.logit_error(model.eval(), adapters.base_weights(fine), base) < 1e-5


def test_embeddings_may_be_factors(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """--embeddings stores them as PEFT's lora_embedding, with an error like that of any matrix."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", any_matrix)
    made = rsoup.extract(fine, tmp_path / "out", base=base, rank=3, embeddings=True)
    name = "model.embed_tokens.weight"
    delta = dense(base, fine)[name]

    assert made.figures.errors["model.embed_tokens"] == pytest.approx(
        ((delta - product(tmp_path / "out", name)).norm() / delta.norm()).item(), abs=1e-6
    )
    adapters.load_adapter_strictly(base, tmp_path / "out")


def test_unchanged_modules_are_left_out(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """A module that did not change is no target, not one of rank 0, and its name does not fit the targets."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", called("model.layers.1.mlp.up_proj.weight"))
    made = rsoup.extract(fine, tmp_path / "out", base=base, rank=4)

    assert made.config["target_modules"] == ["model.layers.1.mlp.up_proj"]
    assert len(load_file(tmp_path / "out" / "adapter_model.safetensors")) == 2
    adapters.load_adapter_strictly(base, tmp_path / "out")


def test_rounding_alone_is_no_change(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """A fine-tune stored in bfloat16 differs everywhere from a float32 base; only what was trained counts."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", called("q_proj"))
    weights = {n: v.to(torch.bfloat16) for n, v in load_file(fine / "model.safetensors").items()}
    save_file(weights, fine / "model.safetensors", {"format": "pt"})
    made = rsoup.extract(fine, tmp_path / "out", base=base, rank=4)

    assert made.config["target_modules"] == ["q_proj"]
    assert any("rounding" in note for note in made.notes)


@pytest.mark.parametrize("arch", ["mixtral", "qwen3_moe"])
def test_experts_load_in_peft(arch: str, bases: Callable[[str], Path], tmp_path: Path) -> None:
    """Experts stored one by one, their ranks made equal, and their routers whole: PEFT stacks them as it loads them."""
    base = bases(arch)
    fine = tuned(base, tmp_path / "fine", called("expert", "q_proj", "gate.weight"), noise=0.05)
    made = rsoup.extract(fine, tmp_path / "out", base=base, max_error=0.001, save_modules=True)
    model = adapters.load_adapter_strictly(base, tmp_path / "out", *EXPERTS)

    assert len({rank for module, rank in made.figures.ranks.chosen.items() if ".experts." in module}) == 1
    assert adapters.logit_error(model, adapters.base_weights(fine), base) < 0.01


def test_a_new_head_is_kept_whole(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """A reward model of a language model: refused, or with its head in modules_to_save."""
    base = bases("llama")
    fine = tuned(bases("llama-score"), tmp_path / "fine", everything)
    weights = load_file(fine / "model.safetensors")
    for name, value in load_file(base / "model.safetensors").items():
        if name in weights:
            weights[name] = value + 0.01 * is_matrix(name, value) * value.roll(1, 0)
    save_file(weights, fine / "model.safetensors", {"format": "pt"})
    options = {"drop": ["lm_head.weight"], "allow": ["config"], "rank": 4}
    error = refused(tmp_path, fine, base, IncompatibleError, "E0360", **options)
    made = rsoup.extract(fine, tmp_path / "out", base=base, save_modules=True, **options)  # type: ignore[arg-type]

    assert "score.weight" in str(error)
    assert made.config["modules_to_save"] == ["score"]
    assert made.config["task_type"] == "SEQ_CLS"
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert torch.equal(stored["base_model.model.score.weight"], weights["score.weight"])


def test_an_adapter_may_be_extracted_too(tmp_path: Path) -> None:
    """DoRA on a base becomes a plain LoRA, as near as the ranks allow."""
    made = adapters.make("dora", tmp_path / "kinds")
    found = rsoup.extract(made.adapters[0], tmp_path / "out", base=made.base, rank=1000)
    model = adapters.load_adapter_strictly(made.base, tmp_path / "out")

    assert (
        adapters.logit_error(model, adapters.adapted_weights(made.base, made.adapters[0]), made.base) < 1e-5
    )
    assert found.config["use_dora"] is False


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_would_be_lost_is_refused(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """E0360 names every such tensor with its norm; --drop leaves them out and says what share that is."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", lambda n, v: is_matrix(n, v) or n == "model.norm.weight")
    error = refused(tmp_path, fine, base, IncompatibleError, "E0360")
    made = rsoup.extract(fine, tmp_path / "out", base=base, rank=2, drop=["*norm*"])
    deltas = dense(base, fine)
    norm = deltas["model.norm.weight"].norm().item()
    whole = math.sqrt(sum(delta.square().sum().item() for delta in deltas.values()))

    assert [problem.where for problem in error.details] == ["'model.norm.weight'"]
    assert f"{norm:.3g}" in error.details[0].what
    assert made.figures.left_out == (("model.norm.weight", pytest.approx(norm, rel=1e-6)),)
    assert made.figures.left_out_share == pytest.approx(norm / whole, rel=1e-6)
    assert made.manifest["checks"]["dropped"] == ["model.norm.weight"]  # type: ignore[index]


def test_nothing_to_extract_is_refused(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """E0361: the base itself, or a fine-tune whose matrices all stayed."""
    base = bases("llama")
    norms = tuned(base, tmp_path / "fine", called("norm"))

    refused(tmp_path, base, base, IncompatibleError, "E0361")
    refused(tmp_path, norms, base, IncompatibleError, "E0361", save_modules=True)


def test_two_ways_of_storing_are_refused(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """E0362: an untied head of GPT-2 is a Linear, everything else there a Conv1D."""
    for folder in (base := tmp_path / "base", fine := tmp_path / "fine"):
        shutil.copytree(bases("gpt2"), folder)
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
        if folder is fine:
            weights["lm_head.weight"] *= 1.1
            weights["transformer.h.0.attn.c_attn.weight"] *= 1.1
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    refused(tmp_path, fine, base, IncompatibleError, "E0362")
    made = rsoup.extract(fine, tmp_path / "out", base=base, rank=2, drop=["lm_head.weight"])
    assert made.config["fan_in_fan_out"] is True


def test_conv1d_is_told_by_its_bias_too() -> None:
    """Without a config.json the lengths of the biases say which way round a matrix is stored."""
    spec, name = TensorSpec(DTYPES["F32"], (4, 12)), "h.0.attn.c_attn.weight"
    change = Change(name, name, spec, "linear", 1.0)

    for length, inverted in ((12, True), (4, False)):
        header = {name: spec, "h.0.attn.c_attn.bias": TensorSpec(DTYPES["F32"], (length,))}
        assert fan_in_fan_out([change], header, None) is inverted
    assert fan_in_fan_out([change], {name: spec}, "gpt2") is True
    assert fan_in_fan_out([change], {name: spec}, "gpt_bigcode") is False


@pytest.mark.parametrize(
    ("names", "drop", "why"),
    [
        ({"scale": "F32 4"}, (), "no module of its own"),
        ({"m.A_log": "F32 4", "m.in_proj.weight": "F32 4 4"}, (), "modules inside"),
        ({"bn.running_mean": "F32 4", "bn.num_batches_tracked": "I64 1"}, (), "I64"),
        ({"n.weight": "F32 4", "n.more": "F32 4"}, ("n.more",), "--drop"),
    ],
)
def test_what_cannot_be_kept_whole_is_refused(names: dict[str, str], drop: tuple[str, ...], why: str) -> None:
    """E0363 names it and says why."""
    header = {"q.weight": TensorSpec(DTYPES["F32"], (4, 4))}
    for name, text in names.items():
        dtype, *shape = text.split()
        header[name] = TensorSpec(DTYPES[dtype], tuple(map(int, shape)))
    changes = [Change(n, n, header[n], kind_of(n, header[n]), 1.0) for n in ("q.weight", next(iter(names)))]

    with pytest.raises(IncompatibleError, match=why) as error:
        parted(changes, header, save=True, drop=drop)

    assert error.value.code == "E0363"


def test_tied_embeddings_are_no_factors(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """E0364: two factors would change the embeddings and not the head; so would a table that is shared."""
    base = bases("llama-tied")
    fine = tuned(base, tmp_path / "fine", any_matrix)
    spec = TensorSpec(DTYPES["F32"], (4, 4))
    changes = [Change(n, n, spec, kind_of(n, spec), 1.0) for n in ("shared.weight", "q.weight")]

    refused(tmp_path, fine, base, IncompatibleError, "E0364", embeddings=True)
    with pytest.raises(IncompatibleError, match="shared") as error:
        parted(changes, {"shared.weight": spec, "q.weight": spec}, save=True)
    assert error.value.code == "E0364"


def test_a_stranger_is_refused(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """E0306, as for a soup; --allow distance goes on."""
    base = bases("llama")
    other = adapters.make_base(tmp_path / "other", "llama", seed=9)

    refused(tmp_path, other, base, IncompatibleError, "E0306")
    made = rsoup.extract(
        other, tmp_path / "out", base=base, rank=1, allow=["distance"], drop=["*norm*", "*embed*"]
    )
    assert any("moved far" in note for note in made.notes)


def test_broken_weights_are_refused(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """E0304 where a changed tensor is not finite."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", is_matrix)
    weights = load_file(fine / "model.safetensors")
    weights["lm_head.weight"][0, 0] = math.nan
    save_file(weights, fine / "model.safetensors", {"format": "pt"})

    assert "lm_head" in str(refused(tmp_path, fine, base, IncompatibleError, "E0304"))


def test_a_factor_too_large_for_its_dtype_leaves_nothing(
    bases: Callable[[str], Path], tmp_path: Path
) -> None:
    """E0305 comes while factors are written; the staging folder goes with it."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", called())
    weights = load_file(fine / "model.safetensors")
    weights["lm_head.weight"] += 1e12
    save_file(weights, fine / "model.safetensors", {"format": "pt"})

    refused(tmp_path, fine, base, IncompatibleError, "E0305", dtype="float16", allow=["distance"])


def test_an_error_beyond_the_limit_leaves_nothing(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """E0401, exit 4; in a dry run too."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", is_matrix)

    refused(tmp_path, fine, base, GateError, "E0401", fail_above_error=0.1)
    refused(tmp_path, fine, base, GateError, "E0401", fail_above_error=0.1, dry_run=True)
    rsoup.extract(fine, tmp_path / "out", base=base, rank=8, fail_above_error=0.5)


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"rank": None}, UsageError, "E0219"),
        ({"max_error": "0.1"}, UsageError, "E0206"),
        ({"rank": 0}, UsageError, "E0213"),
        ({"drop": ["nothing.*"]}, UsageError, "E0209"),
    ],
)
def test_requests_that_mean_nothing(
    options: dict[str, object],
    kind: type[RsoupError],
    code: str,
    bases: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Neither a rank nor an error, both, no rank at all, a glob that matches nothing."""
    refused(
        tmp_path, tuned(bases("llama"), tmp_path / "fine", is_matrix), bases("llama"), kind, code, **options
    )


def test_places_that_cannot_be(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """Not one file, not over what exists, not into an input."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", is_matrix)
    (tmp_path / "taken").mkdir()

    for out, kind, code in (("x.safetensors", UsageError, "E0214"), ("taken", TargetError, "E0601"), ("fine/x", UsageError, "E0213")):  # fmt: skip
        with pytest.raises(kind) as error:
            rsoup.extract(fine, tmp_path / out, base=base, rank=1)
        assert error.value.code == code


# --- how it is done ----------------------------------------------------------------------------------------------------


def test_threads_change_no_bit(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """The same bytes with one thread and with five, and again over what is there."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", is_matrix)
    for out, threads in (("one", 1), ("five", 5)):
        rsoup.extract(fine, tmp_path / out, base=base, rank=4, threads=threads)
    rsoup.extract(fine, tmp_path / "five", base=base, rank=4, overwrite=True)
    one, five = ((tmp_path / out / "adapter_model.safetensors").read_bytes() for out in ("one", "five"))

    assert one == five


def test_modules_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is let in than fits, the largest alone, and waiting ends when all are to stop."""
    room = reducing._Room(100)
    stop = threading.Event()
    with room.of(60, stop):
        stop.set()
        with pytest.raises(reducing.StoppedError), room.of(50, stop):
            pass
        with room.of(40, stop):
            pass
    with room.of(1000, stop):
        pass


def test_prefixes_of_the_fine_tune_are_kept_where_they_are_the_models(
    bases: Callable[[str], Path], tmp_path: Path
) -> None:
    """A base saved without its head lacks `model.`: the adapter's keys have it all the same. A wrapper's prefix goes."""
    whole = bases("llama")
    bare, fine = tmp_path / "bare", tuned(whole, tmp_path / "fine", called("q_proj"))
    wrapped = tmp_path / "wrapped"
    for folder, origin, name in (
        (bare, whole, lambda n: n.removeprefix("model.")),
        (wrapped, fine, lambda n: f"module.{n}"),
    ):
        shutil.copytree(origin, folder)
        weights = {name(n): v for n, v in load_file(origin / "model.safetensors").items() if n != "lm_head.weight" or folder is wrapped}  # fmt: skip
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    inner = tmp_path / "inner"
    shutil.copytree(fine, inner)
    save_file({n: v for n, v in load_file(fine / "model.safetensors").items() if n != "lm_head.weight"}, inner / "model.safetensors")  # fmt: skip
    keys = set()
    for out, one, base in (("a", inner, bare), ("b", wrapped, whole), ("c", fine, whole)):
        rsoup.extract(one, tmp_path / out, base=base, rank=2)
        keys.add(frozenset(load_file(tmp_path / out / "adapter_model.safetensors")))

    assert len(keys) == 1
    assert all(key.startswith("base_model.model.model.layers.") for key in keys.pop())


def test_the_tokenizer_goes_along_and_the_config_does_not(
    bases: Callable[[str], Path], tmp_path: Path
) -> None:
    """A folder with a model's config.json would be taken for a model."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", is_matrix)
    (fine / "tokenizer_config.json").write_text("{}")
    made = rsoup.extract(fine, tmp_path / "out", base=base, rank=1)

    assert set(made.files) == {"adapter_model.safetensors", "adapter_config.json", "tokenizer_config.json", "README.md", "rsoup.json"}  # fmt: skip
    assert set(made.files) == {file.name for file in (tmp_path / "out").iterdir()}


def test_the_manifest_holds_the_figures_and_verifies(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """Both inputs by their contents, every file and tensor by its digest; nobody's path."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", everything)
    made = rsoup.extract(fine, tmp_path / "out", base=base, rank=2, save_modules=True)
    found = json.loads((tmp_path / "out" / "rsoup.json").read_text())

    assert found["arithmetic"] == "rsoup-extract/1"
    assert found["checks"]["extract"]["error"] == made.figures.ranks.error
    assert found["checks"]["copied"] == 6
    assert found["ingredients"][0]["content"]
    assert found["base"]["content"]
    assert str(tmp_path) not in json.dumps(found)
    assert all(level.holds for level in rsoup.verify(tmp_path / "out").levels)
    for asked in ({"rederive": True}, {"sample": 300}):
        with pytest.raises(UsageError, match="extracted from full weights is not made again"):
            rsoup.verify(tmp_path / "out", [fine], base=base, **asked)


# --- the commands --------------------------------------------------------------------------------------------------------


def test_extract_on_the_command_line(warm: Warm, bases: Callable[[str], Path], tmp_path: Path) -> None:
    """Text, JSON, the path alone, a dry run, and exit codes."""
    base = bases("llama")
    fine = tuned(base, tmp_path / "fine", everything)

    def ask(out: str, *arguments: str) -> Ended:
        return warm.run("extract", fine, "--base", base, "-o", tmp_path / out, *arguments)

    plain = ask("a", "--rank", "2", "--save-modules")
    dropping = ask("b", "--rank", "2", "--drop", "*norm*", "--drop", "*embed*", "--json")
    dry = ask("c", "--max-error", "0.2", "--save-modules", "--dry-run", "--json")
    short = ask("d", "--rank", "1", "--save-modules", "-q")
    lost = ask("e", "--rank", "1", "--json")
    gate = ask("e", "--rank", "1", "--save-modules", "--fail-above-error", "0.01")
    several = warm.run("extract", f"x={fine},{fine}", "--base", base, "--rank", "1", "-o", tmp_path / "e")

    assert (plain.code, plain.err) == (0, "")
    for text in (
        "rank      2 · 15 modules",
        "r: error",
        "worst",
        "whole     model.embed_tokens",
        "from the base",
    ):
        assert text in plain.out
    data = json.loads(dropping.out)
    assert (dropping.code, data["extract"]["rank"], len(data["extract"]["left_out"])) == (0, [2, 2], 6)
    assert data["manifest"]["arithmetic"] == "rsoup-extract/1"
    assert (dry.code, json.loads(dry.out)["dry_run"]) == (0, True)
    assert (short.code, short.out.strip()) == (0, str(tmp_path / "d"))
    assert (lost.code, json.loads(lost.out)["error"]["code"]) == (3, "E0360")
    assert (gate.code, "E0401" in gate.err) == (4, True)
    assert (several.code, "E0202" in several.err) == (2, True)
    assert not (tmp_path / "c").exists()
    assert not (tmp_path / "e").exists()


def test_resize_is_a_merge_of_one(warm: Warm, bases: Callable[[str], Path], tmp_path: Path) -> None:
    """The command, the library and `merge --rank` write the same factors; E0365 for no adapter, E0219 for no rank."""
    base = bases("llama")
    full = tmp_path / "full"
    rsoup.extract(tuned(base, tmp_path / "fine", is_matrix), full, base=base, rank=8)
    done = warm.run("resize", full, "--rank", "2", "-o", tmp_path / "two", "--json")
    dry = warm.run("resize", full, "--max-error", "0.3", "-o", tmp_path / "no", "--dry-run")
    merged = rsoup.merge(rsoup.make_recipe([full], rank=2), tmp_path / "merged")
    again = rsoup.resize(full, tmp_path / "library", max_error=0.3, base=base)
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("two", "merged"))

    assert (done.code, json.loads(done.out)["adapter"]["rank"]) == (0, [2, 2])
    assert (dry.code, "would write" in dry.out) == (0, True)
    assert merged.adapter is not None
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.measures.ranks is not None
    assert again.measures.ranks.error <= 0.3
    for adapter, rank, code in ((base, "2", "E0365"), (full, None, "E0219")):
        asked = ["--rank", rank] if rank else []
        refusal = warm.run("resize", adapter, *asked, "-o", tmp_path / "no", "--json")
        assert json.loads(refusal.out)["error"]["code"] == code
    assert not (tmp_path / "no").exists()
