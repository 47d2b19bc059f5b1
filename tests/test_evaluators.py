"""Evaluators of every bad kind: a task always gets an answer, and nothing they started is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from rsoup.errors import UsageError
from rsoup.recipe import Ingredient
from rsoup.request import Request
from rsoup.request import make as make_recipe
from rsoup.sweep import evaluators, processes
from rsoup.sweep.command import CommandEvaluator
from rsoup.sweep.evaluation import Evaluation, Task
from rsoup.sweep.function import FunctionEvaluator
from rsoup.sweep.point import Point
from rsoup.sweep.score import Metric
from rsoup.sweep.spec import EvaluatorSpec

HALF = (Fraction(1, 2), Fraction(1, 2))
ACC = (Metric("acc", "$.acc"),)
PYTHON = "import json, os, subprocess, sys, time\n"


class Place:
    """A folder with a script, a soup, and what a task needs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = root / "soup"
        self.model.mkdir()
        (self.model / "model.safetensors").write_bytes(b"weights")
        self.runs = 0

    def task(self, **changes: object) -> Task:
        """A new task with folders of its own."""
        self.runs += 1
        out = self.root / f"out-{self.runs}"
        out.mkdir()
        log = self.root / f"log-{self.runs}"
        task = Task(Point(HALF), 7, "select", str(self.model), str(out), str(log))
        return replace(task, **changes)  # type: ignore[arg-type]

    def evaluator(self, script: str, run: str | None = None, **options: object) -> CommandEvaluator:
        """An evaluator that runs a Python script."""
        (self.root / "score.py").write_text(PYTHON + textwrap.dedent(script))
        command = run or f"{sys.executable} -S score.py {{model}}"
        spec = EvaluatorSpec(**{"metrics": ACC, "run": command, **options})  # type: ignore[arg-type]
        return CommandEvaluator(spec, folder=str(self.root), grace=0.5)

    def evaluate(self, script: str, run: str | None = None, **options: object) -> Evaluation:
        """What comes of a script."""
        return score(self.evaluator(script, run, **options), self.task())

    def wait_for(self, name: str) -> int:
        """The number in a file that something is about to write."""
        for _ in range(400):
            text = (self.root / name).read_text() if (self.root / name).exists() else ""
            if text.endswith("\n"):
                return int(text)
            time.sleep(0.02)
        raise AssertionError(f"nobody wrote {name}")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty place."""
    return Place(tmp_path)


def score(evaluator: CommandEvaluator | FunctionEvaluator, *tasks: Task, **environment: str) -> Evaluation:
    """The answer to the last of several tasks of one session."""
    with evaluator.session(environment) as session:
        return [session.evaluate(task, threading.Event()) for task in tasks][-1]


def gone(pid: int) -> bool:
    """Whether a process ends within a few seconds; a zombie has ended."""
    for _ in range(250):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


# --- commands that do what they should ---


def test_a_command_gives_scores(place: Place) -> None:
    """The last line of stdout is the scores; what a task is about stands in arguments and environment; all is logged."""
    script = """
        print("loading", file=sys.stderr); print("noise")
        print(json.dumps({"acc": 0.5, "acc_stderr": 0.1, "seen": sys.argv[1:], "extra": "no matter",
                          "env": {k: v for k, v in os.environ.items() if k.startswith(("RSOUP", "CUDA"))}}))
    """
    run = f"{sys.executable} -S score.py --l={{lambda}} {{point}}/{{seed}} '{{split}} {{{{x}}}}' {{scale}} {{out}}"
    task = place.task(base="/b")
    found = score(place.evaluator(script, run), task, CUDA_VISIBLE_DEVICES="1", RSOUP_EVALUATION="mine")

    assert (found.scores["acc"].value, found.scores["acc"].error) == (0.5, 0.1)
    assert (found.failure, found.exit_status) == (None, 0)
    assert 0 < found.seconds < 30
    printed = json.loads(Path(f"{task.log}.out").read_text().splitlines()[-1])
    assert printed["seen"] == ["--l=0.5,0.5", "0.5-0.5/7", "select {x}", "1", task.out]
    assert printed["env"].pop("RSOUP_EVALUATION").startswith("mine/")
    assert printed["env"] == {
        "CUDA_VISIBLE_DEVICES": "1",
        "RSOUP_MODEL": task.model,
        "RSOUP_OUT": task.out,
        "RSOUP_LAMBDA": "0.5,0.5",
        "RSOUP_POINT": "0.5-0.5",
        "RSOUP_SEED": "7",
        "RSOUP_SPLIT": "select",
        "RSOUP_BASE": "/b",
        "RSOUP_SCALE": "1",
    }
    log = Path(task.log).read_text()
    assert all(
        text in log for text in ("# command: ", "CUDA_VISIBLE_DEVICES=1", "loading", "exit status 0 after")
    )


def test_scores_may_stand_in_a_file(place: Place) -> None:
    """`metrics_file` has placeholders, too; a file that is not there is a failure that names it."""
    script = "open(sys.argv[1] + '/m.json', 'w').write('{\"acc\": 2}')"
    run = f"{sys.executable} -S score.py {{out}}"

    assert place.evaluate(script, run, metrics_file="{out}/m.json").scores["acc"].value == 2
    assert "no file 'n.json'" in str(place.evaluate(script, run, metrics_file="{out}/n.json").failure)


@pytest.mark.fault("J10")
@pytest.mark.parametrize(
    "name", ["$(touch x)", "a b", "; touch x;", "`touch x`", "{seed}", "--help", "'", "é\n\x1b[31m"]
)
def test_names_are_arguments_never_commands(place: Place, name: str) -> None:
    """A soup's name arrives as it is, in one argument, and is never read again."""
    model = place.root / name
    model.mkdir()
    task = place.task(model=str(model))
    found = score(place.evaluator("print(json.dumps({'acc': 1, 'seen': sys.argv[1:]}))"), task)

    assert found.failure is None
    assert json.loads(Path(f"{task.log}.out").read_text())["seen"] == [str(model)]
    assert not (place.root / "x").exists()
    assert "\x1b" not in Path(task.log).read_text()


