"""`rsoup select --merge --push`: the chosen point of a sweep is made and published with what was measured of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import related, write_folder
from hub_server import Hub
from huggingface_hub.repocard import ModelCard
from warm import rsoup

from rsoup.recipe import Ingredient
from rsoup.request import Request
from rsoup.sweep.spec import Design, EvaluatorSpec, Metric, SweepSpec
from rsoup.sweep.sweeping import sweep

SCORE = """
import json, os, struct, sys
data = open(os.path.join(sys.argv[1], "model.safetensors"), "rb").read()
(size,) = struct.unpack("<Q", data[:8])
at = json.loads(data[8:8 + size])["layers.0.bias"]["data_offsets"][0] + 8 + size
(x,) = struct.unpack("<f", data[at:at + 4])
print(json.dumps({"up": x, "down": -x}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two experts: three soups, measured."""
    place = tmp_path_factory.mktemp("place")
    base, tuned = related(2, dtype=torch.float32)
    write_folder(place / "base", base)
    for name, tensors in zip("ab", tuned, strict=True):
        write_folder(place / name, tensors)
    (place / "score.py").write_text(SCORE)
    request = Request([Ingredient(n, (str(place / n),)) for n in "ab"], base=str(place / "base"))
    command = f"{sys.executable} -S {place / 'score.py'} {{model}}"
    evaluators = (EvaluatorSpec((Metric("up", "$.up"), Metric("down", "$.down")), run=command),)
    sweep(SweepSpec(request, evaluators, Design(grid=3)), str(place / "run"))
    return place / "run"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with a user `me`."""
    with Hub(tmp_path / "hub") as made:
        yield made


def select(
    hub: Hub, run: Path, *arguments: object, token: str = "hf_write"
) -> subprocess.CompletedProcess[str]:
    """`rsoup select …` in a process of its own."""
    return rsoup("select", str(run), *map(str, arguments), env=hub.environment(token=token))


def test_the_chosen_point_is_published_with_its_rewards(hub: Hub, run: Path, tmp_path: Path) -> None:
    """The soup on the Hub is the one that was made, and its card has the values that the sweep measured at this λ."""
    out = tmp_path / "soup"
    options = ("--private", "--license", "mit", "--commit-message", "The middle")
    done = select(hub, run, "--utility", "0 - abs(up - down)", "--merge", "-o", out, "--push", "me/made", *options, "--json")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)

    assert (found["soup"], found["push"]["repo"]) == (str(out), "me/made")
    files = hub.files("me/made")
    assert files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    assert hub.repository("me/made").private
    (tmp_path / "README.md").write_bytes(files["README.md"])
    data = ModelCard.load(tmp_path / "README.md").data
    measured = {n: s["value"] for n, s in found["chosen"]["measured"].items()}
    assert {r.metric_type: r.metric_value for r in data.eval_results} == pytest.approx(measured)
    assert data.license == "mit"


def test_what_was_not_measured_has_no_rewards(hub: Hub, run: Path, tmp_path: Path) -> None:
    """A λ between the measured ones is published without rewards, and the user is told."""
    line = (
        "--preference",
        "0.3,0.7",
        "--rule",
        "lambda",
        "--merge",
        "-o",
        tmp_path / "soup",
        "--push",
        "me/made",
    )
    done = select(hub, run, *line)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "the card has no rewards" in done.stderr
    assert "model-index" not in hub.files("me/made")["README.md"].decode()
    assert "me/made" in done.stdout


def test_it_is_asked_before_the_work(hub: Hub, run: Path, tmp_path: Path) -> None:
    """A token that may not write: E0725, and nothing is made."""
    line = ("--preference", "1,0", "--merge", "-o", tmp_path / "soup", "--push", "me/made")
    done = select(hub, run, *line, token="hf_read")

    assert (done.returncode, "error[E0725]" in done.stderr) == (7, True), done.stderr
    assert not (tmp_path / "soup").exists()
