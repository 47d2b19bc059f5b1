"""The command line: what it prints, where, with which exit code; whatever the terminal, the path or the mistake."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from checkpoints import related, write_folder
from conftest import Folders
from faults import big_models, command, small_disk, stray, verify
from warm import Ended, Warm

import rsoup
from rsoup import console
from rsoup.console import Console, ProgressBar, use_colour
from rsoup.errors import TargetError, UsageError
from rsoup.progress import Progress
from rsoup.quantities import time_text

COMMANDS = [
    "merge",
    "sweep",
    "front",
    "select",
    "verdict",
    "gate",
    "check",
    "verify",
    "diff",
    "demo",
    "schema",
    "methods",
    "clean",
]
HEAVY = [
    "torch",
    "numpy",
    "pydantic",
    "rich",
    "yaml",
    "huggingface_hub",
    "peft",
    "safetensors",
    "blake3",
    "xxhash",
]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A warm interpreter for this file's command lines."""
    interpreter = Warm(tmp_path_factory.mktemp("warm"))
    yield interpreter
    interpreter.close()


def run(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    python: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """A command line in a new interpreter, with some environment on top of this one's."""
    return subprocess.run(
        [sys.executable, *python, "-m", "rsoup", *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=120,
        check=False,
    )


# --- help, version, start-up ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help_with_an_example(warm: Warm, name: str, flag: str) -> None:
    """rsoup COMMAND --help says what it does and shows a line to type, on stdout, with exit 0."""
    ended = warm.run(name, flag)

    assert (ended.code, ended.err) == (0, "")
    assert re.search(rf"Examples?:\s+rsoup {name}", ended.out)


def test_help_lists_every_command(warm: Warm) -> None:
    """rsoup --help lists the commands, each with a line, and an example."""
    ended = warm.run("--help")

    assert ended.code == 0
    assert all(re.search(rf"^  {name} +\w", ended.out, re.MULTILINE) for name in COMMANDS)
    assert "Example: rsoup merge" in ended.out


def test_no_arguments_show_the_help(warm: Warm) -> None:
    """rsoup alone shows the help on stderr and exits 2: nothing was asked."""
    ended = warm.run()

    assert (ended.code, ended.out) == (2, "")
    assert "Commands:" in ended.err


def test_version(warm: Warm) -> None:
    """rsoup --version prints the name and the version."""
    assert warm.run("--version") == Ended(0, f"rsoup {rsoup.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_start_up_imports_nothing_heavy(arguments: list[str]) -> None:
    """Help and version load none of the heavy libraries."""
    code = f"""
import sys
sys.argv = ["rsoup", *{arguments!r}]
from rsoup.cli import main
try:
    main()
except SystemExit:
    pass
print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.splitlines()[-1] == "[]"


def test_start_up_is_fast() -> None:
    """rsoup --help is there at once: a guard, far above the 0.15 s it is meant to take on a free machine."""
    times = []
    for _ in range(3):
        begun = time.monotonic()
        run("--help")
        times.append(time.monotonic() - begun)

    assert min(times) < 1.0


@pytest.mark.parametrize(("words", "wanted"), [("rsoup mer", "merge"), ("rsoup merge --over", "--overwrite")])
def test_completion_completes(words: str, wanted: str) -> None:
    """The shell's question is answered from the commands and options there are."""
    env = {
        "_RSOUP_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }

    assert run(env=env).stdout.split() == [wanted]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_where_it_belongs(tmp_path: Path, shell: str) -> None:
    """--show-completion prints a script, --install-completion writes below the home folder and says where."""
    binary = shutil.which(shell)
    if binary is None:
        pytest.skip(f"{shell} is not here")
    script = f'"{sys.executable}" -m rsoup --show-completion && "{sys.executable}" -m rsoup --install-completion; true'
    env = {**os.environ, "HOME": str(tmp_path), "SHELL": binary, "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    ended = subprocess.run(
        [binary, "-c", script], capture_output=True, text=True, env=env, check=False, timeout=60
    )

    assert "Traceback" not in ended.stderr
    assert "_RSOUP_COMPLETE" in ended.stdout
    assert "completion installed in" in ended.stdout
    assert any(path.is_file() for path in tmp_path.rglob("*"))


# --- streams ------------------------------------------------------------------------------------------------


def test_results_on_stdout_talk_on_stderr(warm: Warm, base_and_two: Folders) -> None:
    """The result is on stdout, notes are on stderr, and stdout alone can be used."""
    ended = warm.run(
        "merge", "one", "one2=one", "--lambda", "1,2", "--normalize", "-o", "soup", cwd=base_and_two.root
    )

    assert ended.code == 0
    assert ended.out.startswith("soup: ")
    assert "λ normalised" in ended.err
    assert "normalised" not in ended.out


def test_json_is_one_document(warm: Warm, base_and_two: Folders) -> None:
    """--json prints one document with its schema's number on stdout and nothing on stderr."""
    ended = warm.run("merge", "one", "two", "--uniform", "-o", "soup", "--json", cwd=base_and_two.root)
    document = json.loads(ended.out)

    assert (ended.code, ended.err) == (0, "")
    assert (document["schema"], document["out"]) == (1, "soup")
    assert document["manifest"] == verify(base_and_two.root / "soup")
    assert set(document["files"]) == {path.name for path in (base_and_two.root / "soup").iterdir()}


def test_json_names_the_files_of_a_single_file_output(warm: Warm, base_and_two: Folders) -> None:
    """The files of a single-file soup are the file and its manifest, by their names."""
    ended = warm.run(
        "merge", "one", "two", "--uniform", "-o", "soup.safetensors", "--json", cwd=base_and_two.root
    )

    assert json.loads(ended.out)["files"] == ["soup.safetensors", "soup.rsoup.json"]


@pytest.mark.parametrize(
    "arguments", [["methods"], ["clean"], ["merge", "one", "two", "--uniform", "-o", "soup", "--dry-run"]]
)
def test_json_everywhere(warm: Warm, base_and_two: Folders, arguments: list[str]) -> None:
    """Every command that answers answers in JSON too."""
    ended = warm.run(*arguments, "--json", cwd=base_and_two.root)

    assert json.loads(ended.out)["schema"] == 1


def test_quiet_prints_one_line(warm: Warm, base_and_two: Folders) -> None:
    """-q prints the result's path and nothing else, on either stream."""
    ended = warm.run(
        "merge", "one", "one", "--lambda", "1,2", "--normalize", "-o", "a soup", "-q", cwd=base_and_two.root
    )

    assert ended == Ended(0, "a soup\n", "")


def test_a_dry_run_writes_nothing(warm: Warm, base_and_two: Folders) -> None:
    """--dry-run tells bytes, tensors and files, and makes none."""
    ended = warm.run("merge", "one", "two", "--uniform", "-o", "new/soup", "--dry-run", cwd=base_and_two.root)

    assert ended.code == 0
    assert "would write new/soup" in ended.out
    assert "model.safetensors" in ended.out
    assert sorted(os.listdir(base_and_two.root)) == ["base", "one", "two"]


def test_the_schema_is_json(warm: Warm) -> None:
    """rsoup schema prints a JSON Schema."""
    assert json.loads(warm.run("schema").out)["type"] == "object"


def test_methods_are_listed(warm: Warm) -> None:
    """rsoup methods names every method with its formula; -q the names alone."""
    assert "task_arithmetic" in warm.run("methods").out
    assert "linear" in warm.run("methods", "-q").out.split()


@pytest.mark.fault("E16")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["methods"]])
def test_nobody_reads_stdout(arguments: list[str]) -> None:
    """`rsoup … | head -0` ends quietly with 141, as a program killed by SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(command(*arguments), stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.fault("E16")
def test_nobody_reads_the_answer_of_a_merge(base_and_two: Folders) -> None:
    """If nobody reads stdout the soup is made all the same, and then the end is 141."""
    reader, writer = os.pipe()
    os.close(reader)
    arguments = command("merge", "one", "two", "--uniform", "-o", "soup")
    ended = subprocess.run(
        arguments, stdout=writer, stderr=subprocess.PIPE, cwd=base_and_two.root, check=False
    )
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (141, b"")
    verify(base_and_two.root / "soup")


@pytest.mark.fault("E16")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("flag", ["-q"])
def test_stdout_is_full(warm: Warm, base_and_two: Folders, flag: str) -> None:
    """If the answer cannot be written the exit code is 6, and the error says that the soup is complete."""
    with open("/dev/full", "w") as full:
        arguments = command("merge", "one", "two", "--uniform", "-o", "soup", flag)
        ended = subprocess.run(
            arguments, stdout=full, stderr=subprocess.PIPE, cwd=base_and_two.root, check=False
        )

    assert ended.returncode == 6
    assert flag == "--json" or b"writing the answer failed" in ended.stderr
    assert b"Traceback" not in ended.stderr
    verify(base_and_two.root / "soup")


@pytest.mark.fault("E16")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["schema"], ["methods", "--json"]])
def test_help_on_a_full_device(arguments: list[str]) -> None:
    """Help, version and schema on a full device are an error in words too."""
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command(*arguments), stdout=full, stderr=subprocess.PIPE, check=False)

    assert ended.returncode == 6
    assert b"Traceback" not in ended.stderr


@pytest.mark.fault("E16")
@pytest.mark.parametrize("closed", ["0<&- 1>&- 2>&-"])
def test_closed_streams_get_no_bytes_into_the_soup(base_and_two: Folders, closed: str) -> None:
    """A run that is started without stdin, stdout or stderr makes a soup that verifies: no file got their numbers."""
    script = f'"$0" -m rsoup merge one two --uniform -o soup {closed}'
    ended = subprocess.run(
        ["sh", "-c", script, sys.executable], cwd=base_and_two.root, capture_output=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    verify(base_and_two.root / "soup")


@pytest.mark.fault("E16")
def test_nobody_hears_the_talk(base_and_two: Folders) -> None:
    """If stderr is gone the merge goes on: talk stops nothing."""
    reader, writer = os.pipe()
    os.close(reader)
    arguments = command("merge", "one", "one", "--lambda", "1,2", "--normalize", "-o", "soup")
    ended = subprocess.run(
        arguments, stderr=writer, stdout=subprocess.PIPE, cwd=base_and_two.root, check=False
    )
    os.close(writer)

    assert ended.returncode == 0
    assert ended.stdout.startswith(b"soup: ")


# --- terminals --------------------------------------------------------------------------------------------------

PLAIN: dict[str, dict[str, str]] = {
    "COLUMNS=1": {"COLUMNS": "1"},
    "COLUMNS=0": {"COLUMNS": "0"},
    "COLUMNS=x": {"COLUMNS": "x"},
    "TERM=dumb": {"TERM": "dumb"},
    "no TERM": {"TERM": ""},
    "NO_COLOR": {"NO_COLOR": "1"},
}
LOCALES: dict[str, dict[str, str]] = {
    "LANG=C": {"LANG": "C", "LC_ALL": "C"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1"},
}


@pytest.mark.fault("E17")
@pytest.mark.parametrize("name", PLAIN)
def test_any_environment(warm: Warm, base_and_two: Folders, name: str) -> None:
    """No width and no kind of terminal makes rsoup crash or colour its output."""
    merging = ["merge", "one", "two", "--uniform", "-o", "soup"]
    outcomes = [
        warm.run(*line, cwd=base_and_two.root, env=PLAIN[name]) for line in (["--help"], merging, merging)
    ]

    assert [ended.code for ended in outcomes] == [0, 0, 6]
    assert all("Traceback" not in ended.err and "\x1b" not in ended.out + ended.err for ended in outcomes)


@pytest.mark.fault("E17", "L5")
@pytest.mark.parametrize("name", LOCALES)
def test_any_locale(base_and_two: Folders, name: str) -> None:
    """What an encoding cannot hold is shown as escapes: no locale makes rsoup crash."""
    arguments = ["merge", "one", "two", "--uniform", "-o", "süp"]
    outcomes = [run("--help", env=LOCALES[name]), run(*arguments, cwd=base_and_two.root, env=LOCALES[name])]

    assert [ended.returncode for ended in outcomes] == [0, 0]
    assert all("Traceback" not in ended.stderr and "\x1b" not in ended.stdout for ended in outcomes)
    if name == "ASCII":
        assert all((ended.stdout + ended.stderr).isascii() for ended in outcomes[1:])


@pytest.mark.fault("E17")
@pytest.mark.parametrize(
    ("env", "terminal", "wanted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": "", "TERM": "xterm"}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_when_to_colour(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], terminal: bool, wanted: bool
) -> None:
    """Colour is for terminals that are not dumb; NO_COLOR and FORCE_COLOR are obeyed, the first before the second."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    class Stream:
        def isatty(self) -> bool:
            return terminal

    assert use_colour(Stream()) is wanted  # type: ignore[arg-type]


def on_a_terminal(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, program: str | None = None
) -> tuple[int, str]:
    """(exit code, everything shown) of a command line on a terminal of 100 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    line = [sys.executable, "-m", "rsoup"] if program is None else [sys.executable, "-c", program]
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [*line, *arguments],
        cwd=cwd,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**clean, "TERM": "xterm-256color", **(env or {})},
        start_new_session=True,
    )
    os.close(slave)
    shown = b""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        ready, _, _ = select.select([master], [], [], 0.1)
        if ready:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
        elif process.poll() is not None:
            break
    code = process.wait(timeout=30)
    os.close(master)
    return code, shown.decode("utf-8", "replace")


SLOWLY = """
import sys, time
from rsoup import cli, reading
real = reading.go_on

def go_on():
    time.sleep(0.2)
    real()

reading.go_on = go_on
sys.argv = ["rsoup", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.fault("E17")
def test_a_terminal_gets_one_bar(tmp_path: Path) -> None:
    """On a terminal there is one bar in bytes with rate and time left while it works, and none when it is done."""
    big_models(tmp_path, 4_000_000)

    code, shown = on_a_terminal(
        "merge", "one", "two", "--uniform", "-o", "soup", "--threads", "1", cwd=tmp_path, program=SLOWLY
    )

    assert code == 0, shown
    bars = [line for line in re.split(r"[\r\n]", ESCAPE.sub("", shown)) if "mixing" in line]
    assert len(bars) > 2
    assert any(re.search(r"\d+(\.\d+)?/\d+(\.\d+)? MB .*[MkG]B/s.* \d+:\d\d:\d\d", bar) for bar in bars), (
        bars[-3:]
    )
    assert "soup: 8.0 MB in" in shown
    assert "30.0 s" not in shown


@pytest.mark.fault("E17")
@pytest.mark.parametrize(
    "env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "1"}, {"PYTHONIOENCODING": "ascii"}], ids=str
)
def test_plain_terminals(tmp_path: Path, env: dict[str, str]) -> None:
    """Without colours, dumb, one column wide or without Unicode: the merge works on every terminal."""
    big_models(tmp_path, 1_000_000)

    code, shown = on_a_terminal(
        "merge",
        "one",
        "two",
        "--uniform",
        "-o",
        "soup",
        "--threads",
        "1",
        cwd=tmp_path,
        program=SLOWLY,
        env=env,
    )

    assert code == 0, shown
    assert "Traceback" not in shown
    verify(tmp_path / "soup")
    if "NO_COLOR" in env:
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)
    if "TERM" in env:
        assert "\x1b" not in shown


def test_errors_are_red_on_a_terminal_only(tmp_path: Path) -> None:
    """The word error is red on a terminal, plain in a file."""
    _, shown = on_a_terminal("clean", "nowhere", cwd=tmp_path)
    plain = run("clean", "nowhere", cwd=tmp_path).stderr

    assert "\x1b[31merror\x1b[0m[E0701]" in shown
    assert plain.startswith("error[E0701]")


@pytest.mark.parametrize("kind", [{"quiet": True}, {"as_json": True}])
def test_no_progress_where_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: dict[str, bool]
) -> None:
    """With -q and --json there is no progress at all."""
    monkeypatch.setattr(console, "LINE_SECONDS", 0)
    with ProgressBar(Console(**kind)) as bar:
        bar(Progress("mixing", 1, 10))

    assert capsys.readouterr() == ("", "")


def test_off_a_terminal_there_is_a_line_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere there is a line every 30 s: how much of how much, the rate since the last line, the time left."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with ProgressBar(Console()) as bar:
        for second in range(91):
            now[0] = float(second)
            bar(Progress("measuring" if second < 45 else "mixing", second * 10**8, 18 * 10**9))

    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "measuring: 3.0 GB of 18.0 GB, 100 MB/s, about 2 min left",
        "mixing: 6.0 GB of 18.0 GB, 200 MB/s, about 60 s left",
        "mixing: 9.0 GB of 18.0 GB, 100 MB/s, about 90 s left",
    ]


