"""PyTorch files: what torch.save writes is read as torch.load reads it; what is not plainly a model is refused."""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch_corpus import (
    HOOKS,
    MUTATORS,
    Finding,
    Memory,
    archive_of,
    as_seen,
    fuzz,
    legacy,
    loaded,
    raw,
    read_all,
    saved,
    six,
    storage,
    table,
    tensor,
    text,
    unzipped,
    zipped,
)

from rsoup.errors import RefusedFileError, RsoupError, UsageError
from rsoup.storage.files import open_regular
from rsoup.storage.pickled import stored_tensor
from rsoup.storage.pickled.stored_tensor import StoredTensor, read_stored
from rsoup.storage.pickled.torch_file import TorchFile, check_crc, parse_torch_file
from rsoup.storage.pickled.zip_directory import read_directory
from rsoup.storage.pickled.zip_members import Window
from rsoup.tensors import DTYPES, TensorSpec

DTYPE_NAMES = [dtype for dtype in DTYPES.values() if dtype.torch_name]
FORMATS = pytest.mark.parametrize("write", [saved, legacy])


def parsed(data: bytes, key: str | None = None) -> TorchFile:
    """A file's state dict."""
    return parse_torch_file(Memory(data), "file.pt", key=key)


def refusal(data: bytes, key: str | None = None) -> RsoupError:
    """The refusal of a file."""
    with pytest.raises(RsoupError) as caught:
        parsed(data, key)
    assert caught.value.where == "file.pt"
    assert len(caught.value.message) < 600
    return caught.value


# --- what torch writes


@FORMATS
@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=lambda dtype: dtype.name)
def test_every_dtype_is_read(dtype: object, write: Callable[[object], bytes]) -> None:
    """Every dtype that torch and rsoup share comes through with its bytes."""
    kind = dtype.torch  # type: ignore[attr-defined]
    numbers = torch.frombuffer(bytearray(random.Random(3).randbytes(48)), dtype=torch.uint8)
    if kind is torch.bool:
        numbers = numbers % 2
    data = write({"w": numbers.view(kind)})

    file, seen = read_all(data)

    assert file.tensors["w"].spec.dtype is dtype
    assert seen["w"][2] == bytes(numbers.numpy().tobytes())


@FORMATS
def test_models_are_read(write: Callable[[object], bytes]) -> None:
    """The state dict of a module, with the versions torch keeps beside the tensors, is the whole file."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(4, 5)
    ).half()

    file, seen = read_all(write(model.state_dict()))

    assert seen == as_seen(model.state_dict())
    assert list(seen) == list(model.state_dict())
    assert (file.key, file.ignored, file.tied) == (".", (), ())


@FORMATS
def test_parameters_are_tensors(write: Callable[[object], bytes]) -> None:
    """Parameters, with attributes or without, frozen or not, are the tensors they hold."""
    marked = torch.nn.Parameter(torch.ones(2))
    marked.tensor_model_parallel = True  # type: ignore[attr-defined]
    plain = torch.zeros(3)
    plain.my_note = "x"  # type: ignore[attr-defined]
    frozen = torch.nn.Parameter(torch.arange(3), requires_grad=False)
    tensors = {
        "marked": marked,
        "plain": plain,
        "frozen": frozen,
        "usual": torch.nn.Parameter(torch.ones(2, 2)),
    }

    assert read_all(write(tensors))[1] == as_seen(tensors)


@FORMATS
@pytest.mark.fault("D6")
def test_views_are_read(write: Callable[[object], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two elements of a storage of a million are two elements, and nothing else is read."""
    tensors = {"v": torch.arange(1_000_000.0)[500:502]}
    data = write(tensors)
    stored = parsed(data).tensors["v"]
    read: list[int] = []
    monkeypatch.setattr(Memory, "read", lambda *arguments: read.append(len(arguments[2])))

    read_stored(Memory(data), stored, 0, memoryview(bytearray(8)))

    assert read == [8]
    monkeypatch.undo()
    assert read_all(data)[1] == as_seen(tensors)


