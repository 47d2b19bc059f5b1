"""Adapters that PEFT wrote, mixed into one adapter, opened by PEFT again: what comes out is the soup."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import adapters as zoo
import pytest
import torch
from checkpoints import read_tensors, tree
from safetensors.torch import load_file, save_file
from warm import rsoup

import rsoup as library
from rsoup.errors import GateError, IncompatibleError, MismatchError, UsageError
from rsoup.lora.merging import merge_adapters
from rsoup.merging import MergeResult

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
LOW_RANK = [name for name, kind in zoo.KINDS.items() if not kind.fold_only]
PATTERNS = "The following alpha_pattern keys did not match any targeted module"  # which PEFT then matches
LOGITS = 1e-5  # relative to ‖soup − base‖


def tolerance(kind: zoo.Kind) -> float:
    """What the stored dtype allows, and what PEFT's own float32 beginnings and bfloat16 residuals cost."""
    if kind.init_mutates_base:
        return 4e-2 if kind.base_dtype == torch.bfloat16 else 1e-4
    narrow = {torch.bfloat16: 5e-3, torch.float16: 5e-4}
    if kind.heads and kind.base_dtype == torch.bfloat16:
        return 2e-2  # a head stored in bfloat16
    return narrow.get(kind.factor_dtype or torch.float32, LOGITS)


def soup(
    made: zoo.Made, out: Path, mix: Sequence[str] = ("0.6", "0.4"), *, base: bool = True, **options: object
) -> MergeResult:
    """The soup of a kind's adapters at `out`."""
    options = {"base": made.base, **options} if base else options
    recipe = library.make_recipe(list(made.adapters), mix=list(mix), **options)  # type: ignore[arg-type]
    return library.merge(recipe, out)


def error_of(made: zoo.Made, out: Path, mix: Sequence[str]) -> float:
    """‖logits of the adapter at `out` − logits of the dense soup‖ / ‖logits of the soup − the base's‖."""
    reference = zoo.soup_weights(
        made.base, made.adapters, [float(Fraction(m)) for m in mix], *made.kind.warns
    )
    allowed = (*made.kind.warns, *([PATTERNS] if made.kind.moe else []))
    return zoo.logit_error(zoo.load_adapter_strictly(made.base, out, *allowed), reference, made.base)


# --- every kind