def test_a_terminal_that_goes_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar that cannot be drawn any more does not end the merge."""

    class Gone:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, _: str) -> int:
            raise OSError(5, "I/O error")

        def flush(self) -> None:
            raise OSError(5, "I/O error")

        def fileno(self) -> int:
            raise OSError(25, "not a terminal")

    monkeypatch.setenv("TERM", "xterm")
    talk = Console(err=Gone())  # type: ignore[arg-type]
    with ProgressBar(talk) as bar:
        bar(Progress("mixing", 1, 10))
    talk.talk("x")
    talk.error(UsageError("E0200", "x"))


# --- paths --------------------------------------------------------------------------------------------------------

NAMES = [
    "a b",
    "ü λ 模型",
    "new\nline",
    "-dash",
    "tab\t\x1b[31mred",
    "\udcff\udcfe",
    "x=y",
    "a,b",
    "%s{}",
    "~",
    "\u202egnp",
]


@pytest.mark.fault("E13")
@pytest.mark.parametrize(
    ("name", "suffix"), [*((name, "") for name in NAMES), *((name, ".safetensors") for name in NAMES[1:6:2])]
)
def test_any_path_works(warm: Warm, tmp_path: Path, base_and_two: Folders, name: str, suffix: str) -> None:
    """Inputs and outputs may have any name a file may have; it is never printed raw, and -q gives it exactly."""
    source = tmp_path / "in" / name
    source.parent.mkdir()
    shutil.copytree(base_and_two.one, source)
    inputs = [f"./in/{name}", f"./in/../in/{name}"] if "," in name else [f"in/{name}", f"second=in/{name}"]
    arguments = ["merge", "--uniform", "-o", name + suffix, "--", *inputs]

    ended = warm.run(*arguments, cwd=tmp_path)

    assert ended.code == 0, ended
    verify(tmp_path / (name + suffix))
    for said in (ended.out, ended.err):
        assert "\x1b" not in said
        assert "\u202e" not in said
        assert "\nline" not in said
    again = warm.run(*arguments, cwd=tmp_path)
    assert again.code == 6
    assert "\x1b" not in again.err
    quiet = warm.run(*arguments[:2], "--overwrite", "-q", *arguments[2:], cwd=tmp_path)
    assert quiet == Ended(0, f"{name}{suffix}\n", "")
    document = warm.run(*arguments[:2], "--dry-run", "--overwrite", "--json", *arguments[2:], cwd=tmp_path)
    assert json.loads(document.out)["out"] == name + suffix
    assert document.out.isascii()


@pytest.mark.fault("E14")
@pytest.mark.parametrize("name", ["n" * 300, "n" * 240, "/".join(["n" * 250] * 20), "n" * 5000])
def test_a_path_that_is_too_long(warm: Warm, base_and_two: Folders, name: str) -> None:
    """A name the file system cannot hold is refused with exit 6 and the limit; as an input it is told as well."""
    ended = warm.run("merge", "one", "two", "--uniform", "-o", name, cwd=base_and_two.root)
    missing = warm.run("merge", "one", name, "--uniform", "-o", "soup", cwd=base_and_two.root)

    assert ended.code == 6, ended
    assert "too long" in ended.err
    assert missing.code in (6, 7)
    assert len(ended.err) < 600
    assert sorted(os.listdir(base_and_two.root)) == ["base", "one", "two"]


@pytest.mark.fault("E15")
@pytest.mark.parametrize("name", ["torch", "json"])
def test_a_module_lying_about_is_not_run(base_and_two: Folders, name: str) -> None:
    """`python -m rsoup` in a folder that holds torch.py, or any such name, does not run it."""
    (base_and_two.root / f"{name}.py").write_text("open('hijacked', 'w').close()\nraise SystemExit(42)\n")

    ended = run("merge", "one", "two", "--uniform", "-o", "soup", cwd=base_and_two.root)

    assert ended.returncode == 0, ended.stderr
    assert not (base_and_two.root / "hijacked").exists()


@pytest.mark.fault("E18")
@pytest.mark.parametrize("epoch", ["0", "1700000000", "4102444800"])
def test_source_date_epoch(warm: Warm, base_and_two: Folders, epoch: str) -> None:
    """SOURCE_DATE_EPOCH is the time in the manifest; nothing else of the soup depends on a clock."""
    for name in ("a", "b"):
        env = {"SOURCE_DATE_EPOCH": epoch} if name == "a" else {}
        assert (
            warm.run("merge", "one", "two", "--uniform", "-o", name, cwd=base_and_two.root, env=env).code == 0
        )
    a, b = (verify(base_and_two.root / name) for name in ("a", "b"))

    wanted = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(epoch)))
    assert a["run"]["finished"] == wanted  # type: ignore[index]
    assert {k: v for k, v in a.items() if k != "run"} == {k: v for k, v in b.items() if k != "run"}


@pytest.mark.fault("E18")
@pytest.mark.parametrize("moment", [0.0, -1e9, 4e9])
def test_a_clock_that_is_wrong(base_and_two: Folders, monkeypatch: pytest.MonkeyPatch, moment: float) -> None:
    """With the clock in 1970, before it, or in 2096 the same soup is made."""
    monkeypatch.setattr(time, "time", lambda: moment)
    out = base_and_two.root / "soup"
    rsoup.merge(rsoup.make_recipe([base_and_two.one, base_and_two.two], uniform=True), out)

    assert str(verify(out)["run"]["finished"])[:2] in ("19", "20")  # type: ignore[index]


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything one can make mistakes with."""
    root = tmp_path_factory.mktemp("shop")
    family = related(2)
    for name, tensors in {"base": family.base, "one": family.tuned[0], "two": family.tuned[1]}.items():
        write_folder(root / name, tensors)
    write_folder(root / "stranger", related(1, seed=9).base)
    write_folder(root / "smaller", {name: tensor for name, tensor in family.base.items() if name != "scale"})
    write_folder(root / "shaped", {**family.base, "layers.0.bias": torch.zeros(49, dtype=torch.bfloat16)})
    write_folder(
        root / "nan", {**family.base, "layers.0.bias": torch.full((48,), torch.nan, dtype=torch.bfloat16)}
    )
    write_folder(root / "config", family.base, config={"model_type": "tiny", "hidden_size": 64})
    write_folder(root / "existing", family.base)
    (root / "empty").mkdir()
    (root / "text").mkdir()
    (root / "text" / "README.md").write_text("no model")
    (root / "words.txt").write_text("no model")
    (root / "cut.safetensors").write_bytes((root / "one" / "model.safetensors").read_bytes()[:5000])
    (root / "pickle").mkdir()
    (root / "pickle" / "pytorch_model.bin").write_bytes(b"PK")
    (root / "adapter").mkdir()
    (root / "adapter" / "adapter_config.json").write_text("{}")
    (root / "a file").write_text("x")
    good = "base: base\ningredients:\n  - {name: one, checkpoint: one, lambda: 0.5}\n  - {name: two, checkpoint: two, lambda: 0.5}\n"
    (root / "good.yaml").write_text(good)
    (root / "sum.yaml").write_text(good.replace("0.5", "0.6"))
    (root / "typo.yaml").write_text(good.replace("base:", "bsae:"))
    (root / "broken.yaml").write_text("ingredients: [")
    (root / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (root / "folder.yaml").mkdir()
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    return root


TWO = ["merge", "one", "two"]
OUT = ["-o", "out"]
HALF = [*TWO, *OUT, "--uniform"]
MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "command": (["mrge"], 2, "Did you mean 'merge'"),
    "unheard command": (["frobnicate"], 2, "No such command"),
    "option before the command": (["--uniform", "merge"], 2, "No such option"),
    "no checkpoint": (["merge"], 2, "Missing argument"),
    "no out": ([*TWO, "--uniform"], 2, "Missing option"),
    "unknown option": ([*HALF, "--frobnicate"], 2, "No such option"),
    "option without a value": ([*HALF, "--base"], 2, "requires an argument"),
    "threads 0": ([*HALF, "--threads", "0"], 2, "--threads"),
    "threads many": ([*HALF, "--threads", "many"], 2, "--threads"),
    "no λ": ([*TWO, *OUT], 2, "--uniform"),
    "too few λ": ([*TWO, *OUT, "--lambda", "1"], 2, "2"),
    "too many λ": ([*TWO, *OUT, "--lambda", "0.2,0.3,0.5"], 2, "3"),
    "λ that do not sum to 1": ([*TWO, *OUT, "--lambda", "0.5,0.6"], 2, "1.1"),
    "λ with words": ([*TWO, *OUT, "--lambda", "half,half"], 2, "half"),
    "λ nan": ([*TWO, *OUT, "--lambda", "nan,1"], 2, "nan"),
    "λ inf": ([*TWO, *OUT, "--lambda", "1e999999999,0"], 2, "1e999999999"),
    "λ comma": ([*TWO, *OUT, "--lambda", "0,5"], 2, "5"),
    "λ negative": ([*TWO, *OUT, "--lambda", "-0.5,1.5"], 2, "--affine"),
    "λ over zero": ([*TWO, *OUT, "--lambda", "1/0,1"], 2, "1/0"),
    "λ empty": ([*TWO, *OUT, "--lambda", ""], 2, "number"),
    "λ sum to 0": ([*TWO, *OUT, "--lambda", "0,0", "--normalize"], 2, "0"),
    "λ twice": ([*HALF, "--lambda", "0.5,0.5"], 2, "--uniform"),
    "affine without a base": ([*TWO, *OUT, "--lambda", "1,1", "--affine"], 2, "base"),
    "scale without a base": ([*HALF, "--scale", "0.5"], 2, "base"),
    "scale of words": ([*HALF, "--base", "base", "--scale", "big"], 2, "big"),
    "unknown method": ([*HALF, "--method", "lineer"], 2, "linear"),
    "slerp without a base": ([*HALF, "--method", "slerp"], 2, "base"),
    "unknown level": ([*HALF, "--level", "layer"], 2, "layer"),
    "unknown dtype": ([*HALF, "--dtype", "int8"], 2, "int8"),
    "unknown size": ([*HALF, "--max-shard-size", "5 apples"], 2, "apples"),
    "size 0": ([*HALF, "--max-shard-size", "0"], 2, "0"),
    "unknown donor": ([*HALF, "--files-from", "three"], 2, "three"),
    "unknown buffers": ([*HALF, "--buffers-from", "three"], 2, "three"),
    "drop nothing": ([*HALF, "--drop", "lm_head*"], 2, "lm_head"),
    "allow everything": ([*HALF, "--allow", "everything"], 2, "everything"),
    "distance of words": ([*HALF, "--max-distance", "far"], 2, "far"),
    "same name twice": (["merge", "a=one", "a=two", *OUT, "--uniform"], 2, "a"),
    "empty path": (["merge", "a=", "two", *OUT, "--uniform"], 2, "empty path"),
    "no such checkpoint": (["merge", "one", "three", *OUT, "--uniform"], 7, "three"),
    "no such base": ([*HALF, "--base", "bas"], 7, "bas"),
    "empty folder": (["merge", "one", "empty", *OUT, "--uniform"], 8, "empty"),
    "folder without a model": (["merge", "one", "text", *OUT, "--uniform"], 8, "text"),
    "text file": (["merge", "one", "words.txt", *OUT, "--uniform"], 8, "words.txt"),
    "cut file": (["merge", "one", "cut.safetensors", *OUT, "--uniform"], 8, "cut.safetensors"),
    "pickle": (["merge", "one", "pickle", *OUT, "--uniform"], 8, "pytorch_model.bin"),
    "adapter": (["merge", "one", "adapter", *OUT, "--uniform"], 8, "adapter"),
    "pipe": (["merge", "one", "pipe", *OUT, "--uniform"], 8, "pipe"),
    "loop": (["merge", "one", "loop", *OUT, "--uniform"], 8, "loop"),
    "Hub address": (["merge", "one", "hf://org/name", *OUT, "--uniform"], 7, "HF_HUB_OFFLINE"),
    "object store": (
        ["merge", "one", "s3://bucket/key?X-Amz-Signature=0", *OUT, "--uniform"],
        2,
        "AWS_ACCESS_KEY_ID",
    ),
    "no such variant": ([*HALF, "--variant", "fp16"], 7, "fp16"),
    "missing tensor": (["merge", "one", "smaller", *OUT, "--uniform"], 3, "scale"),
    "other shape": (["merge", "one", "shaped", *OUT, "--uniform"], 3, "layers.0.bias"),
    "other config": (["merge", "one", "config", *OUT, "--uniform"], 3, "--allow config"),
    "NaN": (["merge", "one", "nan", *OUT, "--uniform"], 3, "NaN"),
    "stranger": (["merge", "one", "stranger", *OUT, "--uniform", "--base", "base"], 3, "stranger"),
    "no such recipe": (["merge", "soup.yaml", *OUT], 7, "soup.yaml"),
    "recipe is a folder": (["merge", "folder.yaml", *OUT], 8, "folder.yaml"),
    "recipe is broken": (["merge", "broken.yaml", *OUT], 2, "broken.yaml:1:"),
    "recipe is no text": (["merge", "bytes.yaml", *OUT], 2, "bytes.yaml"),
    "recipe with a typo": (["merge", "typo.yaml", *OUT], 2, "base"),
    "recipe whose λ do not sum to 1": (["merge", "sum.yaml", *OUT], 2, "1.2"),
    "recipe and checkpoint": (["merge", "good.yaml", "one", *OUT], 2, "alone"),
    "recipe and λ": (["merge", "good.yaml", *OUT, "--lambda", "1,0"], 2, "--lambda"),
    "output exists": ([*TWO, "--uniform", "-o", "existing"], 6, "--overwrite"),
    "output is a file": ([*TWO, "--uniform", "-o", "a file", "--overwrite"], 6, "file"),
    "output is no model": ([*TWO, "--uniform", "-o", "text", "--overwrite"], 6, "text"),
    "output is an input": ([*TWO, "--uniform", "-o", "one", "--overwrite"], 2, "is the input"),
    "output in an input": ([*TWO, "--uniform", "-o", "one/soup"], 2, "inside"),
    "output is here": ([*TWO, "--uniform", "-o", "."], 2, "folder's name"),
    "output is empty": ([*TWO, "--uniform", "-o", ""], 2, "folder's name"),
    "output of another format": ([*TWO, "--uniform", "-o", "soup.gguf"], 2, "safetensors"),
    "output below a file": ([*TWO, "--uniform", "-o", "a file/soup"], 6, "not a folder"),
    "output name too long": ([*TWO, "--uniform", "-o", "x" * 250], 6, "too long"),
    "demo over something else": (["demo", "-o", "text", "--overwrite"], 6, "text"),
    "demo exists": (["demo", "-o", "existing"], 6, "existing"),
    "demo seed": (["demo", "--seed", "x"], 2, "--seed"),
    "clean nowhere": (["clean", "nowhere"], 7, "nowhere"),
    "clean a file": (["clean", "a file"], 7, "a file"),
    "clean two": (["clean", "one", "two"], 2, "two"),
    "methods of what": (["methods", "linear"], 2, "linear"),
    "schema of what": (["schema", "x"], 2, "x"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_words(warm: Warm, shop: Path, mistake: str) -> None:
    """Every mistake has its exit code, says what and where, as text or as one JSON document, and changes nothing."""
    arguments, code, text = MISTAKES[mistake]
    before = sorted(os.listdir(shop))

    ended = warm.run(*arguments, cwd=shop)
    answered = warm.run(arguments[0], "--json", *arguments[1:], cwd=shop)

    assert ended.code == code, ended
    assert ended.out == ""
    assert re.match(r"error\[E\d{4}\]: \S", ended.err), ended.err
    assert "Traceback" not in ended.err
    assert text in ended.err
    assert all(len(line) < 500 for line in ended.err.splitlines())
    if "schema" not in arguments:  # its answer is a document anyway
        assert (answered.code, answered.err) == (code, "")
        assert answered.error["exit_code"] == code
        assert str(answered.error["code"]) in ended.err
    assert sorted(os.listdir(shop)) == before


def test_most_mistakes_have_a_hint(warm: Warm, shop: Path) -> None:
    """What to type next is said wherever there is something to type."""
    some = dict(list(MISTAKES.items())[::3])
    without = [
        name
        for name, (arguments, _, _) in some.items()
        if "  hint   " not in warm.run(*arguments, cwd=shop).err
    ]

    assert len(without) <= len(some) // 5, without


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_debug_shows_the_traceback(base_and_two: Folders, how: str) -> None:
    """--debug, or RSOUP_DEBUG=1, shows the traceback of an error besides its words and exit code."""
    arguments = ["merge", "one", "three", "--uniform", "-o", "soup"]
    if how == "flag":
        ended = run(*arguments, "--debug", cwd=base_and_two.root)
    else:
        ended = run(*arguments, cwd=base_and_two.root, env={"RSOUP_DEBUG": "1"})

    assert ended.returncode == 7
    assert "Traceback" in ended.stderr
    assert "error[E0701]" in ended.stderr


def test_an_option_after_two_dashes_is_a_path(warm: Warm, base_and_two: Folders) -> None:
    """Behind `--` even --json is a path, and the error is told as text."""
    ended = warm.run("merge", "--uniform", "-o", "soup", "--", "one", "--json", cwd=base_and_two.root)

    assert ended.code == 7
    assert ended.err.startswith("error[E0701]")


@pytest.mark.fault("L1")
def test_a_missing_library_is_told(base_and_two: Folders) -> None:
    """Where a library cannot be imported the installation is said to be incomplete, with what to type."""
    program = "import sys; sys.modules['blake3'] = None; sys.argv = ['rsoup', *sys.argv[1:]]; from rsoup.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "merge", "one", "two", "--uniform", "-o", "soup"],
        cwd=base_and_two.root, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert ended.returncode == 1
    assert "error[E0100]" in ended.stderr
    assert "pip install" in ended.stderr
    assert stray(base_and_two.root) == []


def test_what_a_merge_says(warm: Warm, base_and_two: Folders) -> None:
    """A merge with a base tells size, time, λ, tensors, distances, cosine, rounding and files, a line each."""
    ended = warm.run(
        "merge", "one", "two", "--uniform", "--base", "base", "-o", "soup", cwd=base_and_two.root
    )
    words = [line.split()[0] for line in ended.out.splitlines()]

    assert words == ["soup:", "λ", "tensors", "distance", "cosine", "update", "files"]
    assert all(len(line) < 110 for line in ended.out.splitlines())


# --- the demo --------------------------------------------------------------------------------------------------------


def test_the_demo(warm: Warm, tmp_path: Path) -> None:
    """rsoup demo shows the rewards of eleven λ, the front, and commands that work; --json the rows as data, of a new one; -q its folder."""
    ended = warm.run("demo", "-o", "my demo", cwd=tmp_path)

    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    table = [line for line in lines if re.match(r". +[\d.]+,[\d.]+ +[\d.]+ +[\d.]+$", line)]
    assert len(table) == 11
    assert any("hypervolume" in line for line in lines)
    commands = [line.strip() for line in lines if line.startswith("  rsoup ")]
    assert [command.split()[1] for command in commands] == ["merge", "sweep"]
    assert "REINFORCE" in ended.err
    for line in commands:
        script = line.replace("rsoup ", f'"{sys.executable}" -m rsoup ', 1)
        subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "soup" / "model.safetensors").is_file()
    assert len((tmp_path / "my demo" / "sweep" / "points.csv").read_text().splitlines()) == 22
    refused = warm.run("demo", "-o", "my demo", cwd=tmp_path)
    assert refused.code == 6
    again = warm.run("demo", "-o", "my demo", "--json", "--overwrite", "--seed", "1", cwd=tmp_path)
    document = json.loads(again.out)
    labels = [row["label"] for row in document["rows"]]
    assert (labels[:2], labels[-1], len(labels)) == (["base", "low"], "high", 12)
    assert document["rows"][0]["lambda"] is None
    quiet = warm.run("demo", "-q", cwd=tmp_path)
    assert quiet == Ended(0, "rsoup-demo\n", "")


# --- the console by itself ---------------------------------------------------------------------------------------


def test_an_error_is_shown_with_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """An error's lines are: code and what, where, the findings, what to type next."""
    Console().error(TargetError("E0602", "the disk is full", where="soup", hint="free some space"))

    assert (
        capsys.readouterr().err == "error[E0602]: the disk is full\n  where  soup\n  hint   free some space\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3 s"), (99, "99 s"), (100, "2 min"), (5900, "98 min"), (7200, "2.0 h")]
)
def test_times_are_short(seconds: float, text: str) -> None:
    """The time left is told in seconds, minutes or hours."""
    assert time_text(seconds) == text


