"""What the pages say is true: they are fresh, complete, their links lead somewhere, their commands run."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

import pytest
import torch
from checkpoints import related, tree, write_folder
from safetensors.torch import save_file
from typer.models import ParameterInfo
from typer.testing import CliRunner
from warm import rsoup

from rsoup import load_recipe
from rsoup.cli.app import app
from rsoup.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if path.name != "sweep.yaml")


def load_generator() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


generate = load_generator()


# --- the generated pages


def test_generated_pages_are_fresh() -> None:
    """docs/cli.md, errors.md and faults.md are what docs/generate.py makes of the code and the tests."""
    assert generate.stale() == [], "run python docs/generate.py"


def test_every_error_code_is_documented() -> None:
    """Every code in the source is found with at least one message: the generator overlooks none."""
    assert generate.codes_in_source() == {refusal.code for refusal in generate.refusals()}


def test_every_exit_code_is_documented() -> None:
    """The table of exit codes holds every class of errors."""
    assert {str(kind.exit_code) for kind in generate.classes().values()} <= generate.EXITS.keys()


def test_every_error_code_is_provoked() -> None:
    """Every code in the source occurs in a test: nothing is refused that no test has been refused."""
    files = {*(ROOT / "tests").glob("*.py")} - {Path(__file__), ROOT / "tests" / "fault_catalogue.py"}
    provoked = {code for file in files for code in generate.CODE.findall(file.read_text(encoding="utf-8"))}

    assert sorted(generate.codes_in_source() - provoked) == []


def test_faults_are_known() -> None:
    """Every mark names a fault of the catalogue; a fault that is put off has no test yet."""
    book = generate.catalogue()
    marked = {fault for test in generate.marked_tests() for fault in test.faults}

    assert set() == marked - book.CASES.keys() - book.LATER_CASES.keys()
    assert [fault for fault, case in book.CASES.items() if case.later and fault in marked] == []


def test_faults_have_short_titles() -> None:
    """Every fault of the groups has a title of at most twelve words, and the groups have no gaps."""
    book = generate.catalogue()
    sizes = {"A": 32, "B": 12, "C": 12, "D": 18, "E": 18, "F": 22, "G": 10, "H": 19, "I": 6, "J": 20, "K": 20}

    assert list(book.CASES) == [f"{group}{i + 1}" for group, size in sizes.items() for i in range(size)]
    assert [case.title for case in book.CASES.values() if not 0 < len(case.title.split()) <= 12] == []


# --- the command line


class Option(NamedTuple):
    """A parameter of a command: what one types for it, and its help."""

    command: str
    names: tuple[str, ...]
    help: str | None


def options() -> Iterator[Option]:
    """Every option and argument of every command."""
    for info in app.registered_commands:
        assert info.callback is not None
        for name, hint in get_type_hints(info.callback, include_extras=True).items():
            for parameter in getattr(hint, "__metadata__", ()):
                assert isinstance(parameter, ParameterInfo)
                texts = [
                    parameter.default,
                    *(parameter.param_decls or ()),
                ]  # Typer takes the first for a default
                typed = tuple(text for text in texts if isinstance(text, str) and text.startswith("-"))
                shown = typed or (str(parameter.metavar or name),)
                yield Option(info.name or info.callback.__name__, shown, parameter.help)


@pytest.mark.parametrize("option", list(options()), ids=lambda option: f"{option.command} {option.names[-1]}")
def test_every_option_is_documented(option: Option) -> None:
    """Every option of every command has help, which docs/cli.md shows in the command's section."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## rsoup {option.command}\n")[2].partition("\n## ")[0]

    assert option.help
    assert option.help.endswith(".")
    assert [name for name in option.names if name not in section] == []


@pytest.mark.parametrize("info", app.registered_commands, ids=lambda info: info.callback.__name__)
def test_every_command_is_documented(info: Any) -> None:
    """Every command has a section in docs/cli.md, a sentence of help and an example."""
    name = info.name or info.callback.__name__
    text = inspect.getdoc(info.callback) or ""

    assert f"\n## rsoup {name}\n" in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert text.splitlines()[0].endswith(".")
    assert f"rsoup {name}" in text.partition("Example")[2]


def test_every_method_is_documented() -> None:
    """Every way of mixing stands in the table of docs/arithmetic.md."""
    page = (ROOT / "docs" / "arithmetic.md").read_text(encoding="utf-8")

    assert [name for name in METHODS if f"| `{name}` |" not in page] == []


# --- links


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def without_code(text: str) -> str:
    """Markdown without its fenced blocks and code spans."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link in a page points to a file that is there, and to a heading in it."""
    text = page.read_text(encoding="utf-8")
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            dead.append(target)
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            if anchor not in map(slug, headings):
                dead.append(target)

    assert text.strip()
    assert dead == []


def test_the_map_is_whole() -> None:
    """The README's table of where things are names what there is: every module, and nothing that is not."""
    table = README.partition("## Where things are")[2].partition("\n\n[")[0]
    names = re.findall(r"`([\w*/.]+)`", table)
    paths = [name if name.startswith("rsoup/") else f"rsoup/{name}" for name in names]
    found = {file for path in paths for file in ROOT.glob(path.rstrip("/"))}
    private = {ROOT / "rsoup" / name for name in ("__init__.py", "__main__.py", "__pycache__", "py.typed")}

    assert [path for path in paths if not list(ROOT.glob(path.rstrip("/")))] == []
    assert set() == set((ROOT / "rsoup").iterdir()) - found - private


# --- the README's commands


