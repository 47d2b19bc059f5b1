"""Weights streamed from the tests' Hub: the bytes of a local merge, nothing stored, proven or said not to be."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import read_tensors, write_folder
from hub_inside import inside
from hub_server import Hub
from safetensors.torch import save_file

from rsoup.errors import AccessError, BusyError, RefusedFileError, UsageError
from rsoup.family.checking import check
from rsoup.lora.extracting import extract
from rsoup.merging import MergeResult, merge
from rsoup.prepare import prepared
from rsoup.proof.differing import diff
from rsoup.recipe import Ingredient, Recipe
from rsoup.remote import pool
from rsoup.request import Request, make

CHUNK = 1 << 18
NAMES = ("base", "a", "b")


def tensors(seed: int, count: int = 24) -> dict[str, torch.Tensor]:
    """Some 8 MB of tensors, four blocks: large and small ones, BF16, F32, integers that all share."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {
        "model.embed.weight": torch.randn(200, 128, generator=generator).bfloat16()
    }
    for layer in range(count):
        made = torch.randn(256, 512, generator=generator)
        found[f"model.layers.{layer}.w.weight"] = made if layer % 3 == 0 else made.bfloat16()
        found[f"model.layers.{layer}.norm.weight"] = torch.randn(128, generator=generator).bfloat16()
    found["model.steps"] = torch.arange(7)
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two fine-tunes on disk, the second in three shards, the base's tensors in another order."""
    folder = tmp_path_factory.mktemp("models")
    base = tensors(0)
    for number, name in enumerate(NAMES):
        moved = {
            key: value if not value.is_floating_point() else (value + 0.01 * number * torch.sin(value.float())).to(value.dtype)
            for key, value in base.items()
        }  # fmt: skip
        write_folder(folder / name, moved, shards=3 if name == "b" else 1)
    return folder


@pytest.fixture(scope="module")
def local(models: Path) -> dict[str, torch.Tensor]:
    """The soup of the folders on disk."""
    merge(recipe(*(str(models / name) for name in NAMES)), models / "soup")
    return read_tensors(models / "soup")


@pytest.fixture
def hub(models: Path, tmp_path: Path) -> Iterator[Hub]:
    """A Hub that holds them, asked from inside this process, in chunks of 256 KiB; no thread may be left at the end."""
    with Hub(tmp_path / "hub") as started, inside(started) as patch:
        patch.setattr(pool, "CHUNK_BYTES", CHUNK)
        patch.setattr(pool, "MEMORY_BYTES", 60 * CHUNK)
        for name in NAMES:
            started.add(f"org/{name}", models / name)
        yield started
        assert not threads()


def threads() -> list[str]:
    """The threads that fetch."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rsoup-fetch")]


def recipe(base: str | None, a: str, b: str, **more: object) -> Recipe:
    """Two ingredients on a base."""
    ingredients = [Ingredient("a", (a,)), Ingredient("b", (b,))]
    return make(Request(ingredients, mix=["0.6", "0.4"], base=base, **more))  # type: ignore[arg-type]


def soup(out: Path, **more: object) -> MergeResult:
    """The Hub's checkpoints, merged as a stream."""
    return merge(recipe("org/base", "org/a", "org/b"), out, fetch="stream", **more)  # type: ignore[arg-type]


def same(out: Path, wanted: dict[str, torch.Tensor]) -> bool:
    """Whether a soup holds these tensors, bit for bit."""
    found = read_tensors(out)
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)


def stored(hub: Hub) -> int:
    """Bytes in the Hub's cache."""
    return sum(
        path.stat().st_size for path in hub.home.rglob("*") if path.is_file() and not path.is_symlink()
    )


def sizes(models: Path) -> int:
    """Bytes of all weight files."""
    return sum(path.stat().st_size for name in NAMES for path in (models / name).glob("*.safetensors"))


