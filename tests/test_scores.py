"""Scores are read strictly: an address finds one finite number, or the failure says what is there instead."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rsoup.errors import UsageError
from rsoup.sweep import harness, scores, zstandard_member
from rsoup.sweep.score import Metric, Score
from rsoup.sweep.scores import EvaluationFailed, parse_address, parse_json

KEYS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters='"'), min_size=1, max_size=8)
PLAIN = st.from_regex(r"\A[A-Za-z0-9_|,:/-]{1,8}\Z")
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


def value_of(document: object, address: str = "$.acc", error: str | None = None) -> Score:
    """The score of a metric called acc."""
    return scores.of_document(Metric("acc", address, error), document)


def failing(call: Callable[[], object]) -> str:
    """The words of a failure."""
    with pytest.raises(EvaluationFailed) as error:
        call()
    return str(error.value)


@given(
    st.lists(
        PLAIN.map(lambda name: (name, f".{name}"))
        | KEYS.map(lambda key: (key, f'["{key}"]'))
        | st.integers(0, 99).map(lambda n: (n, f"[{n}]"))
    )
)
def test_an_address_finds_what_it_names(steps: list[tuple[str | int, str]]) -> None:
    """look_up(parse(text of steps)) in a document built along the steps is its leaf."""
    document: object = 1.5
    for step, _ in reversed(steps):
        document = [None] * step + [document] if isinstance(step, int) else {step: document, f"{step}!": 2}
    text = "$" + "".join(written for _, written in steps)

    assert parse_address(text) == tuple(step for step, _ in steps)
    assert value_of(document, text).value == 1.5


@pytest.mark.parametrize(
    "text", ["", "acc", "$acc", "$.", "$..a", "$.a[", "$[01]", "$[-1]", "$['a]", "$.a b", "$[]", '$[""]', "$.a$ ", "lm-eval:x", "lm-eval::x", "inspect:x:", "other:a:b"]
)  # fmt: skip
def test_other_addresses_are_refused(text: str) -> None:
    """E0239, for the address and for that of the error."""
    for metric in (Metric("acc", text), Metric("acc", "$.acc", text)):
        with pytest.raises(UsageError) as error:
            harness.check(metric)
        assert error.value.code == "E0239"


@given(DOCUMENTS)
def test_json_is_read_as_it_is_written(document: object) -> None:
    """parse(dumps(x)) = x for all finite x."""
    assert parse_json(json.dumps(document)) == document


@given(st.text(st.sampled_from('{}[]":,0123eE.+-NaInfity tru \\u"'), max_size=40) | st.text())
@example("[" * 100_000)
@example("9" * 5000)
@example('{"a": 1, "a": 2}')
def test_any_text_is_json_or_a_failure(text: str) -> None:
    """Nothing else is raised, and what is read holds only finite numbers."""
    try:
        found = parse_json(text)
    except EvaluationFailed:
        return
    assert json.dumps(found, allow_nan=False)


@pytest.mark.fault("J5")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"acc": NaN}', "NaN"),
        ('{"acc": -Infinity}', "-Infinity"),
        ('{"acc": 1e999}', "too large"),
        ('{"x": {"acc": 1, "acc": 1}}', "'acc' twice"),
        ('{"acc": 1} x', "follows"),
        ("{'acc': 1}", "not JSON"),
    ],
)
def test_what_is_not_strict_json_fails(text: str, words: str) -> None:
    """Python's json takes most of these."""
    assert words in failing(lambda: parse_json(text))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"acc": 1}, Score(1.0)),
        ({"acc": {"value": 0.5, "stderr": 0.1}}, Score(0.5, 0.1)),
        ({"acc": {"value": 0.5}}, Score(0.5)),
        ({"acc": 0.5, "acc_stderr": 0}, Score(0.5, 0.0)),
        ({"acc": 0.5, "acc_se": 0.2}, Score(0.5, 0.2)),
        ({"acc": 0.5, "acc_stderr": None}, Score(0.5)),
        ({"acc": -0.0}, Score(0.0)),
    ],
)
def test_a_value_and_its_error(document: object, expected: Score) -> None:
    """A number, an object, or a neighbour that is its standard error."""
    assert value_of(document) == expected


