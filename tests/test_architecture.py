"""The shape of the code: one direction of imports, small files, nothing dangerous, nothing heavy at start."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rsoup

PACKAGE = Path(rsoup.__file__).parent

# A module imports only modules above it in this list, function-level and type-checking imports included.
# `rsoup` itself is the first: a version and a door that opens when somebody asks.
ORDER = [
    "rsoup",
    "rsoup.errors",
    "rsoup.tensors",
    "rsoup.mix",
    "rsoup.names",
    "rsoup.hub.address",
    "rsoup.hub.refusals",
    "rsoup.hub.patience",
    "rsoup.hub.commit",
    "rsoup.stores.snapshot",
    "rsoup.stores.address",
    "rsoup.dialects",
    "rsoup.recipe",
    "rsoup.quantities",
    "rsoup.request",
    "rsoup.recipe_nodes",
    "rsoup.recipe_form",
    "rsoup.recipe_schema",
    "rsoup.storage",
    "rsoup.storage.protocols",
    "rsoup.storage.memory",
    "rsoup.storage.views",
    "rsoup.storage.formats",
    "rsoup.storage.safetensors_header",
    "rsoup.storage.files",
    "rsoup.storage.index",
    "rsoup.storage.no_weights",
    "rsoup.storage.folder",
    "rsoup.storage.pickled",
    "rsoup.storage.pickled.zip_members",
    "rsoup.storage.pickled.zip_directory",
    "rsoup.storage.pickled.zip_write",
    "rsoup.storage.pickled.pickle_values",
    "rsoup.storage.pickled.pickle_instructions",
    "rsoup.storage.pickled.pickle_machine",
    "rsoup.storage.pickled.plain_pickle",
    "rsoup.storage.pickled.stored_tensor",
    "rsoup.storage.pickled.torch_zip",
    "rsoup.storage.pickled.torch_tensor",
    "rsoup.storage.pickled.state_dict",
    "rsoup.storage.pickled.torch_file",
    "rsoup.storage.pickled.torch_write",
    "rsoup.storage.pickled.dcp_metadata",
    "rsoup.storage.pickled.dcp",
    "rsoup.storage.pickled.sb3",
    "rsoup.storage.pickled.sb3_write",
    "rsoup.storage.weight_file",
    "rsoup.remote.halting",
    "rsoup.remote.passing",
    "rsoup.remote.pool",
    "rsoup.workers",
    "rsoup.remote.window",
    "rsoup.remote.file",
    "rsoup.remote.transfer",
    "rsoup.storage.checkpoint_source",
    "rsoup.storage.lora_file",
    "rsoup.hub.choice",
    "rsoup.hub.cache",
    "rsoup.hub.ranges",
    "rsoup.hub.mount",
    "rsoup.hub.place",
    "rsoup.stores.access",
    "rsoup.stores.place",
    "rsoup.storage.checkpoint",
    "rsoup.recipe_yaml",
    "rsoup.library",
    "rsoup.storage.here",
    "rsoup.storage.target",
    "rsoup.storage.plain",
    "rsoup.storage.rename",
    "rsoup.storage.journal",
    "rsoup.storage.parts",
    "rsoup.storage.staging",
    "rsoup.compat",
    "rsoup.compat.headers",
    "rsoup.compat.alignment",
    "rsoup.compat.config",
    "rsoup.compat.conv1d",
    "rsoup.compat.quantised",
    "rsoup.compat.tokenizer",
    "rsoup.compat.files",
    "rsoup.compat.examine",
    "rsoup.buffers",
    "rsoup.backends.passes",
    "rsoup.backends.elements",
    "rsoup.backends.with_numpy",
    "rsoup.backends.with_compiled",
    "rsoup.backends",
    "rsoup.gram",
    "rsoup.methods",
    "rsoup.layout",
    "rsoup.plan",
    "rsoup.digests",
    "rsoup.scratch",
    "rsoup.mixture",
    "rsoup.reading",
    "rsoup.kernel",
    "rsoup.progress",
    "rsoup.pot",
    "rsoup.tally",
    "rsoup.compat.tied",
    "rsoup.side_files",
    "rsoup.manifest",
    "rsoup.report",
    "rsoup.report.heritage",
    "rsoup.report.card",
    "rsoup.lora",
    "rsoup.lora.config",
    "rsoup.lora.keys",
    "rsoup.lora.parameters",
    "rsoup.lora.pipelines",
    "rsoup.lora.token_rows",
    "rsoup.lora.beginning",
    "rsoup.lora.product",
    "rsoup.lora.wholes",
    "rsoup.lora.foreign",
    "rsoup.lora.adapter",
    "rsoup.lora.placed",
    "rsoup.lora.effective",
    "rsoup.lora.experts",
    "rsoup.lora.chunks",
    "rsoup.lora.adapted",
    "rsoup.lora.foreign_source",
    "rsoup.lora.algebra",
    "rsoup.lora.design",
    "rsoup.lora.ground",
    "rsoup.lora.blocks",
    "rsoup.lora.ranks",
    "rsoup.lora.spectra",
    "rsoup.lora.compare",
    "rsoup.lora.mounting",
    "rsoup.prepare",
    "rsoup.beside",
    "rsoup.lora.factors",
    "rsoup.lora.outline",
    "rsoup.lora.result",
    "rsoup.lora.card",
    "rsoup.lora.portable",
    "rsoup.lora.pipeline_config",
    "rsoup.lora.cooking",
    "rsoup.family",
    "rsoup.family.kernel",
    "rsoup.family.survey",
    "rsoup.family.measures",
    "rsoup.family.seating",
    "rsoup.family.claims",
    "rsoup.proof",
    "rsoup.contents",
    "rsoup.family.bases",
    "rsoup.lora.opening",
    "rsoup.lora.beside",
    "rsoup.lora.planning",
    "rsoup.lora.merging",
    "rsoup.lora.fused",
    "rsoup.remote.marks",
    "rsoup.cooking",
    "rsoup.merging",
    "rsoup.proof.canonical",
    "rsoup.proof.elements",
    "rsoup.proof.sampling",
    "rsoup.proof.verdict",
    "rsoup.proof.claims",
    "rsoup.proof.located",
    "rsoup.proof.intact",
    "rsoup.proof.comparing",
    "rsoup.proof.rederive",
    "rsoup.proof.loading",
    "rsoup.proof.adapters",
    "rsoup.proof.verifying",
    "rsoup.proof.deviation",
    "rsoup.proof.differing",
    "rsoup.demo.digits",
    "rsoup.demo.train",
    "rsoup.sweep.score",
    "rsoup.sweep.spec",
    "rsoup.sweep.point",
    "rsoup.storage.whole",
    "rsoup.sweep.folder",
    "rsoup.sweep.series",
    "rsoup.sweep.inputs",
    "rsoup.sweep.evaluation",
    "rsoup.sweep.study",
    "rsoup.sweep.processes",
    "rsoup.sweep.options",
    "rsoup.sweep.record",
    "rsoup.sweep.ledger",
    "rsoup.sweep.claims",
    "rsoup.sweep.shelf",
    "rsoup.front.greedy",
    "rsoup.front.pareto",
    "rsoup.sweep.scoring",
    "rsoup.sweep.outcomes",
    "rsoup.front.surrogate",
    "rsoup.front.refine",
    "rsoup.sweep.grid",
    "rsoup.sweep.strategy",
    "rsoup.sweep.results",
    "rsoup.sweep.board",
    "rsoup.sweep.running",
    "rsoup.sweep.function_source",
    "rsoup.sweep.identity",
    "rsoup.sweep.scores",
    "rsoup.sweep.zstandard_member",
    "rsoup.sweep.harness",
    "rsoup.sweep.placeholders",
    "rsoup.sweep.command",
    "rsoup.sweep.starting",
    "rsoup.sweep.function",
    "rsoup.sweep.evaluators",
    "rsoup.report.page_samples",
    "rsoup.report.page_document",
    "rsoup.report.plot",
    "rsoup.report.page_text",
    "rsoup.report.page_figures",
    "rsoup.report.page_tables",
    "rsoup.report.page_data",
    "rsoup.report.page_explorer",
    "rsoup.report.page",
    "rsoup.sweep.summary",
    "rsoup.sweep.asking",
    "rsoup.sweep.mixes_csv",
    "rsoup.sweep.form",
    "rsoup.sweep.sweep_yaml",
    "rsoup.sweep.trackers",
    "rsoup.sweep.tracking",
    "rsoup.sweep.sweeping",
    "rsoup.demo.run",
    "rsoup.demo",
    "rsoup.console",
    "rsoup.cli.stopped",
    "rsoup.cli.methods",
    "rsoup.cli.clean",
    "rsoup.family.updates",
    "rsoup.family.adapters",
    "rsoup.family.verdict",
    "rsoup.family.adapting",
    "rsoup.family.checking",
    "rsoup.report.terminal",
    "rsoup.report.sweep_text",
    "rsoup.cli.demo",
    "rsoup.cli.figures",
    "rsoup.cli.gates",
    "rsoup.lora.serving",
    "rsoup.publish.asked",
    "rsoup.measured.strict",
    "rsoup.measured.values",
    "rsoup.measured.document",
    "rsoup.measured.columns",
    "rsoup.measured.foreign",
    "rsoup.measured.cells",
    "rsoup.measured.flat",
    "rsoup.measured.table",
    "rsoup.publish.redaction",
    "rsoup.publish.parcel",
    "rsoup.publish.refusals",
    "rsoup.publish.remote",
    "rsoup.publish.committing",
    "rsoup.analysis.data",
    "rsoup.front.assignment",
    "rsoup.front.transfer",
    "rsoup.analysis.owning",
    "rsoup.front.points",
    "rsoup.front.different",
    "rsoup.front.shape",
    "rsoup.front.batches",
    "rsoup.front.batch_shape",
    "rsoup.measured.student",
    "rsoup.front.share_interval",
    "rsoup.front.recount",
    "rsoup.front.noise",
    "rsoup.front.certainty",
    "rsoup.front.contenders",
    "rsoup.front.expected",
    "rsoup.front.chosen",
    "rsoup.front.identity",
    "rsoup.analysis.intervals",
    "rsoup.analysis.measures",
    "rsoup.front.advantage",
    "rsoup.front.versus",
    "rsoup.analysis.compared",
    "rsoup.figures.series",
    "rsoup.front.smoothing",
    "rsoup.figures.drawing",
    "rsoup.figures.axes",
    "rsoup.figures.labels",
    "rsoup.figures.palettes",
    "rsoup.figures.shapes",
    "rsoup.figures.front",
    "rsoup.figures.normalise",
    "rsoup.figures.spider",
    "rsoup.figures.terminal_spider",
    "rsoup.figures.panels",
    "rsoup.figures.connectivity",
    "rsoup.figures.advantage",
    "rsoup.figures.training",
    "rsoup.figures.heat",
    "rsoup.figures.transfer",
    "rsoup.analysis.drawn",
    "rsoup.figures.raster",
    "rsoup.publish.results",
    "rsoup.publish.publication",
    "rsoup.publish.pushing",
    "rsoup.cli.push",
    "rsoup.cli.published",
    "rsoup.proof.recooking",
    "rsoup.cli.again",
    "rsoup.cli.merge_adapter",
    "rsoup.cli.merge",
    "rsoup.cli.verify",
    "rsoup.cli.diff",
    "rsoup.cli.options",
    "rsoup.cli.proof_commands",
    "rsoup.cli.merge_arguments",
    "rsoup.cli.publish_options",
    "rsoup.cli.merge_command",
    "rsoup.lora.changes",
    "rsoup.lora.delta",
    "rsoup.lora.reducing",
    "rsoup.lora.tuned",
    "rsoup.lora.extracted",
    "rsoup.lora.extract_beside",
    "rsoup.lora.extract_plan",
    "rsoup.lora.resizing",
    "rsoup.cli.resize",
    "rsoup.lora.extracting",
    "rsoup.cli.extract",
    "rsoup.cli.adapter_commands",
    "rsoup.report.adapters",
    "rsoup.figures.layers",
    "rsoup.cli.layer_figures",
    "rsoup.cli.check",
    "rsoup.cli.check_command",
    "rsoup.cli.sweep_arguments",
    "rsoup.sweep.outlook",
    "rsoup.cli.sweep",
    "rsoup.cli.sweep_command",
    "rsoup.gate.requirements",
    "rsoup.gate.asked",
    "rsoup.gate.judging",
    "rsoup.gate.wording",
    "rsoup.gate.choosing",
    "rsoup.gate.outputs",
    "rsoup.cli.gate",
    "rsoup.cli.gate_command",
    "rsoup.front.ensembling",
    "rsoup.front.logits",
    "rsoup.cli.ensemble",
    "rsoup.cli.ensemble_command",
    "rsoup.front.connectivity",
    "rsoup.analysis.connected",
    "rsoup.analysis.along",
    "rsoup.front.parabola",
    "rsoup.front.theory",
    "rsoup.analysis.experts",
    "rsoup.front.adequacy",
    "rsoup.front.predicted",
    "rsoup.analysis.predictions",
    "rsoup.analysis.document",
    "rsoup.measured.reported",
    "rsoup.cli.reading",
    "rsoup.cli.table_options",
    "rsoup.cli.terminal_width",
    "rsoup.report.lines",
    "rsoup.report.compared_text",
    "rsoup.report.front_text",
    "rsoup.analysis.metrics",
    "rsoup.cli.front_outputs",
    "rsoup.cli.front",
    "rsoup.cli.front_command",
    "rsoup.select.expression",
    "rsoup.select.evaluation",
    "rsoup.select.grammar",
    "rsoup.select.utility",
    "rsoup.select.ranking",
    "rsoup.analysis.selected",
    "rsoup.cli.kitchen",
    "rsoup.report.select_text",
    "rsoup.select.comparisons",
    "rsoup.select.posterior",
    "rsoup.select.bradley_terry",
    "rsoup.select.weights",
    "rsoup.cli.select",
    "rsoup.cli.select_command",
    "rsoup.sweep.sweep_schema",
    "rsoup.cli.push_command",
    "rsoup.cli.recipe_command",
    "rsoup.front.decision",
    "rsoup.front.seeds",
    "rsoup.analysis.verdict",
    "rsoup.report.verdict_text",
    "rsoup.cli.verdict",
    "rsoup.cli.verdict_command",
    "rsoup.cli.app",
    "rsoup.cli",
    "rsoup.__main__",
    "rsoup.live_model",
    "rsoup.live_plan",
    "rsoup.live_loaded",
    "rsoup.live",
    "rsoup.demo.score",
    "rsoup.front",
    "rsoup.gate",
    "rsoup.sweep",
    "rsoup.sweep.function_worker",
    "rsoup.sweep.keeper",
    "rsoup.analysis",
    "rsoup.figures",
    "rsoup.measured",
    "rsoup.select",
    "rsoup.sweep.mirrored",
    "rsoup.sweep.tracking_worker",
    "rsoup.hub",
    "rsoup.publish",
    "rsoup.remote",
    "rsoup.stores",
]

MAX_LINES = 300
LONGER: dict[str, str] = {  # file → why it cannot be shorter
    "rsoup.cli.sweep_command": "one function, whose options are its arguments",
}

HEAVY = {
    "blake3", "httpx2", "huggingface_hub", "moocore", "numpy", "peft", "pydantic", "resvg_py", "rich", "safetensors", "torch", "transformers",
    "typer", "xxhash", "yaml",
}  # fmt: skip
NEVER_IMPORTED = {"click", "dill", "joblib", "marshal", "pickle", "shelve", "cloudpickle"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__"}
NEVER_LOADED = {"torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "numpy.load", "np.load"}


def module_name(file: Path) -> str:
    """`rsoup.storage.files` for its path; a package's name for its `__init__.py`."""
    parts = ("rsoup", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TEXTS = {module_name(file): file.read_text(encoding="utf-8") for file in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(text) for name, text in TEXTS.items()}


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every module a tree imports anywhere, in full, and the line; `from a import b` is a.b where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in TREES else str(node.module), node.lineno


def test_every_module_has_its_place() -> None:
    """The order names every module of rsoup once, and nothing else."""
    assert len(ORDER) == len(set(ORDER))
    assert set(TREES) == set(ORDER)


@pytest.mark.parametrize("module", ORDER[1:])
def test_imports_point_upward(module: str) -> None:
    """A module imports only what stands above it, wherever in the file it does so; hence there are no cycles."""
    above = set(ORDER[: ORDER.index(module)])
    wrong = [
        f"line {line}: {name}"
        for name, line in imported(TREES[module])
        if name.split(".")[0] == "rsoup" and name not in above
    ]

    assert wrong == []


@pytest.mark.parametrize("module", TREES)
def test_files_are_short(module: str) -> None:
    """A file has at most 300 lines, or stands in a list with the reason."""
    lines = len(TEXTS[module].splitlines())

    assert (lines > MAX_LINES) == (module in LONGER), f"{module} has {lines} lines"


@pytest.mark.parametrize("module", TREES)
@pytest.mark.fault("D3")
def test_nothing_runs_what_a_file_says(module: str) -> None:
    """No way to code from data: no pickle, no torch.load, no eval, no unsafe YAML; and no private Click of Typer's."""
    found = []
    for name, line in imported(TREES[module]):
        if name.split(".")[0] in NEVER_IMPORTED or name.endswith("._click"):
            found.append(f"line {line}: import {name}")
    for node in ast.walk(TREES[module]):
        text = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
        bare = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NEVER_CALLED
        if text == "torch.load" and module == "rsoup.proof.loading":
            continue  # `verify --load` asks torch itself, after our own reader found nothing but tensors
        if text in NEVER_LOADED or text.endswith("._click") or bare:
            found.append(f"line {getattr(node, 'lineno', 0)}: {ast.unparse(node)}")
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += [f"line {node.lineno}: {name}" for name in sorted(names & NEVER_LOADED)]

    assert found == []


@pytest.mark.parametrize("module", sorted(TREES.keys() - {"rsoup.console"}))
def test_only_the_console_prints(module: str) -> None:
    """`print`, and writing to stdout or stderr, happens in console.py alone; the commands may say typer.echo."""
    found = []
    for node in ast.walk(TREES[module]):
        text = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        printing = text == "print" or text in ("sys.stdout.write", "sys.stderr.write", "logging.basicConfig")
        echoing = text.startswith("typer.") and "echo" in text and not module.startswith("rsoup.cli")
        if printing or echoing:
            found.append(f"line {node.lineno}: {text}")

    assert found == []


@pytest.mark.parametrize("module", TREES)
def test_every_module_says_what_it_is(module: str) -> None:
    """A module's docstring begins with a line that can stand alone."""
    lines = (ast.get_docstring(TREES[module]) or "").splitlines()

    assert lines
    assert lines[0].endswith(".")
    assert len(lines) == 1 or not lines[1].strip()


def loaded_by(code: str) -> set[str]:
    """The top-level modules a fresh Python has loaded after running `code`."""
    script = (
        f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_rsoup_costs_nothing() -> None:
    """`import rsoup` loads none of the libraries it uses, nor any other part of rsoup."""
    assert set() == loaded_by("import rsoup") & HEAVY
    assert set() == loaded_by("import rsoup.errors, rsoup.recipe, rsoup.mix") & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["merge", "--help"]])
