"""The page and the terminal's plot: whole, deterministic, safe against every text, nothing from elsewhere."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsoup.errors import UsageError
from rsoup.report.page import page
from rsoup.report.page_data import scaling
from rsoup.report.page_document import read
from rsoup.report.page_samples import IMAGE_BYTES, collect, left
from rsoup.report.plot import ASCII, RESET, UNICODE, scatter, tick_texts, ticks

VOID = {"meta", "input", "img"}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def point(names: list[str], shares: list[str], **fields: Any) -> dict[str, Any]:
    """One point of a metrics document, done and off the front unless `fields` say otherwise."""
    return {
        "point": "-".join(shares), "lambda": dict(zip(names, shares, strict=True)), "scale": "1", "step": None,
        "status": "done", "select": {}, "report": None, "front": False, "expert": None, "failure": None,
        "seconds": 1.5, "soup": None, "command": None, "origin": "design",
    } | fields  # fmt: skip


def document(names: list[str], rows: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A metrics document with two rewards and a guard metric."""
    return {
        "schema": "rsoup-metrics/1", "ingredients": names, "base": "base", "method": "linear",
        "evaluators": ["python score.py {model}"],
        "metrics": {
            "low": {"direction": "maximise", "guard": False, "address": "$.low"},
            "cost": {"direction": "minimise", "guard": False, "address": "$.cost"},
            "perplexity": {"direction": "minimise", "guard": True, "address": "$.p"},
        },
        "points": rows, "front": [row["point"] for row in rows if row["front"]],
        "hypervolume": None, "greedy": None, "notes": [],
    } | fields  # fmt: skip


def scores(low: float, cost: float, error: float | None = None) -> dict[str, Any]:
    """Scores of all three metrics."""
    return {"low": {"value": low, "error": error, "n": 3}, "cost": {"value": cost, "error": None, "n": 1}, "perplexity": {"value": 7.25, "error": None, "n": 1}}  # fmt: skip


def whole() -> dict[str, Any]:
    """Two ingredients, two steps, errors, a failure, a report split, a hypervolume, a greedy trail, notes."""
    names = ["low", "high"]
    rows = [
        point(names, ["1", "0"], select=scores(0.9, 3.0, 0.0125), front=True, expert="low", step=100, command="rsoup merge a b --lambda 1,0"),
        point(names, ["0.5", "0.5"], select=scores(0.7, 1.0), report=scores(0.65, 1.1), front=True, step=100, scale="0.5", samples=[{"prompt": "say", "output": "done"}]),
        point(names, ["0", "1"], select=scores(0.1, 1.5), expert="high", step=200),
        point(names, ["1/3", "2/3"], status="failed", failure="exit status 7", seconds=None),
    ]  # fmt: skip
    hypervolume = {"value": 0.4125, "reference": {"low": 0.1, "cost": 3.0}, "how": "the volume of the test"}
    return document(names, rows, hypervolume=hypervolume, greedy={"kept": [0]}, notes=["a note"])