def test_small_disks_are_told_before_a_dry_run_is_over(
    warm: Warm, tmp_path: Path, base_and_two: Folders
) -> None:
    """--dry-run tells how much is free where the soup would go."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        ended = warm.run(
            "merge", base_and_two.one, base_and_two.two, "--uniform", "-o", disk / "soup", "--dry-run"
        )

    assert re.search(r"free +1\.0 MB", ended.out)


@pytest.mark.parametrize("wrapped", [RuntimeError, ImportError, None])
def test_a_signal_in_the_middle_of_an_import(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrapped: type[Exception] | None
) -> None:
    """Python turns what is raised while a class is made into a RuntimeError; it is a signal all the same: 130 and a word."""
    from rsoup import cli
    from rsoup.cli import app as module
    from rsoup.cli.stopped import Stopped

    def interrupted(**_: object) -> None:
        try:
            raise Stopped(signal.SIGINT)
        except Stopped as stopped:
            if wrapped is None:
                raise
            raise wrapped("Error calling __set_name__") from stopped

    monkeypatch.setattr(module, "app", interrupted)
    monkeypatch.setattr(sys, "argv", ["rsoup", "merge"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(cli, "_open_streams", lambda: None)

    with pytest.raises(SystemExit) as leaving:
        cli.main()

    assert leaving.value.code == 130
    assert "stopped by SIGINT" in capsys.readouterr().err


_SWALLOWED = """
import os, signal, sys, time
from rsoup import cli
from rsoup.cli import app