# --- commands that do not ---

BAD = {
    "J1 exit status": (
        "print('why', file=sys.stderr); print(json.dumps({'acc': 1})); sys.exit(3)",
        "exit status 3\n  why",
    ),
    "J1 signal": ("os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
    "J1 stdout instead": (
        "print('\\x1b[31mon stdout'); sys.exit(1)",
        "exit status 1\n  \\u{1b}[31mon stdout",
    ),
    "J5 nothing": ("", "printed nothing"),
    "J5 garbage": ("print('accuracy: 0.5')", "must be JSON, but it is not JSON"),
    "J5 two": ('print(\'{"acc": 1} {"acc": 2}\')', "something follows after the JSON"),
    "J5 NaN": ("print(json.dumps({'acc': float('nan')}))", "it holds NaN"),
    "J5 Infinity": ("print(json.dumps({'acc': float('inf')}))", "it holds Infinity"),
    "J5 1e999": ("print('{\"acc\": 1e999}')", "1e999, which is too large"),
    "J5 text": ('print(\'{"acc": "0.5"}\')', "acc is the text '0.5', not a number"),
    "J5 twice": ('print(\'{"acc": 1, "acc": 2}\')', "the key 'acc' twice"),
    "J7 missing": ("print('{\"accuracy\": 1}')", "$ has no 'acc', only 'accuracy'"),
    "J9 writes": ("open(sys.argv[1] + '/cache', 'w'); print('{\"acc\": 1}')", "'cache' is new"),
    "J9 changes": (
        "open(sys.argv[1] + '/model.safetensors', 'a').write('x'); print('{\"acc\": 1}')",
        "was changed",
    ),
    "J9 deletes": ("import shutil; shutil.rmtree(sys.argv[1]); print('{\"acc\": 1}')", "is gone"),
    "J9 deletes logs": (
        "import glob; [os.unlink(f) for f in glob.glob('log-*')]; print('{\"acc\": 1}')",
        "cannot be read",
    ),
}


@pytest.mark.fault("J1", "J5", "J7", "J9")
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_command_fails_in_words(place: Place, kind: str) -> None:
    """Whatever a command does, the answer is a failure that says it, on lines that are safe to print."""
    script, words = BAD[kind]
    found = place.evaluate(script)

    assert words in str(found.failure)
    assert found.scores == {}
    assert all(line.isprintable() for line in str(found.failure).split("\n"))


def test_the_last_twenty_lines_are_shown(place: Place) -> None:
    """A failure holds the end of stderr, each line cut."""
    found = place.evaluate("[print(n, 'x' * 999, file=sys.stderr) for n in range(99)]; sys.exit(1)")
    lines = str(found.failure).split("\n")

    assert len(lines) == 1 + 20
    assert lines[-1].startswith("  98 xxx")
    assert max(map(len, lines)) <= 202


@pytest.mark.fault("J1")
@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("no-such-program-here {model}", "No such file"),
        ("./plain.txt {model}", "Permission denied"),
        ("./missing", "No such file"),
        ("./folder", "Is a directory"),
        ("python 'x", "No closing quotation"),
        ("", "no command"),
        ("python {modle}", "'{modle}', which is no placeholder"),
        ("python '{'", "which is no placeholder"),
        ("python {base}", "the sweep has no base"),
    ],
)
def test_what_cannot_run_is_refused_before(place: Place, run: str, words: str) -> None:
    """E0237, before anything is made."""
    (place.root / "plain.txt").write_text("no program")
    (place.root / "folder").mkdir()
    with pytest.raises(UsageError, match=r".") as error:
        CommandEvaluator(EvaluatorSpec(ACC, run=run), folder=str(place.root))

    assert error.value.code == "E0237"
    assert words in error.value.message