def blocks(*languages: str) -> list[str]:
    """The README's fenced blocks in these languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


class Shown(NamedTuple):
    """A command of the README, the output shown below it, and the exit code its comment tells (else 0)."""

    command: str
    output: tuple[str, ...]
    exit_code: int


def shown_commands() -> list[Shown]:
    """Every command of the README's `console` and `sh` blocks, in order."""
    found: list[Shown] = []
    for text in blocks("console", "sh"):
        prompted = text.startswith("$ ")
        for line in filter(None, text.splitlines()):
            if prompted and not line.startswith("$ "):
                found[-1] = found[-1]._replace(output=(*found[-1].output, line))
                continue
            code = re.search(r"# .*\bexit (\d+)", line)
            found.append(Shown(line.removeprefix("$ "), (), int(code[1]) if code else 0))
    return found


SETUP = [shown for shown in shown_commands() if "pip install" in shown.command]


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `rsoup demo` was run, as the README's first command does."""
    folder = tmp_path_factory.mktemp("readme")
    command = [sys.executable, "-m", "rsoup", "demo", "--quiet"]
    subprocess.run(command, cwd=folder, check=True, timeout=300, capture_output=True)
    return folder


def alike(line: str) -> str:
    """A line of output but for its numbers, which differ from machine to machine."""
    return re.sub(r"-?\d+(\.\d+)?", "0", line.strip())


def test_commands_of_the_readme_run(demo_folder: Path) -> None:
    """Every command of the README does what it says there: its exit code, and its output but for the numbers."""
    run = [shown for shown in shown_commands() if shown not in SETUP]
    assert len(run) > 2

    for shown in run:
        words = shlex.split(shown.command, comments=True)
        assert words[0] == "rsoup", shown.command
        done = rsoup(*words[1:], cwd=demo_folder)
        assert done.returncode == shown.exit_code, f"{shown.command}\n{done.stderr}"
        printed = iter([alike(line) for line in (done.stdout + done.stderr).splitlines()])
        assert all(alike(line) in printed for line in shown.output), (
            f"{shown.command}\n{done.stdout}{done.stderr}"
        )


def test_python_of_the_readme_runs(demo_folder: Path) -> None:
    """The README's Python runs as it stands there."""
    found = blocks("python")
    assert found

    for text in found:
        command = [sys.executable, "-W", "error", "-c", text]
        done = subprocess.run(
            command, cwd=demo_folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_setup_of_the_readme_is_run_by_ci() -> None:
    """The README's two commands that install something are the very lines of .ci/run."""
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()

    assert len(SETUP) == 2
    assert [shown.command for shown in SETUP if shown.command not in lines] == []


# --- the recipes


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_run(path: Path, tmp_path: Path) -> None:
    """Every recipe in recipes/ makes a soup of checkpoints that lie where it says, and says which it is."""
    file = Path(shutil.copy(path, tmp_path))
    for folder in re.findall(
        r"^ *(?:base|(?:- )?checkpoint): ([^/\s]+)/", path.read_text(encoding="utf-8"), re.MULTILINE
    ):
        (tmp_path / folder).mkdir(exist_ok=True)  # where a folder is, a/b is no address of the Hub
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    recipe = load_recipe(file)
    checkpoints = [Path(checkpoint) for _, checkpoint in recipe.checkpoints()]
    assert len(set(checkpoints)) == len(checkpoints)
    family = related(len(checkpoints))
    assert recipe.base is not None
    write_folder(recipe.base, with_layers(family.base))
    of_adapters = recipe.rank is not None or recipe.max_error is not None
    for i, (place, tensors) in enumerate(zip(checkpoints, family.tuned, strict=True)):
        if of_adapters:
            write_adapter(place, Path(recipe.base), with_layers(family.base), seed=i)
        else:
            write_folder(place, with_layers(tensors))
    before = tree(tmp_path)

    result = CliRunner().invoke(
        app, ["merge", str(file), "-o", str(tmp_path / "soup")], catch_exceptions=False
    )

    assert result.exit_code == 0
    made = {name.removeprefix("soup/"): data for name, data in tree(tmp_path).items() if name not in before}
    weights = (
        {"adapter_model.safetensors", "adapter_config.json"}
        if of_adapters
        else {"model.safetensors", "config.json"}
    )
    assert {*weights, "README.md", "rsoup.json"} <= made.keys()
    assert re.search(r"^# .*https?://", path.read_text(encoding="utf-8"), re.MULTILINE), "whose idea is it?"


def with_layers(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors with a layer 20 that is as layer 0, for recipes about early and late layers."""
    late = {name.replace("layers.0.", "layers.20."): tensor.clone() for name, tensor in tensors.items()}
    return tensors | late


def write_adapter(folder: Path, base: Path, weights: dict[str, torch.Tensor], seed: int) -> None:
    """A LoRA adapter of every layer of a base, as PEFT writes it."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name, weight in weights.items():
        if weight.dim() == 2 and name.startswith("layers."):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            rows, columns = weight.shape
            factors[f"{module}.lora_A.weight"] = torch.randn(2, columns, generator=generator)
            factors[f"{module}.lora_B.weight"] = torch.randn(rows, 2, generator=generator) * 0.01
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": 2, "lora_alpha": 4,
        "target_modules": r"layers\.\d+",
    }  # fmt: skip
    folder.mkdir(parents=True)
    save_file(factors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_every_recipe_is_documented() -> None:
    """docs/merge.md or the README links to the folder of recipes, and every recipe is a different one."""
    linked = [page for page in PAGES if "recipes)" in page.read_text(encoding="utf-8")]

    assert linked
    assert RECIPES
    assert len({load_recipe(path).sha256() for path in RECIPES}) == len(RECIPES)
