"""Lemma 4 in networks small enough to compute, and files of logits: read as they are, or refused."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rsoup.errors import UsageError
from rsoup.front.ensembling import ensembling, order
from rsoup.front.logits import read_logits


class World:
    """A small tanh network, experts around a base, inputs."""

    def __init__(self, seed: int, experts: int = 3) -> None:
        generator = np.random.default_rng(seed)
        self.base = [generator.normal(size=shape) for shape in ((6, 16), (16, 4))]
        self.deltas = [[generator.normal(size=layer.shape) for layer in self.base] for _ in range(experts)]
        self.mix = generator.dirichlet(np.ones(experts))
        self.inputs = generator.normal(size=(50, 6))

    def outputs(self, scale: float) -> tuple[list[np.ndarray], np.ndarray]:
        """(of each expert θ₀ + s·δᵢ, of the soup θ₀ + s·Σλᵢδᵢ)."""

        def run(*delta: np.ndarray) -> np.ndarray:
            first, second = (layer + scale * d for layer, d in zip(self.base, delta, strict=True))
            return np.tanh(self.inputs @ first) @ second

        mean = [sum(share * d[k] for share, d in zip(self.mix, self.deltas, strict=True)) for k in (0, 1)]
        return [run(*delta) for delta in self.deltas], run(*mean)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_the_gap_is_of_second_order(seed: int) -> None:
    """Half the distance, a quarter of the gap; relative to the experts' spread it halves."""
    world = World(seed)
    found = {scale: ensembling(*world.outputs(scale), mix=world.mix) for scale in (1e-3, 2e-3, 4e-3)}

    slope = order({scale: one.gap for scale, one in found.items()})

    assert slope.slope == pytest.approx(2, abs=0.05)
    assert slope.scales == 3
    assert slope.error is not None
    assert slope.error < 0.05
    assert found[2e-3].relative / found[1e-3].relative == pytest.approx(2, rel=0.1)  # type: ignore[operator]


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_the_figures_are_their_definitions(seed: int, count: int) -> None:
    """Gap, spread, agreement and accuracy, input by input; leading axes do not matter."""
    generator = np.random.default_rng(seed)
    experts, soup = generator.normal(size=(count, 6, 5, 3)), generator.normal(size=(6, 5, 3))
    mix, labels = generator.dirichlet(np.ones(count)), generator.integers(0, 3, size=(6, 5))

    found = ensembling(list(experts), soup, mix, labels)

    mean = np.tensordot(mix, experts, 1)
    assert found.gap == pytest.approx(np.sqrt(np.mean((soup - mean) ** 2)))
    assert found.largest == pytest.approx(np.linalg.norm(soup - mean, axis=-1).max())
    assert found.spread == pytest.approx(
        np.sqrt(sum(m * np.mean((e - mean) ** 2) for m, e in zip(mix, experts, strict=True))), abs=1e-12
    )
    assert found.agreement == np.mean(soup.argmax(-1) == mean.argmax(-1))
    answers = [*experts.argmax(-1), mean.argmax(-1), soup.argmax(-1)]
    assert found.accuracy == pytest.approx([np.mean(answer == labels) for answer in answers])
    assert (found.inputs, found.outputs) == (30, 3)
    flat = ensembling([e.reshape(30, 3) for e in experts], soup.reshape(30, 3), mix, labels.reshape(-1))
    assert flat == found


def test_a_linear_network_has_no_gap() -> None:
    """The ensemble itself as the soup: gap 0, agreement 1; half precision is widened first; a gap of 0 has no order."""
    experts = [np.array([[60000.0, 1.0]], dtype=np.float16), np.array([[60000.0, 3.0]], dtype=np.float16)]
    found = ensembling(experts, np.array([[60000, 2]]), (0.5, 0.5))
    alone = ensembling(experts[:1], experts[0], (1.0,))

    assert (found.gap, found.agreement, found.accuracy, found.relative) == (0, 1, None, 0)
    assert (alone.spread, alone.relative) == (0, None)
    with pytest.raises(ValueError, match="above 0"):
        order({1.0: 0.0, 2.0: 1.0})


