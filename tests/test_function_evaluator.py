"""Functions of a live soup, from end to end: what they see is the soup that merge writes, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Tensors, read_tensors, related, write_folder
from safetensors.torch import save_file
from torch import nn

import rsoup
from rsoup.recipe import Ingredient
from rsoup.request import Request
from rsoup.sweep.ledger import Ledger
from rsoup.sweep.options import RunOptions
from rsoup.sweep.score import Metric
from rsoup.sweep.spec import Design, EvaluatorSpec, SweepSpec
from rsoup.sweep.sweeping import SweepResult, check_ended, sweep

SCORER = """
import os
import time
import torch
from torch import nn

calls = 0
model = None


def net():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))


def sums(soup, seed, *, split, point, out):
    global calls
    calls += 1
    total = {name: float(value.double().sum()) for name, value in soup.state_dict().items()}
    with open(os.path.join(out, "sums.txt"), "w") as file:
        file.write(repr(sorted(total.items())))
    first = float(soup.read("layers.0.weight").reshape(-1)[0])
    return {"sum": sum(value for _, value in sorted(total.items())), "first": (first, 0.5), "calls": calls, "seed": seed,
            "pid": os.getpid(), "reported": float(split == "report"), "named": len(point)}


def two(soup, seed, *, split, point, out):
    os.makedirs("here", exist_ok=True)
    open(f"here/{os.getpid()}", "w").close()
    for _ in range(1200):
        if len(os.listdir("here")) == 2:
            return sums(soup, seed, split=split, point=point, out=out)
        time.sleep(0.05)
    raise TimeoutError("the other process never came")


def outputs(soup):
    global model, calls
    calls += 1
    if model is None:
        model = net()
    soup.load_into(model)
    with torch.no_grad():
        found = model(torch.linspace(-1, 1, 6))
    return {f"y{i}": float(value) for i, value in enumerate(found)} | {"calls": calls}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with the functions."""
    (tmp_path / "scorer.py").write_text(SCORER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def swept(ingredients: Mapping[str, str], function: str, metrics: str, design: Design, **more: Any) -> SweepResult:  # fmt: skip
    """A complete sweep by a function."""
    found = tuple(Metric(name, f"$.{name}") for name in metrics.split())
    options = {key: more.pop(key) for key in ("keep", "options") if key in more}
    spec_more = {key: more.pop(key) for key in ("repeats", "report_repeats") if key in more}
    request = Request([Ingredient(name, (path,)) for name, path in ingredients.items()], **more)
    result = sweep(SweepSpec(request, (EvaluatorSpec(found, function=function),), design, **spec_more), "run", **options)  # fmt: skip
    check_ended(result)
    return result


def points(result: SweepResult) -> list[dict[str, Any]]:
    """The points of its document."""
    found = result.document["points"]
    assert isinstance(found, list)
    return found


def value(point: Mapping[str, Any], name: str) -> float:
    """A metric of a point."""
    return float(point["select"][name]["value"])


@pytest.fixture
def experts(place: Path) -> dict[str, str]:
    """Three fine-tunes and their base, in bfloat16, in several files."""
    base, tuned = related(2, dtype=torch.bfloat16)
    parts: dict[str, Tensors] = {"base": base, "a": tuned[0], "b": tuned[1]}
    return {name: str(write_folder(place / name, tensors, shards=2)) for name, tensors in parts.items()}


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_a_function_sees_what_merge_writes(place: Path, experts: dict[str, str], method: str) -> None:
    """Every tensor at every λ and scale: the sums over the live soup are those over the file, to the last bit."""
    halves = (Fraction(1, 2), Fraction(1))
    base = experts.pop("base")
    result = swept(experts, "scorer:sums", "sum first calls pid", Design(grid=4, scales=halves), base=base, method=method)  # fmt: skip

    assert len(points(result)) == 8
    for point in points(result):
        shares = list(point["lambda"].values())
        recipe = rsoup.make_recipe(experts, mix=shares, scale=point["scale"], base=base, method=method)
        rsoup.merge(recipe, place / "soup", overwrite=True)
        written = read_tensors(place / "soup")
        sums = {name: float(tensor.double().sum()) for name, tensor in written.items()}
        assert value(point, "sum") == sum(total for _, total in sorted(sums.items()))
        assert value(point, "first") == float(written["layers.0.weight"].reshape(-1)[0])
        assert point["select"]["first"]["error"] == 0.5
        told = place / "run" / "outputs" / point["point"] / "select-0" / "sums.txt"
        assert told.read_text() == repr(sorted(sums.items()))
    assert [value(point, "calls") for point in sorted(points(result), key=lambda p: value(p, "calls"))] == list(range(1, 9))  # fmt: skip
    assert len({value(point, "pid") for point in points(result)}) == 1
    assert not (place / "run" / "soups").exists()


def test_jobs_seeds_and_reports(place: Path, experts: dict[str, str]) -> None:
    """Two processes share the work; repeats have the seeds 0, 1; the report's seeds are others."""
    base = experts.pop("base")
    swept(experts, "scorer:two", "sum seed pid reported named", Design(grid=7), base=base, repeats=2, report_repeats=1, options=RunOptions(environments=({}, {})))  # fmt: skip

    records = Ledger("run").records()
    select = [record for record in records if record.split == "select"]
    report = [record for record in records if record.split == "report"]
    assert sorted(record.scores["seed"].value for record in select) == [0] * 7 + [1] * 7
    assert report
    assert all(record.scores["seed"].value not in (0, 1) for record in report)
    assert all(record.scores["reported"].value == (record.split == "report") for record in records)
    assert all(record.scores["named"].value == len(record.point) for record in records)
    assert len({record.scores["pid"].value for record in records}) == 2
    by_point: dict[str, set[float]] = {}
    for record in records:
        by_point.setdefault(record.point, set()).add(record.scores["sum"].value)
    assert all(len(sums) == 1 for sums in by_point.values())