@pytest.mark.fault("F19")
@pytest.mark.parametrize("name", LOW_RANK)
def test_soups_of_every_kind_are_exact(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """PEFT opens the soup without a warning, and its logits are those of θ₀ + Σλᵢ(θᵢ − θ₀)."""
    made = zoo.make(name, zoo_folder)

    soup(made, tmp_path / "soup")

    assert error_of(made, tmp_path / "soup", ("0.6", "0.4")) < tolerance(made.kind)


@pytest.mark.parametrize("name", [n for n in LOW_RANK if not zoo.KINDS[n].vocabulary])
def test_affine_soups_are_exact(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """Σλ ≠ 1 and a negative λ: the base has what is left."""
    made = zoo.make(name, zoo_folder)

    soup(made, tmp_path / "soup", ("1.5", "-0.7"), affine=True)

    assert error_of(made, tmp_path / "soup", ("1.5", "-0.7")) < 2 * tolerance(made.kind)


PLAIN = ["plain", "ranks", "targets", "patterns", "mixed-rslora", "gpt2", "embed", "conv", "adalora", "lora-bias", "bias-all", "score"]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_no_base_is_needed_where_it_has_no_part(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """Without --base the file's tensors are the same, bit for bit."""
    made = zoo.make(name, zoo_folder)

    soup(made, tmp_path / "with")
    soup(made, tmp_path / "without", base=False)

    assert (tmp_path / "with" / WEIGHTS).stat().st_size == (tmp_path / "without" / WEIGHTS).stat().st_size
    ours, theirs = (load_file(tmp_path / side / WEIGHTS) for side in ("with", "without"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    "name", ["dora", "dora-embed", "pissa", "olora", "head-one", "tokens-one", "tokens-both"]
)
def test_what_needs_the_base_says_so(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """DoRA, PiSSA, tensors that one adapter replaces and another does not: refused without the base."""
    made = zoo.make(name, zoo_folder)

    with pytest.raises(IncompatibleError, match="depends on the base's own weights") as error:
        soup(made, tmp_path / "soup", base=False)

    assert error.value.code == "E0347"
    assert not (tmp_path / "soup").exists()


# --- laws


@pytest.mark.parametrize("name", LOW_RANK)
@pytest.mark.parametrize("which", [0, 1])
def test_one_hot_is_that_adapter(name: str, which: int, zoo_folder: Path, tmp_path: Path) -> None:
    """λ = eᵢ gives adapter i back: its own tensors bit for bit, its own configuration."""
    made = zoo.make(name, zoo_folder)
    mix = ["0", "0"]
    mix[which] = "1"

    result = soup(made, tmp_path / "soup", mix, base=False)

    assert (tmp_path / "soup" / CONFIG).read_bytes() == (made.adapters[which] / CONFIG).read_bytes()
    ours, theirs = load_file(tmp_path / "soup" / WEIGHTS), load_file(made.adapters[which] / WEIGHTS)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert result.adapter is not None
    assert result.adapter.copied == made.adapters[which].name


@pytest.mark.parametrize("name", ["plain", "dora", "head-both", "tokens-both", "moe-gpt-oss"])
def test_an_adapter_with_itself_is_itself(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """Σλᵢ·a over copies of a is a, bit for bit: what PEFT's linear doubles."""
    made = zoo.make(name, zoo_folder)
    recipe = library.make_recipe(
        {"a": made.adapters[0], "again": made.adapters[0], "once": made.adapters[0]},
        mix=["0.5", "0.2", "0.3"],
    )

    library.merge(recipe, tmp_path / "soup")

    ours, theirs = load_file(tmp_path / "soup" / WEIGHTS), load_file(made.adapters[0] / WEIGHTS)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def update(folder: Path, module: str) -> torch.Tensor:
    """s·B·A of a module, float64."""
    tensors = load_file(folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    stem = f"base_model.model.{module}"
    a, b = (tensors[f"{stem}.lora_{side}.weight"].double() for side in "AB")
    rank = config.get("alpha_pattern", {}).get(module.replace(".", "\\."), config["lora_alpha"])
    return rank / a.shape[0] * b @ a


MODULE = "model.layers.0.self_attn.q_proj"


def test_factors_are_the_files_own(zoo_folder: Path, tmp_path: Path) -> None:
    """An exact soup stacks the factors: B bit for bit, A times λ·s rounded once."""
    made = zoo.make("plain", zoo_folder)
    soup(made, tmp_path / "soup", ("0.3", "0.7"))
    found = load_file(tmp_path / "soup" / WEIGHTS)
    one, two = (load_file(path / WEIGHTS) for path in made.adapters)
    stem = f"base_model.model.{MODULE}"

    b = torch.cat([one[f"{stem}.lora_B.weight"], two[f"{stem}.lora_B.weight"]], dim=1)
    a = torch.cat(
        [
            (one[f"{stem}.lora_A.weight"].double() * 0.6).float(),
            (two[f"{stem}.lora_A.weight"].double() * 1.4).float(),
        ]
    )

    assert torch.equal(found[f"{stem}.lora_B.weight"], b)
    assert torch.equal(found[f"{stem}.lora_A.weight"], a)


def test_the_order_of_adapters_changes_nothing(zoo_folder: Path, tmp_path: Path) -> None:
    """Permuting (adapters, λ): the same ΔW to float64's last bits."""
    made = zoo.make("ranks", zoo_folder)
    turned = zoo.Made(made.kind, made.base, made.adapters[::-1])
    soup(made, tmp_path / "one", ("0.3", "0.7"), dtype="float64")
    soup(turned, tmp_path / "other", ("0.7", "0.3"), dtype="float64")

    one, other = (update(tmp_path / side, MODULE) for side in ("one", "other"))

    assert float((one - other).norm() / one.norm()) < 1e-14


@pytest.mark.parametrize("name", ["plain", "ranks", "patterns", "gpt2", "dora", "pissa"])
def test_truncation_at_full_rank_is_exact(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """--rank of Σr or more is the exact soup, byte for byte."""
    made = zoo.make(name, zoo_folder)

    soup(made, tmp_path / "exact")
    soup(made, tmp_path / "cut", rank=64)

    assert load_file(tmp_path / "exact" / WEIGHTS).keys() == load_file(tmp_path / "cut" / WEIGHTS).keys()
    ours, theirs = (load_file(tmp_path / side / WEIGHTS) for side in ("exact", "cut"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    "name", ["plain", "patterns-rslora", "embed", "conv", "gpt2", "all-linear", "moe-gpt-oss"]
)
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_of_truncation_is_the_one_that_is_told(
    name: str, rank: int, zoo_folder: Path, tmp_path: Path
) -> None:
    """‖ΔW of the file − ΔW of the soup‖/‖ΔW of the soup‖ over all weights, dense float64, is what is printed."""
    made = zoo.make(name, zoo_folder)
    result = soup(made, tmp_path / "soup", rank=rank, dtype="float64")
    start = zoo.base_weights(made.base)
    wanted = zoo.soup_weights(made.base, made.adapters, (0.6, 0.4), *made.kind.warns)
    library.merge(
        library.make_recipe(
            [tmp_path / "soup"], base=made.base, fold=True, dtype="float64", max_distance=99.0
        ),
        tmp_path / "full",
    )
    found = read_tensors(tmp_path / "full")
    gap = sum(float((found[n] - wanted[n]).norm()) ** 2 for n in wanted) ** 0.5
    norm = sum(float((wanted[n] - start[n]).norm()) ** 2 for n in wanted if n in start) ** 0.5

    assert result.adapter is not None
    assert result.adapter.ranks is not None
    assert gap / norm == pytest.approx(result.adapter.ranks.error, abs=2e-6)
    assert max(result.adapter.ranks.chosen.values()) <= rank


def test_the_error_that_was_asked_for_holds(zoo_folder: Path, tmp_path: Path) -> None:
    """--max-error: the ranks are as small as that allows, the error within it, and PEFT reads the patterns."""
    made = zoo.make("all-linear", zoo_folder)

    result = soup(made, tmp_path / "soup", max_error="0.3")

    assert result.adapter is not None
    assert result.adapter.ranks is not None
    assert 0.1 < result.adapter.ranks.error <= 0.3
    assert len(set(result.adapter.ranks.chosen.values())) > 1
    assert 0.0 < error_of(made, tmp_path / "soup", ("0.6", "0.4")) < 0.6


def test_dora_soups_stay_dora_when_they_are_cut(zoo_folder: Path, tmp_path: Path) -> None:
    """Truncating keeps the magnitudes of the soup: the error in logits is of the size of the error in weights."""
    made = zoo.make("dora", zoo_folder)

    result = soup(made, tmp_path / "soup", rank=6)

    assert json.loads((tmp_path / "soup" / CONFIG).read_text())["use_dora"] is True
    assert result.adapter is not None
    assert result.adapter.ranks is not None
    assert 0.0 < error_of(made, tmp_path / "soup", ("0.6", "0.4")) < 3 * result.adapter.ranks.error


def test_shared_factors_cost_no_rank(zoo_folder: Path, tmp_path: Path) -> None:
    """Adapters with one A: the soup needs rank r, not 2r, and says so."""
    made = zoo.make("plain", zoo_folder)
    twin = tmp_path / "twin"
    twin.mkdir()
    one, two = (load_file(path / WEIGHTS) for path in made.adapters)
    save_file({key: one[key] if "lora_A" in key else two[key] for key in one}, twin / WEIGHTS)
    (twin / CONFIG).write_bytes((made.adapters[0] / CONFIG).read_bytes())

    result = library.merge(library.make_recipe([made.adapters[0], twin], uniform=True), tmp_path / "soup")

    assert result.adapter is not None
    assert result.adapter.ranks is not None
    assert set(result.adapter.ranks.chosen.values()) == {4}
    assert result.adapter.ranks.error < 1e-7
    assert any("need less than Σr" in note for note in result.notes)
    wanted = (update(made.adapters[0], MODULE) + update(twin, MODULE)) / 2
    assert float((update(tmp_path / "soup", MODULE) - wanted).norm() / wanted.norm()) < 1e-6


@pytest.mark.parametrize("options", [{}, {"rank": 3}, {"max_error": "0.4"}], ids=["exact", "rank", "error"])
@pytest.mark.parametrize("name", ["ranks", "dora", "embed"])
def test_a_sweep_is_its_separate_merges(
    name: str, options: dict[str, object], zoo_folder: Path, tmp_path: Path
) -> None:
    """K soups from one reading are, file for file, what K merges write."""
    made = zoo.make(name, zoo_folder)
    mixes = [("0", "1"), ("1/3", "2/3"), ("0.5", "0.5"), ("0.9", "0.1"), ("1", "0")]
    recipes = [
        library.make_recipe(list(made.adapters), mix=list(mix), base=made.base, **options)  # type: ignore[arg-type]
        for mix in mixes
    ]

    merge_adapters([(recipe, str(tmp_path / f"swept-{i}")) for i, recipe in enumerate(recipes)])

    for i, recipe in enumerate(recipes):
        library.merge(recipe, tmp_path / f"alone-{i}")
        for file in (WEIGHTS, CONFIG, "README.md"):
            assert (tmp_path / f"swept-{i}" / file).read_bytes() == (
                tmp_path / f"alone-{i}" / file
            ).read_bytes()


@pytest.mark.parametrize("threads", [1, 5])
def test_threads_change_nothing(threads: int, zoo_folder: Path, tmp_path: Path) -> None:
    """One thread or five: the same file."""
    made = zoo.make("all-linear", zoo_folder)
    recipe = library.make_recipe(list(made.adapters), uniform=True, rank=5)

    library.merge(recipe, tmp_path / "two", threads=2)
    library.merge(recipe, tmp_path / "other", threads=threads)

    assert (tmp_path / "two" / WEIGHTS).read_bytes() == (tmp_path / "other" / WEIGHTS).read_bytes()


def test_groups_and_rules(zoo_folder: Path, tmp_path: Path) -> None:
    """A group's seeds share its λ evenly; a layer has a mix of its own."""
    made, more = zoo.make("plain", zoo_folder), zoo.make("plain", zoo_folder, seed=1)
    recipe_file = tmp_path / "soup.yaml"
    recipe_file.write_text(
        f"""
ingredients:
  - {{name: both, checkpoints: ["{made.adapters[0]}", "{more.adapters[0]}"], lambda: 0.6}}
  - {{name: two, checkpoint: "{made.adapters[1]}", lambda: 0.4}}
per_tensor:
  - {{layers: 1, lambda: [0, 1]}}
dtype: float64
"""
    )

    library.merge(library.load_recipe(recipe_file), tmp_path / "soup")

    a, b, c = (update(path, MODULE) for path in (made.adapters[0], more.adapters[0], made.adapters[1]))
    wanted = 0.3 * a + 0.3 * b + 0.4 * c
    assert float((update(tmp_path / "soup", MODULE) - wanted).norm()) < 1e-12
    second = MODULE.replace("0", "1")
    assert float((update(tmp_path / "soup", second) - update(made.adapters[1], second)).norm()) < 1e-12


def test_scale_and_normalize(zoo_folder: Path, tmp_path: Path) -> None:
    """--scale multiplies ΔW, and needs no base; --normalize divides λ."""
    made = zoo.make("plain", zoo_folder)
    soup(made, tmp_path / "soup", ("3", "1"), base=False, normalize=True, scale="0.5", dtype="float64")

    wanted = 0.375 * update(made.adapters[0], MODULE) + 0.125 * update(made.adapters[1], MODULE)

    assert float((update(tmp_path / "soup", MODULE) - wanted).norm()) < 1e-12


# --- the paper's own average


def test_factors_are_averaged_by_themselves(zoo_folder: Path, tmp_path: Path) -> None:
    """--method factors: Σλᵢ·Bᵢ times ΣλᵢAᵢ; the printed gap is the dense one, Σ_{i<j} λᵢλⱼ(Bᵢ−Bⱼ)(Aᵢ−Aⱼ)."""
    made = zoo.make("plain", zoo_folder)
    soup(made, tmp_path / "true", dtype="float64")
    result = soup(made, tmp_path / "soup", method="factors", dtype="float64")
    one, two = (load_file(path / WEIGHTS) for path in made.adapters)
    gap = norm = 0.0
    for key in (key for key in one if "lora_A" in key):
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        a, b = ((t[key].double(), t[key.replace("_A", "_B")].double()) for t in (one, two))
        average = update(tmp_path / "soup", module)
        exact = update(tmp_path / "true", module)
        assert torch.allclose(average, 2 * (0.6 * a[1] + 0.4 * b[1]) @ (0.6 * a[0] + 0.4 * b[0]), atol=1e-12)
        assert torch.allclose(exact - average, 2 * 0.24 * (a[1] - b[1]) @ (a[0] - b[0]), atol=1e-9)
        gap += float((average - exact).norm()) ** 2
        norm += float(exact.norm()) ** 2

    assert result.adapter is not None
    assert result.adapter.factors_distance == pytest.approx((gap / norm) ** 0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("ranks", {}, "other ranks or scalings"),
        ("mixed-rslora", {}, "other ranks or scalings"),
        ("targets", {}, "not every adapter changes it"),
        ("dora", {}, "DoRA, PiSSA or OLoRA"),
        ("plain", {"affine": True, "mix": ("0.6", "0.6")}, "sum to 1"),
        ("plain", {"rank": 2}, "not truncated"),
    ],
)
def test_factors_that_have_no_average(
    name: str, options: dict[str, object], what: str, zoo_folder: Path, tmp_path: Path
) -> None:
    """Other ranks, scalings, targets, kinds, or Σλ ≠ 1: refused, with the module."""
    made = zoo.make(name, zoo_folder)

    with pytest.raises(IncompatibleError) as error:
        soup(made, tmp_path / "soup", method="factors", **options)  # type: ignore[arg-type]

    assert error.value.code == "E0349"
    assert any(what in problem.what for problem in error.value.details)


def test_factors_are_for_adapters(base_and_two: object, two_models: list[str], tmp_path: Path) -> None:
    """--method factors on full checkpoints is no method."""
    with pytest.raises(UsageError, match="is for adapters"):
        library.merge(library.make_recipe(two_models, uniform=True, method="factors"), tmp_path / "soup")


# --- what is written


def test_the_configuration_is_the_smallest_that_says_it(zoo_folder: Path, tmp_path: Path) -> None:
    """α = r, plain LoRA, the targets' last names, integers; nothing inherited that has no meaning."""
    made = zoo.make("rslora", zoo_folder)

    soup(made, tmp_path / "soup", base=False)

    assert json.loads((tmp_path / "soup" / CONFIG).read_text()) == {
        "auto_mapping": None, "base_model_name_or_path": str(made.base), "bias": "none", "fan_in_fan_out": False,
        "inference_mode": True, "init_lora_weights": True, "lora_alpha": 8, "lora_dropout": 0.0, "peft_type": "LORA",
        "r": 8, "revision": None, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM",
        "use_dora": False, "use_rslora": False,
    }  # fmt: skip


def test_patterns_name_one_module_each(zoo_folder: Path, tmp_path: Path) -> None:
    """Where ranks differ, rank and α are given by the modules' whole names, with α = r."""
    made = zoo.make("targets", zoo_folder)

    soup(made, tmp_path / "soup")

    config = json.loads((tmp_path / "soup" / CONFIG).read_text())
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert config["rank_pattern"]
    assert all("\\." in key for key in config["rank_pattern"])


def test_the_manifest_and_the_card(zoo_folder: Path, tmp_path: Path) -> None:
    """Recipe, digests and figures in rsoup.json; a card that names the relation; nothing private in either."""
    made = zoo.make("plain", zoo_folder)

    result = soup(made, tmp_path / "soup", rank=4)

    manifest = json.loads((tmp_path / "soup" / "rsoup.json").read_text())
    assert manifest["arithmetic"] == "rsoup-lora/1"
    assert {row["name"] for row in manifest["subject"]} == {WEIGHTS, CONFIG, "README.md"}
    assert manifest["checks"]["adapter"]["error"] == pytest.approx(result.adapter.ranks.error)  # type: ignore[union-attr]
    assert manifest["recipe"]["canonical"]["rank"] == 4
    card = (tmp_path / "soup" / "README.md").read_text()
    assert "library_name: peft" in card
    assert "lora" in card
    assert str(tmp_path) not in card + json.dumps(manifest)


def test_tokenizers_go_along(zoo_folder: Path, tmp_path: Path) -> None:
    """What TRL saves beside an adapter is copied; the pickle of its arguments is not."""
    made = zoo.make("plain", zoo_folder)
    trained = [zoo.train_with_trl(tmp_path / f"run-{seed}", made.base, seed) for seed in (0, 1)]

    library.merge(library.make_recipe(trained, mix=["0.6", "0.4"]), tmp_path / "soup")

    names = {path.name for path in (tmp_path / "soup").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", WEIGHTS, CONFIG} <= names
    assert not {"training_args.bin", "optimizer.pt"} & names
    pair = zoo.Made(made.kind, made.base, tuple(trained))
    assert error_of(pair, tmp_path / "soup", ("0.6", "0.4")) < LOGITS


# --- gates and servers


def test_an_error_above_the_limit_writes_nothing(zoo_folder: Path, tmp_path: Path) -> None:
    """--fail-above-error: exit code 4, and nothing there."""
    made = zoo.make("plain", zoo_folder)
    recipe = library.make_recipe(list(made.adapters), uniform=True, rank=2)

    with pytest.raises(GateError, match="is the limit") as error:
        library.merge(recipe, tmp_path / "soup", fail_above_error=0.01)

    assert error.value.code == "E0401"
    assert error.value.exit_code == 4
    assert tree(tmp_path) == {}


def test_a_server_that_takes_it(zoo_folder: Path, tmp_path: Path) -> None:
    """--serve prints the command that serves the soup."""
    made = zoo.make("plain", zoo_folder)

    done = rsoup("merge", *made.adapters, "--uniform", "-o", "soup", "--serve", "vllm", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "--enable-lora --max-lora-rank 8 --lora-modules soup=./soup" in done.stdout


def test_a_server_that_does_not(zoo_folder: Path, tmp_path: Path) -> None:
    """A head vLLM would refuse: said before anything is written, with what to do."""
    made = zoo.make("head-both", zoo_folder)

    done = rsoup("merge", *made.adapters, "--uniform", "-o", "soup", "--serve", "vllm", cwd=tmp_path)

    assert done.returncode == 3
    assert "E0350" in done.stderr
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("options", [["--serve", "vllm"], ["--fail-above-error", "0.1"]])
def test_gates_are_for_adapters(options: list[str], two_models: list[str], tmp_path: Path) -> None:
    """On full weights they mean nothing, and say so."""
    done = rsoup("merge", *two_models, "--uniform", "-o", tmp_path / "soup", *options)

    assert done.returncode == 2
    assert "E0206" in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_writes_nothing(as_json: bool, zoo_folder: Path, tmp_path: Path) -> None:
    """--dry-run tells rank, error and bytes."""
    made = zoo.make("plain", zoo_folder)
    options = ["--json"] if as_json else []

    done = rsoup(
        "merge", *made.adapters, "--uniform", "-o", "soup", "--rank", "4", "--dry-run", *options, cwd=tmp_path
    )

    assert done.returncode == 0, done.stderr
    assert tree(tmp_path) == {}
    if as_json:
        assert json.loads(done.stdout)["adapter"]["rank"] == [4, 4]
    else:
        assert "would write soup" in done.stdout


# --- verify


@pytest.mark.parametrize("name", ["plain", "dora", "head-one", "tokens-both"])
@pytest.mark.parametrize("rank", [None, 3])
def test_soups_of_adapters_are_verified(
    name: str, rank: int | None, zoo_folder: Path, tmp_path: Path
) -> None:
    """verify --rederive makes the adapter again from its adapters."""
    made = zoo.make(name, zoo_folder)
    soup(made, tmp_path / "soup", rank=rank)

    found = library.verify(tmp_path / "soup", list(made.adapters), base=made.base, rederive=True)

    assert [level.name for level in found.levels] == ["structure", "digests", "rederive"]
    assert found.holds


def test_an_altered_soup_is_found(zoo_folder: Path, tmp_path: Path) -> None:
    """A factor that was changed, with a manifest that was made to fit, is found by making it again."""
    made = zoo.make("plain", zoo_folder)
    soup(made, tmp_path / "soup", rank=3)
    other = soup(made, tmp_path / "other", ("0.5", "0.5"), rank=3)
    assert other.adapter is not None
    blob = (tmp_path / "soup" / WEIGHTS).read_bytes()
    changed = (tmp_path / "other" / WEIGHTS).read_bytes()[-len(blob) // 2 :]
    (tmp_path / "soup" / WEIGHTS).write_bytes(blob[: len(blob) - len(changed)] + changed)

    with pytest.raises(MismatchError) as error:
        library.verify(tmp_path / "soup", list(made.adapters), base=made.base, rederive=True, digests=False)

    assert "is not what the recipe gives of these adapters" in str(error.value)


def test_soups_of_adapters_are_not_sampled(zoo_folder: Path, tmp_path: Path) -> None:
    """--sample of an adapter: the whole of it is as quick."""
    made = zoo.make("plain", zoo_folder)
    soup(made, tmp_path / "soup")

    with pytest.raises(UsageError, match="is not sampled"):
        library.verify(tmp_path / "soup", list(made.adapters), base=made.base, sample="2%")


# --- how many


@pytest.mark.parametrize("count", [1, 3, 8])
def test_any_number_of_adapters(count: int, zoo_folder: Path, tmp_path: Path) -> None:
    """One adapter rescaled, three with a negative λ, eight at once: exact, rank Σr."""
    kind = zoo.make("plain", zoo_folder).kind
    made = [zoo.make("plain", zoo_folder, seed=seed).adapters[0] for seed in range(count)]
    mix = ["0.5", "0.8", "-0.4", "0.3", "0.2", "0.1", "0", "0.25"][:count]
    group = zoo.Made(kind, zoo.make("plain", zoo_folder).base, tuple(made))

    result = soup(group, tmp_path / "soup", mix, base=False, affine=True)

    assert result.adapter is not None
    assert result.adapter.ranks is not None
    assert max(result.adapter.ranks.chosen.values()) == 4 * sum(share != "0" for share in mix)
    assert error_of(group, tmp_path / "soup", mix) < LOGITS


def test_narrow_factors_tell_what_they_lose(zoo_folder: Path, tmp_path: Path) -> None:
    """--dtype bfloat16: the error of the stored factors is the dense one."""
    made = zoo.make("plain", zoo_folder)

    result = soup(made, tmp_path / "soup", ("0.3", "0.7"), dtype="bfloat16")

    soup(made, tmp_path / "true", ("0.3", "0.7"), dtype="float64")
    modules = [f"model.layers.{i}.self_attn.{side}_proj" for i in range(2) for side in "qv"]
    pairs = [(update(tmp_path / "soup", name), update(tmp_path / "true", name)) for name in modules]
    gap = sum(float((one - other).norm()) ** 2 for one, other in pairs) ** 0.5
    norm = sum(float(other.norm()) ** 2 for _, other in pairs) ** 0.5
    assert result.adapter is not None
    assert result.adapter.stored_error == pytest.approx(gap / norm, rel=1e-6)
    assert 1e-4 < gap / norm < 5e-3


def test_what_is_dropped_is_told(zoo_folder: Path, tmp_path: Path) -> None:
    """--drop leaves modules out of the soup, and says how much of ΔW that was."""
    made = zoo.make("all-linear", zoo_folder)

    result = soup(made, tmp_path / "soup", drop=["*mlp*"])

    assert not any(".mlp." in key for key in load_file(tmp_path / "soup" / WEIGHTS))
    soup(made, tmp_path / "whole", dtype="float64")
    names = {key.removeprefix("base_model.model.").removesuffix(".lora_A.weight") for key in load_file(tmp_path / "whole" / WEIGHTS) if ".mlp." in key and "lora_A" in key}  # fmt: skip
    lost = sum(float(update(tmp_path / "whole", name).norm()) ** 2 for name in names) ** 0.5
    assert any(
        f"--drop leaves out {len(names)} modules with ‖ΔW‖ {lost:.4g}" in note for note in result.notes
    )