def test_an_order_by_hand() -> None:
    """Gaps s³ have slope 3 exactly, and two scales no standard error; slope and error are numpy's."""
    assert order({1.0: 1.0, 2.0: 8.0, 4.0: 64.0}).slope == pytest.approx(3)
    assert order({1.0: 1.0, 2.0: 8.0}).error is None
    gaps = {0.5: 0.3, 1.0: 1.1, 2.0: 3.5, 3.0: 10.0}
    (slope, _), covariance = np.polyfit(np.log(list(gaps)), np.log(list(gaps.values())), 1, cov=True)
    assert (order(gaps).slope, order(gaps).error) == pytest.approx((slope, np.sqrt(covariance[0, 0])))


ONE = np.zeros((4, 3))


@pytest.mark.parametrize(
    ("experts", "soup", "mix", "labels"),
    [
        ([], ONE, [], None),
        ([ONE], ONE, [0.5], None),
        ([ONE], ONE, [np.nan], None),
        ([ONE], ONE, [0.5, 0.5], None),
        ([ONE, ONE[:2]], ONE, [0.5, 0.5], None),
        ([ONE[:0]], ONE[:0], [1.0], None),
        ([np.array(1.0)], np.array(1.0), [1.0], None),
        ([ONE + np.inf], ONE, [1.0], None),
        ([ONE], ONE * np.nan, [1.0], None),
        ([ONE], ONE, [1.0], np.zeros(3, dtype=int)),
        ([ONE], ONE, [1.0], np.zeros(4)),
        ([ONE], ONE, [1.0], np.array([0, 1, 2, 3])),
        ([ONE], ONE, [1.0], np.array([0, 1, 2, -1])),
    ],
)
def test_what_cannot_be_compared_is_refused(
    experts: list[np.ndarray], soup: np.ndarray, mix: list[float], labels: np.ndarray | None
) -> None:
    """No experts, shares that are none, other shapes, nothing at all, NaN and infinity, labels that are none."""
    with pytest.raises(ValueError, match=r"share|shape|finite|label"):
        ensembling(experts, soup, mix, labels)


@pytest.mark.parametrize("gaps", [{}, {1.0: 1.0}, {1.0: 1.0, 0.0: 1.0}, {1.0: 1.0, 2.0: float("nan")}])
def test_no_order_of_too_little(gaps: dict[float, float]) -> None:
    """Fewer than two scales, a scale of 0, NaN."""
    with pytest.raises(ValueError, match="two scales"):
        order(gaps)


def test_files_are_read_as_they_are(tmp_path: Path) -> None:
    """.npy in either order of axes and bytes, .npz stored and packed, .safetensors with half precisions."""
    array = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "f.npy", np.asfortranarray(array).astype(">f4"))
    np.savez(tmp_path / "many.npz", one=array, two=array.astype(np.int64))
    np.savez_compressed(tmp_path / "packed.npz", a=array)
    half = torch.from_numpy(array)
    save_file({"b": half.bfloat16(), "h": half.half(), "d": half}, tmp_path / "s.safetensors")

    files = [tmp_path / name for name in ("a.npy", "f.npy", "many.npz", "packed.npz", "s.safetensors")]
    found = read_logits(*files)

    assert list(found) == [
        f"{tmp_path}/a.npy:a", "f", "one", "two", f"{tmp_path}/packed.npz:a", "b", "d", "h",
    ]  # fmt: skip
    assert all((value == array).all() for value in found.values())
    assert found["f"].dtype == np.dtype("=f4")
    assert found["d"].dtype == np.float64


class Code:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("made-by-a-pickle",)


