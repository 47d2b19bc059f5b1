"""The experiment with a small language model: its text, rewards and plan by exact laws, and a run in miniature."""

from __future__ import annotations

import json
import string
import subprocess
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).resolve().parent.parent / "recipes" / "experiments" / "language"
MISSING = [name for name in ("trl", "peft", "datasets", "tokenizers") if find_spec(name) is None]
needs_trl = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install 'trl[peft]'"
)
SHARES = [Fraction(k, 10) for k in range(11)]
WORDS = st.text(st.sampled_from("abcxyz .,'"), max_size=40)


def of_language(name: str) -> ModuleType:
    """A module of the experiment, whose names other experiments have, too."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(f"language_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


plan = of_language("plan")
world = of_language("world")


# --- the text and the rewards


def test_the_text_is_plain_and_has_no_line_twice() -> None:
    """Paragraphs of at least 80 signs, of lower-case letters and . , ; : ( ) ' - alone, each once."""
    found = world.paragraphs()
    assert len(found) > 500
    assert len(set(found)) == len(found)
    assert set("".join(found)) <= set(string.ascii_lowercase + " .,;:()'-")
    assert min(map(len, found)) >= 80


@given(WORDS)
def test_short_is_the_mean_length_of_words_and_letters_a_share(text: str) -> None:
    """− letters per word, by splitting at every sign; letters used of 26."""
    parts = "".join(sign if sign in string.ascii_lowercase else " " for sign in text).split()
    expected = -float(np.mean([len(part) for part in parts])) if parts else -20.0
    assert world.short(text) == pytest.approx(expected, rel=1e-12)
    assert world.letters(text) == len({sign for sign in text if sign.isalpha()}) / 26


def test_the_rewards_of_known_sentences() -> None:
    """`a cab` has words of 1 and 3 letters, and 3 letters of the alphabet; the pangram has all."""
    assert world.short("a cab") == -2.0
    assert world.letters("a cab") == 3 / 26
    assert world.letters("the quick brown fox jumps over the lazy dog") == 1.0


# --- the plan


@pytest.mark.parametrize("beta", plan.BETAS)
def test_bone_soup_solves_for_the_preference(beta: Fraction) -> None:
    """B·λ = μ for B with β on the diagonal, and Σλ = 1, exactly; λ = μ for μ = (½, ½)."""
    for share in SHARES:
        wanted = (1 - share, share)
        one, two = plan.bone(wanted, beta)
        assert (beta * one + (1 - beta) * two, (1 - beta) * one + beta * two) == wanted
        assert one + two == 1
    assert plan.bone((Fraction(1, 2),) * 2, beta) == (Fraction(1, 2),) * 2


def test_the_backbones_are_the_trainings_for_these_mixtures() -> None:
    """β = 0.7 mixes the trainings for μ = 0.3 and 0.7; λ = (1, 0) there is the paper's (1.75, −0.75)."""
    first = plan.sets()["lora"]["bone-0.7"].soups[0]
    assert dict(first.shares) == {"morl-03": Fraction(7, 4), "morl-07": Fraction(-3, 4)}


def test_every_soup_but_the_scaled_ones_and_the_base_sums_to_one() -> None:
    """Σλ = 1; the scaled ones 3/2, the base 0; every share is of an adapter that is swept."""
    for group in plan.sets().values():
        for name, one in group.items():
            wanted = plan.SCALE if name.startswith("scaled") else Fraction(name != "base-alone")
            for soup in one.soups:
                assert sum(soup.shares.values(), Fraction(0)) == wanted
                assert set(soup.shares) <= set(plan.ADAPTERS)