class Swallowing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)

def work(**_):
    Swallowing()
    time.sleep(30)

app.app = work
cli.main()
"""


def test_a_signal_in_the_middle_of_a_destructor() -> None:
    """Python swallows what is raised in a destructor or a weak reference's callback; the signal counts all the same."""
    ended = subprocess.run(
        [sys.executable, "-c", _SWALLOWED], capture_output=True, text=True, timeout=20, check=False
    )

    assert (ended.returncode, "stopped by SIGTERM" in ended.stderr) == (143, True)
    assert "Traceback" not in ended.stderr


_IMPORTING = """
import sys, time
sys.path.insert(0, sys.argv.pop())
from rsoup import cli
from rsoup.cli import app

def work(**_):
    import torch
    time.sleep(30)

app.app = work
cli.main()
"""


def test_a_signal_while_torch_is_imported_waits_for_it(tmp_path: Path) -> None:
    """Its C++ ends the process with SIGABRT when Python raises in the middle of its import; a second signal does not wait."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.3)\nprint('imported', flush=True)\n"
    )
    words = [sys.executable, "-c", _IMPORTING, str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)

    assert (ended.returncode, ended.stdout) == (143, "imported\n")
    assert "stopped by SIGTERM" in ended.stderr


_AT_THE_END = """
import atexit, os, signal, time
from rsoup import cli
from rsoup.cli import app

