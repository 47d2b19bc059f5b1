"""Sweeps of what people really have: adapters, single files, archives of Stable-Baselines3; and the command line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import related, tree, write_file, write_folder
from torch import nn
from warm import rsoup

from rsoup.errors import UsageError
from rsoup.library import make_recipe
from rsoup.merging import merge
from rsoup.recipe import Ingredient
from rsoup.request import Request
from rsoup.sweep.score import Metric
from rsoup.sweep.spec import Design, EvaluatorSpec, SweepSpec
from rsoup.sweep.sweeping import check_ended, sweep

SIZE = """
import json, os, sys
path = sys.argv[1]
files = [path] if os.path.isfile(path) else [os.path.join(path, name) for name in os.listdir(path)]
print(json.dumps({"bytes": sum(os.path.getsize(file) for file in files), "files": len(files)}))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a script that measures what it is given."""
    (tmp_path / "size.py").write_text(SIZE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kept(names: list[str], **more: object) -> dict[str, Path]:
    """Three soups of these ingredients by their λ, swept and kept."""
    request = Request([Ingredient(Path(name).stem, (name,)) for name in names], **more)  # type: ignore[arg-type]
    evaluator = EvaluatorSpec((Metric("bytes", "$.bytes"),), run=f"{sys.executable} -S size.py {{model}}")
    result = sweep(SweepSpec(request, (evaluator,), Design(grid=3)), "run", keep="all")
    check_ended(result)
    found = result.document["points"]
    assert isinstance(found, list)
    return {
        ",".join(point["lambda"].values()): Path(path)
        for point, path in zip(found, result.soups, strict=True)
    }


def same(one: Path, other: Path) -> None:
    """Two folders hold the same bytes but for when and in what time they were made."""
    files = [tree(one), tree(other)]
    manifests = [json.loads(found.pop("rsoup.json")) for found in files]
    assert all(manifest.pop("run") for manifest in manifests)
    assert files[0] == files[1]
    assert manifests[0] == manifests[1]


def write_adapters(folder: Path) -> None:
    """Two adapters, `a` and `b`, as PEFT saves them."""
    from peft import LoraConfig, get_peft_model

    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))
        config = LoraConfig(r=2 + seed, target_modules=["0", "2"], init_lora_weights=False)
        get_peft_model(body, config).save_pretrained(folder / name)


def test_adapters_are_swept_as_adapters(place: Path) -> None:
    """Each soup of PEFT's adapters is the one that merge writes, byte for byte."""
    write_adapters(place)
    for mix, soup in kept(["a", "b"]).items():
        alone = place / "alone" / mix
        merge(make_recipe(["a", "b"], mix=mix.split(",")), alone)
        assert (soup / "adapter_config.json").is_file()
        same(soup, alone)


@pytest.mark.parametrize("asked", [{"method": "factors"}, {"rank": 2}, {"max_error": 0.1}])
def test_a_function_is_given_no_adapter(place: Path, asked: dict[str, object]) -> None:
    """What only an adapter can be is refused before the first point where a function would be given full weights."""
    (place / "f.py").write_text("def score(soup, split): return {'r': 1.0}\n")
    write_adapters(place)
    request = Request([Ingredient(name, (name,)) for name in "ab"], **asked)  # type: ignore[arg-type]
    evaluator = EvaluatorSpec((Metric("r", "$.r"),), function="f:score")

    with pytest.raises(UsageError, match="a function is given full weights") as caught:
        sweep(SweepSpec(request, (evaluator,), Design(grid=3)), "run")

    assert caught.value.code == "E0238"


def test_files_become_files(place: Path) -> None:
    """Soups of .safetensors files are .safetensors files, those of merge."""
    _, tuned = related(2)
    for name, tensors in zip("ab", tuned, strict=True):
        write_file(place / f"{name}.safetensors", tensors)
    for mix, soup in kept(["a.safetensors", "b.safetensors"]).items():
        assert soup.suffix == ".safetensors"
        alone = place / f"alone-{mix}.safetensors"
        merge(make_recipe(["a.safetensors", "b.safetensors"], mix=mix.split(",")), alone)
        assert soup.read_bytes() == alone.read_bytes()


def test_archives_become_archives(place: Path) -> None:
    """Soups of Stable-Baselines3's archives are archives that PPO.load takes, with the mean of the policies."""
    gymnasium = pytest.importorskip("gymnasium")
    from stable_baselines3 import PPO

    for seed, name in enumerate("ab"):
        PPO("MlpPolicy", gymnasium.make("CartPole-v1"), n_steps=8, batch_size=8, seed=seed, device="cpu").save(name)  # fmt: skip
    soups = kept(["a.zip", "b.zip"])
    a, b, middle = (PPO.load(path, device="cpu").policy.state_dict() for path in ("a.zip", "b.zip", soups["0.5,0.5"]))  # fmt: skip
    assert all(
        torch.equal(((a[name].double() + b[name].double()) / 2).float(), middle[name]) for name in middle
    )


def test_the_command_line(place: Path) -> None:
    """One line sweeps, the folder alone goes on with what it was told, other options beside it are refused."""
    _, tuned = related(2)
    for name, tensors in zip("ab", tuned, strict=True):
        write_folder(place / name, tensors)
    run = [
        "sweep", "a", "b", "--grid", "3", "--eval", f"{sys.executable} -S size.py {{model}}", "--reward", "bytes:min",
        "--guard", "files", "--keep", "front", "--jobs", "2", "-o", "run",
    ]  # fmt: skip
    first = rsoup(*run, "--json", cwd=place)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert (found["evaluated"], found["ended"]) == (3, "complete")
    assert found["metrics"]["metrics"]["bytes"]["direction"] == "minimise"
    assert found["metrics"]["metrics"]["files"]["guard"] is True
    before = sorted(os.listdir(place / "run" / "soups"))
    again = rsoup("sweep", "run", "--json", cwd=place)
    assert json.loads(again.stdout)["evaluated"] == 0
    assert sorted(os.listdir(place / "run" / "soups")) == before
    beside = rsoup("sweep", "run", "--grid", "5", cwd=place)
    assert (beside.returncode, "E0206" in beside.stderr) == (2, True)
    dry = rsoup(*run[:4], "9", *run[5:], "--dry-run", cwd=place)
    assert dry.returncode == 0
    assert "9 points" in dry.stdout
    assert "6 of them left" in dry.stdout


@pytest.mark.fault("J17")
def test_many_points_need_a_yes(place: Path) -> None:
    """1001 points are refused with their number before anything is opened."""
    many = rsoup(
        "sweep", "a", "b", "--grid", "1001", "--eval", "true", "--reward", "x", "-o", "run", cwd=place
    )
    assert many.returncode == 2
    assert "1001 points" in many.stderr
    assert "--yes" in many.stderr
    assert not (place / "run").exists()