def test_help_comes_at_once(arguments: list[str]) -> None:
    """Help and version are shown without loading anything that computes."""
    code = (
        "import contextlib, io, rsoup.cli\n"
        f"sys.argv = ['rsoup', *{arguments!r}]\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    rsoup.cli.main()\n"
    )

    assert "typer" in loaded_by(code)
    assert set() == loaded_by(code) & (HEAVY - {"typer", "rich", "pydantic"})


def test_the_public_names_are_there() -> None:
    """`rsoup.__all__` is what type checkers see, sorted, and each name can be had and has a docstring."""
    seen = {
        alias.asname
        for node in ast.walk(TREES["rsoup"])
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rsoup.")
        for alias in node.names
    }

    assert sorted({*seen, "__version__"}) == rsoup.__all__
    assert all(getattr(rsoup, name).__doc__ for name in seen)
    with pytest.raises(AttributeError, match="has no attribute 'soup'"):
        rsoup.soup  # noqa: B018


def test_torch_itself_is_asked_for_weights_only() -> None:
    """The one torch.load there is says `weights_only=True`."""
    calls = [
        node
        for node in ast.walk(TREES["rsoup.proof.loading"])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]

    assert len(calls) == 1
    assert all("weights_only=True" in ast.unparse(call) for call in calls)
