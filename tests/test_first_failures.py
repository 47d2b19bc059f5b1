"""A sweep whose evaluator cannot work stops after a few evaluations, unless it is told to go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import related, write_folder

from rsoup.sweep.ledger import Ledger


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two experts and an evaluator that fails unless λ₁ is named in the file `works`."""
    _, tuned = related(2, dtype=torch.float32)
    for name, tensors in zip("ab", tuned, strict=True):
        write_folder(tmp_path / name, tensors)
    text = "import os, sys\nworks = open('works').read().split()\nfirst = sys.argv[1].split(',')[0]\nprint('{\"r\": 1}') if first in works else sys.exit('no such module: vllm')\n"
    (tmp_path / "score.py").write_text(text)
    (tmp_path / "works").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*more: str) -> subprocess.CompletedProcess[str]:
    """A sweep of eleven points."""
    command = f"{sys.executable} -S score.py {{lambda}}"
    line = ["sweep", "a", "b", "--grid", "11", "--eval", command, "--reward", "r", "-o", "run", *more]
    return subprocess.run([sys.executable, "-m", "rsoup", *line], capture_output=True, text=True, check=False)  # fmt: skip


def statuses() -> list[str]:
    """How the evaluations ended, in order."""
    return [record.status for record in Ledger("run").records()]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_three_failures_and_no_success_are_enough(place: Path, jobs: str) -> None:
    """Exit 5 after three of eleven, with what the evaluator said and the option that goes on."""
    done = run("--jobs", jobs)

    assert done.returncode == 5
    ended = len(statuses())  # another may have been under way when the third one failed
    assert statuses() == ["failed"] * ended
    assert 3 <= ended < 3 + int(jobs)
    assert (
        f"{ended} of 11 points could not be measured, and {11 - ended} were not tried any more" in done.stderr
    )
    assert "no such module: vllm" in done.stderr
    assert "--max-failures N" in done.stderr


def test_one_success_is_enough_to_go_on(place: Path) -> None:
    """Where something was measured, now or before, failures do not end the sweep."""
    (place / "works").write_text("0.9")
    assert run().returncode == 5
    assert sorted(statuses()) == ["done"] + ["failed"] * 10
    (place / "works").write_text("")
    assert run().returncode == 5
    assert sorted(statuses()) == ["done"] + ["failed"] * 20


def test_retries_are_no_further_failures(place: Path) -> None:
    """An evaluation that is tried again counts once, when it has failed for the last time."""
    assert run("--retries", "1").returncode == 5
    assert statuses() == ["failed"] * 6


def test_max_failures_goes_on(place: Path) -> None:
    """What is asked for counts: more failures than three, or fewer; and a mended evaluator takes it up."""
    assert run("--max-failures", "0").returncode == 5
    assert statuses() == ["failed"]
    assert run("--max-failures", "20").returncode == 5
    assert statuses() == ["failed"] * 12
    (place / "works").write_text(" ".join(f"{k / 10:g}" for k in range(11)))
    assert run().returncode == 0
    assert statuses() == ["failed"] * 12 + ["done"] * 11