def test_other_refusals_come_before(place: Place) -> None:
    """A missing file or folder, an address that means nothing, a command and a function at once."""
    spec = EvaluatorSpec(ACC, run=f"{sys.executable} x")

    def made(folder: str = str(place.root), **changes: object) -> str:
        with pytest.raises(UsageError) as error:
            evaluators.make(replace(spec, **changes), folder=folder, recipe_for=recipe)  # type: ignore[arg-type]
        return error.value.code

    assert made(files=("missing",)) == "E0237"
    assert made(folder=str(place.root / "nowhere")) == "E0237"
    assert made(function="a:b") == made(run=None) == "E0237"
    assert made(metrics=(Metric("acc", "acc"),)) == "E0239"
    assert made(run=None, function="nowhere:f") == "E0238"
    assert made(run=None, function="nowhere:f", metrics_file="m.json") == "E0237"
    assert made(run="x\0y") == "E0237"


def test_a_script_the_system_cannot_start_fails(place: Place) -> None:
    """What looks like a program and is none is a failed task."""
    (place.root / "empty").write_bytes(b"\x7fNO")
    (place.root / "empty").chmod(0o755)

    assert "could not be started: Exec format error" in str(place.evaluate("", "./empty").failure)
    assert "the command says {step}" in str(place.evaluate("", "./empty {step}").failure)


# --- commands that do not end ---

WRITE_PID = "open('pid', 'w').write(f'{os.getpid()}\\n')\n"
CHILD = f"import os, time, signal, sys; {WRITE_PID.strip()}; "
SLEEP = "time.sleep(60)"


@pytest.mark.fault("J2")
@pytest.mark.parametrize(
    "script",
    [
        f"{WRITE_PID}{SLEEP}",
        f"import signal; signal.signal(15, signal.SIG_IGN)\n{WRITE_PID}{SLEEP}",
        f"subprocess.run([sys.executable, '-S', '-c', {CHILD + SLEEP!r}])",
        f"subprocess.Popen([sys.executable, '-S', '-c', {CHILD + SLEEP!r}], start_new_session=True)\n{SLEEP}",
    ],
    ids=["hang", "ignores SIGTERM", "grandchild", "daemon"],
)
def test_a_hang_ends_with_all_it_started(place: Place, script: str) -> None:
    """After the time limit nothing of it runs."""
    found = place.evaluate(script, timeout_seconds=0.7)

    assert "ran longer than 0.7 s" in str(found.failure)
    assert found.seconds < 20
    assert gone(place.wait_for("pid"))


@pytest.mark.fault("J3")
@pytest.mark.parametrize("session", [False, True], ids=["holds stdout", "double daemon"])
def test_what_a_command_leaves_behind_is_ended(place: Place, session: bool) -> None:
    """A background child that holds stdout does not hold us, and does not live on."""
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {CHILD + SLEEP!r}], start_new_session=True)"
    script = f"""
subprocess.Popen([sys.executable, '-S', '-c', {(child if session else CHILD + SLEEP)!r}], start_new_session={session})
while not os.path.exists('pid'): time.sleep(0.01)
print('{{"acc": 1}}')
"""
    begun = time.monotonic()
    found = place.evaluate(script)

    assert found.scores["acc"].value == 1
    assert time.monotonic() - begun < 20
    assert gone(place.wait_for("pid"))
    assert "it left 1 running" in (place.root / "log-1").read_text()