@FORMATS
@pytest.mark.fault("D7")
def test_transposed_and_tied_tensors_are_read(write: Callable[[object], bytes]) -> None:
    """Tensors that lie otherwise in memory are read row by row; those that are one are said to be tied."""
    base = torch.arange(120.0).reshape(4, 5, 6)
    tensors = {
        "t": base.transpose(0, 2),
        "p": base.permute(1, 2, 0)[1:3, ::2],
        "step": base[:, ::2, 1::3],
        "diagonal": base[0].diagonal(),
        "row": base[1, 2],
        "one": base,
        "same": base,
        "none": torch.empty(0, 3).t(),
        "neither": torch.empty(0, 3).t(),
        "scalar": base[3, 4, 5],
    }

    file, seen = read_all(write(tensors))

    assert seen == as_seen(tensors)
    assert file.tied == (("one", "same"),)
    assert not file.tensors["t"].contiguous
    assert file.tensors["one"].contiguous


@given(st.data())
@settings(max_examples=60)
def test_any_view_is_read_in_any_pieces(data: st.DataObject) -> None:
    """Whatever part of whatever view is asked for, it is the bytes torch has there."""
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.uint8, torch.float64]))
    value = torch.arange(np.prod(shape)).reshape(shape).to(dtype)
    value = value.permute(*data.draw(st.permutations(range(len(shape)))))
    for axis in range(value.dim()):
        value = value.narrow(axis, 0, data.draw(st.integers(0, value.shape[axis])))
        value = value[(slice(None),) * axis + (slice(None, None, data.draw(st.integers(1, 3))),)]
    content = saved({"w": value})
    stored = parsed(content).tensors["w"]
    whole = raw(value)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    buffer = bytearray(end - begin)

    read_stored(Memory(content), stored, begin, memoryview(buffer))

    assert bytes(buffer) == whole[begin:end]


