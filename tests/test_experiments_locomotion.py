"""The experiment with locomotion: its plan by exact laws, and a run in miniature, end to end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import rsoup

HERE = Path(__file__).resolve().parent.parent / "recipes" / "experiments" / "locomotion"
NEEDED = ("mo_gymnasium", "mujoco", "imageio", "stable_baselines3")
MISSING = [name for name in NEEDED if find_spec(name) is None]
needs_a_body = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install mo-gymnasium 'gymnasium[mujoco]'"
)
SHARES = [Fraction(i, 10) for i in range(11)]


def of_locomotion(name: str) -> ModuleType:
    """A module of the experiment, whose names other experiments have, too."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(f"locomotion_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


plan = of_locomotion("plan")


@pytest.mark.parametrize("beta", plan.BETAS)
def test_bone_soup_solves_for_the_preference(beta: Fraction) -> None:
    """B·λ = (1 − μ, μ), and λ sums to 1 exactly; λ = (1/2, 1/2) for μ = 1/2."""
    matrix = np.array([[beta, 1 - beta], [1 - beta, beta]], dtype=object)
    for mu in SHARES:
        mix = plan.bone(beta, mu)
        assert tuple(matrix @ np.array(mix, dtype=object)) == (1 - mu, mu)
        assert sum(mix) == 1
    assert plan.bone(beta, Fraction(1, 2)) == (Fraction(1, 2), Fraction(1, 2))


def test_bone_soup_of_the_paper() -> None:
    """β = 0.7 and μ = (1, 0): coefficients 1.75 and −0.75."""
    assert plan.bone(Fraction(7, 10), Fraction(0)) == (Fraction(7, 4), Fraction(-3, 4))


def test_a_backbone_is_a_training_for_the_mixed_reward() -> None:
    """A backbone for (β, 1 − β) is MORL for μ = 1 − β, and the other for μ = β."""
    ends = {one.name: (one.one, one.two) for one in plan.attempts()}
    assert ends["bone-0.7"] == ("morl-0.3", "morl-0.7")
    assert ends["bone-0.6"] == ("morl-0.4", "morl-0.6")


def test_attempts_take_as_many_evaluations_as_the_soups_they_are_compared_with() -> None:
    """Every attempt has FEW λ, each summing to 1, and none is measured twice."""
    for one in plan.attempts():
        assert len(set(one.mixes)) == len(one.labels) == plan.FEW
        assert {sum(mix) for mix in one.mixes} == {1}


@pytest.mark.filterwarnings("ignore")
def test_policies_saved_by_two_processes_are_mixed(tmp_path: Path) -> None:
    """Where a process had its functions in memory, which an archive's settings tell, makes no difference to the policy."""
    sb3 = pytest.importorskip("stable_baselines3")
    ours = tmp_path / "ours.zip"
    sb3.PPO("MlpPolicy", "CartPole-v1", seed=0, n_steps=32, batch_size=32, device="cpu").save(ours)
    with zipfile.ZipFile(ours) as archive, zipfile.ZipFile(tmp_path / "theirs.zip", "w") as copy:
        for name in archive.namelist():
            data = archive.read(name)
            moved = re.sub(rb" at 0x[0-9a-f]+", b" at 0x7f0000000000", data) if name == "data" else data
            assert (moved != data) == (name == "data")
            copy.writestr(name, moved)

    rsoup.merge(rsoup.make_recipe([ours, tmp_path / "theirs.zip"], uniform=True), tmp_path / "soup.zip")

    assert (tmp_path / "soup.zip").exists()


PAGES = HERE.parents[2] / "docs" / "experiments"


@pytest.mark.skipif(not (PAGES / "locomotion.md").exists(), reason="no seed is measured yet")
def test_the_page_says_what_its_tables_say(tmp_path: Path) -> None:
    """Written again from the small tables, page and verdicts are those in docs/experiments."""
    shutil.copytree(PAGES / "locomotion", tmp_path / "locomotion")
    _said(
        sys.executable, "-c",
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import summary; summary.write(pathlib.Path(sys.argv[2]), figures=False)",
        HERE, tmp_path, cwd=tmp_path,
    )  # fmt: skip
    for name in ("locomotion.md", "locomotion/verdicts.json"):
        assert (tmp_path / name).read_text() == (PAGES / name).read_text()


TRAIN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import score, train, world
folder, sizes = Path(sys.argv[2]), train.Sizes(base=20, lengths=(20, 40), shared=20, morl=(0.5,))
world.SETTINGS.update(n_steps=4, batch_size=10, n_epochs=1)
train.ENVIRONMENTS = 5
first = list(train.train(folder, 0, sizes))
eyes = (folder / "eyes.pkl").read_bytes()
(folder / "frugal").rename(folder / "frugal.part")  # as if its training had been interrupted
again = list(train.train(folder, 0, sizes))
alone = {name: score.measured(world.load(folder / name / "40.zip"), world.eyes(folder / "eyes.pkl")) for name in ("fast", "frugal")}
frozen = eyes == (folder / "eyes.pkl").read_bytes()
print(json.dumps({"first": first, "again": again, "alone": alone, "frozen": frozen}))
"""


@needs_a_body
def test_a_small_run_from_training_to_the_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings are made once each; the sweep's λ = (1, 0) scores as the expert's own archive; the soups are measured."""
    monkeypatch.setenv("LOCOMOTION_EPISODES", "2")
    monkeypatch.setenv("LOCOMOTION_HORIZON", "20")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    trained = tmp_path / "trained"
    found = json.loads(_said(sys.executable, "-c", TRAIN, HERE, trained, cwd=tmp_path).splitlines()[-1])
    names = [line.split()[1].rstrip(":") for line in found["first"]]
    assert names == ["base", "fast", "frugal", "morl-0.5", "init-fast", "init-frugal"]
    assert [line.split()[1].rstrip(":") for line in found["again"]] == ["frugal"]
    assert found["frozen"]
    _said(
        sys.executable, "-m", "rsoup", "sweep", f"fast={trained}/fast/40.zip", f"frugal={trained}/frugal/40.zip",
        "--base", trained / "base.zip", "--grid", "3", "--function", "score:rewards", "--reward", "fast",
        "--reward", "frugal", "--guard", "fast_report", "--guard", "frugal_report", "-q", "-o", tmp_path / "run", cwd=HERE,
    )  # fmt: skip
    points = json.loads((tmp_path / "run" / "metrics.json").read_text())["points"]
    assert len(points) == 3
    assert all(point["status"] == "done" for point in points)
    for name in ("fast", "frugal"):
        (point,) = [one for one in points if one["expert"] == name]
        measured = {reward: (one["value"], one["error"]) for reward, one in point["select"].items()}
        assert measured == {reward: tuple(pair) for reward, pair in found["alone"][name].items()}
    assert not (HERE / "MUJOCO_LOG.TXT").exists()


def _said(*words: object, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
