"""The demo: its data, its training, and the whole of it in a folder."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rsoup.demo import DemoResult, digits, run, score, train
from rsoup.errors import TargetError
from rsoup.library import make_recipe
from rsoup.merging import merge

TRAINED = ["base", "low", "high"]
FEW = 20  # REINFORCE steps: enough for the rewards to part


def silent(_line: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def policies() -> train.Policies:
    """The default demo's training."""
    return train.train(0, progress=silent)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    """One short demo from start to end, for every test that only looks at it."""
    return run(str(tmp_path_factory.mktemp("demo") / "out"), expert_steps=FEW, progress=silent)


def tree(folder: str | Path) -> dict[str, bytes]:
    """Every file below `folder` by its relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_digits_are_those_of_scikit_learn() -> None:
    """Every pixel and every label equals scikit-learn's copy of the UCI test set."""
    published = pytest.importorskip("sklearn.datasets").load_digits()

    ours = digits.load()

    assert torch.equal(torch.from_numpy(published.data / 16).float(), ours.pixels)
    assert torch.equal(torch.from_numpy(published.target).long(), ours.labels)


def test_digits_have_the_published_counts() -> None:
    """1797 images of 64 pixels in 0..1, as many of each digit as the UCI page says, in less than 60 kB."""
    ours = digits.load()

    assert tuple(ours.pixels.shape) == (1797, 64)
    assert (ours.pixels.min().item(), ours.pixels.max().item()) == (0.0, 1.0)
    assert ours.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert Path(digits.__file__).with_name("digits.gz").stat().st_size < 60_000


def test_split_loses_and_repeats_nothing() -> None:
    """Digits to learn from and held-out digits together are all digits, each once."""
    everything = digits.Digits(torch.arange(100.0)[:, None], torch.arange(100))

    known, held_out = digits.split(everything, held_out=30, generator=torch.Generator().manual_seed(1))

    assert (len(known), len(held_out)) == (70, 30)
    assert list(range(100)) == sorted([*known.labels.tolist(), *held_out.labels.tolist()])
    assert torch.equal(known.labels.float(), known.pixels[:, 0])


def test_training_is_deterministic() -> None:
    """The same seed gives the same bits, another seed others."""
    first, again, other = (train.train(seed, expert_steps=2, progress=silent) for seed in (3, 3, 4))

    for ours, same in ((first.base, again.base), (first.experts["low"], again.experts["low"])):
        assert ours.keys() == same.keys()
        assert all(torch.equal(ours[name], same[name]) for name in ours)
    assert not torch.equal(first.base["layers.0.weight"], other.base["layers.0.weight"])


def test_training_and_torch_leave_each_other_alone(policies: train.Policies) -> None:
    """Global seed, threads, grad mode and default dtype stay as they are and decide nothing."""
    torch.manual_seed(7)
    before = (torch.get_rng_state(), torch.get_num_threads())
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            again = train.train(0, expert_steps=1, progress=silent)

            assert not torch.is_grad_enabled()
            assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)

    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == torch.get_num_threads()
    assert {tensor.dtype for tensor in again.experts["low"].values()} == {torch.float32}
    assert all(torch.equal(policies.base[name], again.base[name]) for name in again.base)


def test_names_and_shapes_of_the_policy(policies: train.Policies) -> None:
    """The state dict is that of an MLP 64-64-64-10: three layers' weights and biases."""
    shapes = [(name, *tensor.shape) for name, tensor in policies.base.items() if name.endswith("weight")]

    assert shapes == [("layers.0.weight", 64, 64), ("layers.2.weight", 64, 64), ("layers.4.weight", 10, 64)]
    assert {name.replace("weight", "bias") for name, *_ in shapes} < policies.base.keys()


def test_base_can_read(policies: train.Policies) -> None:
    """Pre-training alone reaches about 90 % on held-out digits: a shared start that is good enough."""
    assert 0.85 < train.accuracy(policies.base, policies.held_out) < 0.95


def test_rewards_are_exact_expectations(policies: train.Policies) -> None:
    """The reward equals its definition, Σₐ π(a|x) R(x, a) averaged over the group, digit by digit."""
    held_out, policy = policies.held_out, train.policy_of(policies.base)
    earned: dict[str, list[float]] = {"low": [], "high": []}
    for pixels, label in zip(held_out.pixels, held_out.labels.tolist(), strict=True):
        answers = policy(pixels[None]).detach()[0].double().softmax(0)
        earned["low" if label <= 4 else "high"].append(answers[label].item())

    got = train.rewards(policies.base, held_out)

    assert got == pytest.approx({name: sum(each) / len(each) for name, each in earned.items()}, abs=1e-6)


def test_reinforce_gradient_is_that_of_the_expected_reward() -> None:
    """On average over samples the gradient of the loss is −∇E[R]; digits outside the group add nothing."""
    labels = torch.tensor([2, 7]).repeat_interleave(200_000)
    start = torch.linspace(-1, 1, 10)
    logits = start.repeat(len(labels), 1).requires_grad_()
    loss = train._reinforce(0, 4, torch.Generator().manual_seed(0))(logits, labels)
    (sampled,) = torch.autograd.grad(loss, logits)

    wanted_logits = start.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(-wanted_logits.softmax(0)[2] / 2, wanted_logits)

    assert torch.allclose(wanted, sampled[:200_000].sum(0), atol=1e-3)
    assert sampled[200_000:].abs().max().item() == 0


