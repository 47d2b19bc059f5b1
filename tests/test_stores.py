"""Checkpoints in object stores, at a real S3 server of this machine (moto's)."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from checkpoints import Tensors, read_tensors, related, write_folder
from safetensors.torch import load_file, save_file

from rsoup import cli
from rsoup.errors import AccessError, BusyError, RefusedFileError, RsoupError, UsageError
from rsoup.family.checking import check
from rsoup.merging import merge
from rsoup.recipe import Ingredient, Recipe
from rsoup.remote import pool
from rsoup.request import Request, make
from rsoup.storage.checkpoint import open_checkpoint
from rsoup.stores import access, snapshot
from rsoup.stores.address import StoreAddress, parse

NAMES = ("base", "a", "b")
SECRET = "canary-of-a-secret"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two fine-tunes, the second in shards."""
    folder = tmp_path_factory.mktemp("models")
    family = related(2)
    write_folder(folder / "base", family.base)
    write_folder(folder / "a", family.tuned[0], side_files={"tokenizer.json": "{}"})
    write_folder(folder / "b", family.tuned[1], shards=2)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The server's address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    started.start()
    yield "http://{}:{}".format(*started.get_host_and_port())
    started.stop()


@pytest.fixture
def bucket(server: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the bucket `soups`, which holds the models; rsoup finds it through the environment. Small chunks."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(pool, "CHUNK_BYTES", 1 << 15)
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1")
    client.create_bucket(Bucket="soups")
    for name in NAMES:
        for path in (models / name).iterdir():
            client.put_object(Bucket="soups", Key=f"runs/{name}/{path.name}", Body=path.read_bytes())
    return client


def recipe(base: str | None, a: str, b: str, **more: Any) -> Recipe:
    """Two ingredients on a base."""
    ingredients = [Ingredient("a", (a,)), Ingredient("b", (b,))]
    return make(Request(ingredients, mix=["0.6", "0.4"], base=base, **more))


def checks(server: str, after: str) -> None:
    """From so many requests on, the server looks at credentials."""
    asked = urllib.request.Request(
        f"{server}/moto-api/reset-auth", data=after.encode(), headers={"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(asked).close()


FAR = tuple(f"s3://soups/runs/{name}" for name in NAMES)


@pytest.mark.parametrize("fetch", ["stream", "cache"])
def test_a_merge_of_a_store_is_the_merge_of_the_folders(
    bucket: Any, models: Path, tmp_path: Path, fetch: Any
) -> None:
    """Same bits and same files beside them; the temporary folder is as it was; the manifest names no bucket."""
    spare = tmp_path / "spare"
    spare.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(spare))
        result = merge(recipe(*FAR), tmp_path / "far", fetch=fetch)
    merge(recipe(*(str(models / name) for name in NAMES)), tmp_path / "near")

    far, near = read_tensors(tmp_path / "far"), read_tensors(tmp_path / "near")
    assert far.keys() == near.keys()
    assert all(torch.equal(far[name], near[name]) for name in far)
    assert (tmp_path / "far" / "tokenizer.json").read_text() == "{}"
    assert list(spare.iterdir()) == []
    manifest = (tmp_path / "far" / "rsoup.json").read_text()
    assert '"checkpoint":"a"' in manifest.replace(" ", "")
    assert SECRET not in manifest
    assert {one.way for one in result.transfers} == {"stream" if fetch == "stream" else "copy"}
    if fetch == "stream":
        assert all(
            why.startswith("the store states no SHA-256")
            for one in result.transfers
            for _, why in one.unproven
        )
    assert not [t for t in threading.enumerate() if t.name.startswith("rsoup-fetch")]


def test_a_check_and_a_single_object(bucket: Any, models: Path) -> None:
    """The measures of the folders; an object by itself is a file."""
    far = check({"a": FAR[1], "b": FAR[2]}, FAR[0])
    near = check({"a": models / "a", "b": models / "b"}, models / "base")
    assert far.measures is not None
    assert near.measures is not None
    assert far.measures.total == near.measures.total
    source = open_checkpoint(f"{FAR[1]}/model.safetensors")
    assert source.is_one_file
    source.close()


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("s3://soups/nothing", "E0746"),
        ("s3://elsewhere/runs", "E0746"),
        ("s3://soups", "E0746"),
    ],
)
def test_what_is_not_there_or_cannot_be_read_so_says_it(bucket: Any, uri: str, code: str) -> None:
    """No object, no bucket, an empty bucket's root without weights."""
    with pytest.raises(RsoupError) as caught:
        open_checkpoint(uri)

    assert (
        caught.value.code in (code, "E0809", "E0810", "E0812")
        if uri == "s3://soups"
        else caught.value.code == code
    )
    assert SECRET not in str(caught.value)