class Reader(HTMLParser):
    """Collects tags with attributes and the text; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """It closes the tag opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Remember it."""
        self.words.append(data)


def test_the_page_says_everything() -> None:
    """Values with errors, the guard metric, the failure and its reason, the hypervolume, the commands, the notes."""
    read = Reader(page(whole()))
    text = " ".join(read.words)

    for words in (
        "0.9 ± 0.013 (n = 3)", "perplexity (guard)", "low, report", "0.65", "1/3-2/3: exit status 7", "0.4125",
        "the volume of the test", "rsoup merge a b --lambda 1,0", "a note", "Greedy soup", "cost against low",
        "low against λ", "step 100", "η = 0.5", "python score.py {model}", "3 done, 1 failed",
    ):  # fmt: skip
        assert words in text, words


def test_the_pictures_have_every_measured_point() -> None:
    """A mark per measured point and figure, a line per step, one error bar for the one error."""
    read = Reader(page(whole()))
    of = [attributes.get("class") or "" for _, attributes in read.tags]

    figures = 1 + 3  # one pair of rewards; three metrics over λ
    assert sum(name.startswith(("front ", "pale ")) for name in of) == 3 * figures
    assert of.count("bar") == 2
    assert len([tag for tag, attributes in read.tags if tag == "svg" and "viewbox" in attributes]) == figures


def test_three_ingredients_have_triangles_and_many_rewards_at_most_six_pairs() -> None:
    """A triangle per reward; of ten pairs six are drawn, and the page says so."""
    names = ["a", "b", "c"]
    metrics = {f"r{i}": {"direction": "maximise", "guard": False, "address": "$"} for i in range(5)}
    select = {name: {"value": float(i), "error": None, "n": None} for i, name in enumerate(metrics)}
    text = page(
        document(names, [point(names, ["1/3", "1/3", "1/3"], select=select, front=True)], metrics=metrics)
    )

    assert text.count("<svg viewBox") == 6 + 5
    assert "4 more pairs" in text
    assert "fuller is better" in text


def test_a_page_of_nothing_is_a_page() -> None:
    """No points yet: the head alone."""
    text = page(document(["a"], []))

    assert "<svg" not in text
    Reader(text)


def test_equal_documents_give_equal_pages() -> None:
    """No time, no random names."""
    assert page(whole()) == page(copy.deepcopy(whole()))


HOSTILE = "\"'><script>window.__hacked=1</script><img src=x onerror=window.__hacked=1>&\x1b[31m\u202e\u2028\x00</title></style>--></svg>"


def poisoned(value: Any) -> Any:
    """The document with every free text hostile."""
    fixed = {"schema", "direction", "scale", "status", "lambda"}
    if isinstance(value, dict):
        return {k: v if k in fixed else poisoned(v) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


def hostile() -> dict[str, Any]:
    """The whole document with hostile names, values, commands, samples."""
    found: dict[str, Any] = poisoned(whole())
    found["ingredients"] = [f"low{HOSTILE}", f"high{HOSTILE}"]
    found["metrics"] = {f"{k}{HOSTILE}": v for k, v in whole()["metrics"].items()}
    for row, clean in zip(found["points"], whole()["points"], strict=True):
        row["lambda"] = {f"{k}{HOSTILE}": v for k, v in clean["lambda"].items()}
        row["select"] = {f"{k}{HOSTILE}": v for k, v in clean["select"].items()}
        row["report"] = {f"{k}{HOSTILE}": v for k, v in (clean["report"] or {}).items()}
    return found


def test_no_text_gets_out_of_its_place() -> None:
    """Hostile strings everywhere: the same tags as without them, no handler, no control character, nothing to load."""
    text = page(hostile())
    read = Reader(text)

    assert [tag for tag, _ in read.tags] == [tag for tag, _ in Reader(page(whole())).tags]
    names = {name for _, attributes in read.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    assert not names & {"src", "href", "style"}
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)


def test_the_policy_allows_the_pages_own_style_and_script_only() -> None:
    """The digests in the policy are those of what stands in the page."""
    text = page(whole())
    found = [re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("style", "script")]

    assert "default-src 'none'" in text
    assert all(
        base64.b64encode(hashlib.sha256(m[1].encode()).digest()).decode() in text.split("<style>")[0]
        for m in found
        if m
    )
    assert all(found)
    assert not re.search(r"https?:|url\(|@import", text)


def test_the_embedded_data_is_json_that_cannot_end_its_element() -> None:
    """ASCII without <, > and &; parsed, it has every measured point in the order of the document."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page(hostile()), re.DOTALL)
    assert found
    assert found[1].isascii()
    assert not set("<>&") & set(found[1])

    data = json.loads(found[1])
    assert [row["lambda"] for row in data["points"]] == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    assert [row["select"][0][0] for row in data["points"]] == [0.9, 0.7, 0.1]
    assert data["points"][0]["select"][0] == [0.9, "0.9 ± 0.013 (n = 3)", 0.0125]
    assert data["points"][0]["altered"]


def test_normalised_rewards_are_divided_by_the_experts_range_of_the_last_step() -> None:
    """That of the last step which has both; of a reward in which they are equal, that of all points."""
    names = ["low", "high"]
    rows = [
        point(names, ["1", "0"], select=scores(0.0, 3.0), expert="low", step=1),
        point(names, ["0", "1"], select=scores(9.0, 3.5), expert="high", step=1),
        point(names, ["1", "0"], select=scores(1.0, 4.0), expert="low", step=2),
        point(names, ["0", "1"], select=scores(5.0, 4.0), expert="high", step=2),
    ]
    found = scaling(read(document(names, rows)))

    assert found is not None
    assert found.spans == (4.0, 1.0)
    assert "'cost'" in found.how