@pytest.mark.parametrize("span", [1 << 25, 0])
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_gathering_goes_in_pieces(span: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transposed tensor is the same whether it is gathered in many pieces or few, near or far apart."""
    monkeypatch.setattr(stored_tensor, "_PIECE_ELEMENTS", piece)
    monkeypatch.setattr(stored_tensor, "_SPAN_BYTES", span)
    tensors = {
        "w": torch.randn(37, 29).t(),
        "s": torch.randn(400)[::40].flip(0).flip(0),
        "h": torch.arange(900)[::300],
    }

    assert read_all(saved(tensors))[1] == as_seen(tensors)


def test_reads_beyond_a_tensor_are_bugs() -> None:
    """Nobody can read another tensor's bytes through a tensor."""
    stored = StoredTensor(TensorSpec(DTYPES["F32"], (2,)), 0, (1,))

    for start, length in ((-1, 2), (7, 2), (9, 0)):
        with pytest.raises(ValueError, match="not all in a tensor of 8"):
            read_stored(Memory(bytes(100)), stored, start, memoryview(bytearray(length)))


def test_archives_in_archives_are_read() -> None:
    """A policy inside a Stable-Baselines3 zip is read where it lies."""
    tensors = {"w": torch.randn(4, 3).t()}
    outer = zipped({"data": json.dumps({}).encode(), "policy.pth": saved(tensors)})
    member = read_directory(Memory(outer), "model.zip")["policy.pth"]
    window = Window(Memory(outer), member.begin, member.size)
    file = parse_torch_file(window, "model.zip")
    buffer = bytearray(48)

    check_crc(window, file)
    read_stored(window, file.tensors["w"], 0, memoryview(buffer))

    assert bytes(buffer) == raw(tensors["w"])


@pytest.mark.fault("D2")
def test_the_old_format_is_read_and_noted() -> None:
    """A file of torch before 1.6 is read by the same rules, and its lack of checksums is said."""
    file, seen = read_all(legacy({"w": torch.ones(3)}))

    assert seen == as_seen({"w": torch.ones(3)})
    assert file.notes == ("file.pt: in the format of torch before 1.6, which has no checksums",)
    assert file.checked == ()


@pytest.mark.fault("D2")
def test_an_old_file_of_many_tensors_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickles longer than the first look at a file are read on."""
    tensors = {f"layer.{i}.weight": torch.full((2,), float(i)) for i in range(300)}
    monkeypatch.setattr("rsoup.storage.pickled.torch_file._FIRST_BYTES", 100)

    assert read_all(legacy(tensors))[1] == as_seen(tensors)


# --- which part is the model


def optimizer() -> dict[str, object]:
    """The state of an optimizer after a step."""
    weight = torch.nn.Parameter(torch.ones(2, 2))
    adam = torch.optim.Adam([weight])
    weight.sum().backward()
    adam.step()
    return adam.state_dict()


WEIGHTS = {"w": torch.arange(6.0), "b": torch.zeros(2)}


@FORMATS
@pytest.mark.fault("D16")
@pytest.mark.parametrize(
    "key",
    ["state_dict", "model_state_dict", "model", "module", "params", "ema", "net", "generator", "my.key"],
)
def test_the_only_state_dict_is_found(key: str, write: Callable[[object], bytes]) -> None:
    """In a training checkpoint the one table of tensors is the model, whatever its key, and that is said."""
    checkpoint = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, path=Path("x")),
        key: WEIGHTS,
        "optimizer": optimizer(),
        "optimizer_states": [optimizer()],
        "lr_schedulers": [{"last_epoch": 1}],
        "best": np.float64(0.5),
        "rng_state": torch.get_rng_state(),
        "losses": [1.0, 2.0],
        "metrics": {"loss": torch.tensor(0.1), "steps": torch.tensor(7)},
    }

    file, seen = read_all(write(checkpoint))

    assert seen == as_seen(WEIGHTS)
    assert file.key == key
    assert file.notes[0].startswith(
        f"file.pt: the weights are those under '{key}'; not read: 'epoch', 'args', 'opt"
    )


@pytest.mark.fault("D16")
def test_two_candidates_need_a_key() -> None:
    """With two tables of tensors rsoup asks which one, and takes the one that is named."""
    data = saved({"model": WEIGHTS, "ema": {"w": torch.ones(6)}, "epoch": 1})

    error = refusal(data)

    assert isinstance(error, UsageError)
    assert error.code == "E0215"
    assert error.message == "several parts of the file could be the model: 'model' and 'ema'"
    assert error.hint == "name the one to mix: --key model"
    assert read_all(data, "ema")[1] == as_seen({"w": torch.ones(6)})


@pytest.mark.fault("D16")
@pytest.mark.parametrize("key", ["runs.best.model", "runs.best"])
def test_keys_lead_inside(key: str) -> None:
    """A key may lead through several tables, and a key with points in it is a key."""
    deep = {"runs": {"best": {"model": WEIGHTS, "other": {"x": torch.ones(1)}, "t": torch.ones(2)}}}
    flat = {key: WEIGHTS, "other": {"x": torch.ones(1)}}

    assert parsed(saved(flat), key).tensors.keys() == WEIGHTS.keys()
    assert parsed(saved(deep), key).tensors.keys() == (WEIGHTS.keys() if key.endswith("model") else {"t"})


@pytest.mark.fault("D16")
@pytest.mark.parametrize(
    ("key", "says", "hint"),
    [
        ("state_dct", "the file has no table 'state_dct'", "did you mean 'state_dict'?"),
        (
            "zzz",
            "the file has no table 'zzz'",
            "there are '.', 'state_dict' and 'info' ('.' is the whole file)",
        ),
        ("epoch", "the file has no table 'epoch'", None),
        ("state_dict.w", "the file has no table 'state_dict.w'", None),
        ("info", "'info' holds no tensors", None),
        (".", "'.' holds no tensors", None),
        ("", "the file has no table ''", None),
        ("a\x1b[2J", r"the file has no table 'a\u{1b}[2J'", None),
    ],
)
def test_wrong_keys_are_told(key: str, says: str, hint: str | None) -> None:
    """A key that leads nowhere is an error of usage, with the nearest that does."""
    error = refusal(saved({"state_dict": WEIGHTS, "epoch": 3, "info": {"a": 1}}), key)

    assert isinstance(error, UsageError)
    assert (error.code, error.message) == ("E0215", says)
    assert hint is None or error.hint == hint


def test_what_is_no_tensor_is_listed() -> None:
    """Numbers, texts and extra states in a state dict are left out, and said to be."""
    entries = {**WEIGHTS, "_extra_state": {"scale": [1.0]}, "version": 2}

    file, seen = read_all(saved(entries))

    assert seen == as_seen(WEIGHTS)
    assert file.ignored == ("_extra_state", "version")
    assert "'_extra_state' and 'version' in the state dict: not a tensor, left out" in file.notes[0]


@pytest.mark.parametrize(
    "value",
    [torch.ones(2), [torch.ones(2)], 3, "x", None, {"a": 1}, {"a": {"b": [1]}}, {"o": {"param_groups": []}}],
)
def test_files_without_a_model_are_refused(value: object) -> None:
    """A tensor alone, a list, a table without tensors: there is nothing to mix."""
    error = refusal(saved(value))

    assert error.code == "E0816"
    assert "save the state dict alone" in str(error.hint)


def test_an_empty_state_dict_is_one() -> None:
    """A model without tensors has none."""
    assert parsed(saved({})).tensors == {}
    assert parsed(saved(OrderedDict())).tensors == {}


@pytest.mark.fault("D15")
def test_keys_that_are_no_names() -> None:
    """Numbers as names of tensors are refused; beside the model they are somebody else's business."""
    assert (
        "has the key 0 where a name belongs" in refusal(saved({0: torch.ones(1), 1: torch.ones(1)})).message
    )
    assert "has the key of no text" in refusal(saved({("a", 1): torch.ones(1)})).message
    assert "is not valid Unicode" in refusal(saved({"a\ud800": torch.ones(1)})).message
    assert "5000 bytes" in refusal(saved({"a" * 5000: torch.ones(1)})).message
    assert parsed(saved({"model": WEIGHTS, "averages": {0: torch.ones(1)}}), "model").key == "model"


@pytest.mark.fault("D15")
def test_a_name_twice_is_refused() -> None:
    """Of two tensors of one name torch takes the last; we take neither."""
    program = b"\x80\x02}(" + text("w") + tensor() + text("w") + tensor() + b"u."

    error = refusal(archive_of(program, s0=six()))

    assert (error.code, error.message) == ("E0816", "the key 'w' occurs twice in one table")


# --- what is refused


SPECIAL: dict[str, tuple[Callable[[], object], str]] = {
    "sparse": (lambda: torch.eye(3).to_sparse(), "is sparse"),
    "sparse rows": (lambda: torch.eye(3).to_sparse_csr(), "is sparse"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "is quantised"),
    "meta": (lambda: torch.empty(3, device="meta"), "has no data (device meta)"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "is nested"),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "has the dtype ComplexDoubleStorage"),
    "complex32": (lambda: torch.ones(2, dtype=torch.float16).to(torch.complex32), "has the dtype complex32"),
    "conjugate": (lambda: torch.ones(2, dtype=torch.complex64).conj(), "is a conjugated or negated view"),
    "negative": (lambda: torch.ones(2, dtype=torch.complex64).conj().imag, "is a conjugated or negated view"),
    "uninitialised": (torch.nn.UninitializedParameter, "is made as a 'torch.nn.parameter.UninitializedParameter'"),
}  # fmt: skip