def test_names_that_no_folder_should_hold_are_refused(bucket: Any) -> None:
    """E0749 before anything is written; the names are in the message."""
    bucket.put_object(Bucket="soups", Key="hostile/config:stream.json", Body=b"{}")
    with pytest.raises(RefusedFileError) as caught:
        open_checkpoint("s3://soups/hostile")

    assert caught.value.code == "E0749"
    assert "config:stream.json" in str(caught.value)


def test_names_beside_a_named_adapter_are_looked_at_as_well(bucket: Any) -> None:
    """The configuration is looked for beside the file that is named: what lies there may be hostile, too."""
    for name in ("adapter_model.safetensors", "adapter_config.json", "a:b.json"):
        bucket.put_object(Bucket="soups", Key=f"beside/{name}", Body=b"{}")
    with pytest.raises(RefusedFileError) as caught:
        open_checkpoint("s3://soups/beside/adapter_model.safetensors")

    assert caught.value.code == "E0749"


@pytest.mark.parametrize("key", ["a//b.json", "../b.json", "a\x01b.json", "model.safetensors/b.json"])
def test_names_that_are_no_paths_are_refused(bucket: Any, models: Path, key: str) -> None:
    """E0749, not a complaint about credentials: empty parts, a control character, an object that is also a folder."""
    for path in (models / "a").iterdir():
        bucket.put_object(Bucket="soups", Key=f"nopath/{path.name}", Body=path.read_bytes())
    bucket.put_object(Bucket="soups", Key=f"nopath/{key}", Body=b"{}")
    try:
        with pytest.raises(RefusedFileError) as caught:
            open_checkpoint("s3://soups/nopath")
    finally:
        for found in bucket.list_objects_v2(Bucket="soups", Prefix="nopath/")["Contents"]:
            bucket.delete_object(Bucket="soups", Key=found["Key"])

    assert (caught.value.code, caught.value.exit_code) == ("E0749", 8)


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_marker_of_a_folder_is_no_file(bucket: Any, models: Path, slash: str) -> None:
    """ "Create folder" on a store's web page leaves an empty object of that name: the folder is meant, and subfolders, too."""
    for path in (models / "a").iterdir():
        bucket.put_object(Bucket="soups", Key=f"made/{path.name}", Body=path.read_bytes())
    for marker in ("made/", "made/original/"):
        bucket.put_object(Bucket="soups", Key=marker, Body=b"")
    bucket.put_object(Bucket="soups", Key="made/original/params.json", Body=b"{}")

    with contextlib.closing(open_checkpoint(f"s3://soups/made{slash}")) as source:
        assert len(source.header) > 3