@pytest.mark.fault("J5")
@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"acc": "0.5"}, "acc is the text '0.5', not a number"),
        ({"acc": True}, "acc is true"),
        ({"acc": None}, "acc is null"),
        ({"acc": [1]}, "acc is a list"),
        ({"acc": {"mean": 1}}, "acc is an object with 'mean'"),
        ({"acc": {"value": "1"}}, "acc is the text '1'"),
        ({"acc": math.nan}, "returned NaN for acc"),
        ({"acc": 10**400}, "an infinite number for acc"),
        ({"acc": 1, "acc_stderr": -1}, "cannot be negative"),
        ({"acc": 1, "acc_stderr": "N/A"}, "its standard error, is the text"),
        ({"acc": 1, "acc_se": math.inf}, "its standard error,"),
        ({"loss": 1}, "$ has no 'acc', only 'loss'"),
        ({}, "is an empty object"),
        ([1, 2], "is a list of 2"),
        (1, "is a number"),
        (None, "is null"),
    ],
)
def test_a_value_that_is_none(document: object, words: str) -> None:
    """The failure names the metric, and what stands there."""
    assert words in failing(lambda: value_of(document))


def test_an_error_has_an_address_of_its_own() -> None:
    """`error_address` wins over neighbours, and must be there."""
    document = {"acc": [0.5, 0.25], "acc_stderr": 9}

    assert value_of(document, "$.acc[0]", "$.acc[1]") == Score(0.5, 0.25)
    assert "$.acc is a list of 2" in failing(lambda: value_of(document, "$.acc[0]", "$.acc[2]"))


@pytest.mark.fault("J5")
def test_only_the_last_line_counts(tmp_path: Path) -> None:
    """Of a file of any size, the last line that is not empty."""
    path = tmp_path / "out"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return scores.last_json(str(path))

    assert read(b"x" * 3_000_000 + b'\n{"a": 1}\n\n  \r\n') == {"a": 1}
    assert read('{"é": 1}'.encode()) == {"é": 1}
    assert "printed nothing" in failing(lambda: read(b"\n \n"))
    assert "longer than" in failing(lambda: read(b" [" + b"1," * 600_000 + b"1]"))
    assert "not UTF-8: '\\xff'" in failing(lambda: read(b"\xff"))
    assert "the line is '\\u{1b}[0m{\"a\": 1}'" in failing(lambda: read(b'\x1b[0m{"a": 1}'))
    path.unlink()
    assert "cannot be read" in failing(lambda: scores.last_json(str(path)))


# --- files of evaluation programs, with the structure that they write ---

LM_EVAL: dict[str, Any] = {
    "results": {
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.25,
            "exact_match_stderr,strict-match": 0.01,
            "exact_match,flexible-extract": 0.5,
            "exact_match_stderr,flexible-extract": "N/A",
        },
        "wikitext": {
            "word_perplexity,none": 12.5,
            "word_perplexity_stderr,none": math.nan,
            "byte,none": math.nan,
        },
        "mmlu": {"alias": "mmlu"},
    },
    "groups": {"mmlu": {"acc,none": 0.6, "acc_stderr,none": 0.02}},
    "higher_is_better": {
        "gsm8k": {"exact_match": True},
        "wikitext": {"word_perplexity": False},
        "mmlu": {"acc": None},
    },
}
LIGHTEVAL = {
    "results": {
        "gsm8k|5": {"extractive_match": 0.5, "extractive_match_stderr": 0.1},
        "mmlu:anatomy|0": {"pass@k:k=1": 0.25, "ppl": 3.0, "ppl_stderr": math.nan},
        "all": {"extractive_match": 0.4},
    },
    "config_tasks": {
        "gsm8k|5": {"metrics": [{"metric_name": "extractive_match", "higher_is_better": True}]},
        "mmlu:anatomy|0": {
            "metrics": [
                {"metric_name": ["pass@k:k=1", "ppl"], "higher_is_better": {"pass@k:k=1": True, "ppl": False}}
            ]
        },
    },
}


def inspect_log(status: str = "success", task: str = "sums", **more: object) -> dict[str, object]:
    """A log of inspect-ai without its samples."""
    metrics = {name: {"name": name, "value": value, "params": {}} for name, value in [("accuracy", 0.75), ("stderr", 0.05), ("var", 2)]}  # fmt: skip
    entry = {"name": "match", "scorer": "match", "metrics": metrics}
    return {"version": 2, "status": status, "eval": {"task": task}, "results": {"scores": [entry]}, **more}


def write(folder: Path, name: str, content: object, time: int = 1) -> None:
    """A JSON file, as old as `time` says, or an `.eval` archive with a header."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".eval"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("_journal/start.json", "{}")
            if content is not None:
                archive.writestr("header.json", json.dumps(content))
    else:
        path.write_text(json.dumps(content))
    os.utime(path, (time, time))


def read(folder: Path, address: str, error: str | None = None) -> Score:
    """The score at an address of a program's file."""
    return harness.read([Metric("m", address, error)], document=lambda: {}, folder=str(folder))["m"]