@pytest.mark.fault("J4")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output_is_cut(place: Place, stream: str) -> None:
    """A flood ends the command, and the disk gets it back."""
    found = place.evaluate(f"while True: sys.{stream}.write('x' * 65536)", output_bytes=1_000_000)

    assert "more than 1000000 bytes" in str(found.failure)
    sizes = [path.stat().st_size for path in place.root.glob("log-1*")]
    assert sum(sizes) < 1_100_000


@pytest.mark.fault("J11")
def test_stop_ends_it_soon(place: Place) -> None:
    """`stop` ends a running command and everything it started."""
    stop = threading.Event()
    evaluator = place.evaluator(f"{WRITE_PID}{SLEEP}")
    answers: list[Evaluation] = []

    def work() -> None:
        with evaluator.session({}) as session:
            answers.append(session.evaluate(place.task(), stop))

    thread = threading.Thread(target=work)
    thread.start()
    pid = place.wait_for("pid")
    begun = time.monotonic()
    stop.set()
    thread.join(20)

    assert "stopped" in str(answers[0].failure)
    assert time.monotonic() - begun < 10
    assert gone(pid)


def test_parallel_evaluations_end_only_their_own(place: Place) -> None:
    """One that ends leaves what the others started alone."""
    slow = place.evaluator(
        "subprocess.run(['sleep', '1.5']); print('{\"acc\": 1}')" if "quick" not in sys.argv else ""
    )
    (place.root / "quick.py").write_text(
        "import subprocess\nsubprocess.Popen(['sleep', '60'])\nprint('{\"acc\": 2}')"
    )
    quick = CommandEvaluator(
        EvaluatorSpec(ACC, run=f"{sys.executable} -S quick.py"), folder=str(place.root), grace=0.5
    )
    answers: dict[str, Evaluation] = {}
    task, other = place.task(), place.task()
    thread = threading.Thread(target=lambda: answers.update(slow=score(slow, task, RSOUP_EVALUATION="m")))
    thread.start()
    answers["quick"] = score(quick, other, RSOUP_EVALUATION="m")
    thread.join(20)

    assert {name: found.scores["acc"].value for name, found in answers.items()} == {"slow": 1, "quick": 2}


PARENT = """
import sys, threading
from test_evaluators import Place
from pathlib import Path
place = Place(Path(sys.argv[1]))
place.evaluate(Path(sys.argv[1], "script").read_text())
"""


@pytest.mark.fault("J12")
def test_nothing_outlives_a_killed_parent(place: Place, tmp_path: Path) -> None:
    """kill -9 of the process that evaluates: the command and its daemons end, too."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "script").write_text(
        f"subprocess.Popen([sys.executable, '-S', '-c', {CHILD + SLEEP!r}], start_new_session=True)\n{SLEEP}"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", PARENT, str(inner)], env=environment) as parent:
        place.root = inner
        pid = place.wait_for("pid")
        parent.send_signal(signal.SIGKILL)

    assert gone(pid)


def test_a_killed_keeper_is_noticed(place: Place) -> None:
    """If the keeper itself is killed, what it kept is found by its mark."""
    script = f"""
subprocess.Popen([sys.executable, '-S', '-c', {CHILD + SLEEP!r}], start_new_session=True)
while not os.path.exists('pid'): time.sleep(0.01)
os.kill(os.getppid(), 9); {SLEEP}
"""
    found = place.evaluate(script)

    assert "watched over it was killed" in str(found.failure)
    assert gone(place.wait_for("pid"))


def test_marked_processes_are_found() -> None:
    """A mark ends its processes and those below it, no others."""
    sleepers = [
        subprocess.Popen(["sleep", "60"], env={**os.environ, processes.MARK: mark}, start_new_session=True)
        for mark in ("rsoup-test-a", "rsoup-test-a/1", "rsoup-test-ab")
    ]
    try:
        assert processes.kill_marked("rsoup-test-a") == 2
        assert [sleeper.wait(10) for sleeper in sleepers[:2]] == [-9, -9]
        assert sleepers[2].poll() is None
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


FUNCTION_PARENT = """
import sys
from test_evaluators import *
spec = EvaluatorSpec(ACC, function="scorer:score")
evaluator = FunctionEvaluator(spec, folder=sys.argv[1], recipe_for=recipe, starter=STARTER)
score(evaluator, Place(Path(sys.argv[1])).task())
"""


@pytest.mark.fault("J12")
def test_no_function_outlives_a_killed_parent(place: Place, tmp_path: Path) -> None:
    """kill -9 of the process that evaluates ends the process of its function."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "scorer.py").write_text(f"{PYTHON}def score(soup):\n    {WRITE_PID}    {SLEEP}")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", FUNCTION_PARENT, str(inner)], env=environment) as parent:
        place.root = inner
        pid = place.wait_for("pid")
        parent.send_signal(signal.SIGKILL)

    assert gone(pid)