def test_one_file_without_a_configuration_is_looked_into(
    hub: Hub, models: Path, local: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """A model's weights are streamed; factors, which are small, go through the cache as an adapter."""
    for name in ("base", "a", "b"):
        if name == "b":
            save_file(read_tensors(models / "b"), tmp_path / "b.safetensors")
            body = (tmp_path / "b.safetensors").read_bytes()
        else:
            body = (models / name / "model.safetensors").read_bytes()
        hub.add(f"org/bare-{name}", {"model.safetensors": body})
    generator = torch.Generator().manual_seed(0)
    factors = {
        f"unet.down.{side}.weight": torch.randn(shape, generator=generator)
        for side, shape in (("lora_A", (4, 8)), ("lora_B", (8, 4)))
    }
    save_file(factors, tmp_path / "factors.safetensors")
    hub.add(
        "org/factors", {"pytorch_lora_weights.safetensors": (tmp_path / "factors.safetensors").read_bytes()}
    )

    result = merge(recipe("org/bare-base", "org/bare-a", "org/bare-b"), tmp_path / "out", fetch="stream")
    small = merge(recipe(None, "org/factors", "org/factors"), tmp_path / "adapter", fetch="stream")

    assert same(tmp_path / "out", local)
    assert [one.way for one in result.transfers] == ["stream"] * 3
    assert stored(hub) < 40_000
    assert {one.way for one in small.transfers} <= {"cache", "here"}
    assert same(tmp_path / "adapter", factors)


def test_a_streamed_merge_is_the_merge_of_the_folders_and_stores_nothing(
    hub: Hub, models: Path, local: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Same bits; each byte crosses the network once; no weight lies in the cache; all of them proven and said so."""
    result = soup(tmp_path / "out")

    assert same(tmp_path / "out", local)
    sent = sum(request.sent for request in hub.seen("GET storage"))
    assert (
        sizes(models) <= sent <= 1.25 * sizes(models)
    )  # b's shards have another order, and a test little memory
    for name in ("a", "base"):
        objects = hub.files(f"org/{name}")["model.safetensors"]
        mine = hub.seen(f"/objects/{hashlib.sha256(objects).hexdigest()}")
        assert len(objects) <= sum(request.sent for request in mine) <= len(objects) + (1 << 14) + 4 * CHUNK
    assert stored(hub) < 20_000
    assert [one.way for one in result.transfers] == ["stream"] * 3
    assert sum(one.proven or 0 for one in result.transfers) == sizes(models)
    assert not any(one.unproven for one in result.transfers)
    assert sum("streamed, nothing stored" in note for note in result.notes) == 3
    told = json.loads((tmp_path / "out" / "rsoup.json").read_text())["run"]["streamed"]
    assert [row["proven_bytes"] for row in told] == [one.proven for one in result.transfers]


def test_requests_for_chunks_do_not_ask_the_hub_for_each_address(hub: Hub, tmp_path: Path) -> None:
    """The storage's address is asked for once or a few times per file, not once per chunk: the Hub counts those."""
    soup(tmp_path / "out")

    assert len(hub.seen("GET storage")) > 40
    assert len(hub.seen("/resolve/")) < 35


def test_an_address_that_expires_is_asked_for_anew(
    hub: Hub, local: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """A storage that refuses the address it took before: the Hub is asked again, and the merge goes on."""
    for _ in range(3):
        hub.when("GET storage", lambda: None, times=20)
        hub.fail("GET storage", status=403)

    soup(tmp_path / "out")
    assert same(tmp_path / "out", local)


@pytest.mark.parametrize(
    "faults",
    [
        [
            {"status": 429, "headers": {"Retry-After": "0"}},
            {"status": 503, "headers": {"Retry-After": "0"}, "times": 2},
        ],
        [{"cut_after": 1000, "times": 3}, {"ignore_range": True, "times": 2}],
    ],
)
@pytest.mark.fault("K5", "K6", "K7", "K8")
def test_what_passes_by_itself_changes_nothing(
    hub: Hub, local: dict[str, torch.Tensor], tmp_path: Path, faults: list[dict[str, object]]
) -> None:
    """429 once, 503 twice, connections cut in mid-body, ranges ignored: the same soup, proven."""
    hub.when("GET storage", lambda: None, times=9)  # the headers, and a little more
    for fault in faults:
        hub.fail("GET storage", **fault)  # type: ignore[arg-type]
    result = soup(tmp_path / "out")

    assert same(tmp_path / "out", local)
    assert not any(one.unproven for one in result.transfers)


@pytest.mark.fault("K9")
def test_wrong_bytes_publish_nothing(hub: Hub, tmp_path: Path) -> None:
    """A flipped byte of the right length: E0717, and neither a soup nor anything to go on from."""
    hub.fail(re.compile("GET storage.*model.safetensors"), flip=4_000_000, times=50)
    with pytest.raises(RefusedFileError) as caught:
        soup(tmp_path / "out")

    assert caught.value.code == "E0717"
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_bytes_that_differ_the_second_time_publish_nothing(hub: Hub, models: Path, tmp_path: Path) -> None:
    """A global slerp reads twice: a byte that was flipped in the first pass alone is E0740."""
    hub.fail(re.compile("GET storage.*model.safetensors"), flip=4_000_000)
    asked = recipe("org/base", "org/a", "org/b", method="slerp", level="global")
    with pytest.raises(RefusedFileError) as caught:
        merge(asked, tmp_path / "out", fetch="stream")

    assert caught.value.code == "E0740"
    assert not (tmp_path / "out").exists()


def broken_off(hub: Hub, out: Path) -> None:
    """A merge during which the Hub gives up once the first block is there; memory for a few chunks only."""

    def stop(*_: object) -> None:
        if not hub.faults or hub.faults[-1].status != 503:
            hub.fail("GET storage", status=503, headers={"Retry-After": "0"}, times=100_000)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "FEWEST", 6)
        patch.setattr(pool, "MEMORY_BYTES", 18 * CHUNK)
        with pytest.raises(BusyError) as caught:
            soup(out, threads=1, progress=stop)
    assert caught.value.code == "E7510"
    assert caught.value.exit_code == 75
    assert not threads()
    hub.faults.clear()


def test_the_hub_gives_up_and_the_same_command_goes_on(
    hub: Hub, local: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """After five refusals E7510, staging kept; then the blocks that are done are kept, and all is proven: same bits."""
    broken_off(hub, tmp_path / "out")
    (left,) = tmp_path.glob("out.rsoup-*.part")
    assert b'"streamed"' in (left / ".journal").read_bytes()

    result = soup(tmp_path / "out")
    assert result.resumed_blocks > 0
    assert 0 < sum(one.again for one in result.transfers) <= 25_400_000
    assert same(tmp_path / "out", local)
    assert not any(one.unproven for one in result.transfers)


@pytest.mark.fault("K9")
def test_wrong_bytes_of_a_run_that_broke_off_are_found_by_the_next(hub: Hub, tmp_path: Path) -> None:
    """Blocks made of a flipped byte before the Hub gave up: the next run gets the right bytes, and refuses the soup."""
    hub.fail(re.compile("GET storage.*model.safetensors"), flip=600_000)
    broken_off(hub, tmp_path / "out")
    with pytest.raises(RefusedFileError) as caught:
        soup(tmp_path / "out")

    assert caught.value.code == "E0740"
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.fault("K10")
def test_a_branch_that_moves_meanwhile_changes_nothing(
    hub: Hub, models: Path, local: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Everything is read by the commit that was resolved first."""
    first = hub.commits("org/a")[0].id
    hub.when(f"/org/a/resolve/{first}", lambda: hub.add("org/a", models / "base"))
    soup(tmp_path / "out")

    assert hub.commits("org/a")[0].id != first
    assert same(tmp_path / "out", local)


@pytest.mark.fault("K3")
def test_a_gate_is_said_before_anything_is_made(hub: Hub, models: Path, tmp_path: Path) -> None:
    """Gated: E0711, and no output."""
    hub.add("org/gated", models / "a", gated=True)
    with pytest.raises(AccessError) as caught:
        merge(recipe("org/base", "org/gated", "org/b"), tmp_path / "out", fetch="stream")

    assert caught.value.code == "E0711"
    assert not (tmp_path / "out").exists()


def test_what_is_in_the_cache_is_used(
    hub: Hub, models: Path, local: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """A checkpoint, or a single shard, that was downloaded before crosses no network again."""
    from huggingface_hub import hf_hub_download

    hf_hub_download("org/a", "model.safetensors")
    shard = sorted(path.name for path in (models / "b").glob("*.safetensors"))[1]
    hf_hub_download("org/b", shard)
    before = len(hub.requests)
    result = soup(tmp_path / "out")

    assert same(tmp_path / "out", local)
    assert not [r for r in hub.requests[before:] if re.search(rf"org/a/resolve.*tensors|{shard}", r.line)]
    assert [one.way for one in result.transfers] == ["here", "stream", "stream"]
    assert result.transfers[1].files == 2
    assert sum("not hashed again" in note for note in result.notes) == 2


def test_a_dry_run_says_what_would_cross_the_network_and_stay(hub: Hub, models: Path, tmp_path: Path) -> None:
    """Bytes by network and by disk, before anything is read, for both ways; the real run then does just that."""
    from huggingface_hub import hf_hub_download

    hf_hub_download("org/base", "model.safetensors")
    size = (models / "a" / "model.safetensors").stat().st_size
    asked = recipe("org/base", "org/a", "org/b")
    with prepared(asked, str(tmp_path / "out"), fetch="stream?") as ready:
        a, b, base = ready.transfers
        assert (a.way, a.network, a.disk) == ("stream", size, 0)
        assert (base.way, base.network, base.disk) == ("here", 0, 0)
        assert "nothing of them stays on the disk" in a.plan
        assert [one.again for one in ready.foreseen] == [0, 0, 0]
    with prepared(asked, str(tmp_path / "out"), fetch="cache?") as ready:
        a, b, base = ready.transfers
        assert (a.way, a.network, a.disk) == ("cache", size, size)
        assert b.files == 3
    assert not list(hub.home.rglob("model-0*.safetensors"))


def test_another_order_in_the_file_is_fetched_twice_and_foreseen(
    hub: Hub, models: Path, tmp_path: Path
) -> None:
    """All BF16, so its tensors lie in another order than the base's F32 and BF16: the same soup, proven, said before."""
    write_folder(
        tmp_path / "c",
        {k: v.bfloat16() if v.is_floating_point() else v for k, v in read_tensors(models / "a").items()},
    )
    hub.add("org/c", tmp_path / "c")
    near = merge(recipe(str(models / "base"), str(tmp_path / "c"), str(models / "b")), tmp_path / "near")
    asked = recipe("org/base", "org/c", "org/b")
    with prepared(asked, str(tmp_path / "far"), fetch="stream?") as ready:
        assert ready.foreseen[0].again > 0
        assert "not the soup's" in ready.foreseen[0].plan
    result = merge(asked, tmp_path / "far")

    assert same(tmp_path / "far", read_tensors(tmp_path / "near"))
    assert near.distances == result.distances
    c = result.transfers[0]
    assert (c.unproven, c.proven) == ((), c.network)
    assert c.again <= c.network


def test_the_command_tells_both_ways_and_refuses_both_at_once(hub: Hub, tmp_path: Path) -> None:
    """--dry-run says `network`, in words and in JSON; --stream and --cache contradict each other."""
    from typer.testing import CliRunner

    from rsoup.cli.app import app

    asked = ["merge", "org/a", "org/b", "--lambda", "0.6,0.4", "-o", str(tmp_path / "out"), "--dry-run"]
    said = CliRunner().invoke(app, asked).stdout
    assert said.count("streamed; nothing of them stays on the disk") == 2
    told = json.loads(CliRunner().invoke(app, [*asked, "--cache", "--json"]).stdout)
    assert [row["way"] for row in told["transfers"]] == ["cache", "cache"]
    assert told["transfers"][0]["disk_bytes"] == told["transfers"][0]["network_bytes"] > 6_000_000
    refused = CliRunner().invoke(app, [*asked, "--cache", "--stream"]).exception
    assert isinstance(refused, UsageError)
    assert refused.code == "E0206"


def test_a_method_that_reads_twice_goes_through_the_cache(hub: Hub, tmp_path: Path) -> None:
    """Global slerp downloads; linear streams; asked for, either does the other."""
    twice = recipe("org/base", "org/a", "org/b", method="slerp", level="global")
    result = merge(twice, tmp_path / "slerp")
    assert [one.way for one in result.transfers] == ["cache"] * 3
    assert list(hub.home.rglob("*.safetensors"))


def test_a_pickle_goes_through_the_cache_and_says_why(hub: Hub, models: Path, tmp_path: Path) -> None:
    """pytorch_model.bin has no order to stream in: downloaded, with the reason."""
    write_folder(tmp_path / "p", read_tensors(models / "a"))
    (tmp_path / "p" / "model.safetensors").unlink()
    torch.save(read_tensors(models / "a"), tmp_path / "p" / "pytorch_model.bin")
    hub.add("org/p", tmp_path / "p")
    result = merge(recipe("org/base", "org/p", "org/b"), tmp_path / "out", fetch="stream")

    assert [one.way for one in result.transfers] == ["cache", "stream", "stream"]
    assert result.transfers[0].reason == "'pytorch_model.bin' is no safetensors file"


def test_check_and_diff_stream_too(hub: Hub, models: Path) -> None:
    """The same measures and the same differences as of the folders; nothing is stored; a single tensor is a part."""
    near = check({"a": models / "a", "b": models / "b"}, models / "base")
    far = check({"a": "org/a", "b": "org/b"}, "org/base")
    assert far.measures is not None
    assert near.measures is not None
    assert far.measures.total == near.measures.total
    assert sum(one.proven or 0 for one in far.transfers) == sizes(models)

    before = sum(request.sent for request in hub.requests)
    assert len(diff("org/a", models / "b").tensors) == len(diff(models / "a", models / "b").tensors)
    part = diff("org/a", "org/b", tensors=["model.layers.3.w.weight"])
    assert [one.proven for one in part.transfers] == [0, 0]
    assert part.transfers[0].unproven[0][1] == "it was not read whole"
    size = (models / "a" / "model.safetensors").stat().st_size
    assert sum(request.sent for request in hub.requests) - before < size + 12 * CHUNK
    assert stored(hub) < 20_000


def test_a_mixed_dtype_base_and_tied_weights_stream(hub: Hub, models: Path, tmp_path: Path) -> None:
    """Tied tensors, F32 beside BF16, an expert with λ = 0 that nobody reads: as on the disk."""
    alone = make(
        Request(
            [Ingredient("a", (str(models / "a"),)), Ingredient("b", (str(models / "b"),))], mix=["1", "0"]
        )
    )
    far = make(Request([Ingredient("a", ("org/a",)), Ingredient("b", ("org/b",))], mix=["1", "0"]))
    merge(alone, tmp_path / "near")
    result = merge(far, tmp_path / "far")

    assert same(tmp_path / "far", read_tensors(tmp_path / "near"))
    assert result.transfers[1].proven == 0
    assert {why for _, why in result.transfers[1].unproven} <= {"it was not read", "it was not read whole"}


def test_an_extraction_streams_when_asked(hub: Hub, models: Path, tmp_path: Path) -> None:
    """extract reads several times, so it downloads unless --stream is given: the same adapter, nothing stored."""
    options: dict[str, object] = {"rank": 2, "save_modules": True, "embeddings": True}
    near = extract(models / "a", tmp_path / "near", base=models / "base", **options)  # type: ignore[arg-type]
    far = extract("org/a", tmp_path / "far", base="org/base", fetch="stream", **options)  # type: ignore[arg-type]

    assert same(tmp_path / "far", read_tensors(tmp_path / "near"))
    assert far.figures.ranks.error == near.figures.ranks.error
    assert all(one.way == "stream" and not one.unproven for one in far.transfers)
    assert stored(hub) < 20_000


def test_an_adapter_sits_on_a_streamed_base(hub: Hub, models: Path, tmp_path: Path) -> None:
    """org/base+adapter: the base streams, the adapter is kept; the soup is that of the folders."""
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["w"],
        "base_model_name_or_path": "org/base",
    }
    generator = torch.Generator().manual_seed(3)
    made = {
        f"base_model.model.model.layers.{layer}.w.lora_{side}.weight": torch.randn(shape, generator=generator)
        for layer in (1, 2)
        for side, shape in (("A", (2, 512)), ("B", (256, 2)))
    }
    folder = write_folder(
        tmp_path / "x", made, config=None, side_files={"adapter_config.json": json.dumps(config)}
    )
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    hub.add("org/x", folder)
    merge(make(Request([Ingredient("x", (f"{models / 'base'}+{folder}",))])), tmp_path / "near")
    result = merge(make(Request([Ingredient("x", ("org/base+org/x",))])), tmp_path / "far")

    assert same(tmp_path / "far", read_tensors(tmp_path / "near"))
    assert {one.way for one in result.transfers} == {"stream", "here"}


def test_files_of_the_xet_storage_stream_by_the_same_ranges(
    hub: Hub, models: Path, local: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """A Hub that names Xet hashes still answers ranges, by its bridge: the same soup, proven."""
    for name in NAMES:
        for path in (models / name).glob("*.safetensors"):
            hub.xet.known[hashlib.sha256(path.read_bytes()).hexdigest()] = "ab" * 32
    result = soup(tmp_path / "out")

    assert same(tmp_path / "out", local)
    assert not any(one.unproven for one in result.transfers)


COMMAND = """
import sys
from rsoup.remote import pool
pool.CHUNK_BYTES, pool.MEMORY_BYTES = 1 << 18, 60 << 18
from rsoup.cli import main
main()
"""


def test_a_signal_ends_everything_and_the_same_command_goes_on(
    hub: Hub, local: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """SIGINT in the middle of slow answers: exit 130 within seconds; then the same command, same bits."""
    asked = [
        "merge",
        "org/a",
        "org/b",
        "--base",
        "org/base",
        "--lambda",
        "0.6,0.4",
        "-o",
        "out",
        "--threads",
        "1",
    ]
    start = [sys.executable, "-c", COMMAND, *asked]
    hub.when("GET storage", lambda: None, times=60)
    hub.fail("GET storage", delay=60, times=1000)
    running = subprocess.Popen(
        start,
        env=hub.environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while len(hub.seen("GET storage")) < 65:
        time.sleep(0.05)
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    begun = time.monotonic()
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 130, said
    assert time.monotonic() - begun < 15
    assert "hf_write" not in said

    hub.faults.clear()
    done = subprocess.run(
        [*start, "--json"], env=hub.environment(), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert same(tmp_path / "out", local)
    assert [row["way"] for row in json.loads(done.stdout)["transfers"]] == ["stream"] * 3