def npy(array: np.ndarray, allow: bool = False) -> bytes:
    """The bytes numpy.save writes."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow)
    return stream.getvalue()


def zipped(content: bytes, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive with one member."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        archive.writestr("a.npy", content)
    return stream.getvalue()


GOOD = npy(np.zeros((20, 30)))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.npy", npy(np.array([Code()], dtype=object), allow=True), "Python objects"),
        ("a.npz", zipped(npy(np.array([Code()], dtype=object), allow=True)), "Python objects"),
        ("a.npy", b"", "no .npy array"),
        ("a.npy", GOOD[:-1], "no .npy array"),
        ("a.npy", GOOD + b"x" * 8, "no .npy array"),
        ("a.npy", GOOD.replace(b"(20, 30)", b"(2**60,)"), "no .npy array"),
        ("a.npy", GOOD.replace(b"(20, 30)", b"(9999**9"), "no .npy array"),
        ("a.npy", GOOD.replace(b"(20, 30)", b"(9**99,)"), "no .npy array"),
        ("a.npy", npy(np.array(1.0)), "no array of numbers"),
        ("a.npy", npy(np.zeros((0, 3))), "no array of numbers"),
        ("a.npy", GOOD.replace(b"(20, 30)", b"(" * 8), "no .npy array"),
        ("a.npy", GOOD.replace(b"<f8", b"<f9"), "no .npy array"),
        ("a.npy", npy(np.array(["text"])), "no array of numbers"),
        ("a.npy", npy(np.array([1j])), "no array of numbers"),
        ("a.npy", npy(np.array([1.0, np.nan])), "not finite"),
        ("a.npz", b"PK nothing", "no archive"),
        ("a.npz", zipped(GOOD)[:-30], "no archive"),
        ("a.npz", zipped(GOOD, zipfile.ZIP_LZMA), "numpy never packs"),
        ("a.npz", b"PK\x05\x06" + bytes(18), "no arrays"),
        ("a.safetensors", b"\x00" * 8, "no safetensors file"),
        ("a.safetensors", b"\xff" * 80, "no safetensors file"),
        ("a.pt", b"", "no ending"),
    ],
)  # fmt: skip
def test_hostile_and_broken_files_are_refused(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    """E0257 with what is wrong, where, and how to write such a file; nothing in it runs."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(UsageError) as caught:
        read_logits(tmp_path / name)

    assert (caught.value.code, caught.value.where) == ("E0257", f"{tmp_path}/{name}")
    assert told in caught.value.message
    assert "numpy.save" in str(caught.value.hint)
    assert not Path("made-by-a-pickle").exists()


def test_a_packed_array_that_is_damaged_is_refused(tmp_path: Path) -> None:
    """One bit, and the checksum of the archive says so."""
    content = bytearray(zipped(npy(np.random.default_rng(0).normal(size=(20, 30)))))
    content[len(content) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(content)

    with pytest.raises(UsageError, match="no archive"):
        read_logits(tmp_path / "a.npz")


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["a.npy", "a.npz", "s.npz"]),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 5)), min_size=1, max_size=4),
)
def test_mutated_files_are_read_or_refused(name: str, changes: list[tuple[float, bytes, int]]) -> None:
    """Bytes replaced, inserted and cut anywhere: an array or E0257, never another exception."""
    content = bytearray(
        {"a.npy": GOOD, "a.npz": zipped(GOOD), "s.npz": zipped(GOOD, zipfile.ZIP_STORED)}[name]
    )
    for place, new, cut in changes:
        start = int(place**3 * len(content))
        content[start : start + cut] = new
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            outcome = "read" if all(array.size for array in read_logits(path).values()) else "empty"
        except UsageError as error:
            outcome = error.code
    assert outcome in ("read", "E0257")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.safetensors"])
def test_what_does_not_fit_into_memory_is_not_read(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More bytes than the limit, unpacked, are refused before they are read."""
    np.save(tmp_path / "a.npy", np.zeros((20, 30)))
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros((20, 30)))
    save_file({"a": torch.zeros(20, 60)}, tmp_path / "a.safetensors")
    assert len(read_logits(tmp_path / name)) == 1
    monkeypatch.setattr("rsoup.front.logits.LARGEST", 4000)

    with pytest.raises(UsageError, match="too large"):
        read_logits(tmp_path / name)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Shapes that differ (unless that is wanted), a file given twice, none, a folder."""
    np.save(tmp_path / "a.npy", np.zeros((4, 3)))
    np.save(tmp_path / "b.npy", np.zeros((4, 2)))
    (tmp_path / "folder.npy").mkdir()

    with pytest.raises(UsageError, match=r"'a' \(4, 3\), 'b' \(4, 2\)"):
        read_logits(tmp_path / "a.npy", tmp_path / "b.npy")
    assert set(read_logits(tmp_path / "a.npy", tmp_path / "b.npy", same_shape=False)) == {"a", "b"}
    with pytest.raises(UsageError, match="twice"):
        read_logits(tmp_path / "a.npy", tmp_path / "a.npy")
    for name in ("none.npy", "folder.npy"):
        with pytest.raises(UsageError, match="no such file"):
            read_logits(tmp_path / name)