def test_a_large_page_has_less_than_a_megabyte_beyond_its_data() -> None:
    """2000 points × 8 rewards, all on the front: against metrics.json; and of no points, less than 100 kB."""
    names = ["a", "b"]
    metrics = {f"r{k}": {"direction": "maximise", "guard": False, "address": "$"} for k in range(8)}
    rows = [
        point(
            names, [f"{i}/1999", f"{1999 - i}/1999"], front=True, command=f"rsoup merge a b --lambda {i}/1999,{1999 - i}/1999 -o soup",
            select={name: {"value": math.sin(i + k), "error": 0.0123456789, "n": 3} for k, name in enumerate(metrics)},
        )
        for i in range(2000)
    ]  # fmt: skip
    found = document(names, rows, metrics=metrics)

    assert len(page(found).encode()) < len(json.dumps(found, indent=2)) + 1_000_000
    assert len(page(document(names, [])).encode()) < 100_000


def test_samples_and_images_are_on_the_page() -> None:
    """Lines stay lines, everything else is made visible; images are allowed by the policy only where there are some."""
    found = whole()
    found["points"][0]["samples"] = [
        {"prompt": "a\nb \u0645\u06cc\u200c\u062e", "output": f"x\r{HOSTILE}"}
    ] * 9
    assert "img-src" not in page(found)
    found["points"][1]["images"] = [{"name": f"cat{HOSTILE}", "data": PIXEL}]
    text = page(found)
    read = Reader(text)

    assert "img-src data:;" in text
    assert [attributes["src"] for tag, attributes in read.tags if tag == "img"] == [PIXEL]
    assert sum(attributes.get("class") == "sample" for _, attributes in read.tags) == 8 + 1
    assert ">a\nb \u0645\u06cc\u200c\u062e<" in text
    assert ">x\\u{d}&quot;" in text
    assert "\u202e" not in text


def test_samples_beyond_what_a_page_can_carry_are_left_out_and_counted() -> None:
    """24 million characters in all."""
    names = ["low", "high"]
    rows = [
        point(names, ["1", "0"], point=f"p{i}", select=scores(0.5, 1.0), samples=[{"prompt": "x" * 6_000_000, "output": ""}])
        for i in range(6)
    ]  # fmt: skip
    text = page(document(names, rows))

    assert "Those of 2 more points are left out." in text
    assert text.count("x" * 6_000_000) == 4


