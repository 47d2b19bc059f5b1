"""Distributed checkpoints of torch: whole and split over ranks, read without a process group, mixed like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from checkpoints import Tensors, read_tensors
from contracts import FileSourceContract

import rsoup as library
from rsoup.errors import RefusedFileError, UsageError
from rsoup.storage.checkpoint import open_checkpoint
from rsoup.storage.checkpoint_source import CheckpointSource

pytestmark = pytest.mark.filterwarnings("ignore")

_RANK = """
import os, sys, warnings
import torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
warnings.filterwarnings("ignore")
rank, folder, place = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}.rendezvous", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
whole = torch.load(f"{folder}.pt")
state = {n: distribute_tensor(t, mesh, [Shard(place) if t.dim() > place and t.shape[place] > 1 else Replicate()]) for n, t in whole.items()}
dcp.save({"model": state, "optim": {"state": {"exp_avg": torch.ones(3)}}, "step": 7}, checkpoint_id=folder)
dist.barrier()
os._exit(0)  # gloo's threads may abort a process that ends by itself while the other one is leaving
"""


def sharded(folder: Path, tensors: Tensors, place: int = 0) -> Path:
    """What two ranks save of DTensors that are split along one dimension."""
    torch.save(tensors, f"{folder}.pt")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", _RANK, str(rank), str(folder), str(place)], env=environment)
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    return folder


def saved(folder: Path, state: object) -> Path:
    """What one process saves."""
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    return folder


def some(seed: int) -> Tensors:
    """Tensors of odd sizes and several dtypes."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(7, 5, generator=generator),
        "b.weight": torch.randn(4, 3, 2, generator=generator).bfloat16(),
        "bias": torch.randn(3, generator=generator).half(),
        "ids": torch.arange(5),
        "scale": torch.tensor(1.5 + seed),
    }


def mean(one: Tensors, other: Tensors) -> Tensors:
    """The average in float64, rounded once."""
    return {n: ((t.double() + other[n].double()) / 2).to(t.dtype) for n, t in one.items()}


class TestDistributed(FileSourceContract):
    """A distributed checkpoint that one process saved, under the contract of every source."""

    trailer = 1500

    def open(self, name: str, tensors: Tensors) -> CheckpointSource:
        """Its folder, with side files beside it."""
        folder = saved(self.root / name, tensors)
        for file, data in self.side_files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(data)
        return open_checkpoint(str(folder))

    def open_again(self) -> CheckpointSource:
        """By the folder's path."""
        return open_checkpoint(str(self.root / "source"))

    def weight_files(self) -> list[Path]:
        """The one that holds tensors."""
        return [self.root / "source/__0_0.distcp"]


def test_two_ranks_are_put_together(tmp_path: Path) -> None:
    """Rows that two ranks saved are one tensor again, and the model's table is found beside the optimiser's."""
    one, other = some(1), some(2)
    parts, whole = sharded(tmp_path / "parts", one), saved(tmp_path / "whole", other)

    source = open_checkpoint(str(parts))
    result = library.merge(library.make_recipe([parts, whole], uniform=True), tmp_path / "soup")

    assert len(list(parts.glob("*.distcp"))) == 2
    assert any("the weights are those under 'model'" in note for note in source.notes)
    soup, expected = read_tensors(tmp_path / "soup"), mean(one, other)
    assert soup.keys() == expected.keys()
    assert all(torch.equal(soup[name], expected[name]) for name in expected)
    assert result.files[0] == "model.safetensors"
    library.verify(tmp_path / "soup", [parts, whole], rederive=True)


def test_tensor_parallel_rows_are_refused(tmp_path: Path) -> None:
    """What is split within its rows is refused, with the command that makes one checkpoint of it."""
    parts = sharded(tmp_path / "parts", {"a": torch.randn(4, 6)}, place=1)

    with pytest.raises(RefusedFileError) as error:
        open_checkpoint(str(parts))

    assert error.value.code == "E0819"
    assert error.value.hint is not None
    assert "dcp_to_torch" in error.value.hint


def test_several_tables_ask_for_a_key(tmp_path: Path) -> None:
    """Where there is more than one table, `--key` chooses; a key that leads nowhere is refused."""
    folder = saved(tmp_path / "both", {"model": some(1), "ema": some(2)})

    with pytest.raises(UsageError) as several:
        open_checkpoint(str(folder))
    with pytest.raises(UsageError) as nowhere:
        open_checkpoint(str(folder), key="nothing")
    ema = open_checkpoint(str(folder), key="ema")

    assert several.value.code == nowhere.value.code == "E0215"
    assert several.value.hint == "say which one is the model: --key model"
    buffer = bytearray(ema.header["scale"].nbytes)
    ema.read("scale", 0, memoryview(buffer))
    assert torch.frombuffer(buffer, dtype=torch.float32).item() == 3.5


@pytest.mark.parametrize(
    "damage", ["file missing", "file cut", "metadata cut", "a file elsewhere", "another class"]
)
def test_what_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    """A missing or short file, a damaged pickle, a path out of the folder, a foreign class: each is refused in words."""
    folder = saved(tmp_path / "model", some(1))
    data, metadata = folder / "__0_0.distcp", folder / ".metadata"
    if damage == "file missing":
        data.unlink()
    elif damage == "file cut":
        os.truncate(data, data.stat().st_size - 700)
    elif damage == "metadata cut":
        os.truncate(metadata, 300)
    elif damage == "a file elsewhere":
        metadata.write_bytes(metadata.read_bytes().replace(b"__0_0.distcp", b"../0.distcpx"))
    else:
        metadata.write_bytes(metadata.read_bytes().replace(b"StorageMeta", b"StorageEvil"))

    with pytest.raises(library.RsoupError) as error:
        open_checkpoint(str(folder))

    assert error.value.code in ("E0701", "E0816", "E0817", "E0819")
    assert error.value.exit_code in (7, 8)


def test_tables_in_a_table(tmp_path: Path) -> None:
    """A state that holds everything under one key is entered, and the choice inside it is asked for."""
    folder = saved(
        tmp_path / "app", {"app": {"model": some(1), "ema": some(2), "optim": {"m": torch.ones(2)}}}
    )
    only = saved(tmp_path / "only", {"app": {"model": some(1), "optim": {"m": torch.ones(2)}}})

    with pytest.raises(UsageError) as error:
        open_checkpoint(str(folder))

    assert error.value.hint == "say which one is the model: --key app.model"
    assert open_checkpoint(str(folder), key="app.model").header.keys() == some(1).keys()
    assert open_checkpoint(str(only)).header.keys() == some(1).keys()


def test_a_part_alone_is_no_checkpoint(tmp_path: Path) -> None:
    """A .distcp file by itself is refused; its folder is what to name."""
    folder = saved(tmp_path / "model", some(1))

    with pytest.raises(RefusedFileError, match="a part of a distributed checkpoint"):
        open_checkpoint(str(folder / "__0_0.distcp"))