# --- what decides the scores ---


def test_identity_knows_the_files(place: Place) -> None:
    """Another script, file, version or address is another evaluator; another direction is not."""
    (place.root / "data").write_text("1")
    first = place.evaluator("pass", files=("data",)).identity
    assert json.loads(json.dumps(first)) == first
    assert set(first["files"]) >= {"score.py", "data"}  # type: ignore[call-overload]
    assert (
        place.evaluator("pass", files=("data",), metrics=(replace(ACC[0], maximise=False),)).identity == first
    )

    others = [
        place.evaluator("pass", files=("data",), version="2").identity,
        place.evaluator("pass", files=("data",), metrics=(Metric("acc", "$.b"),)).identity,
        place.evaluator("pass #", files=("data",)).identity,
    ]
    (place.root / "data").write_text("2")
    others.append(place.evaluator("pass", files=("data",)).identity)
    assert all(other != first for other in others)


# --- functions ---


class _Soup:
    """A soup that knows its mix."""

    opened = 0

    def __init__(self, text: str) -> None:
        _Soup.opened += 1
        self.text, self.number = text, _Soup.opened

    def __enter__(self) -> _Soup:
        return self

    def __exit__(self, *_: object) -> None:
        print("closed", flush=True)

    def set_mix(self, mix: list[Fraction], *, scale: Fraction) -> None:
        self.mix, self.scale = mix, scale


STARTER = (
    f"import sys; sys.path[:1] = [{str(Path(processes.__file__).parents[2])!r}, {str(Path(__file__).parent)!r}]; "
    "import rsoup.sweep.function_worker as worker; import test_evaluators; "
    "worker.main(sys.argv[1:], opener=test_evaluators._Soup)"
)


def recipe(point: Point) -> object:
    """The recipe of a point's soup: another for each training step."""
    parts = [Ingredient(name, (f"{name}-{point.step}",)) for name in ("a", "b")]
    return make_recipe(Request(parts, mix=list(point.mix)))


@pytest.fixture
def function(place: Place) -> Iterator[Callable[..., FunctionEvaluator]]:
    """Makes an evaluator of a module's text."""

    def made(text: str, **options: object) -> FunctionEvaluator:
        (place.root / "scorer.py").write_text(PYTHON + textwrap.dedent(text))
        spec = EvaluatorSpec(**{"metrics": ACC, "function": "scorer:score", **options})  # type: ignore[arg-type]
        return FunctionEvaluator(spec, folder=str(place.root), recipe_for=recipe, grace=0.5, starter=STARTER)  # type: ignore[arg-type]

    return made


Made = Callable[..., FunctionEvaluator]


def test_a_function_gets_the_live_soup(place: Place, function: Made) -> None:
    """One process and one opened soup for all λ; another soup for another training step; arguments by name."""
    evaluator = function(
        """
        def score(soup, seed, *, step=None):
            print("printed", seed); print("told", file=sys.stderr)
            return {"acc": (float(soup.mix[0] * soup.scale), 0.25), "opened": soup.number, "pid": os.getpid()}
        """,
        metrics=(Metric("acc", "$.acc"), Metric("opened", "$.opened"), Metric("pid", "$.pid")),
    )
    points = [Point(HALF), Point((Fraction(1, 4), Fraction(3, 4)), Fraction(1, 2)), Point(HALF, step=3)]
    tasks = [place.task(point=point, model=None) for point in points]
    with evaluator.session({"RSOUP_EVALUATION": "mine"}) as session:
        found = [session.evaluate(task, threading.Event()) for task in tasks]

    assert [one.failure for one in found] == [None] * 3
    assert [one.scores["acc"].value for one in found] == [0.5, 0.125, 0.5]
    assert found[0].scores["acc"].error == 0.25
    assert [one.scores["opened"].value for one in found] == [1, 1, 2]
    assert len({one.scores["pid"].value for one in found}) == 1
    assert gone(int(found[0].scores["pid"].value))
    assert "printed 7" in Path(f"{tasks[1].log}.out").read_text()
    assert "told" in Path(tasks[1].log).read_text()
    assert not evaluator.needs_files


