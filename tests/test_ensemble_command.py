"""`rsoup ensemble`: files of outputs in, the gap of Lemma 4 out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsoup.cli import ensemble as command
from rsoup.console import Console
from rsoup.errors import RsoupError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two experts' outputs, a soup's, and labels."""
    generator = np.random.default_rng(0)
    one, two = generator.normal(size=(2, 50, 4))
    np.save(tmp_path / "one.npy", one)
    np.save(tmp_path / "two.npy", two)
    np.save(tmp_path / "soup.npy", 0.25 * one + 0.75 * two + 0.01)
    np.save(tmp_path / "labels.npy", generator.integers(0, 4, size=50))
    return tmp_path


def ran(
    folder: Path, soup: str = "soup.npy", mix: str = "0.25,0.75", labels: str | None = "labels.npy"
) -> Any:
    """The document."""
    out = io.StringIO()
    paths = [str(folder / name) for name in ("one.npy", "two.npy")]
    given = None if labels is None else str(folder / labels)
    command.run(
        paths, str(folder / soup), mix, given, console=Console(as_json=True, out=out, err=io.StringIO())
    )
    return json.loads(out.getvalue())


def test_the_gap_is_its_definition(files: Path) -> None:
    """rms(f(Σλθ) − Σλf(θ)), here 0.01 by construction; agreement and accuracy by NumPy."""
    found = ran(files)
    one, two, soup, labels = (np.load(files / f"{n}.npy") for n in ("one", "two", "soup", "labels"))

    assert found["gap"] == pytest.approx(0.01)
    assert found["agreement"] == 1.0
    assert found["accuracy"]["experts"] == [
        pytest.approx((a.argmax(-1) == labels).mean()) for a in (one, two)
    ]
    assert found["accuracy"]["soup"] == pytest.approx((soup.argmax(-1) == labels).mean())
    assert (found["inputs"], found["outputs"]) == (50, 4)
    assert ran(files, labels=None)["accuracy"] is None


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("E0257", {"mix": "1"}),
        ("E0257", {"mix": "0.5,0.6"}),
        ("E0257", {"labels": "soup.npy"}),
        ("E0257", {"labels": "far.npy"}),
        ("E0257", {"soup": "nothing.npy"}),
        ("E0257", {"soup": "short.npy"}),
        ("E0257", {"soup": "many.npz"}),
    ],
)
def test_files_that_do_not_belong_together(files: Path, code: str, changes: dict[str, str]) -> None:
    """Shapes, labels and λ must fit; each refusal has a hint."""
    np.save(files / "far.npy", np.full(50, 4))
    np.save(files / "short.npy", np.zeros((49, 4)))
    np.savez(files / "many.npz", a=np.zeros((50, 4)), b=np.zeros((50, 4)))
    with pytest.raises(RsoupError) as refused:
        ran(files, **changes)
    assert (refused.value.code, bool(refused.value.hint)) == (code, True)