@pytest.mark.fault("D8")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "says"), SPECIAL.values(), ids=SPECIAL)
def test_tensors_that_are_not_plain_are_refused_by_name(make: Callable[[], object], says: str) -> None:
    """A tensor whose bytes are not its values is refused in the model, and overlooked beside it."""
    value = make()

    error = refusal(saved({"a": torch.ones(1), "odd.weight": value}))

    assert error.code == "E0818"
    assert error.message == f"tensor 'odd.weight' {says}; rsoup reads plain tensors"
    assert parsed(saved({"model": WEIGHTS, "optimizer": {"state": {"x": value}}})).key == "model"


class Special(torch.Tensor):
    """A tensor of a class of its own."""


@pytest.mark.fault("D8")
def test_subclasses_are_refused_by_name() -> None:
    """A tensor of somebody's own class asks for that class, which is code."""
    error = refusal(saved({"w": torch.ones(2).as_subclass(Special)}))

    assert error.code == "E0817"
    assert "test_torch_file.Special" in error.message


def test_attributes_that_act_are_refused() -> None:
    """An attribute called `data` would put other values into a tensor when torch loads it."""
    made = (
        b"ctorch._utils\n_rebuild_parameter_with_state\n(" + tensor() + b"\x89" + HOOKS + b"}" + text("data")
    )
    data = archive_of(table(w=made + tensor(stored=storage(key="1")) + b"stR"), s0=six(), s1=bytes(24))

    assert raw(loaded(data)["w"]) == bytes(24)  # type: ignore[index]
    assert refusal(data).message == "tensor 'w' carries the attribute 'data'; rsoup reads plain tensors"