@pytest.mark.parametrize("seed", range(5))
def test_experts_are_in_tension_and_soups_lie_above_the_chord(seed: int) -> None:
    """Each expert wins its reward by > 0.1, loses > 0.3 of the other; no soup sags below the chord (LMC)."""
    made = train.train(seed, progress=silent)
    low, high = made.experts["low"], made.experts["high"]

    def score(share: float) -> dict[str, float]:
        return train.rewards({n: share * low[n] + (1 - share) * high[n] for n in low}, made.held_out)

    base, at_low, at_high = train.rewards(made.base, made.held_out), score(1.0), score(0.0)

    assert at_low["low"] > base["low"] + 0.1
    assert at_low["high"] < base["high"] - 0.3
    assert at_high["high"] > base["high"] + 0.1
    assert at_high["low"] < base["low"] - 0.3
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        soup = score(share)
        assert all(soup[k] > share * at_low[k] + (1 - share) * at_high[k] for k in soup)
    assert all(score(0.5)[k] > base[k] for k in base)


def test_demo_writes_three_checkpoints_and_a_sweep(demo: DemoResult) -> None:
    """The checkpoints as transformers writes them, the sweep's folder, and nothing else; a row per λ."""
    labels = [row.label for row in demo.rows]

    assert labels[0] == "base"
    assert (labels[1], labels[-1]) == ("low", "high")
    assert len(labels) == 12
    assert sorted(os.listdir(demo.out)) == sorted([*TRAINED, "sweep"])
    assert os.listdir(Path(demo.out).parent) == ["out"]
    for label in TRAINED:
        assert {"config.json", "model.safetensors"} <= set(os.listdir(Path(demo.out) / label))
        with safe_open(Path(demo.out) / label / "model.safetensors", "pt") as file:
            assert file.metadata()["format"] == "pt"


def test_the_sweep_scores_what_merge_writes(demo: DemoResult, tmp_path: Path) -> None:
    """Each row's rewards are those of the soup of its λ, merged and scored here."""
    experts = {name: f"{demo.out}/{name}" for name in ("low", "high")}
    for row in demo.rows[1::5]:
        merge(make_recipe(experts, mix=row.mix.split(","), base=f"{demo.out}/base"), tmp_path / row.label)
        weights = load_file(tmp_path / row.label / "model.safetensors")
        rewards = train.rewards(weights, score.held_out(demo.seed))
        assert rewards == {"low": row.low, "high": row.high}


def test_the_evaluator_holds_out_what_training_did_not_see(policies: train.Policies) -> None:
    """The digits that score are those that the training of that seed kept apart."""
    again = score.held_out(0)

    assert torch.equal(again.pixels, policies.held_out.pixels)
    assert torch.equal(again.labels, policies.held_out.labels)


def test_commands_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands name the right folders, quoted for the shell; none of them looks like an option."""
    monkeypatch.chdir(tmp_path)

    merge_line, sweep_line = run("-my demo", expert_steps=1, progress=silent).commands

    low, high, base = (f"'./-my demo/{name}'" for name in ("low", "high", "base"))
    assert merge_line.startswith(f"rsoup merge {low} {high} --base {base} --lambda ")
    assert sweep_line.startswith(f"rsoup sweep {low} {high} --base {base} --grid 21 ")
    assert shlex.split(sweep_line)[-2:] == ["-o", "./-my demo/sweep"]


@pytest.mark.parametrize("kind", ["folder", "folder of models", "file", "dangling link"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_there_is_kept(tmp_path: Path, kind: str, overwrite: bool) -> None:
    """An OUT that exists is refused before any training; with overwrite too, if no demo made it."""
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "dangling link":
        out.symlink_to("nowhere")
    else:
        out.mkdir()
        (out / ("base" if kind == "folder of models" else "thesis.tex")).write_text("mine")
    before, lines = tree(tmp_path), list[str]()

    with pytest.raises(TargetError) as caught:
        run(f"{out}/", overwrite=overwrite, progress=lines.append)

    assert caught.value.code == ("E0607" if overwrite else "E0601")
    assert lines == []
    assert before == tree(tmp_path)
    assert os.listdir(tmp_path) == ["out"]


def test_overwrite_replaces_an_earlier_demo(tmp_path: Path, demo: DemoResult) -> None:
    """With overwrite the earlier demo is gone and the new one there; progress has a line for each step."""
    out = tmp_path / "out"
    shutil.copytree(demo.out, out)
    (out / "sweep" / "of-the-earlier-one").touch()
    lines: list[str] = []

    run(str(out), overwrite=True, expert_steps=1, progress=lines.append)

    assert sorted([*TRAINED, "sweep"]) == sorted(os.listdir(out))
    assert os.listdir(tmp_path) == ["out"]
    assert not (out / "sweep" / "of-the-earlier-one").exists()
    assert [line.partition(":")[0] for line in lines] == [*TRAINED, "sweep"]


@pytest.mark.parametrize("word", ["base", "low"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_failed_run_leaves_nothing(tmp_path: Path, demo: DemoResult, word: str, earlier: bool) -> None:
    """Interrupted in a training, a run leaves the target's place exactly as it was."""
    if earlier:
        shutil.copytree(demo.out, tmp_path / "out")
    before = tree(tmp_path)

    def interrupt(line: str) -> None:
        if line.startswith(word):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(str(tmp_path / "out"), overwrite=earlier, expert_steps=1, progress=interrupt)

    assert before == tree(tmp_path)
    assert os.listdir(tmp_path) == (["out"] if earlier else [])


def test_a_missing_parent_is_refused(tmp_path: Path) -> None:
    """A parent folder that is not there is an error that says so, before any training."""
    with pytest.raises(TargetError, match="No such file or directory"):
        run(str(tmp_path / "no" / "out"), progress=silent)


def test_importing_the_demo_is_cheap() -> None:
    """`import rsoup.demo` loads neither torch nor numpy nor safetensors."""
    code = "import sys, rsoup.demo; print([m for m in ('torch', 'numpy', 'safetensors') if m in sys.modules])"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "[]"
