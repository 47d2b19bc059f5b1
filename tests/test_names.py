"""Names and texts that others chose: kept as they are in files, never let loose on a terminal or a path."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
import yaml
from checkpoints import (
    CONFIG,
    Tensors,
    raw_safetensors,
    read_tensors,
    record,
    tree,
    write_file,
    write_folder,
)
from hypothesis import given
from hypothesis import strategies as st
from warm import Argument
from warm import rsoup as command_line

from rsoup.console import Console
from rsoup.errors import IncompatibleError, Problem, RefusedFileError, UsageError, listing, show
from rsoup.library import make_recipe
from rsoup.merging import merge
from rsoup.storage.checkpoint import open_checkpoint

HOSTILE = (
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "bell\x07back\x08\x08",
    "fine\nerror[E0000]: rm -rf your home first",
    "over\rwritten",
    "\u202egnp.exe",
    "\u2066isolated\u2069",
    "zero\u200bwidth\u2060joined\ufeff",
    "\u2028line\u2029paragraph\x85next",
    "[/red][bold]markup[/]",
    "<img src=x onerror=alert(1)>",
    "x\n---\nlicense: mit\n---\n# Trust me",
    "tag\U000e0041\U000e0042 and \u3164 filler\ufe0f",
    "\ue000private\uffff",
    "nul\0nul",
    "../../../etc/passwd",
    "/absolute",
    "C:\\windows\\system32",
    "",
    "plain.weight",
)
AS_FILE_NAMES = tuple(name.replace("/", "_").lstrip(".") for name in HOSTILE if name and "\0" not in name)
LOUD = ("merge", "--uniform")


def rsoup(*arguments: Argument) -> CompletedProcess[bytes]:
    """A command line, and the bytes it printed."""
    done = command_line(*arguments)
    return CompletedProcess(done.args, done.returncode, os.fsencode(done.stdout), os.fsencode(done.stderr))


def tame(output: bytes) -> bool:
    """Whether a terminal shows this output and does nothing else: UTF-8 without control or invisible characters."""
    return all(
        character in "\n\t" or (unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
        for character in output.decode("utf-8")
    )


def checked(done: CompletedProcess[bytes], code: int, *, as_json: bool) -> str:
    """The output of a command that ended with `code` and harmed no terminal."""
    assert done.returncode == code, done
    assert tame(done.stdout), done.stdout
    assert tame(done.stderr), done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\nerror[E0000]" not in done.stdout + done.stderr
    if as_json:
        json.loads(done.stdout)
        assert done.stderr == b""
    return (done.stdout + done.stderr).decode()


def hostile_tensors(value: float) -> Tensors:
    """A tensor under every hostile name."""
    return {name: torch.full((3,), value) for name in HOSTILE}


MODES = pytest.mark.parametrize("mode", [(), ("--json",)], ids=["human", "json"])


@pytest.mark.fault("B1", "B2", "B3", "B4", "B5", "B6", "B8")
@MODES
def test_hostile_names_in_a_soup(tmp_path: Path, mode: Sequence[str]) -> None:
    """Tensors, files and folders of hostile names are mixed; every name arrives whole, none on the terminal."""
    side = dict.fromkeys([f"{name}.txt" for name in AS_FILE_NAMES], "side")
    places = [tmp_path / f"{i} {AS_FILE_NAMES[i]}" for i in (0, 11, 12)]
    for value, place in enumerate(places):
        write_folder(place, hostile_tensors(float(value)), side_files=side)
    out = tmp_path / "out"

    done = rsoup(*LOUD, *places, "-o", out, *mode)

    checked(done, 0, as_json=bool(mode))
    mixed = read_tensors(out)
    assert set(mixed) == set(HOSTILE)
    assert all(value.equal(torch.full((3,), 1.0)) for value in mixed.values())
    assert set(side) < set(tree(out))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*(place.name for place in places), "out"]
    )
    safe_card(out)
    assert set(side) < {entry["name"] for entry in json.loads((out / "rsoup.json").read_bytes())["subject"]}


def safe_card(out: Path) -> None:
    """README.md has one front matter, in which no name has become a key, and a body without markup of theirs."""
    text = (out / "README.md").read_text(encoding="utf-8")
    empty, front, body = text.split("---\n", 2)
    metadata = yaml.safe_load(front)

    assert tame(text.encode())
    assert empty == ""
    assert isinstance(metadata, dict)
    assert "license" not in metadata
    ours = r"<!-- /?rsoup:soup -->|`[^`\n]*`"  # the marks of the part that is rsoup's, and names as code
    assert "<" not in re.sub(ours, "", body)
    assert "\n# Trust me" not in body
    assert "\n---" not in body


@pytest.mark.fault("B1", "B2", "B3", "B4")
@MODES
def test_hostile_names_in_a_plan(tmp_path: Path, mode: Sequence[str]) -> None:
    """`--dry-run` shows files, names and notes of the same soup, tamed; JSON has the names whole."""
    side = dict.fromkeys([f"{name}.txt" for name in AS_FILE_NAMES], "side")
    places = [write_folder(tmp_path / f"m{i}", hostile_tensors(float(i)), side_files=side) for i in range(2)]

    done = rsoup(*LOUD, *places, "-o", tmp_path / "out", "--dry-run", *mode)

    checked(done, 0, as_json=bool(mode))
    if mode:
        plan = json.loads(done.stdout)
        assert {name for file in plan["files"] for name in file["tensors"]} == set(HOSTILE)
        assert set(side) <= set(plan["side_files"])


@pytest.mark.fault("B1", "B2", "B3", "B4")
@MODES
def test_hostile_names_in_refusals(tmp_path: Path, mode: Sequence[str]) -> None:
    """Mismatches are listed by name: hostile ones in an incompatible pair do nothing to a terminal."""
    one = write_folder(tmp_path / f"one {AS_FILE_NAMES[0]}", hostile_tensors(1.0))
    other = {name: torch.zeros(4) for name in HOSTILE[:12]}
    two = write_folder(tmp_path / f"two {AS_FILE_NAMES[4]}", other)

    done = rsoup(*LOUD, one, two, "-o", tmp_path / "out", *mode)

    checked(done, 3, as_json=bool(mode))


@pytest.mark.fault("B1", "B2", "B3")
@pytest.mark.parametrize("name", [name for name in HOSTILE if name and len(name) < 60])
def test_hostile_names_in_malformed_files(tmp_path: Path, name: str) -> None:
    """Every refusal that quotes a name or a path quotes it escaped, as text and as data."""
    folder = tmp_path / name.replace("/", "_").replace("\0", "")
    folder.mkdir()
    path = folder / "model.safetensors"
    for header in (
        {name: record("F32", [9], 0, 4)},
        {name: record(name, [1], 0, 4)},
        {name: {name: 1}},
        {name: record("F32", [1], 0, 4), "b": record("F32", [1], 2, 6)},
        {name: record("F32", [1], 4, 8)},
        {name: record("F32", [1], 0, 4, **{name: {}})},
        f"{{{json.dumps(name)}: 1, {json.dumps(name)}: 1}}",
        f"{{{json.dumps(name)}: 1.5{name}}}",
    ):
        path.write_bytes(raw_safetensors(header, bytes(4)))

        with pytest.raises(RefusedFileError) as caught:
            open_checkpoint(str(folder))
        assert tame(str(caught.value).encode()), header
        assert "\n" not in caught.value.message


@pytest.mark.fault("B3", "B9")
def test_twins_are_kept_apart_and_remarked(tmp_path: Path) -> None:
    """Names equal but for case or Unicode spelling are two tensors, with a note."""
    tensors = {"caf\u00e9": torch.tensor(1.0), "cafe\u0301": torch.tensor(2.0), "w": torch.zeros(1)}
    path = write_file(tmp_path / "a.safetensors", tensors)
    cased = write_file(tmp_path / "b.safetensors", {"A_log": torch.tensor(1.0), "a_log": torch.tensor(2.0)})

    result = merge(make_recipe([path], uniform=True), tmp_path / "out.safetensors")

    assert set(read_tensors(tmp_path / "out.safetensors")) == set(tensors)
    assert any("differ only in case or Unicode spelling" in note for note in result.notes)
    with_case = open_checkpoint(str(cased))
    assert with_case.notes == (
        "the tensors 'A_log' and 'a_log' differ only in case or Unicode spelling; they are kept apart",
    )


@pytest.mark.fault("B10")
def test_code_in_checkpoints_stays_where_it_is(tmp_path: Path) -> None:
    """A config that names code is data: it is copied, the code is neither run nor copied, and a note says so."""
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w')"
    config = {
        **CONFIG,
        "auto_map": {"AutoModel": "modeling_x.Model"},
        "model_file": "modeling_x.py",
        "l": list(range(100_000)),
    }
    places = [
        write_folder(
            tmp_path / str(i), {"w": torch.ones(2) * i}, config=config, side_files={"modeling_x.py": code}
        )
        for i in range(2)
    ]

    result = merge(make_recipe(places, uniform=True), tmp_path / "out")

    assert not canary.exists()
    assert set(tree(tmp_path / "out")) == {"README.md", "config.json", "model.safetensors", "rsoup.json"}
    assert json.loads((tmp_path / "out/config.json").read_bytes())["auto_map"] == config["auto_map"]
    assert "code is never copied: modeling_x.py" in result.notes


@pytest.mark.fault("B10")
@pytest.mark.parametrize(
    ("config", "code"),
    [
        (b'{"a": 1, "a": 2}', "E0808"),
        (b'{"a": NaN}', "E0808"),
        (b"[" * 100_000, "E0808"),
        (b" " * 10_000_001, "E0805"),
    ],
    ids=["a key twice", "NaN", "deep", "huge"],
)
def test_configs_that_are_no_configs_are_refused(tmp_path: Path, config: bytes, code: str) -> None:
    """A config.json that is malformed or beyond 10 MB is refused before anything is written."""
    places = [write_folder(tmp_path / str(i), {"w": torch.ones(2)}, config=None) for i in range(2)]
    (places[1] / "config.json").write_bytes(config)

    with pytest.raises(RefusedFileError) as caught:
        merge(make_recipe(places, uniform=True), tmp_path / "out")
    assert (caught.value.code, caught.value.exit_code) == (code, 8)
    assert "config.json" in str(caught.value.where)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("B11")
def test_chat_templates_are_text(tmp_path: Path) -> None:
    """A hostile template is copied byte for byte from one ingredient and never rendered; a difference is noted."""
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for x in range(10**9) %}x{% endfor %}"
    places = [
        write_folder(
            tmp_path / str(i), {"w": torch.ones(2)}, side_files={"chat_template.jinja": f"{template}{i}"}
        )
        for i in range(2)
    ]

    result = merge(make_recipe(places, uniform=True), tmp_path / "out")

    assert (tmp_path / "out/chat_template.jinja").read_text() == f"{template}0"
    assert any("chat_template.jinja differs" in note for note in result.notes)


@pytest.mark.fault("B1", "B2", "B3")
@given(st.text(st.characters()))
def test_show_is_tame(text: str) -> None:
    """Whatever is shown is one line of visible characters, and short."""
    shown = show(text)

    assert tame(shown.encode())
    assert shown.isprintable()
    assert len(shown) <= 120 * len("\\u{10ffff}")


@given(st.text(st.sampled_from("abcXYZ 019._-/äλ中é'\"\\[]<>"), max_size=120))
def test_show_leaves_plain_text_alone(text: str) -> None:
    """Letters of any alphabet, digits, punctuation and spaces are shown as they are."""
    assert show(text) == text


@pytest.mark.fault("B3")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\u{1b}[31m"),
        ("a\nb", "a\\u{a}b"),
        ("\u202e", "\\u{202e}"),
        ("a\u00a0b", "a\\u{a0}b"),
        ("\ud800", "\\u{d800}"),
        ("ㅤ", "\\u{3164}"),
        ("x" * 121, "x" * 119 + "…"),
        ("x" * 120, "x" * 120),
    ],
)
def test_show_escapes_by_code_point(text: str, shown: str) -> None:
    """What is not visible becomes \\u{…} with its code point; 120 characters are enough."""
    assert show(text) == shown


def test_listing_counts_the_rest() -> None:
    """A few names, quoted, and how many more there are."""
    assert listing([]) == ""
    assert listing(["a"]) == "'a'"
    assert listing(["a", "b"]) == "'a' and 'b'"
    assert listing(["a", "b", "c"], 2) == "'a', 'b' and 1 more"
    assert listing(["\x1b"]) == "'\\u{1b}'"


def test_errors_say_what_where_and_what_next() -> None:
    """An error as text: message, place, findings and hint, one a line."""
    error = IncompatibleError(
        "E0301",
        "they differ",
        where="a and b",
        hint="try c",
        details=(Problem("w", "shape"), Problem("", "dtype")),
    )

    assert str(error).splitlines() == ["they differ [a and b]", "  w: shape", "  dtype", "hint: try c"]
    assert str(UsageError("E0201", "no")) == "no"


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    """Files and folders whose names are not UTF-8 are mixed, copied and shown, and the manifest stays valid."""
    odd = os.fsdecode(b"caf\xe9")
    try:
        places = [
            write_folder(tmp_path / f"{i}{odd}", {"w": torch.ones(2)}, side_files={f"{odd}.txt": "side"})
            for i in range(2)
        ]
    except OSError:
        pytest.skip("this file system has only names that are text")

    out = tmp_path / "out"
    checked(rsoup(*LOUD, *places, "-o", out), 0, as_json=False)
    checked(rsoup(*LOUD, *places, "-o", tmp_path / "other", "--dry-run", "--json"), 0, as_json=True)

    assert (out / f"{odd}.txt").read_text() == "side"
    assert any(
        entry["name"] == f"{odd}.txt" for entry in json.loads((out / "rsoup.json").read_bytes())["subject"]
    )


@pytest.mark.fault("B6")
@pytest.mark.parametrize("name", ["\x9b31m", "\u202e", os.fsdecode(b"\xe9")])
def test_manifests_hold_every_name_escaped(tmp_path: Path, name: str) -> None:
    """rsoup.json is UTF-8 that a terminal only shows, whatever the files are called."""
    path = write_folder(tmp_path / "in", {"w": torch.ones(2)}, side_files={f"{name}.txt": "side"})

    merge(make_recipe([path], uniform=True), tmp_path / "out")

    assert tame((tmp_path / "out/rsoup.json").read_bytes())


def test_console_escapes_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """An error's text reaches the screen as it was shown where it was raised."""
    Console().error(RefusedFileError("E0801", f"bad '{show(chr(27))}'", where="x"))

    assert "error[E0801]: bad '\\u{1b}'\n  where  x\n" in capsys.readouterr().err