def test_tensors_changed_after_they_were_made_are_refused() -> None:
    """BUILD on a tensor puts another storage under it when torch loads it."""
    build = (
        tensor()
        + b"("
        + tensor(stored=storage(key="1"))[
            len(b"ctorch._utils\n_rebuild_tensor_v2\n(") : -len(b"\x89" + HOOKS + b"tR")
        ]
        + b"tb"
    )
    data = archive_of(table(w=build), s0=six(), s1=bytes(24))

    assert refusal(data).code in ("E0816", "E0818")


K2, K3 = b"K\x02", b"K\x03"
EDITED: dict[str, tuple[bytes, str]] = {
    "D5 stride 0": (tensor(shape=b"J\0\0\0\x40\x85", strides=b"K\0\x85"), "expands its storage: 1073741824 elements from 1"),
    "D5 stride 0 in one axis": (tensor(shape=b"K\6K\3\x86", strides=b"K\1K\0\x86"), "expands its storage: 18 elements from 6"),
    "D5 windows": (tensor(shape=b"K\5K\2\x86", strides=b"K\1K\1\x86"), "expands its storage: 10 elements from 6"),
    "beyond the storage": (tensor(offset=b"K\1"), "needs 28 bytes of a storage of 24"),
    "far beyond": (tensor(offset=b"\x8a\x05\0\0\0\0\x01"), "needs 17179869208 bytes"),
    "overflow": (tensor(shape=b"\x8a\x06\0\0\0\0\0\x40\x8a\x06\0\0\0\0\0\x40\x86"), "impossible shape"),
    "overflow of strides": (tensor(strides=b"\x8a\x06\xff\xff\xff\xff\xff\x7fK\1\x86"), "bytes of a storage of 24"),
    "2^64 elements": (tensor(shape=b"\x8a\x09" + b"\0" * 8 + b"\1K\1\x86"), "an impossible shape, stride or offset"),
    "a hidden zero": (tensor(shape=b"K\0\x8a\x07\0\0\0\0\0\0\1\x86"), "an impossible shape, stride or offset"),
    "negative size": (tensor(shape=b"J\xff\xff\xff\xffK\3\x86"), "an impossible shape, stride or offset"),
    "negative stride": (tensor(strides=b"J\xff\xff\xff\xffK\1\x86"), "an impossible shape, stride or offset"),
    "negative offset": (tensor(offset=b"J\xff\xff\xff\xff"), "an impossible shape, stride or offset"),
    "fewer strides": (tensor(strides=b"K\1\x85"), "an impossible shape, stride or offset"),
    "a size that is a truth value": (tensor(shape=b"\x88K\3\x86"), "an impossible shape, stride or offset"),
    "a size that is a float": (tensor(shape=b"G" + bytes(8) + b"K\3\x86"), "an impossible shape, stride or offset"),
    "sizes in a list": (tensor(shape=b"]K\2a"), "an impossible shape, stride or offset"),
    "65 axes": (tensor(shape=b"(" + b"K\1" * 65 + b"t", strides=b"(" + b"K\1" * 65 + b"t"), "an impossible shape"),
    "more arguments": (tensor(more=b"NNN"), "in a way torch does not"),
    "no storage": (tensor(stored=b"K\1"), "in a way torch does not"),
    "metadata": (tensor(more=b"}" + text("neg") + b"\x88s"), "is a conjugated or negated view"),
    "storage missing": (tensor(stored=storage(key="7")), "storage '7' is missing"),
    "storage elsewhere": (tensor(stored=storage(key="../data.pkl")), "storage '../data.pkl' is missing"),
    "D9 more elements": (tensor(stored=storage(numel=b"K\x07")), "storage '0' should have 28 bytes and has 24"),
    "D9 fewer elements": (tensor(stored=storage(numel=b"K\x05")), "storage '0' should have 20 bytes and has 24"),
    "D9 negative elements": (tensor(stored=storage(numel=b"J\xff\xff\xff\xff")), "in a way torch does not"),
    "D9 2^62 elements": (tensor(stored=storage(numel=b"\x8a\x08" + bytes(7) + b"\x40")), "in a way torch does not"),
    "another dtype": (tensor(stored=storage("DoubleStorage")), "should have 48 bytes and has 24"),
    "unknown dtype": (tensor(stored=storage("FooStorage")), "names a storage in a way torch does not"),
    "a storage of the old format": (tensor(stored=storage(more=b"N")), "names a storage in a way torch does not"),
    "no persistent storage": (tensor(stored=b"(" + text("module") + text("x") + b"tQ"), "in a way torch does not"),
    "one storage, two dtypes": (
        b"(" + tensor() + tensor(stored=storage("IntStorage")) + b"t0" + tensor(), "storage '0' is described in two ways",
    ),
}  # fmt: skip


