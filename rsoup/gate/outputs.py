"""A gate's result for machines: a Markdown table, GitHub's step outputs, a JUnit report."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable

from rsoup.errors import TargetError, UsageError, show, show_path
from rsoup.gate.judging import MET, UNDECIDED, GateResult, Judgement
from rsoup.gate.wording import because, headline, measured
from rsoup.storage import whole

_MARKS = {MET: "✅", UNDECIDED: "❔"}


def markdown(result: GateResult) -> str:
    """The result as a heading, a table with a row per condition, and its notes; names stay plain text."""
    point = f"point {escaped(result.point)}"
    lines = [f"### {'✅' if result.passed else '❌'} rsoup gate: {headline(result)}", ""]
    lines += [f"{point}, λ = {escaped(result.mix)}" if result.mix is not None else point, ""]
    lines += ["| condition | measured | | verdict |", "|---|---|---|---|"]
    lines += [
        f"| {escaped(found.condition.text)} | {measured(found)} | {_MARKS.get(found.verdict, '❌')} "
        f"| {found.verdict}: {because(found, result.confidence)} |"
        for found in result.judgements
    ]
    lines += ["", *(f"* {escaped(note, 400)}" for note in result.notes), ""]
    return "\n".join(lines)


def escaped(text: str, limit: int = 120) -> str:
    """`text` as Markdown that shows just that: no markup, no cell border, no link, no control character."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", show(text, limit))


def step_outputs(result: GateResult) -> str:
    """`pass`, `point` and `lambda` for $GITHUB_OUTPUT, each between delimiters that nobody can know beforehand."""
    values = {"pass": "true" if result.passed else "false", "point": result.point, "lambda": result.mix or ""}
    lines = []
    for name, value in values.items():
        delimiter = f"rsoup_{secrets.token_hex(16)}"
        lines += [f"{name}<<{delimiter}", value, delimiter]
    return "\n".join(lines) + "\n"


def junit(result: GateResult) -> bytes:
    """The result as a JUnit report: a test case per condition; one that is undecided and passes is skipped."""
    from xml.etree import ElementTree

    failures = [found for found in result.judgements if _fails(found, result)]
    skipped = result.count(UNDECIDED) if result.undecided_passes else 0
    counts = {
        "tests": str(len(result.judgements)), "failures": str(len(failures)), "errors": "0",
        "skipped": str(skipped), "time": "0",
    }  # fmt: skip
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "rsoup gate", **counts})
    for found in result.judgements:
        name = show(found.condition.text, 1000)
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": "rsoup.gate", "name": name, "time": "0"}
        )
        said = f"{found.verdict}: {measured(found)}; {because(found, result.confidence)}"
        if _fails(found, result):
            ElementTree.SubElement(case, "failure", {"type": found.verdict, "message": said}).text = said
        elif found.verdict == UNDECIDED:
            ElementTree.SubElement(case, "skipped", {"message": said})
        else:
            ElementTree.SubElement(case, "system-out").text = said
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _fails(found: Judgement, result: GateResult) -> bool:
    return found.verdict != MET and not (found.verdict == UNDECIDED and result.undecided_passes)


# --- the files


def check_apart(output: str | None, inputs: tuple[str | None, ...]) -> None:
    """Raise UsageError E0249 where an output is one of the files that are read."""
    if output is None or not os.path.exists(output):
        return
    for path in inputs:
        if path is not None and os.path.exists(path) and os.path.samefile(path, output):
            raise UsageError(
                "E0249", f"{show_path(output)} is read and would be written", hint="name another file"
            )


def append(path: str, text: str) -> None:
    """Put `text` at the end of a file, on a line of its own. Raises TargetError E0604."""
    _writing(path, lambda: _append(path, text.encode("utf-8", "backslashreplace")))


def _append(path: str, data: bytes) -> None:
    with open(path, "ab+") as file:
        if file.seekable() and file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            data = data if file.read(1) == b"\n" else b"\n" + data
        file.write(data)


def replace(path: str, data: bytes) -> None:
    """Make a file that holds `data`, or replace a regular one in one step. Raises TargetError E0604."""
    _writing(path, lambda: whole.replace(path, data))


def _writing(path: str, write: Callable[[], None]) -> None:
    try:
        write()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TargetError(
            "E0604",
            f"the verdict is known, but writing it failed: {show(reason)}",
            where=show_path(path),
            hint="name a file in a folder that exists and that you may write to",
        ) from error