def net(seed: int = 5) -> nn.Sequential:
    """The module that the function loads the soup into."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))


def answers(weights: Mapping[str, torch.Tensor]) -> list[float]:
    """What a net of these weights says."""
    model = net()
    model.load_state_dict(dict(weights))
    with torch.no_grad():
        return [float(y) for y in model(torch.linspace(-1, 1, 6))]


OUTPUTS = " ".join(f"y{i}" for i in range(6))


def test_a_model_is_loaded_once_and_answers_as_the_written_soup(place: Path) -> None:
    """load_into a live module: its outputs at every λ are those of the merged file; the kept soup is that file."""
    for i, name in enumerate("ab"):
        (place / name).mkdir()
        save_file(net(i).state_dict(), place / name / "model.safetensors", metadata={"format": "pt"})
    result = swept({"a": "a", "b": "b"}, "scorer:outputs", f"{OUTPUTS} calls", Design(grid=5), keep="all")

    assert len(result.soups) == 5
    for point in points(result):
        rsoup.merge(rsoup.make_recipe(["a", "b"], mix=list(point["lambda"].values())), place / "soup", overwrite=True)  # fmt: skip
        written = read_tensors(place / "soup")
        assert [value(point, f"y{i}") for i in range(6)] == answers(written)
        kept = read_tensors(place / "run" / "soups" / point["point"])
        assert all(torch.equal(kept[name], written[name]) for name in written)
    assert sorted(value(point, "calls") for point in points(result)) == [1, 2, 3, 4, 5]


def test_adapters_are_folded_for_a_function(place: Path) -> None:
    """Real LoRA adapters of two ranks on their base: the outputs at every λ are those of `merge --fold`."""
    from peft import LoraConfig, get_peft_model

    (place / "base").mkdir()
    save_file(net().state_dict(), place / "base" / "model.safetensors", metadata={"format": "pt"})
    for i, name in enumerate("ab"):
        torch.manual_seed(10 + i)
        config = LoraConfig(r=2 + i, lora_alpha=4, target_modules=["0", "2"], init_lora_weights=False)
        get_peft_model(net(), config).save_pretrained(place / name)
    more: dict[str, Any] = {"base": "base", "max_distance": 100.0}
    result = swept({"a": "a", "b": "b"}, "scorer:outputs", OUTPUTS, Design(grid=5), **more)

    seen = set()
    for point in points(result):
        recipe = rsoup.make_recipe({"a": "a", "b": "b"}, mix=list(point["lambda"].values()), fold=True, **more)  # fmt: skip
        rsoup.merge(recipe, place / "soup", overwrite=True)
        found = [value(point, f"y{i}") for i in range(6)]
        assert found == answers(read_tensors(place / "soup"))
        seen.add(tuple(found))
    assert len(seen) == 5
    assert not (place / "run" / "soups").exists()
    assert json.loads((place / "run" / "metrics.json").read_text())["points"] == points(result)