@pytest.mark.parametrize(
    "name", ["__a__soup/results_2026-11-25T07-13-10.967639.json", "x_2026-11-25T07-13-10.96.json"]
)
def test_lm_eval(tmp_path: Path, name: str) -> None:
    """Value, standard error where it is one, direction where there is one, for tasks and groups."""
    write(tmp_path, name, LM_EVAL)
    write(tmp_path, "samples_gsm8k_2026-11-25T07-13-10.jsonl", [], 9)

    assert read(tmp_path, "lm-eval:gsm8k:exact_match,strict-match") == Score(0.25, 0.01, True)
    assert read(tmp_path, "lm-eval:gsm8k:exact_match,flexible-extract") == Score(0.5, None, True)
    assert read(tmp_path, "lm-eval:wikitext:word_perplexity,none") == Score(12.5, None, False)
    assert read(tmp_path, "lm-eval:mmlu:acc,none") == Score(0.6, 0.02, None)
    assert read(tmp_path, "lm-eval:mmlu:acc,none", "lm-eval:gsm8k:exact_match,strict-match") == Score(
        0.6, 0.25, None
    )
    assert "NaN for m" in failing(lambda: read(tmp_path, "lm-eval:wikitext:byte,none"))
    assert "only 'alias', 'exact_match,strict-match'" in failing(lambda: read(tmp_path, "lm-eval:gsm8k:acc"))
    assert "the tasks in the results are 'gsm8k'" in failing(lambda: read(tmp_path, "lm-eval:arc:acc"))
    assert "wrote no results" in failing(lambda: read(tmp_path / "none", "lm-eval:arc:acc"))


def test_the_newest_file_with_the_task_is_read(tmp_path: Path) -> None:
    """Two runs of one task: the later; two tasks in two files: both."""
    for time, value in ((5, 0.1), (9, 0.2), (7, 0.3)):
        write(
            tmp_path,
            f"m/results_2026-01-0{time}T00-00-00.json",
            {"results": {"a": {"acc,none": value}}},
            time,
        )
    write(tmp_path, "results_2026-01-08T00-00-00.json", {"results": {"b": {"acc,none": 0.4}}}, 99)
    (tmp_path / "results_2026-01-09T00-00-00.json").symlink_to("/dev/zero")

    assert read(tmp_path, "lm-eval:a:acc,none").value == 0.2
    assert read(tmp_path, "lm-eval:b:acc,none").value == 0.4


def test_lighteval(tmp_path: Path) -> None:
    """Tasks and metrics may hold colons; the direction stands in the task's configuration."""
    write(tmp_path, "results/org/soup/results_2026-11-25T07-13-10.967639.json", LIGHTEVAL)

    assert read(tmp_path, "lighteval:gsm8k|5:extractive_match") == Score(0.5, 0.1, True)
    assert read(tmp_path, "lighteval:mmlu:anatomy|0:pass@k:k=1") == Score(0.25, None, True)
    assert read(tmp_path, "lighteval:mmlu:anatomy|0:ppl") == Score(3.0, None, False)
    assert read(tmp_path, "lighteval:all:extractive_match") == Score(0.4)


@pytest.mark.parametrize("ending", ["json", "eval"])
def test_inspect(tmp_path: Path, ending: str) -> None:
    """The newest log of the task, if its status is success; `stderr` is that of the mean alone."""
    write(tmp_path, f"1_sums.{ending}", inspect_log("error"), 1)
    write(tmp_path, f"2_sums.{ending}", inspect_log(), 2)
    write(tmp_path, "other.json", {"a": 1}, 3)

    assert read(tmp_path, "inspect:match:accuracy") == Score(0.75, 0.05)
    assert read(tmp_path, "inspect:match:var") == Score(2.0)
    assert "'match:accuracy', 'match:stderr' and 'match:var'" in failing(
        lambda: read(tmp_path, "inspect:match:f1")
    )
    assert "no such scorer" in failing(lambda: read(tmp_path, "inspect:model:f1"))
    assert "no log of inspect-ai" in failing(lambda: read(tmp_path / "none", "inspect:match:f1"))

    write(tmp_path, f"3_other.{ending}", inspect_log(task="other"), 3)
    assert "several places" in failing(lambda: read(tmp_path, "inspect:match:accuracy"))
    write(tmp_path, f"4_sums.{ending}", inspect_log("error", error={"message": "no \x1b key"}), 4)
    assert "is 'error', not 'success': no \\u{1b} key" in failing(
        lambda: read(tmp_path, "inspect:match:accuracy")
    )