def test_attempts_are_measured_at_as_many_mixes_as_there_are_trainings_of_morl() -> None:
    """The plain soups they are compared with, the attempts and MORL: eleven models each; the soups' are among the 21."""
    lora = plan.sets()["lora"]
    for name in ("soups-equal", "morl", "bone-0.7", "bone-0.8", "waypoint", "init", "scaled-1.5"):
        assert len(lora[name].soups) == plan.EQUAL == 11
    assert {soup.own for soup in lora["soups-equal"].soups} < {soup.own for soup in lora["soups"].soups}
    factors = set(plan.line(plan.COARSE))
    assert factors < {soup.own for soup in lora["soups"].soups}


# --- in miniature

MINI = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import plan, score, train, world
score.SAMPLES = 1
cell = Path(sys.argv[2])
wanted = ["lora-1", "lora-2"]
train.everything(cell, 0, plan.SIZES["tiny"], wanted)
stamp = (cell / "lora-1" / "adapter_model.safetensors").stat().st_mtime_ns
(cell / "lora-2").rename(cell / "lora-2.unfinished")  # as if it had been interrupted
train.everything(cell, 0, plan.SIZES["tiny"], wanted)
assert (cell / "lora-1" / "adapter_model.safetensors").stat().st_mtime_ns == stamp, "it was made again"
assert not list(cell.glob("*.unfinished"))
held = world.text(0, 8)
assert not {p for p in held.train if world.beginning(p) == p} & {*held.select, *held.report}

import rsoup, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
pair = {name: str(cell / name) for name in wanted}
mix = ["1/4", "3/4"]
with rsoup.open_soup(pair, mix=mix, base=str(cell / "base")) as soup:
    live = score.rewards(soup, str(cell / "live"))
    folded = AutoModelForCausalLM.from_pretrained(cell / "base")
    soup.load_into(folded)
rsoup.merge(rsoup.make_recipe(pair, mix=mix), str(cell / "soup"))
assert (cell / "lora-1" / "ref" / "adapter_config.json").exists(), "TRL writes its reference below the adapter"
assert not (cell / "soup" / "ref").exists(), "which is no part of the soup"
base = AutoModelForCausalLM.from_pretrained(cell / "base")
ids = torch.arange(40).reshape(2, 20)
with torch.no_grad():
    plain = base(ids).logits
    own = PeftModel.from_pretrained(base, cell / "soup")(ids).logits
    theirs = folded(ids).logits
apart = float((own - theirs).norm() / (own - plain).norm())
print(json.dumps({"live": live, "apart": apart, "samples": sum(1 for _ in open(cell / "live" / "samples.jsonl"))}))
"""


@needs_trl
@pytest.mark.long
def test_trained_by_trl_souped_live_and_as_an_adapter(tmp_path: Path) -> None:
    """Each training is made once; the live soup is PEFT's model of the merged adapter; rewards have errors over prompts."""
    found = json.loads(_said(sys.executable, "-c", MINI, HERE, tmp_path / "seed").splitlines()[-1])
    assert found["apart"] < 1e-4
    assert set(found["live"]) == {"short", "letters", "short_report", "letters_report", "odd"}
    assert all(one["stderr"] > 0 for one in found["live"].values())
    assert -20 < found["live"]["short"]["value"] < -1
    assert 0 < found["live"]["letters"]["value"] < 1
    assert found["samples"] == 8


@needs_trl
@pytest.mark.long
def test_the_whole_experiment_in_miniature(tmp_path: Path) -> None:
    """One command trains, sweeps, cuts and checks; the second does nothing; the page is made of its small tables."""
    run = [sys.executable, HERE / "run.py", "-o", tmp_path / "runs", "--seeds", "1", "--size", "tiny"]
    _said(*run)
    assert "1 of 1 cells are there already" in _said(*run)
    _said(sys.executable, HERE / "summary.py", tmp_path / "runs", "--pages", tmp_path / "pages")
    page = (tmp_path / "pages" / "language.md").read_text(encoding="utf-8")
    assert "1 seed, each" in page
    for name in page.split("](language/")[1:]:
        assert (tmp_path / "pages" / "language" / name.split(")")[0]).exists()


def _said(*words: object) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, env=_environment()
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
