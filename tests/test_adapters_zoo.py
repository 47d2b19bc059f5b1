"""The fixtures of `adapters.py` are what they claim: files as PEFT writes them, and an oracle that agrees with itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from adapters import (
    ARCHES,
    KINDS,
    REFUSED,
    adapted_weights,
    base_weights,
    load_adapter_strictly,
    logit_error,
    logits,
    make,
    make_base,
    opened,
    rebuilt,
    soup_weights,
    train_with_trl,
    trained,
)
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all tests of this module share."""
    return tmp_path_factory.mktemp("zoo")


def apart(one: torch.Tensor, two: torch.Tensor, origin: torch.Tensor) -> float:
    """How far two answers are apart, as a share of how far the second moved from the base's."""
    return ((one - two).norm() / (two - origin).norm()).item()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_written_by_peft_and_merges_to_what_was_trained(zoo: Path, name: str) -> None:
    """Trained model = reloaded model = dense merged weights, in float64; and the two adapters differ."""
    made = make(name, zoo)
    start, origin = base_weights(made.base), logits(opened(made.base))
    answers = []
    for number, adapter in enumerate(made.adapters):
        assert {item.name for item in adapter.iterdir()} == {
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        live = logits(load_adapter_strictly(made.base, adapter, *made.kind.warns))
        weights = adapted_weights(made.base, adapter, *made.kind.warns)
        if not made.kind.by_hand:
            ended = logits(trained(made.kind, number, made.base).double())
            assert apart(ended, live, origin) < 1e-6
        assert apart(logits(rebuilt(made.base, weights)), live, origin) < 1e-6
        assert (live - origin).norm() > 0.01 * origin.norm(), "the adapter does next to nothing"
        assert all(value.dtype == torch.float64 for value in weights.values())
        changes = [
            ((weights[key] - value).norm() / value.norm()).item()
            for key, value in start.items()
            if weights[key].shape == value.shape and not torch.equal(weights[key], value)
        ]
        assert changes
        assert all(0.005 < change < 0.25 for change in changes), changes
        answers.append(live)
    assert apart(answers[0], answers[1], origin) > 0.1


@pytest.mark.parametrize("name", REFUSED)
def test_the_kinds_to_be_refused_are_written_too(zoo: Path, name: str) -> None:
    """They are files of PEFT like the others."""
    for adapter in make(name, zoo).adapters:
        assert load_file(adapter / "adapter_model.safetensors")
        assert json.loads((adapter / "adapter_config.json").read_text())["peft_type"]


def test_what_was_made_is_used_again_and_another_seed_is_another_adapter(zoo: Path) -> None:
    """The same call names the same files; the seed alone changes what the factors hold."""
    made = make("plain", zoo)
    before = made.adapters[0].joinpath("adapter_model.safetensors").stat()
    assert make("plain", zoo) == made
    assert made.adapters[0].joinpath("adapter_model.safetensors").stat() == before
    other = make("plain", zoo, seed=1)
    assert other.base == made.base
    one, two = (load_file(each.adapters[0] / "adapter_model.safetensors") for each in (made, other))
    assert one.keys() == two.keys()
    assert not any(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("arch", [*ARCHES, "conv"])
def test_every_base_opens_as_it_was_saved(tmp_path: Path, arch: str) -> None:
    """Opened again, nothing is missing or left over, and the weights are the file's."""
    base = make_base(tmp_path / "base", arch)
    assert torch.equal(logits(opened(base)), logits(rebuilt(base, base_weights(base))))


@pytest.mark.parametrize("name", ["plain", "embed-tied", "resized", "conv", "moe-mixtral"])
def test_a_soup_of_one_is_that_one_and_of_none_is_the_base(zoo: Path, name: str) -> None:
    """The oracle's identities: λ one-hot, and, where no row is new, λ = 0."""
    made = make(name, zoo)
    alone = adapted_weights(made.base, made.adapters[0], *made.kind.warns)
    soup = soup_weights(made.base, made.adapters, (1.0, 0.0), *made.kind.warns)
    assert all(torch.allclose(soup[key], value, rtol=0, atol=1e-15) for key, value in alone.items())
    if not made.kind.vocabulary:
        nothing = soup_weights(made.base, made.adapters, (0.0, 0.0), *made.kind.warns)
        assert all(torch.equal(nothing[key], value) for key, value in base_weights(made.base).items())


def test_the_error_of_a_model_is_measured_against_the_soup(zoo: Path) -> None:
    """No error for the adapter itself, and one of order one for the other adapter."""
    made = make("plain", zoo)
    one, two = (load_adapter_strictly(made.base, adapter) for adapter in made.adapters)
    reference = soup_weights(made.base, made.adapters, (1.0, 0.0))
    assert logit_error(one, reference, made.base) < 1e-12
    assert logit_error(two, reference, made.base) > 0.5


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_loading_strictly_accepts_no_other_keys(zoo: Path, tmp_path: Path, change: str) -> None:
    """A key PEFT would pass over in silence, or fill with an untrained factor, is an error."""
    made = make("plain", zoo)
    tensors = load_file(made.adapters[0] / "adapter_model.safetensors")
    if change == "missing":
        del tensors[next(key for key in tensors if "lora_B" in key)]
    else:
        tensors["base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight"] = torch.ones(4, 32)
    save_file(tensors, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    config = (made.adapters[0] / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises((AssertionError, UserWarning), match="keys"):
        load_adapter_strictly(made.base, tmp_path)


def test_trl_trains_an_adapter(zoo: Path, tmp_path: Path) -> None:
    """What SFTTrainer saves loads strictly and has learnt something; another seed learns something else."""
    base = make("plain", zoo).base
    one, two = (train_with_trl(tmp_path / str(seed), base, seed) for seed in (0, 1))
    origin = logits(opened(base))
    answers = [logits(load_adapter_strictly(base, adapter)) for adapter in (one, two)]
    assert all((answer - origin).norm() > 0.01 * origin.norm() for answer in answers)
    assert apart(answers[0], answers[1], origin) > 0.01
    assert logit_error(load_adapter_strictly(base, one), adapted_weights(base, one), base) < 1e-6
