"""rsoup.json: every digest can be recomputed, nothing changes from run to run but `run`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from blake3 import blake3
from checkpoints import read_tensors, tensor_bytes, write_folder
from conftest import Folders
from xxhash import xxh3_128

import rsoup
from rsoup.recipe import Recipe

CHUNK = 1 << 20


def recipe_of(folders: Folders, **options: object) -> Recipe:
    """The two fine-tunes against their base."""
    return rsoup.make_recipe(
        {"one": folders.one, "two": folders.two}, mix=["0.3", "0.7"], base=folders.base, **options
    )


def manifest(folder: Path) -> dict[str, object]:
    """The manifest in a folder."""
    return json.loads((folder / "rsoup.json").read_bytes())


def by_chunks(data: bytes, hasher: object) -> str:
    """BLAKE3 of the chunks' digests, as docs/arithmetic.md has it."""
    parts = [hasher(data[at : at + CHUNK]).digest() for at in range(0, len(data), CHUNK)]
    return blake3(b"".join(parts)).hexdigest()


def test_every_digest_is_that_of_the_page(base_and_two: Folders) -> None:
    """Tensors, files, contents and ingredients: a few lines recompute what the manifest says."""
    rsoup.merge(recipe_of(base_and_two, dtype="float32"), base_and_two.root / "soup")
    folder = base_and_two.root / "soup"
    found = manifest(folder)
    tensors = read_tensors(folder)
    digests = {name: by_chunks(tensor_bytes(tensor), blake3) for name, tensor in tensors.items()}
    data = (folder / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    order = [name for name in header if name != "__metadata__"]
    of_file = blake3(data[:end] + b"".join(bytes.fromhex(digests[name]) for name in order)).hexdigest()
    names = {"BF16": "BF16"} | {
        spec["dtype"]: spec["dtype"] for name, spec in header.items() if name in digests
    }

    assert found["tensors"] == digests
    for subject in found["subject"]:
        content = (folder / subject["name"]).read_bytes()
        assert subject["size"] == len(content)
        expected = of_file if "digest" in subject else hashlib.sha256(content).hexdigest()
        assert subject.get("digest", subject.get("sha256")) == expected
    rows = "".join(
        f"{name}\0{names[header[name]['dtype']]}\0{','.join(map(str, header[name]['shape']))}\0{digests[name]}\n"
        for name in sorted(digests)
    )
    assert found["content"] == blake3(rows.encode()).hexdigest()
    assert header["__metadata__"] == {"format": "pt", "rsoup.recipe": found["recipe"]["sha256"]}


def test_the_ingredients_are_fingerprinted(base_and_two: Folders) -> None:
    """`content` of an ingredient and of the base is over XXH3-128 of what was read."""
    rsoup.merge(recipe_of(base_and_two), base_and_two.root / "soup")
    found = manifest(base_and_two.root / "soup")
    for folder, entry in zip(
        (base_and_two.one, base_and_two.two, base_and_two.base),
        [*found["ingredients"], found["base"]],
        strict=True,
    ):
        tensors = read_tensors(folder)
        kinds = {"torch.bfloat16": "BF16", "torch.int64": "I64"}
        rows = "".join(
            f"{name}\0{kinds[str(t.dtype)]}\0{','.join(map(str, t.shape))}\0{by_chunks(tensor_bytes(t), xxh3_128)}\n"
            for name, t in sorted(tensors.items())
        )
        assert entry["content"] == blake3(rows.encode()).hexdigest()


def test_content_does_not_depend_on_sharding(base_and_two: Folders) -> None:
    """The same tensors in one file or in several have the same content digest."""
    rsoup.merge(recipe_of(base_and_two), base_and_two.root / "whole")
    rsoup.merge(recipe_of(base_and_two, max_shard_size="50kB"), base_and_two.root / "parts")

    assert len(list((base_and_two.root / "parts").glob("*.safetensors"))) > 1
    assert (
        manifest(base_and_two.root / "whole")["content"] == manifest(base_and_two.root / "parts")["content"]
    )


def test_nothing_but_run_changes(base_and_two: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs of one recipe, with other numbers of threads, write the same bytes; only `run` differs."""
    for name, threads in (("first", 1), ("second", 2)):
        rsoup.merge(recipe_of(base_and_two), base_and_two.root / name, threads=threads)
    first, second = (manifest(base_and_two.root / name) for name in ("first", "second"))
    first.pop("run")
    second.pop("run")

    assert first == second
    for file in (base_and_two.root / "first").iterdir():
        if file.name != "rsoup.json":
            assert file.read_bytes() == (base_and_two.root / "second" / file.name).read_bytes()


@pytest.mark.fault("E18")
def test_the_build_date_can_be_given(base_and_two: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """SOURCE_DATE_EPOCH sets the one field that holds a date."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    rsoup.merge(recipe_of(base_and_two), base_and_two.root / "soup")

    assert manifest(base_and_two.root / "soup")["run"]["finished"] == "1970-01-01T00:00:00Z"


def test_every_switched_off_safety_is_on_record(tmp_path: Path, base_and_two: Folders) -> None:
    """`overrides` lists --allow, --drop, --buffers-from and --normalize."""
    other = write_folder(tmp_path / "other", base_and_two.family.tuned[0], config={"model_type": "other"})
    recipe = rsoup.make_recipe(
        {"one": base_and_two.one, "other": other},
        mix=["1", "1"],
        normalize=True,
        allow=["config"],
        drop=["scale"],
        buffers_from="one",
    )
    rsoup.merge(recipe, tmp_path / "soup")
    found = manifest(tmp_path / "soup")

    assert found["overrides"] == ["--allow config", "--drop scale", "--buffers-from one", "--normalize"]
    assert found["checks"]["dropped"] == ["scale"]
    assert "scale" not in found["tensors"]


def test_a_single_file_has_its_manifest_beside_it(base_and_two: Folders) -> None:
    """NAME.safetensors gets NAME.rsoup.json."""
    rsoup.merge(recipe_of(base_and_two), base_and_two.root / "soup.safetensors")
    found = json.loads((base_and_two.root / "soup.rsoup.json").read_bytes())

    assert [subject["name"] for subject in found["subject"]] == ["soup.safetensors"]