class Swallowing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

def last():
    Swallowing()
    time.sleep(0.3)
    print("removed", flush=True)

atexit.register(last)
app.app = lambda **_: 0
cli.main()
"""


def test_a_signal_after_the_work_does_not_end_it_with_another() -> None:
    """The timer that repeats a swallowed signal is for the work alone: what is removed at the end is removed."""
    ended = subprocess.run(
        [sys.executable, "-c", _AT_THE_END], capture_output=True, text=True, timeout=20, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "removed\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["merge", "A", "B", "--uniform", "-o", "s3://bucket/soup"],
        ["merge", "A", "B", "--uniform", "-o", "hf://me/soup"],
        ["merge", "A", "B", "--uniform", "-o", "gs://bucket/soup.safetensors", "--overwrite"],
        ["sweep", "A", "B", "--grid", "3", "--eval", "true", "--reward", "x", "-o", "s3://bucket/sweep"],
        ["extract", "A", "--base", "B", "--rank", "2", "-o", "s3://bucket/adapter"],
        ["demo", "-o", "s3://bucket/demo"],
        ["front", "table.csv", "--reward", "x", "--reward", "y", "--figures", "s3://bucket/figures"],
    ],
)
def test_outputs_are_written_here(tmp_path: Path, words: list[str]) -> None:
    """E0213 for an address: no folder called `s3:` is made, which would then be taken for the store."""
    for name, tensors in zip("AB", related(2).tuned, strict=True):
        write_folder(tmp_path / name, tensors)
    (tmp_path / "table.csv").write_text("name,x,y\na,0,1\nb,1,0\nc,0.6,0.6\n")
    before = sorted(tmp_path.iterdir())

    ended = run(*words, cwd=tmp_path)

    assert (ended.returncode, "error[E0213]" in ended.stderr) == (2, True), ended.stderr
    assert sorted(tmp_path.iterdir()) == before