FUNCTIONS = {
    "raises": ("raise ValueError('no \\x1b such')", "ValueError: no \\u{1b} such"),
    "exits": ("sys.exit(3)", "SystemExit: 3"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "leaves": ("os._exit(4)", "exit status 4"),
    "leaves well": ("os._exit(0)", "exit status 0 before it answered"),
    "crashes": ("os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
    "hangs": ("time.sleep(60)", "ran longer than 1.5 s"),
    "floods": ("while True: print('x' * 65536)", "more than 1000000 bytes"),
    "returns nothing": ("return None", "NoneType, not a mapping"),
    "returns NaN": ("return {'acc': float('nan')}", "it returned NaN for acc"),
    "returns infinity": ("return {'acc': 10 ** 999}", "it returned an infinite number for acc"),
    "returns a text": ("return {'acc': '0.5'}", "acc is the text '0.5'"),
    "returns true": ("return {'acc': True}", "acc is true, not a number"),
    "returns a list": ("return {'acc': [1]}", "list for a metric, not a number"),
    "returns three": ("return {'acc': (1, 2, 3)}", "a tuple of 3"),
    "returns another": ("return {'loss': 1}", "has no 'acc', only 'loss'"),
    "returns a book": ("return {'acc': 1, 'b': 'x' * 3_000_000}", "more than a megabyte"),
    "negative error": ("return {'acc': (1, -1)}", "cannot be negative"),
}


@pytest.mark.fault("J1", "J2", "J4", "J5")
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_bad_function_fails_and_the_next_task_goes_on(place: Place, function: Made, kind: str) -> None:
    """The failure is said in words, and the same session answers the next task."""
    body, words = FUNCTIONS[kind]
    evaluator = function(
        f"def score(soup, seed):\n    if seed == 8: return {{'acc': 1}}\n    {body}",
        timeout_seconds=1.5 if kind == "hangs" else None,
        output_bytes=1_000_000,
    )
    with evaluator.session({}) as session:
        bad = session.evaluate(place.task(), threading.Event())
        good = session.evaluate(place.task(seed=8), threading.Event())

    assert words in str(bad.failure)
    assert bad.scores == {}
    assert (good.failure, good.scores["acc"].value if good.scores else None) == (None, 1) or kind == "hangs"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scorer", "not of the form"),
        ("scorer:missing", "defines no 'missing'"),
        ("nowhere:score", "no module 'nowhere'"),
        ("scorer.inner:score", "no module 'scorer.inner'"),
        ("space:score", "without __init__.py"),
        ("broken:score", "is not Python, line 1"),
    ],
)
def test_a_function_that_is_not_there_is_refused_before(place: Place, name: str, words: str) -> None:
    """E0238, and nothing of the module was run."""
    (place.root / "scorer.py").write_text("raise SystemExit\ndef score(soup): ...")
    (place.root / "broken.py").write_text("def")
    (place.root / "space").mkdir()
    with pytest.raises(UsageError) as error:
        FunctionEvaluator(
            EvaluatorSpec(ACC, function=name),
            folder=str(place.root),
            recipe_for=recipe,  # type: ignore[arg-type]
        )

    assert error.value.code == "E0238"
    assert words in error.value.message


def test_make_chooses(place: Place) -> None:
    """A command needs the soup's files, a function does not."""
    (place.root / "scorer.py").write_text("from math import *\nscore = lambda soup: {}")
    command = EvaluatorSpec(ACC, run=f"{sys.executable} {{base}} {{model}}")
    made = evaluators.make(command, folder=str(place.root), recipe_for=recipe, base="b")  # type: ignore[arg-type]
    function = EvaluatorSpec(ACC, function="scorer:score")
    other = evaluators.make(function, folder=str(place.root), recipe_for=recipe)  # type: ignore[arg-type]

    assert (made.needs_files, other.needs_files) == (True, False)


def test_a_module_that_fails_to_import_is_a_failure(place: Place, function: Made) -> None:
    """What the import says is the failure; another source is another evaluator."""
    evaluator = function("import nowhere_at_all\ndef score(soup): return {}")

    assert "it cannot be imported: ModuleNotFoundError" in str(score(evaluator, place.task()).failure)
    assert evaluator.identity != function("def score(soup): return {}").identity