def test_a_soup_of_a_store_is_an_ingredient_and_no_recipe(
    bucket: Any,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """E0733 says to copy it, instead of a soup of one checkpoint, or a file that is not there; NAME=ADDRESS mixes it."""
    monkeypatch.chdir(tmp_path)
    merge(recipe(*(str(models / name) for name in NAMES)), tmp_path / "soup")
    for path in (tmp_path / "soup").iterdir():
        bucket.put_object(Bucket="soups", Key=f"cooked/{path.name}", Body=path.read_bytes())
    far = "s3://soups/cooked"
    for words in (
        ["merge", far, "-o", "again"],
        ["merge", far, "--from", f"a={models / 'a'}", "-o", "again"],
        ["recipe", far],
        ["verify", far],
    ):
        monkeypatch.setattr(sys, "argv", ["rsoup", *words])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        assert leaving.value.code == 2, words
        assert "error[E0733]" in capsys.readouterr().err, words
    assert not (tmp_path / "again").exists()

    merge(recipe(None, far, str(models / "a")), tmp_path / "more")
    merge(recipe(None, str(tmp_path / "soup"), str(models / "a")), tmp_path / "near")
    assert same(read_tensors(tmp_path / "more"), read_tensors(tmp_path / "near"))


def test_an_object_that_is_replaced_meanwhile_is_noticed(bucket: Any, models: Path, tmp_path: Path) -> None:
    """Between the header and the weights somebody writes it anew: E0747, nothing is published."""
    from rsoup.prepare import prepared_together

    body = bytearray((models / "a" / "model.safetensors").read_bytes())
    body[-1] ^= 1
    with prepared_together([(recipe(*FAR), str(tmp_path / "out"))], fetch="stream") as (ready,):
        bucket.put_object(Bucket="soups", Key="runs/a/model.safetensors", Body=bytes(body))
        name = max(ready.sources[0].header, key=lambda name: ready.sources[0].header[name].nbytes)
        with pytest.raises(RefusedFileError) as caught:
            ready.sources[0].read(name, 0, memoryview(bytearray(ready.sources[0].header[name].nbytes)))

    assert caught.value.code == "E0747"
    assert not (tmp_path / "out").exists()


def test_a_store_that_does_not_answer_is_exit_75(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: E7510, in words, without a key."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(access, "_TRIES", 1)
    with pytest.raises(BusyError) as caught:
        open_checkpoint(FAR[0])

    assert caught.value.code == "E7510"
    assert SECRET not in str(caught.value)


def test_credentials_that_may_not_read_are_told(
    bucket: Any, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that checks them refuses wrong ones: E0746, and no secret in the message."""
    checks(server, "0")
    try:
        with pytest.raises(AccessError) as caught:
            open_checkpoint(FAR[0])
    finally:
        checks(server, "inf")

    assert caught.value.code == "E0746"
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEY:SECRET@bucket/x",
        "s3://",
        "s3://bucket/../x",
        "az://account",
        "gs://b?sig=SECRET",
        "s3://b//x",
    ],
)
def test_what_is_no_address_is_refused_without_a_secret(uri: str) -> None:
    """E0745; keys in an address are not repeated."""
    with pytest.raises(UsageError) as caught:
        open_checkpoint(uri)

    assert caught.value.code == "E0745"
    assert "SECRET" not in str(caught.value)


def test_addresses_name_bucket_and_folder() -> None:
    """s3 and gs: a bucket; az: an account and a container."""
    assert parse("s3://bucket/a/b/") == StoreAddress("s3", "bucket", "a/b")
    assert parse("gs://bucket") == StoreAddress("gs", "bucket", "")
    assert parse("az://account/container/a") == StoreAddress("az", "account/container", "a")


def test_without_the_library_one_line_says_what_to_install() -> None:
    """E0748 with the extra's name."""
    code = (
        "import sys; sys.modules['obstore'] = sys.modules['obstore.store'] = None\n"
        "from rsoup.cli import main; sys.argv[1:] = ['check', 's3://bucket/a', 's3://bucket/b']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "E0748" in done.stderr
    assert "pip install 'rewarded-soups[stores]'" in done.stderr


def same(one: Tensors, two: Tensors) -> bool:
    """Whether these are the same tensors, bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> adapters.Made:
    """A base and two adapters, as PEFT saves them."""
    return adapters.make("ranks", tmp_path_factory.mktemp("trained"))


@pytest.fixture
def far(bucket: Any, trained: adapters.Made) -> tuple[str, ...]:
    """The addresses of the base and the adapters in the bucket."""
    for name, folder in zip(NAMES, (trained.base, *trained.adapters), strict=True):
        for path in folder.iterdir():
            bucket.put_object(Bucket="soups", Key=f"tuned/{name}/{path.name}", Body=path.read_bytes())
    snapshot._copies.clear()
    return tuple(f"s3://soups/tuned/{name}" for name in NAMES)


def test_adapters_of_a_store_are_the_adapters_of_the_folders(
    far: tuple[str, ...], trained: adapters.Made, tmp_path: Path
) -> None:
    """An adapter out of two, full weights with --fold, and a file named by itself: the bytes of the folders."""
    near = tuple(map(str, (trained.base, *trained.adapters)))
    made = {}
    for where, (base, a, b) in (("far", far), ("near", near)):
        files = [f"{one}/adapter_model.safetensors" for one in (a, b)]
        for name, places, more in (
            ("adapter", (None, a, b), {}),
            ("affine", (None, a, b), {"affine": True}),
            ("fold", (base, a, b), {"fold": True}),
            ("files", (None, *files), {}),
        ):
            out = tmp_path / where / name
            out.parent.mkdir(exist_ok=True)
            merge(recipe(*places, **more), out)
            made[where, name] = {path.name: load_file(path) for path in out.glob("*.safetensors")}

    for name in ("adapter", "affine", "fold", "files"):
        assert made["far", name].keys() == made["near", name].keys(), name
        for file, tensors in made["far", name].items():
            assert same(tensors, made["near", name][file]), name
    assert made["far", "adapter"].keys() == {"adapter_model.safetensors"}


def test_an_adapter_of_a_store_sits_on_a_checkpoint(
    far: tuple[str, ...], trained: adapters.Made, tmp_path: Path
) -> None:
    """CHECKPOINT+ADAPTER with either or both in the store."""
    base, a, b = map(str, (trained.base, *trained.adapters))
    soups = []
    for number, (one, two) in enumerate(
        (
            (f"{base}+{a}", f"{base}+{b}"),
            (f"{base}+{far[1]}", f"{far[0]}+{far[2]}"),
            (f"{far[0]}+{a}", f"{base}+{far[2]}/"),
        )
    ):
        merge(recipe(base, one, two), tmp_path / str(number))
        soups.append(read_tensors(tmp_path / str(number)))

    assert all(same(soup, soups[0]) for soup in soups[1:])


def test_a_checkpoint_of_the_hub_goes_with_an_adapter_of_a_store_and_the_other_way_round(
    far: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is asked where it lies: it is the Hub that is not there."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for uri in (f"hf://org/base+{far[1]}", f"org/base+{far[1]}", f"{far[0]}+hf://org/adapter"):
        with pytest.raises((AccessError, BusyError)) as caught:
            open_checkpoint(uri)

        assert caught.value.code in ("E0713", "E0714", "E0715", "E0716", "E7510"), caught.value
        assert "org/" in str(caught.value)


def test_adapters_of_a_store_are_checked(far: tuple[str, ...], trained: adapters.Made) -> None:
    """The measures of the folders."""
    found = check({"a": far[1], "b": far[2]}, far[0])
    expected = check({"a": trained.adapters[0], "b": trained.adapters[1]}, trained.base)

    assert found.measures == expected.measures
    assert found.verdict == expected.verdict


def test_adapters_of_a_store_are_swept_and_their_copies_are_removed(
    far: tuple[str, ...], trained: adapters.Made, tmp_path: Path
) -> None:
    """The command makes the soups of the folders, asks for no base, and leaves nothing in the temporary folder."""
    (tmp_path / "spare").mkdir()
    (tmp_path / "score.py").write_text(
        "import json, os, sys\nprint(json.dumps({'size': os.path.getsize(sys.argv[1] + '/adapter_model.safetensors'), 'one': 1.0}))"
    )
    for name, places in (("far", far[1:]), ("near", tuple(map(str, trained.adapters)))):
        words = [
            "sweep", *(f"{letter}={place}" for letter, place in zip("ab", places, strict=True)), "--grid", "3", "--keep", "all",
            "--eval", f"{sys.executable} {tmp_path}/score.py {{model}}", "--reward", "size", "--reward", "one", "-o", str(tmp_path / name), "-q",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "rsoup", *words],
            env=os.environ | {"TMPDIR": str(tmp_path / "spare")}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    soups = [sorted((tmp_path / name).rglob("adapter_model.safetensors")) for name in ("far", "near")]
    assert len(soups[0]) == len(soups[1]) == 3
    assert all(same(load_file(one), load_file(two)) for one, two in zip(*soups, strict=True))
    assert not list((tmp_path / "spare").glob("rsoup-store-*"))


def test_an_adapter_that_was_replaced_is_copied_anew(
    bucket: Any, far: tuple[str, ...], trained: adapters.Made, tmp_path: Path
) -> None:
    """A process that goes on mixes what lies in the store now, not what it once copied."""
    _, a, b = far
    merge(recipe(None, a, b), tmp_path / "before")
    body = (trained.adapters[1] / "adapter_model.safetensors").read_bytes()
    tensors = {
        name: values * 2
        for name, values in load_file(trained.adapters[1] / "adapter_model.safetensors").items()
    }
    save_file(tensors, tmp_path / "doubled.safetensors")
    bucket.put_object(
        Bucket="soups",
        Key="tuned/b/adapter_model.safetensors",
        Body=(tmp_path / "doubled.safetensors").read_bytes(),
    )
    merge(recipe(None, a, b), tmp_path / "after")
    bucket.put_object(Bucket="soups", Key="tuned/b/adapter_model.safetensors", Body=body)
    merge(recipe(None, a, b), tmp_path / "again")

    before, after, again = (read_tensors(tmp_path / name) for name in ("before", "after", "again"))
    assert not same(before, after)
    assert same(before, again)


def test_a_lora_of_diffusers_in_a_store(bucket: Any, tmp_path: Path) -> None:
    """One file without a configuration is looked into: factors are an adapter, a model's weights are streamed."""
    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        factors = {
            f"unet.down.{side}.weight": torch.randn(shape, generator=generator)
            for side, shape in (("lora_A", (4, 8)), ("lora_B", (8, 4)))
        }
        save_file(factors, tmp_path / f"{name}.safetensors")
        body = (tmp_path / f"{name}.safetensors").read_bytes()
        bucket.put_object(Bucket="soups", Key=f"images/{name}/pytorch_lora_weights.safetensors", Body=body)
    snapshot._copies.clear()
    places = [f"s3://soups/images/{name}" for name in ("a", "b")]

    merge(recipe(None, *places), tmp_path / "far")
    files = [str(tmp_path / f"{name}.safetensors") for name in ("a", "b")]
    merge(recipe(None, *files), tmp_path / "near")

    assert same(read_tensors(tmp_path / "far"), read_tensors(tmp_path / "near"))


def test_what_a_store_holds_beside_adapters_still_needs_a_base(bucket: Any) -> None:
    """--affine of full weights without a base is refused, in the store as elsewhere, before anything is read."""
    with pytest.raises(UsageError) as caught:
        merge(recipe(None, *FAR[1:], affine=True), "out")

    assert caught.value.code == "E0207"
