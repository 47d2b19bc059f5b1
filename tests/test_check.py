"""`rsoup check`: everything is reported, nothing is refused, and the exit code is the verdict's."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import Family, related, write_folder
from conftest import Folders
from refusals import changed
from typer.testing import CliRunner
from warm import Warm

import rsoup
from rsoup.cli.app import app
from rsoup.errors import AccessError, UsageError
from rsoup.family.checking import CheckResult
from rsoup.family.measures import Part, group_of
from rsoup.family.verdict import MIXABLE, NOT_ONE, WITH_CARE
from rsoup.report.terminal import ASCII_BLOCKS, BLOCKS, block, number, picture, share, text
from rsoup.storage.safetensors_header import encode_header
from rsoup.tensors import DTYPES, TensorSpec

TOKENIZER = {"model": {"vocab": {"a": 0, "b": 1}, "merges": []}, "added_tokens": []}


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `rsoup check`."""
    result = CliRunner().invoke(app, ["check", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def data(*arguments: str | Path) -> dict[str, object]:
    """The JSON document of `rsoup check --json`."""
    found = json.loads(run(*arguments, "--json")[1])
    assert isinstance(found, dict)
    return found


def stranger(seed: int) -> dict[str, torch.Tensor]:
    """A network of the family's shapes from another start."""
    return related(1, seed=seed).base


# --- the library ------------------------------------------------------------------------------------------


def test_a_family_is_mixable(base_and_two: Folders) -> None:
    """Fine-tunes of one base are mixable; what is measured is theirs, by name and in order."""
    result = rsoup.check({"x": base_and_two.one, "y": base_and_two.two}, base_and_two.base)

    assert isinstance(result, CheckResult)
    assert (result.verdict.word, result.verdict.reasons, result.mismatches) == (MIXABLE, (), ())
    assert result.names == ("x", "y")
    assert result.measures is not None
    assert result.measures.total is not None
    for i, tuned in enumerate(base_and_two.family.tuned):
        delta = math.sqrt(
            sum(
                float((t.double() - base_and_two.family.base[n].double()).square().sum())
                for n, t in tuned.items()
            )
        )
        assert result.measures.total.absolute[i] == pytest.approx(delta, rel=1e-12)
    assert result.read_nbytes == 3 * sum(t.nbytes for t in base_and_two.family.base.values())
    assert result.left_out == ()


def test_check_and_merge_measure_the_same_distances(base_and_two: Folders) -> None:
    """The distances and cosines of a check are those that a merge of the same checkpoints reports."""
    paths = [base_and_two.one, base_and_two.two]

    merged = rsoup.merge(
        rsoup.make_recipe(paths, uniform=True, base=base_and_two.base), base_and_two.root / "soup"
    ).distances
    found = rsoup.check(paths, base_and_two.base).measures

    assert merged is not None
    assert found is not None
    assert found.total is not None
    assert found.total.relative == pytest.approx(merged.relative, rel=1e-12)
    assert found.cosine[0][1] == pytest.approx(merged.cosine[0][1], abs=1e-12)


def test_nothing_is_written(base_and_two: Folders) -> None:
    """A check leaves every folder as it was, and makes none."""
    before = sorted(base_and_two.root.rglob("*"))

    rsoup.check([base_and_two.one, base_and_two.two], base_and_two.base)

    assert sorted(base_and_two.root.rglob("*")) == before


@pytest.mark.fault("F15")
def test_a_checkpoint_that_is_the_base(base_and_two: Folders) -> None:
    """A checkpoint that equals the base is at distance 0, mixable, and said to be the base."""
    shutil.copytree(base_and_two.base, base_and_two.root / "copy")

    result = rsoup.check([base_and_two.one, base_and_two.root / "copy"], base_and_two.base)

    assert result.verdict.word == MIXABLE
    assert result.measures is not None
    assert result.measures.total is not None
    assert (result.measures.total.relative[1], result.measures.total.changed[1]) == (0.0, 0.0)
    assert result.measures.cosine[0][1] is None
    assert any("'copy' equals the base" in note for note in result.notes)


@pytest.mark.fault("F1", "F2", "F3")
def test_mismatches_are_reported_and_the_rest_is_measured(tmp_path: Path, family: Family) -> None:
    """Tensors in some checkpoints only, or of other shapes, are mismatches; all others are measured."""
    more = {f"new.{k}.weight": torch.zeros(2) for k in range(1000)}
    one = write_folder(tmp_path / "one", family.tuned[0] | more)
    two = write_folder(
        tmp_path / "two", changed(family.tuned[1], layers__0__bias=torch.zeros(1, 48), scale=None)
    )

    result = rsoup.check([one, two], write_folder(tmp_path / "base", family.base))

    assert result.verdict.word == NOT_ONE
    assert [mismatch.kind for mismatch in result.mismatches] == ["missing", "missing", "shape"]
    assert max(len(mismatch.tensors) for mismatch in result.mismatches) == 1000
    assert set(result.left_out) == {*more, "layers.0.bias", "scale"}
    assert result.measures is not None
    assert result.measures.total is not None
    assert result.measures.total.relative[0] == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("headers", [True, False])
def test_what_is_dropped_is_no_mismatch(tmp_path: Path, family: Family, headers: bool) -> None:
    """--drop leaves tensors out of the comparison and of the measures; a glob without a match is refused."""
    head = {"v_head.weight": torch.zeros(1, 48)}
    one = write_folder(tmp_path / "one", family.tuned[0] | head)
    two = write_folder(tmp_path / "two", family.tuned[1])

    assert rsoup.check([one, two], headers=headers).verdict.word == NOT_ONE
    result = rsoup.check([one, two], headers=headers, drop=["v_head.*"])

    assert (result.verdict.word, result.mismatches, result.left_out) == (MIXABLE, (), ())
    with pytest.raises(UsageError) as error:
        rsoup.check([one, two], drop=["nothing.*"])
    assert error.value.code == "E0209"


def test_a_quantised_checkpoint_is_a_mismatch(tmp_path: Path, family: Family) -> None:
    """Codes are no weights: a mismatch among all the others, not an end."""
    packed = {
        "layers.0.qweight": torch.zeros(4, 4, dtype=torch.int32),
        "layers.0.qzeros": torch.zeros(4, dtype=torch.int32),
    }
    one = write_folder(tmp_path / "one", family.tuned[0])

    result = rsoup.check([one, write_folder(tmp_path / "two", family.tuned[1] | packed)])

    assert {"quantised", "missing"} <= {mismatch.kind for mismatch in result.mismatches}
    assert result.verdict.word == NOT_ONE


@pytest.mark.fault("F14", "F17")
@pytest.mark.parametrize("with_base", [True, False])
def test_strangers_are_no_family(tmp_path: Path, family: Family, with_base: bool) -> None:
    """A network from another start is told by its distance, from the base and without one."""
    one = write_folder(tmp_path / "one", family.tuned[0])
    other = write_folder(tmp_path / "other", stranger(9))
    base = write_folder(tmp_path / "base", family.base) if with_base else None

    result = rsoup.check([one, other], base)

    assert result.verdict.word == NOT_ONE
    assert [reason.checkpoint for reason in result.verdict.reasons] == ["other"]


@pytest.mark.fault("F11")
def test_nan_is_reported(tmp_path: Path, family: Family) -> None:
    """NaN is counted by checkpoint and tensor, and makes the verdict; the distances are those of the rest."""
    broken = changed(family.tuned[1], layers__0__weight=torch.full((48, 64), math.nan, dtype=torch.bfloat16))
    paths = [
        write_folder(tmp_path / n, t)
        for n, t in (("one", family.tuned[0]), ("two", broken), ("base", family.base))
    ]

    result = rsoup.check(paths[:2], paths[2])

    assert result.verdict.word == NOT_ONE
    assert result.measures is not None
    assert result.measures.nonfinite == ((1, "layers.0.weight", 48 * 64),)
    assert result.measures.total is not None
    assert result.measures.total.relative[1] == pytest.approx(0.01, rel=0.2)


def test_one_checkpoint_alone(base_and_two: Folders) -> None:
    """One checkpoint without a base has nothing to be held against: mixable, and said."""
    result = rsoup.check([base_and_two.one])

    assert result.verdict.word == MIXABLE
    assert "nothing to hold it against" in text(result)


def test_progress_ends_at_the_total(base_and_two: Folders) -> None:
    """Progress counts the bytes read up to their total."""
    told: list[rsoup.Progress] = []

    result = rsoup.check([base_and_two.one, base_and_two.two], base_and_two.base, progress=told.append)

    assert {step.phase for step in told} == {"checking"}
    assert told[-1].done_bytes == told[-1].total_bytes == result.read_nbytes


def test_limits_that_cannot_be_meant(two_models: list[str]) -> None:
    """care > max_distance, negative and NaN limits are refused."""
    for care, most in ((0.8, 0.7), (-1.0, 0.7), (math.nan, 0.7)):
        with pytest.raises(UsageError) as error:
            rsoup.check(two_models, care=care, max_distance=most)
        assert error.value.code == "E0210"


def test_no_checkpoint_at_all() -> None:
    """An empty list is refused."""
    with pytest.raises(UsageError) as error:
        rsoup.check([])
    assert error.value.code == "E0202"


# --- the base that metadata names -------------------------------------------------------------------------


def card(**metadata: str) -> Mapping[str, str]:
    """A model card with this front matter."""
    lines = "".join(f"{key}: {value}\n" for key, value in metadata.items())
    return {"README.md": f"---\n{lines}---\n"}


@pytest.mark.parametrize("where", ["card", "config"])
def test_a_local_base_that_is_named_is_used(tmp_path: Path, family: Family, where: str) -> None:
    """A folder that the card's base_model or the config's _name_or_path names is the base, and said to be."""
    base = write_folder(tmp_path / "base", family.base)
    paths = [
        write_folder(
            tmp_path / f"m{i}", tensors,
            side_files=card(base_model=str(base)) if where == "card" else None,
            config={"model_type": "tiny", "_name_or_path": str(base)} if where == "config" else {"model_type": "tiny"},
        )
        for i, tensors in enumerate(family.tuned)
    ]  # fmt: skip
    shutil.copy(paths[0] / "config.json", base / "config.json")

    result = rsoup.check(paths)

    assert (result.base, result.found_base) == (str(base), True)
    assert result.measures is not None
    assert result.measures.total is not None
    assert any(f"the base is {base}" in note for note in result.notes)


def test_a_base_on_the_hub_is_named(tmp_path: Path, family: Family) -> None:
    """A name on the Hub is never fetched: the note says which it is, and the pairs are measured."""
    paths = [
        write_folder(tmp_path / f"m{i}", t, side_files=card(base_model="org/base-1b"))
        for i, t in enumerate(family.tuned)
    ]

    result = rsoup.check(paths)

    assert result.base is None
    assert result.measures is not None
    assert result.measures.total is None
    assert any("give it with --base: it is org/base-1b" in note for note in result.notes)


def test_a_named_base_that_is_none_stops_nothing(tmp_path: Path, family: Family) -> None:
    """A folder that is named and holds no weights is a note; with --base it is an error."""
    (tmp_path / "empty").mkdir()
    one = write_folder(tmp_path / "one", family.tuned[0], side_files=card(base_model=str(tmp_path / "empty")))

    result = rsoup.check([one])

    assert result.base is None
    assert any("cannot be read" in note for note in result.notes)
    with pytest.raises(AccessError):
        rsoup.check([one], tmp_path / "gone")


def test_a_checkpoint_is_not_its_own_base(tmp_path: Path, family: Family) -> None:
    """A config that names its own folder, as saving in place makes it, names no base."""
    one = tmp_path / "one"
    write_folder(one, family.tuned[0], config={"model_type": "tiny", "_name_or_path": str(one)})

    assert rsoup.check([one]).base is None


def test_licences_that_differ_are_a_note(tmp_path: Path, family: Family) -> None:
    """Licences are read from the cards; TRL's placeholder `license` is none."""
    names = ["apache-2.0", "license", "mit"]
    paths = [
        write_folder(tmp_path / f"m{i}", family.tuned[0], side_files=card(license=name))
        for i, name in enumerate(names)
    ]

    assert any("apache-2.0 in 'm0'; mit in 'm2'" in note for note in rsoup.check(paths, headers=True).notes)
    assert not any("licence" in note for note in rsoup.check(paths[:2], headers=True).notes)


# --- headers alone ----------------------------------------------------------------------------------------


@pytest.mark.fault("F5", "F13")
def test_headers_find_what_is_beside_the_weights(tmp_path: Path, family: Family) -> None:
    """Configs, tokenizers, chat templates and generation configs are compared without the weights."""
    config = {"model_type": "tiny", "rope_theta": 1e4, "tie_word_embeddings": True}
    one = write_folder(
        tmp_path / "one", family.tuned[0], config=config,
        side_files={"tokenizer.json": json.dumps(TOKENIZER), "chat_template.jinja": "a", "generation_config.json": "{}"},
    )  # fmt: skip
    other = {"model": {"vocab": {"a": 1, "b": 0}, "merges": []}, "added_tokens": []}
    two = write_folder(
        tmp_path / "two", family.tuned[1], config={**config, "rope_theta": 1e6},
        side_files={"tokenizer.json": json.dumps(other), "chat_template.jinja": "b", "generation_config.json": "{ }"},
    )  # fmt: skip

    result = rsoup.check([one, two], headers=True)

    assert [mismatch.kind for mismatch in result.mismatches] == ["config", "tokenizer"]
    assert "rope_theta" in result.mismatches[0].what
    assert "2 token ids mean other tokens" in result.mismatches[1].what
    for file in ("chat_template.jinja", "generation_config.json"):
        assert any(note.startswith(f"{file} differs") for note in result.notes)
    assert (result.measures, result.read_nbytes) == (None, 0)


def test_headers_import_no_torch(base_and_two: Folders) -> None:
    """`rsoup check --headers` loads neither torch nor NumPy's users, and exits 0."""
    code = (
        "import sys, rsoup.cli\n"
        f"sys.argv = ['rsoup', 'check', {str(base_and_two.one)!r}, {str(base_and_two.two)!r}, '--headers', '-q']\n"
        "try:\n    rsoup.cli.main()\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.splitlines() == [MIXABLE, "0 False"]


def test_headers_of_30000_tensors_take_no_time(tmp_path: Path) -> None:
    """Two sparse checkpoints of 30,000 tensors and 60 GB, one with a shard's tensors missing: seconds, one line."""
    names = [f"model.layers.{i // 300}.experts.{i % 300}.weight" for i in range(30_000)]
    for folder, kept in (("one", names), ("two", [n for n in names if ".layers.7." not in n])):
        specs = {name: TensorSpec(DTYPES["BF16"], (1000, 1000)) for name in kept}
        head = encode_header(specs, {"format": "pt"})
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "model.safetensors"
        path.write_bytes(head)
        os.truncate(path, len(head) + sum(spec.nbytes for spec in specs.values()))
    begun = time.perf_counter()

    result = rsoup.check([tmp_path / "one", tmp_path / "two"], headers=True)

    assert time.perf_counter() - begun < 10
    assert [(m.kind, len(m.tensors)) for m in result.mismatches] == [("missing", 300)]


# --- the command ------------------------------------------------------------------------------------------


def test_exit_codes_follow_the_verdict(tmp_path: Path, family: Family) -> None:
    """0 for mixable and with care, 3 for not one family, and with --strict for care too; all is printed anyway."""
    base = write_folder(tmp_path / "base", family.base)
    near = write_folder(tmp_path / "near", family.tuned[0])
    further = write_folder(tmp_path / "further", related(1, step=0.4).tuned[0])
    far = write_folder(tmp_path / "far", stranger(9))

    for path, word, code, strict in ((near, MIXABLE, 0, 0), (further, WITH_CARE, 0, 3), (far, NOT_ONE, 3, 3)):
        found, out, _ = run(path, "--base", base)
        assert (found, out.splitlines()[0]) == (code, word)
        assert "distance" in out
        assert run(path, "--base", base, "--strict")[0] == strict
        assert run(path, "--base", base, "-q")[:2] == (code, f"{word}\n")


def test_limits_are_options(tmp_path: Path, family: Family) -> None:
    """--care and --max-distance move the verdict."""
    base, one = write_folder(tmp_path / "base", family.base), write_folder(tmp_path / "one", family.tuned[0])

    assert run(one, "--base", base, "--care", "0.001", "-q")[1] == f"{WITH_CARE}\n"
    assert run(one, "--base", base, "--care", "0.001", "--max-distance", "0.002", "-q")[1] == f"{NOT_ONE}\n"


def test_json_has_everything(base_and_two: Folders) -> None:
    """--json is one document with schema 1, the documented keys, and numbers for whatever is known."""
    found = data(f"x={base_and_two.one}", f"y={base_and_two.two}", "--base", base_and_two.base)
    page = (Path(__file__).parent.parent / "docs" / "check.md").read_text(encoding="utf-8")

    def keys(value: object) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(keys, value))
        return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()

    assert found["schema"] == 1
    assert found["verdict"] == MIXABLE
    assert found["checkpoints"] == ["x", "y"]
    assert [key for key in sorted(keys(found)) if f"`{key}`" not in page] == []
    measures = found["measures"]
    assert isinstance(measures, dict)
    assert {part["name"] for part in measures["layers"]} == {"embeddings", "layer 0", "norms", "other"}
    assert len(measures["by_tensor"]) == 5


def test_json_of_what_is_infinite(tmp_path: Path) -> None:
    """Infinite and unknown numbers are null: the document is JSON for every parser."""
    zeros, ones = ({"w": torch.full((4,), float(v))} for v in (0, 1))
    base, one = write_folder(tmp_path / "base", zeros), write_folder(tmp_path / "one", ones)

    found = data(one, "--base", base)

    assert found["verdict"] == NOT_ONE
    assert found["measures"]["total"]["relative"] == [None]  # type: ignore[index]


def test_groups_are_checked_one_by_one(base_and_two: Folders) -> None:
    """NAME=PATH,PATH names both, and each is measured alone."""
    found = data(f"runs={base_and_two.one},{base_and_two.two}", "--base", base_and_two.base)

    assert found["checkpoints"] == ["runs/1", "runs/2"]


def test_what_a_check_cannot_allow(two_models: list[str]) -> None:
    """--allow takes what reading needs; mismatches are reported anyway."""
    with pytest.raises(UsageError) as error:
        run(*two_models, "--allow", "config")
    assert error.value.code == "E0211"


def test_names_of_others_are_made_safe(tmp_path: Path, family: Family) -> None:
    """What a stranger's file calls its tensors cannot write to the terminal."""
    evil = {"\x1b[31mevil\u202e": torch.zeros(2)}
    one = write_folder(tmp_path / "one", family.tuned[0] | evil)

    _, out, err = run(one, write_folder(tmp_path / "two", family.tuned[1]))

    assert "\x1b" not in out + err
    assert "\\u{1b}[31mevil\\u{202e}" in out


def test_an_ascii_terminal_gets_ascii_blocks(base_and_two: Folders) -> None:
    """Where the stream cannot encode blocks, layers are drawn with ASCII."""
    done = subprocess.run(
        [sys.executable, "-m", "rsoup", "check", str(base_and_two.one), str(base_and_two.two)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0
    assert done.stdout.isascii()
    assert b"\\u2" not in done.stdout


# --- the picture ------------------------------------------------------------------------------------------


def test_blocks_go_from_lowest_to_highest() -> None:
    """0 is the lowest block, 1 the highest, in both alphabets of eight."""
    assert len(BLOCKS) == len(ASCII_BLOCKS) == 8
    assert [block(i / 8, BLOCKS) for i in range(9)] == [*BLOCKS, "█"]
    assert block(math.inf, BLOCKS) == "█"


def test_a_picture_has_one_block_per_layer() -> None:
    """One row per checkpoint by one scale; many layers share blocks, each the largest of its layers."""
    parts = [Part(f"layer {i}", 1, relative=(i / 199, 0.5)) for i in range(200)]

    head, one, two = picture([Part("head", 1, relative=(9.0, 9.0)), *parts], ["a", "bb"], unicode=True)

    assert "0 to 199" in head
    assert one == f"  a   {''.join(block(min(4 * i + 3, 199) / 199, BLOCKS) for i in range(50))}"
    assert two == f"  bb  {block(0.5, BLOCKS) * 50}"
    assert picture(parts[:1], ["a", "b"], unicode=True) == []


def test_numbers_are_never_rounded_to_nothing() -> None:
    """What is not 0 is not shown as 0, nor what is not all as all."""
    assert [number(v) for v in (None, 0.0, 0.12345, 1e-9, math.inf)] == [
        "-",
        "0.0000",
        "0.1235",
        "1.0e-09",
        "inf",
    ]
    assert [share(v) for v in (None, 0.0, 1e-9, 0.5, 1 - 1e-9, 1.0)] == [
        "-",
        "0.00%",
        "<0.01%",
        "50.00%",
        ">99.99%",
        "100.00%",
    ]


def test_reasons_and_mismatches_are_shown_up_to_a_number(tmp_path: Path) -> None:
    """Ten strangers of other shapes are told in a screenful: the first reasons, the first mismatches, how many more."""
    paths = [
        write_folder(tmp_path / f"m{i:02}", {**stranger(i + 10), **{f"own.{i}.{k}": torch.zeros(1) for k in range(3)}})
        for i in range(11)
    ]  # fmt: skip
    base = write_folder(tmp_path / "base", related(1).base)

    result = rsoup.check(paths, base)
    lines = text(result).splitlines()

    assert len(result.mismatches) == 11
    assert sum("base's norm away" in line for line in lines) == 8
    assert "  and 3 more reasons; --json has all" in lines
    assert sum(line.startswith("  missing: ") for line in lines) == 11


def test_other_names_and_missing_tensors_are_seen_through(tmp_path: Path, family: Family) -> None:
    """A wrapped checkpoint is measured like the inner one, and a partial fine-tune where that is asked for."""
    one, other = family.tuned
    plain = write_folder(tmp_path / "plain", one)
    wrapped = write_folder(tmp_path / "wrapped", {f"module.{name}": tensor for name, tensor in one.items()})
    part = write_folder(tmp_path / "part", {name: other[name] for name in ("embed.weight", "layers.0.bias")})
    base = write_folder(tmp_path / "base", family.base)

    seen = rsoup.check({"plain": plain, "wrapped": wrapped}, base)
    asked = rsoup.check({"plain": plain, "part": part}, base, missing="base")

    assert seen.verdict.word == asked.verdict.word == "mixable"
    assert seen.measures is not None
    assert seen.measures.total is not None
    assert len(set(seen.measures.total.relative)) == 1
    assert any("have other names and are mapped" in note for note in seen.notes)
    assert any("'part' lacks" in note for note in asked.notes)
    assert rsoup.check({"plain": plain, "part": part}, base).verdict.word == "not one family"


def test_pytorch_files_are_checked(tmp_path: Path, family: Family) -> None:
    """A .pt file, and the table `--key` names in it, measure like the same tensors in safetensors."""
    base = write_folder(tmp_path / "base", family.base)
    plain = write_folder(tmp_path / "plain", family.tuned[0])
    torch.save({"model": family.tuned[0], "ema": family.tuned[1]}, tmp_path / "run.pt")

    found = rsoup.check({"plain": plain, "run": tmp_path / "run.pt"}, base, key="model")

    assert found.measures is not None
    assert found.measures.total is not None
    assert len(set(found.measures.total.relative)) == 1


def test_integers_that_differ_need_care_with_and_without_a_base(tmp_path: Path, family: Family) -> None:
    """What merge refuses to average is never called mixable without a word."""
    one, other = family.tuned
    sides = {
        "a": write_folder(tmp_path / "a", one),
        "b": write_folder(tmp_path / "b", {**other, "position_ids": torch.arange(33) + 1}),
    }

    for base in (None, write_folder(tmp_path / "base", family.base)):
        verdict = rsoup.check(sides, base).verdict
        assert verdict.word == "mixable with care"
        assert any("'position_ids'" in reason.what for reason in verdict.reasons)


def test_the_limit_of_care_follows_a_lower_distance(tmp_path: Path, family: Family) -> None:
    """--max-distance below 0.2 lowers the limit of care too, unless both are given and contradict."""
    side, base = write_folder(tmp_path / "a", family.tuned[0]), write_folder(tmp_path / "base", family.base)

    assert rsoup.check({"a": side}, base, max_distance=0.001).verdict.word == "not one family"
    with pytest.raises(UsageError, match="cannot be meant"):
        rsoup.check({"a": side}, base, care=0.3, max_distance=0.1)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A warm interpreter for this file's command lines."""
    interpreter = Warm(tmp_path_factory.mktemp("warm"))
    yield interpreter
    interpreter.close()


def test_the_layers_are_drawn(warm: Warm, tmp_path: Path, base_and_two: Folders) -> None:
    """--plot writes the distances and the cosines by layer, and replaces nothing unasked."""
    line = ["check", base_and_two.one, base_and_two.two, "--base", base_and_two.base]
    ended = warm.run(*line, "--plot", "layers.svg", "--json", cwd=tmp_path)

    assert json.loads(ended.out)["written"] == ["layers.svg", "layers-cosines.svg"]
    assert all(
        (tmp_path / name).read_text().startswith("<svg") for name in ("layers.svg", "layers-cosines.svg")
    )
    again = warm.run(*line, "--plot", "layers.svg", cwd=tmp_path)
    assert (again.code, "E0601" in again.err) == (6, True)
    assert warm.run(*line, "--plot", "layers.svg", "--overwrite", cwd=tmp_path).code == 0


def test_cosines_by_layer_are_those_of_the_updates(warm: Warm, tmp_path: Path, base_and_two: Folders) -> None:
    """cos(δ₁, δ₂) of every layer, against NumPy on its tensors."""
    from safetensors.torch import load_file

    ended = warm.run("check", base_and_two.one, base_and_two.two, "--base", base_and_two.base, "--json")
    base, one, two = (
        {
            k: v.double().numpy()
            for f in sorted(Path(p).glob("*.safetensors"))
            for k, v in load_file(f).items()
        }
        for p in (base_and_two.base, base_and_two.one, base_and_two.two)
    )
    for layer in json.loads(ended.out)["measures"]["layers"]:
        names = [name for name in base if group_of(name) == layer["name"]]
        a, b = (np.concatenate([(x[n] - base[n]).ravel() for n in names]) for x in (one, two))
        size = np.linalg.norm(a) * np.linalg.norm(b)
        expected = a @ b / size if size else None
        assert layer["cosine"][0][1] == (None if expected is None else pytest.approx(expected, abs=1e-9))


@pytest.mark.parametrize(
    ("more", "code"), [(["--headers"], "E0270"), ([], "E0270"), (["--base", "B", "--plot", "x.pdf"], "E0269")]
)
def test_without_measures_there_is_nothing_to_draw(
    warm: Warm, tmp_path: Path, base_and_two: Folders, more: list[str], code: str
) -> None:
    """Headers alone, no base, another kind of file: refused."""
    more = [str(base_and_two.base) if word == "B" else word for word in more]
    plot = [] if "--plot" in more else ["--plot", "x.svg"]
    (tmp_path / "here").mkdir()
    ended = warm.run("check", base_and_two.one, base_and_two.two, *plot, *more, cwd=tmp_path / "here")
    assert (ended.code, code in ended.err) == (2, True)
    assert list((tmp_path / "here").iterdir()) == []