def test_what_an_evaluator_left_is_collected_from_its_folder(tmp_path: Path) -> None:
    """Samples in the order of the file, images by name; malformed lines, links, other files, large ones are passed over."""
    png = base64.b64decode(PIXEL.split(",")[1])
    lines = [{"prompt": "p", "output": "o", "score": 1}, 3, {"prompt": 1, "output": "o"}, {"output": "o"}, {"prompt": "q", "output": "z" * 5000}]  # fmt: skip
    (tmp_path / "samples.jsonl").write_text("nothing\n" + "\n".join(map(json.dumps, lines)) + "\n[[[\n")
    (tmp_path / "b.png").write_bytes(png)
    (tmp_path / "a.PNG").write_bytes(png)
    (tmp_path / "c.png").write_bytes(b"<svg/>")
    (tmp_path / "d.png").write_bytes(png + bytes(IMAGE_BYTES))
    (tmp_path / "e.svg").write_bytes(png)
    (tmp_path / "f.jpg").symlink_to(tmp_path / "b.png")
    (tmp_path / "g.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    os.mkfifo(tmp_path / "h.png")
    found: dict[str, Any] = collect(str(tmp_path))

    assert [sample["prompt"] for sample in found["samples"]] == ["p", "q"]
    assert len(found["samples"][1]["output"]) == 4000
    assert [image["name"] for image in found["images"]] == ["a.PNG", "b.png", "g.jpg"]
    assert found["images"][0]["data"] == PIXEL
    assert found["images"][2]["data"].startswith("data:image/jpeg;base64,")
    assert left(found).size > 4000
    assert collect(str(tmp_path / "nowhere")) == {}
    assert collect(str(tmp_path / "samples.jsonl")) == {}


def test_another_schema_is_refused() -> None:
    """E0241, with what to do."""
    with pytest.raises(UsageError) as caught:
        page({"schema": "rsoup-metrics/9\x1b"})

    assert caught.value.code == "E0241"
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"points": None}, {"points": [3]}, {"metrics": {"low": {"guard": False}}}, {"ingredients": "low"},
        {"metrics": {"low": {"guard": False, "direction": "up"}}}, {"hypervolume": {"value": float("nan"), "reference": {}, "how": ""}},
        {"points": [point(["low", "high"], ["x", "1"])]}, {"points": [point(["low"], ["1"])]},
        {"points": [point(["low", "high"], ["0", "1"], select={"low": {"value": "7"}})]}, {"method": None, "greedy": 3},
        {"points": [point(["low", "high"], ["0", "1"], scale="much")]}, {"points": [point(["low", "high"], ["0", "1"], samples=[{"prompt": "p"}])]},
        {"points": [point(["low", "high"], ["0", "1"], images=[{"name": "n", "data": "https://example.org/a.png"}])]},
        {"points": [point(["low", "high"], ["0", "1"], images=[{"name": "n", "data": "data:image/png;base64,PHN2Zy8+"}])]},
        {"points": [point(["low", "high"], ["0", "1"], images="n")]}, {"points": [point(["low", "high"], ["0", "1"], samples=["p"])]},
    ],
)  # fmt: skip
def test_a_document_that_is_not_whole_is_refused(change: dict[str, Any]) -> None:
    """E0242: a part that is missing, or of another kind."""
    with pytest.raises(UsageError) as caught:
        page(whole() | change)

    assert caught.value.code == "E0242"


number = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, 1.0, -1e-5, 1e7]))
marks = st.sampled_from(["front", "dominated", "expert"])


@given(
    st.lists(st.tuples(number, number, marks), min_size=1, max_size=20),
    st.integers(24, 80),
    st.integers(6, 30),
    st.booleans(),
)
def test_any_plot_fits(points: list[Any], width: int, height: int, unicode: bool) -> None:
    """Never wider or higher than asked, whatever the values; an expert is always seen; ASCII is ASCII."""
    lines = scatter(points, width=width, height=height, unicode=unicode, labels=("\x1b[2J", "y" * 200))
    body = "".join(lines[1:-3])

    assert len(lines) == height
    assert "\x1b" not in "".join(lines)
    if unicode:
        assert (UNICODE["expert"] in body) == any(mark == "expert" for _, _, mark in points)
    else:
        assert "".join(lines[1:-1]).isascii()
        assert (ASCII["expert"] in body) == any(mark == "expert" for _, _, mark in points)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.integers(2, 9))
def test_ticks_span_the_values_evenly(values: list[float], about: int) -> None:
    """First ≤ all values ≤ last, ascending, and no two texts are alike."""
    found = ticks(values, about)
    slack = 1e-8 * (found[-1] - found[0])

    assert found == sorted(set(found))
    assert found[0] - slack <= min(values) <= max(values) <= found[-1] + slack
    assert len(set(tick_texts(found))) == len(found) >= 2


def test_a_small_plot_line_by_line() -> None:
    """Two experts in the corners, a front point between them, a dominated one below."""
    points: list[Any] = [
        (0.0, 1.0, "expert"),
        (1.0, 0.0, "expert"),
        (0.5, 1.0, "front"),
        (0.0, 0.0, "dominated"),
    ]
    lines = scatter(points, width=40, height=9, labels=("a", "b"), unicode=False)
    colour = scatter(points, width=40, height=9, labels=("a", "b"), colour=True)

    assert lines[0] == "b"
    assert lines[1].split("|")[1].startswith("x")
    assert "o" in lines[1]
    assert lines[5].split("|")[1].startswith(".")
    assert lines[5].endswith("x")
    assert lines[-1].startswith("o front  . dominated  x expert")
    assert f"{UNICODE['front']}{RESET}" in colour[1]


def test_what_cannot_be_drawn() -> None:
    """No points: no lines. NaN is refused."""
    assert scatter([]) == []
    with pytest.raises(ValueError, match="finite"):
        scatter([(float("nan"), 1.0, "front")])