def test_reducers_tell_scores_apart(tmp_path: Path) -> None:
    """A scorer with two reducers is addressed as SCORER/REDUCER."""
    log = inspect_log()
    first = log["results"]["scores"][0]  # type: ignore[index]
    other = {**first, "reducer": "max", "metrics": {"accuracy": {"name": "accuracy", "value": 0.9}}}
    log["results"] = {"scores": [{**first, "reducer": "mean"}, other]}
    write(tmp_path, "log.json", log)

    assert "match/mean" in failing(lambda: read(tmp_path, "inspect:match:accuracy"))
    assert read(tmp_path, "inspect:match/max:accuracy") == Score(0.9)


WORDS = ["results", "groups", "a", "b", "b_stderr", "higher_is_better", "config_tasks", "metrics", "metric_name", "scores", "name", "value", "status", "success", "eval", "task", "error", "message"]  # fmt: skip
FILES = st.recursive(
    st.sampled_from([None, True, 1, 0.5, math.nan, "success", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(WORDS), FILES), max_size=2), st.sampled_from(harness.PROGRAMS)
)
@example([{"results": {"a": {"b": 1}}}], "lighteval")
def test_any_file_gives_a_finite_score_or_a_failure(documents: list[dict[str, Any]], program: str) -> None:
    """Whatever a file holds, nothing but EvaluationFailed is raised."""
    try:
        found = harness.of_files(Metric("m", f"{program}:a:b"), [("file", content) for content in documents])
    except EvaluationFailed:
        return
    assert math.isfinite(found.value)


def test_damaged_archives_are_failures(tmp_path: Path) -> None:
    """An archive without a header is an evaluation that did not end; what is no archive is said to be none."""
    write(tmp_path, "log.eval", None)
    assert "did not end" in failing(lambda: read(tmp_path, "inspect:match:accuracy"))
    (tmp_path / "log.eval").write_bytes(b"PK no")
    assert "'log.eval' cannot be read" in failing(lambda: read(tmp_path, "inspect:match:accuracy"))


def as_zstandard(path: Path, compressed: bytes) -> None:
    """An archive whose header.json claims to be compressed with Zstandard."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", compressed)
    data = bytearray(path.read_bytes())
    size = len(json.dumps(inspect_log())).to_bytes(4, "little")
    central = data.index(b"PK\x01\x02")
    for method, length in ((8, 22), (central + 10, central + 24)):
        data[method : method + 2] = zstandard_member.ZSTANDARD.to_bytes(2, "little")
        data[length : length + 4] = size
    path.write_bytes(data)


def test_zstandard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer inspect-ai compresses with Zstandard: read where something reads it, else said what to do."""

    def missing(name: str) -> object:
        raise ImportError(name)

    as_zstandard(tmp_path / "log.eval", b"whatever")
    with monkeypatch.context() as without:
        without.setattr(zstandard_member.importlib, "import_module", missing)
        assert "--log-format json" in failing(lambda: read(tmp_path, "inspect:match:accuracy"))
    zstandard = pytest.importorskip("zstandard")
    assert "cannot be read" in failing(lambda: read(tmp_path, "inspect:match:accuracy"))
    text = json.dumps(inspect_log()).encode()
    frames = [zstandard.ZstdCompressor().compress(part) for part in (text[:100], text[100:])]
    as_zstandard(tmp_path / "log.eval", b"".join(frames))
    assert read(tmp_path, "inspect:match:accuracy") == Score(0.75, 0.05)
    as_zstandard(tmp_path / "log.eval", zstandard.ZstdCompressor().compress(text * 2))
    assert "the size it claims" in failing(lambda: read(tmp_path, "inspect:match:accuracy"))


def test_files_of_lm_eval_itself(tmp_path: Path) -> None:
    """What lm-evaluation-harness writes with its own code is read."""
    tracking = pytest.importorskip("lm_eval.loggers.evaluation_tracker")
    tracker = tracking.EvaluationTracker(output_path=str(tmp_path))
    tracker.general_config_tracker.log_experiment_args("hf", "pretrained=/a/soup", None, None, False)
    tracker.save_results_aggregated(results=json.loads(json.dumps(LM_EVAL)), samples={})

    assert read(tmp_path, "lm-eval:gsm8k:exact_match,strict-match") == Score(0.25, 0.01, True)