@pytest.mark.fault("D5", "D9")
@pytest.mark.parametrize(("program", "says"), EDITED.values(), ids=EDITED)
def test_impossible_tensors_are_refused(program: bytes, says: str) -> None:
    """What a pickle says of a tensor has to fit the bytes there are."""
    error = refusal(archive_of(table(w=program), s0=six()))

    assert error.code in ("E0816", "E0818")
    assert says in error.message


def test_the_edits_are_what_is_wrong() -> None:
    """The file those refusals are made from is right, for torch and for us."""
    data = archive_of(table(w=tensor()), s0=six())

    assert read_all(data)[1] == as_seen(loaded(data))  # type: ignore[arg-type]


@pytest.mark.fault("D1")
@FORMATS
def test_code_in_a_real_file_is_refused(
    write: Callable[[object], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint with one call of os.system among its entries is refused whole; nothing runs."""

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("touch canary",)

    monkeypatch.chdir(tmp_path)

    error = refusal(write({"model": WEIGHTS, "zz": Evil()}))

    assert (error.code, error.exit_code) == ("E0817", 8)
    assert "system'; rsoup never runs code from a checkpoint" in error.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("D12")
def test_damage_is_found() -> None:
    """A flipped bit in a tensor is found by the checksums; without checksums that is said."""
    data = saved({"w": torch.arange(1000.0)})
    at = parsed(data).tensors["w"].begin + 500
    flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    assert loaded(flipped)["w"].shape == (1000,)  # type: ignore[index]  # torch does not look
    with pytest.raises(RefusedFileError, match="'archive/data/0' is damaged"):
        read_all(flipped)


@pytest.mark.fault("D12")
def test_files_without_checksums_are_noted() -> None:
    """torch can be told to leave checksums out; the file is read, and the reader told."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(WEIGHTS)
    finally:
        torch.serialization.set_crc32_options(before)

    file, seen = read_all(data)

    assert seen == as_seen(WEIGHTS)
    assert file.notes == ("file.pt: saved without checksums; damage to its weights cannot be seen",)


OLD = legacy({"w": torch.arange(6.0), "v": torch.arange(3)})
OTHERS = {
    "D13 empty": (b"", "the file is empty (0 bytes)"),
    "D13 one byte": (b"\x80", "the pickle ends in the middle"),
    "D13 cut": (OLD[:-1], "the file ends in the middle of its weights"),
    "D13 half": (OLD[:150], "the pickle ends in the middle"),
    "D11 behind": (OLD + b"\0", "1 bytes follow the last storage"),
    "D9 size": (OLD.replace(b"\6\0\0\0\0\0\0\0\0\0\0\0\0\0\x80?", b"\7\0\0\0\0\0\0\0\0\0\0\0\0\0\x80?"), "has another size than the pickle says"),
    "D18 big": (OLD.replace(b"little_endianq\2\x88", b"little_endianq\2\x89"), "not little-endian"),
    "version": (OLD.replace(b"M\xe9\3.", b"M\xea\3.", 1), "an unknown version; rsoup knows 1001"),
    "storages": (OLD.replace(b"e.", b"]."), "something is left over"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a git-lfs pointer"),
    "html": (b"<!DOCTYPE html><html></html>", "a web page"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(64), "a GGUF file"),
    "safetensors": (save({"w": torch.ones(1)}), "a safetensors file under another name"),
    "tar": (b"pickle".ljust(257, b"\0") + b"ustar\0" + bytes(300), "a tar archive"),
    "pickle": (b"\x80\x04N.", "a Python pickle, but not what torch.save writes"),
    "words": (b"hello", "this is not what torch.save writes"),
}  # fmt: skip


@pytest.mark.fault("D2", "D9", "D11", "D13", "D18")
@pytest.mark.parametrize(("data", "says"), OTHERS.values(), ids=OTHERS)
def test_other_files_are_refused(data: bytes, says: str) -> None:
    """What is no file of torch's, or a damaged one, is refused with what it is."""
    error = refusal(data)

    assert error.code == "E0816"
    assert says in error.message


@pytest.mark.fault("D13")
@given(st.integers(0, len(OLD) - 1))
def test_no_beginning_of_an_old_file_is_one(length: int) -> None:
    """A download of an old file that broke off is refused wherever it did."""
    assert refusal(OLD[:length]).code == "E0816"


def test_thirty_thousand_tensors_are_read_in_seconds(tmp_path: Path) -> None:
    """The tensors of a large mixture of experts are found in little time, whatever lies in them."""
    one = torch.zeros(2, 3)
    path = tmp_path / "big.pt"
    torch.save(
        {f"model.layers.{i // 500}.experts.{i % 500}.weight": one.clone() for i in range(30_000)}, path
    )
    source = open_regular(str(path), "big.pt")
    begun = time.process_time()

    file = parse_torch_file(source, "big.pt")

    print("seconds", time.process_time() - begun)
    assert len(file.tensors) == 30_000
    assert time.process_time() - begun < 5
    source.close()


# --- both readers on damaged files


def differences(seed: int, count: int) -> list[Finding]:
    """What a fuzz finds; every mutator has its turn."""
    findings: list[Finding] = []
    tally = fuzz(seed, count, findings)
    print(tally)
    assert tally.keys() >= set(MUTATORS)
    assert tally["accepted by both"] > count // 20
    return findings


@pytest.mark.fault("D17")
def test_no_damaged_file_is_read_otherwise_than_by_torch() -> None:
    """What torch refuses is refused, what both accept is equal, and nothing raises but a refusal."""
    assert differences(0, 2500) == []


@pytest.mark.long
@pytest.mark.fault("D17")
@pytest.mark.parametrize("seed", range(1, 21))
def test_a_million_damaged_files(seed: int) -> None:
    """The same, a million times."""
    assert differences(seed, 50_000) == []


def test_python_reads_the_same_members() -> None:
    """The archives of the corpus are what Python's zipfile says they are."""
    data = saved(WEIGHTS)

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
    assert unzipped(data).keys() == {f"archive/{name}" for name in ("data.pkl", ".format_version", ".storage_alignment", "byteorder", "data/0", "data/1", "version", ".data/serialization_id")}  # fmt: skip


def test_arrays_are_told_from_tensors(tmp_path: Path) -> None:
    """A table of NumPy arrays is no state dict, and that is said."""
    path = tmp_path / "arrays.pt"
    torch.save({"a": torch.ones(2).numpy(), "b": torch.ones(3).numpy()}, path)

    with pytest.raises(RefusedFileError, match="2 of its entries are NumPy arrays"):
        parse_torch_file(open_regular(str(path), "arrays.pt"), "arrays.pt")
