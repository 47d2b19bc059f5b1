"""The page in a real headless browser: every control, keyboard, phone, dark, hostile texts, the policy."""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find
from test_report_page import HOSTILE, PIXEL, document, hostile, point, whole

from rsoup.front.pareto import front
from rsoup.mix import format_number
from rsoup.report.page import page

CHROMIUM = find()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on this machine's PATH")
SHOWN = "document.querySelectorAll('#front .mark').length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of this file, with a home of its own."""
    assert CHROMIUM is not None
    found = Browser(CHROMIUM, tmp_path_factory.mktemp("home"))
    yield found
    found.close()


@pytest.fixture(autouse=True)
def nothing_goes_wrong(request: pytest.FixtureRequest, browser: Browser) -> Iterator[None]:
    """After each test: no error, no exception, no violation, no request, unless the test took them away."""
    yield
    assert browser.troubles() == []


def simplex(count: int, steps: int) -> list[tuple[Fraction, ...]]:
    """The grid of λ with `steps` steps on every edge."""
    return [
        tuple(Fraction(i, steps) for i in mix)
        for mix in product(range(steps + 1), repeat=count)
        if sum(mix) == steps
    ]


def sweep(
    count: int,
    rewards: int,
    mixes: Sequence[Sequence[Fraction]],
    *,
    steps: Sequence[int | None] = (None,),
    scales: Sequence[str] = ("1",),
    minimise: Sequence[int] = (),
    flat: bool = False,
    error: float | None = 0.03,
) -> dict[str, Any]:
    """A metrics document with made-up scores, the front of each step marked."""
    draw = random.Random(7)
    names = [f"ingredient{i}" for i in range(count)]
    metrics = {f"reward{k}": {"direction": "minimise" if k in minimise else "maximise", "guard": False, "address": "$"} for k in range(rewards)}  # fmt: skip
    weights = [[draw.uniform(0.1, 2) * 10 ** (k % 3) for _ in names] for k in range(rewards)]
    rows = []
    for step, scale, mix in product(steps, scales, mixes):
        values = [
            7.0 if flat else sum(w * float(m) for w, m in zip(own, mix, strict=True)) + draw.gauss(0, 0.2)
            for own in weights
        ]
        select = {name: {"value": v, "error": error, "n": 3} for name, v in zip(metrics, values, strict=True)}
        shares = [format_number(share) for share in mix]
        name = f"p{len(rows)}"
        alone = names[mix.index(Fraction(1))] if 1 in mix and scale == "1" else None
        command = (
            f"rsoup merge {' '.join(names)} --lambda {','.join(shares)} --base 'my base' -o soup{len(rows)}"
        )
        rows.append(point(names, shares, point=name, select=select, step=step, scale=scale, expert=alone, command=command))  # fmt: skip
    for step in steps:
        own = [row for row in rows if row["step"] == step]
        up = [k not in minimise for k in range(rewards)]
        for i in front([[score["value"] for score in row["select"].values()] for row in own], up):
            own[i]["front"] = True
    return document(names, rows, metrics=metrics)


@functools.cache
def documents() -> dict[str, dict[str, Any]]:
    """All the kinds of documents that a page must stand."""
    report = sweep(2, 2, simplex(2, 4))
    for row in report["points"]:
        row["report"] = row["select"]
    some = sweep(2, 2, simplex(2, 6))
    del some["points"][2]["select"]["reward1"]
    some["points"][3] |= {"status": "failed", "select": {}, "failure": "exit status 1"}
    extreme = sweep(2, 2, simplex(2, 4), error=None)
    for row, value in zip(extreme["points"], (1e300, -1e300, 0.0, 1e-300, 5e-324), strict=True):
        row["select"]["reward0"]["value"] = value
    return {
        "whole": whole(), "hostile": hostile(), "report split": report, "some are missing": some, "extreme": extreme,
        "no points": sweep(2, 2, []), "none done": document(["a", "b"], [point(["a", "b"], ["1", "0"], status="pending")]),
        "one point": sweep(2, 2, [(Fraction(1, 2), Fraction(1, 2))]), "one ingredient": sweep(1, 2, [(Fraction(1),)], scales=("0", "0.5", "1")),
        "one reward": sweep(2, 1, simplex(2, 6)), "all equal": sweep(3, 3, simplex(3, 3), flat=True),
        "three of each": sweep(3, 3, simplex(3, 5), minimise=[1]), "five ingredients": sweep(5, 2, simplex(5, 2)),
        "eight rewards": sweep(3, 8, simplex(3, 3), error=None), "five steps, five scales": sweep(2, 2, simplex(2, 3), steps=(1, 2, 3, 4, 50), scales=("0", "1/2", "1", "1.5", "2")),
        "affine": sweep(2, 2, [(Fraction(3, 2), Fraction(-1, 2)), (Fraction(1), Fraction(1))]), "no rewards": document(["a"], [], metrics={}),
        "samples": with_samples(), "long words": long_words(),
    }  # fmt: skip


def long_words() -> dict[str, Any]:
    """Every text one word, wider than a window."""
    word = "abcdefgh" * 60
    shares = [["1", "0", "0"], ["0", "1", "0"], ["1/3", "1/3", "1/3"]]
    names = [f"{word}{i}" for i in range(3)]
    rows = [
        point(names, mix, point=f"{word}{mix}", expert=names[i] if "1" in mix else None, command=f"rsoup merge {word}", failure=word,
              select={f"{word}{k}": {"value": 1e-9 * (i + k), "error": 1e-12, "n": 12345} for k in range(4)}, report={}, front=True, origin=word)
        for i, mix in enumerate(shares)
    ]  # fmt: skip
    metrics = {f"{word}{k}": {"direction": "minimise", "guard": False, "address": "$"} for k in range(4)}
    samples = {"samples": [{"prompt": word, "output": word}], "images": [{"name": word, "data": PIXEL}]}
    rows = [*(row | samples for row in rows), point(names, ["1", "0", "0"], point=word, status="failed", failure=word)]  # fmt: skip
    return document(names, rows, metrics=metrics, evaluators=[word], base=word, method=word, notes=[word], greedy={word: word},
                    hypervolume={"value": 0.5, "reference": {word: 1.0}, "how": word})  # fmt: skip


def with_samples() -> dict[str, Any]:
    """Three points, two of which share a prompt and the name of an image; the third has neither."""
    found = sweep(2, 2, simplex(2, 2))
    found["points"][0] |= {"samples": [{"prompt": "Why?", "output": "Because\nof 0"}, {"prompt": "only 0", "output": "x"}], "images": [{"name": "a.png", "data": PIXEL}]}  # fmt: skip
    found["points"][2] |= {"samples": [{"prompt": "Why?", "output": "Because of 2"}], "images": [{"name": "a.png", "data": PIXEL}]}  # fmt: skip
    return found


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Any:
    """Opens the page of a document."""

    def open_page(found: dict[str, Any], **window: Any) -> None:
        file = tmp_path / "report.html"
        file.write_text(page(found), encoding="utf-8")
        browser.open(file, **window)

    return open_page


EVERYTHING = """(() => {
  const tell = (e, kind) => e.dispatchEvent(new Event(kind, {bubbles: true}));
  for (const s of document.querySelectorAll('select')) for (const o of s.options) { s.value = o.value; tell(s, 'change'); }
  for (const r of document.querySelectorAll('input[type=range]')) for (const v of [r.min, r.max, (+r.min + +r.max) / 3]) { r.value = v; tell(r, 'input'); }
  for (let turn = 0; turn < 2; turn += 1) for (const e of document.querySelectorAll('input[type=checkbox], button')) e.click();
  for (const e of document.querySelectorAll('tr, .mark, summary')) e.dispatchEvent(new MouseEvent('click', {bubbles: true}));
})()"""


@pytest.mark.parametrize("kind", sorted(documents()) if CHROMIUM else [])
def test_every_control_of_every_page_works_without_a_complaint(
    kind: str, browser: Browser, show: Any
) -> None:
    """Nothing is thrown, logged or refused by the policy, whatever is touched; at 320 pixels nothing sticks out."""
    show(documents()[kind], width=320, height=640)
    measured = any(row["select"] for row in documents()[kind]["points"])

    assert browser.js("getComputedStyle(document.querySelector('#explore') ?? document.head).display !== 'none'") == measured  # fmt: skip
    assert browser.js("document.documentElement.scrollWidth") <= 320
    browser.js(EVERYTHING)
    assert browser.js("document.documentElement.scrollWidth") <= 320
    if measured:
        assert not browser.js("/NaN|Infinity|undefined/.test(document.querySelector('main').outerHTML)")  # fmt: skip


def chosen(browser: Browser) -> str:
    """The name of the point that is chosen, the same wherever the page says it."""
    name = browser.text("#chosen")
    assert browser.text("tr[aria-current] :first-child") == name
    return name


def best(found: dict[str, Any], weights: Sequence[float], spans: Sequence[float]) -> str:
    """argmax of Σ μ̂ₖ rₖ / spanₖ by brute force, minimised rewards negative."""
    signs = [1 if metric["direction"] == "maximise" else -1 for metric in found["metrics"].values()]

    def worth(row: dict[str, Any]) -> float:
        values = [score["value"] for score in row["select"].values()]
        return sum(w * s * v / span for w, s, v, span in zip(weights, signs, values, spans, strict=True))

    return str(max(found["points"], key=worth)["point"])


def ranges(found: dict[str, Any]) -> list[float]:
    """What the experts' values span, reward by reward."""
    experts = [row for row in found["points"] if row["expert"]]
    columns = [[row["select"][name]["value"] for row in experts] for name in found["metrics"]]
    return [max(column) - min(column) for column in columns]


@pytest.mark.parametrize("name", ["three of each", "eight rewards", "five ingredients"])
def test_a_preference_chooses_the_best_measured_point(name: str, browser: Browser, show: Any) -> None:
    """Slider by slider, normalised by the experts' ranges and raw: the point that brute force finds, and its command."""
    found = documents()[name]
    count = len(found["metrics"])
    show(found)
    weights = [1 / count] * count
    for raw in (False, True):
        if raw:
            browser.click("#normalised")
            assert "raw" in browser.text("#wanted")
        spans = [1.0] * count if raw else ranges(found)
        for k in [*range(count), 0]:
            browser.js(f"document.querySelector('#wish-{k}').focus()")
            browser.press("Home")
            browser.press("ArrowRight", 5 * (k + 1))
            value = round(0.05 * (k + 1), 2)
            rest = sum(w for i, w in enumerate(weights) if i != k)
            weights = [value if i == k else w / rest * (1 - value) for i, w in enumerate(weights)]
            assert chosen(browser) == best(found, weights, spans)
            assert browser.text("#wanted").endswith(chosen(browser))


def nearest(found: dict[str, Any], mix: Sequence[float]) -> set[str]:
    """The measured points nearest to a λ by brute force; several where they are as near but for rounding."""

    def apart(row: dict[str, Any]) -> float:
        return sum((float(Fraction(share)) - m) ** 2 for share, m in zip(row["lambda"].values(), mix, strict=True))  # fmt: skip

    least = min(map(apart, found["points"]))
    return {row["point"] for row in found["points"] if apart(row) < least + 1e-9}


def test_the_slider_of_two_ingredients_goes_to_the_nearest_measured_point(
    browser: Browser, show: Any
) -> None:
    """For every hundredth; the page says that it is the nearest one that is measured."""
    found = sweep(2, 2, simplex(2, 7))
    show(found)
    browser.js("document.querySelector('#share-0').focus()")
    browser.press("Home")
    for hundredth in range(1, 41):
        browser.press("ArrowRight")
        assert chosen(browser) in nearest(found, [1 - hundredth / 100, hundredth / 100])
        assert f"nearest measured point {chosen(browser)}" in browser.text("#nearest")


def test_the_triangle_goes_to_the_nearest_measured_point_by_keys_and_by_pointer(browser: Browser, show: Any) -> None:  # fmt: skip
    """Arrow keys move λ in hundredths, tenths with Shift; a click on a corner is that ingredient alone."""
    found = sweep(3, 3, simplex(3, 4))
    show(found)
    browser.click("tr[data-point='0']")
    shares = [float(Fraction(share)) for share in found["points"][0]["lambda"].values()]
    assert shares == [0, 0, 1]
    browser.js("document.querySelector('.handle').focus()")
    browser.press("ArrowDown", 6, shift=True)
    browser.press("ArrowRight", 7)
    assert chosen(browser) in nearest(found, [0.23, 0.37, 0.4])
    assert "0.23" in browser.js("document.querySelector('.handle').getAttribute('aria-valuetext')")

    place = "(() => { const [x, y] = document.querySelector('#triangle polygon').getAttribute('points').split(' ')[1].split(',').map(Number), b = document.querySelector('#triangle').getBoundingClientRect(); return [b.x + x, b.y + y]; })()"
    x, y = browser.js(place)
    browser.point("mousePressed", x, y)
    browser.point("mouseReleased", x, y)
    assert chosen(browser) in nearest(found, [0, 1, 0])


def test_many_ingredients_have_a_slider_each(browser: Browser, show: Any) -> None:
    """The others keep their proportions, and the nearest measured point is chosen, of points that lie anywhere."""
    draw = random.Random(3)
    mixes = [[draw.randint(0, 9) + (i == k) for i in range(5)] for k in range(5) for _ in range(12)]
    found = sweep(5, 2, [tuple(Fraction(part, sum(mix)) for part in mix) for mix in mixes])
    show(found)
    start = next(row for row in found["points"] if row["point"] == browser.text("#chosen"))
    mix = [float(Fraction(share)) for share in start["lambda"].values()]
    for k in range(5):
        browser.js(f"document.querySelector('#share-{k}').focus()")
        browser.press("Home")
        browser.press("ArrowRight", 30)
        for value in [i / 100 for i in range(31)]:
            rest = sum(share for i, share in enumerate(mix) if i != k)
            mix = [value if i == k else s / rest * (1 - value) if rest else (1 - value) / 4 for i, s in enumerate(mix)]  # fmt: skip
        assert chosen(browser) in nearest(found, mix)


def test_the_page_can_be_used_by_keyboard_alone(browser: Browser, show: Any) -> None:
    """Tab comes to one point of the front, arrows go on, Enter chooses, Escape hides the hint, Tab goes on to copying."""
    found = sweep(2, 2, simplex(2, 10))
    show(found)
    browser.js("document.querySelector('#hide').focus()")
    browser.press("Tab")
    assert browser.js("document.activeElement.getAttribute('aria-label')").startswith("λ ingredient0")
    browser.press("Home")
    browser.press("ArrowRight", 3)
    order = sorted(found["points"], key=lambda row: row["select"]["reward0"]["value"])
    assert f"reward0 {order[3]['select']['reward0']['value']:.6g} ± 0.03 (n = 3)" in browser.text("#tip")
    assert not browser.js("document.querySelector('#tip').hidden")
    browser.press("Enter")
    assert chosen(browser) == order[3]["point"]
    assert order[3]["point"] in browser.text("#said")
    assert browser.js("document.activeElement.getAttribute('aria-selected')") == "true"
    browser.press("Escape")
    assert browser.js("document.querySelector('#tip').hidden")
    browser.press("Tab", 2)
    assert browser.js("document.activeElement.id") == "copy"
    browser.press("Enter")
    browser.wait("document.querySelector('#copied').textContent !== ''")


def test_copying_copies_what_is_shown(browser: Browser, show: Any) -> None:
    """The clipboard has the document's command; where there is no clipboard, the text is selected."""
    found = sweep(2, 2, simplex(2, 3))
    browser.ask("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    show(found)
    browser.tell("Page.bringToFront")
    command = next(row["command"] for row in found["points"] if row["point"] == browser.text("#chosen"))
    browser.click("#copy")
    browser.wait("document.querySelector('#copied').textContent === 'Copied.'")
    assert browser.js("navigator.clipboard.readText()") == command

    browser.js("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    browser.click("#copy")
    browser.wait("document.querySelector('#copied').textContent.includes('Ctrl+C')")
    assert browser.js("String(getSelection())") == command


def test_every_points_command_and_scores_are_the_documents(browser: Browser, show: Any) -> None:
    """Row by row of the table, the panel shows that point's own."""
    found = documents()["report split"]
    show(found)
    for i, row in enumerate(found["points"]):
        browser.click(f"tr[data-point='{i}']")
        assert chosen(browser) == row["point"]
        assert browser.text("#command") == row["command"]
        values = [f"{score['value']:.6g} ± 0.03 (n = 3)" for score in row["select"].values()]
        cells = browser.js("[...document.querySelectorAll('#values td')].map(c => c.textContent)")
        assert cells == [text for text in values for _ in range(2)]  # select and report are the same here


def test_dominated_points_hide_on_demand(browser: Browser, show: Any) -> None:
    """Marks, lines and rows of the front stay, a dominated one is no longer chosen, and all come back."""
    found = documents()["three of each"]
    show(found)
    count = sum(row["front"] for row in found["points"])
    assert 0 < count < len(found["points"])
    dominated = next(i for i, row in enumerate(found["points"]) if not row["front"])
    browser.click(f"tr[data-point='{dominated}']")
    browser.js("document.querySelector('#hide').focus()")
    browser.press(" ")

    assert browser.js(SHOWN) == count
    assert (
        browser.js("[...document.querySelectorAll('tr[data-point]')].filter(r => !r.hidden).length") == count
    )
    assert chosen(browser) in {row["point"] for row in found["points"] if row["front"]}
    browser.press(" ")
    assert browser.js(SHOWN) == len(found["points"])


def test_steps_and_scales_are_filtered(browser: Browser, show: Any) -> None:
    """Without a step, its points are gone; without any scale, all are, and the page says so."""
    found = documents()["five steps, five scales"]
    show(found)
    assert browser.js("new Set([...document.querySelectorAll('#front .mark')].map(m => m.getAttribute('class').match(/c\\d/)[0])).size") == 5  # fmt: skip
    browser.click("#steps input[value='50']")
    assert browser.js(SHOWN) == sum(row["step"] != 50 for row in found["points"])
    browser.click("#scales input[value='1/2']")
    assert browser.js(SHOWN) == sum(row["step"] != 50 and row["scale"] != "1/2" for row in found["points"])
    for scale in ("0", "1", "1.5", "2"):
        browser.click(f"#scales input[value='{scale}']")
    assert browser.js(SHOWN) == 0
    assert browser.text("#chosen") == "No point is shown"


def test_axes_can_be_chosen(browser: Browser, show: Any) -> None:
    """From left to right, the points are in the order of the metric that is chosen."""
    found = documents()["three of each"]
    show(found)
    for k in range(3):
        browser.js(f"(() => {{ const s = document.querySelector('#across'); s.value = 'm{k}'; s.dispatchEvent(new Event('change')); }})()")  # fmt: skip
        order = browser.js("[...document.querySelectorAll('#front circle.mark')].sort((a, b) => a.getAttribute('cx') - b.getAttribute('cx')).map(m => +m.dataset.i)")  # fmt: skip
        values = [found["points"][i]["select"][f"reward{k}"]["value"] for i in order]
        assert values == sorted(values)


def test_hovering_and_touching_a_point(browser: Browser, show: Any) -> None:
    """The pointer shows what is known of a point, a click near it chooses it."""
    found = documents()["three of each"]
    show(found)
    browser.hover("#front .mark[data-i='4']")
    assert found["points"][4]["command"].split("--lambda ")[1].split(",")[0] in browser.text("#tip")
    x, y = browser.place("#front polygon.mark")
    browser.point("mousePressed", x + 3, y)
    browser.point("mouseReleased", x + 3, y)
    number = int(browser.js("document.querySelector('.mark[aria-selected=true]').dataset.i"))
    assert chosen(browser) == found["points"][number]["point"]


def test_a_click_in_parallel_coordinates_chooses_the_line_there(browser: Browser, show: Any) -> None:
    """On an axis at the height of a point's value, better higher: the point with that value, on every axis."""
    found = documents()["three of each"]
    show(found)
    for k, (name, metric) in enumerate(found["metrics"].items()):
        values = {row["point"]: row["select"][name]["value"] for row in found["points"]}
        worst, best_value = sorted((min(values.values()), max(values.values())), reverse=metric["direction"] == "minimise")  # fmt: skip
        for row in found["points"][::5]:
            browser.place("#parallel")
            x, top, bottom, left, above = browser.js(
                f"(() => {{ const [x, top, bottom] = document.querySelectorAll('#parallel .axis')[{k}].getAttribute('d').match(/[\\d.]+/g).map(Number),"
                " b = document.querySelector('#parallel').getBoundingClientRect(); return [x, top, bottom, b.x, b.y]; })()"
            )
            share = (values[row["point"]] - worst) / (best_value - worst)
            place = left + x, above + bottom - share * (bottom - top)
            browser.point("mousePressed", *place)
            browser.point("mouseReleased", *place)
            assert values[chosen(browser)] == pytest.approx(values[row["point"]], abs=0.01 * abs(best_value - worst))  # fmt: skip


def test_two_points_side_by_side_with_what_was_left_of_them(browser: Browser, show: Any) -> None:
    """Differences with their errors; the same prompt stands beside itself, and images are shown."""
    found = with_samples()
    show(found)
    browser.click("tr[data-point='2']")
    browser.click("#keep")
    assert browser.js("document.querySelector('#compare').hidden")
    browser.click("tr[data-point='0']")
    gap = found["points"][0]["select"]["reward0"]["value"] - found["points"][2]["select"]["reward0"]["value"]
    rows = browser.js("[...document.querySelectorAll('#differences tr')].map(r => [...r.cells].map(c => c.textContent))")  # fmt: skip
    cell = next(row for row in rows if row[0] == "reward0")[3]
    assert float(cell.split(" ± ")[0]) == float(f"{gap:.3g}")
    assert cell.split(" ± ")[1] == f"{0.03 * 2**0.5:.2g}"
    texts = browser.js("[...document.querySelector('#answers .beside').children].map(e => e.textContent)")
    assert texts == ["p0", "p2", "Why?Because\nof 0", "Why?Because of 2", "only 0x", "–", "a.png", "a.png"]
    assert browser.js("Promise.all([...document.querySelectorAll('#answers img')].map(i => i.decode().then(() => i.naturalWidth)))") == [1, 1]  # fmt: skip
    browser.click("tr[data-point='1']")
    assert "–" in browser.text("#answers")
    browser.click("#forget")
    assert browser.js("document.querySelector('#compare').hidden")


def test_hostile_texts_stay_texts(browser: Browser, show: Any) -> None:
    """Nothing of them becomes an element or runs, in the page or in what the script draws."""
    show(hostile())
    browser.js(EVERYTHING)

    assert browser.js("window.__hacked") is None
    assert browser.js("document.querySelectorAll('main script, main link, main iframe, main a, main title:not(svg title), main style').length") == 0  # fmt: skip
    assert browser.js("[...document.querySelectorAll('*')].every(e => [...e.attributes].every(a => !/^on|^style$|href/.test(a.name) || e.id === 'tip'))")  # fmt: skip
    assert browser.js("document.querySelectorAll('img').length") == 0
    assert "<script>" in browser.text("#chosen")
    assert "\u202e" not in browser.text("body")
    assert HOSTILE[:5] in browser.text("h1")


def test_a_command_that_cannot_be_shown_is_not_offered_to_copy(browser: Browser, show: Any) -> None:
    """What would be copied is never anything else than what is read."""
    found = sweep(2, 2, simplex(2, 1))
    found["points"] = found["points"][:1]
    found["points"][0]["command"] = "rsoup merge '\u202egpj.exe' -o soup"
    show(found)

    assert browser.text("#command") == "rsoup merge '\\u{202e}gpj.exe' -o soup"
    assert browser.js("document.querySelector('#copy').hidden")
    assert "metrics.json" in browser.text("#copied")


def test_the_policy_refuses_what_the_page_does_not_do(browser: Browser, show: Any) -> None:
    """No other script, no markup from text, nothing from elsewhere."""
    show(whole())
    assert browser.js("(() => { try { document.body.innerHTML = '<b>x</b>'; return 'done'; } catch (e) { return e.name; } })()") == "TypeError"  # fmt: skip
    browser.js("(() => { const i = document.createElement('img'); i.src = 'data:image/png;base64,AAAA'; document.body.append(i); })()")  # fmt: skip
    assert browser.js("(() => { try { document.body.setAttribute('onclick', 'window.__hacked = 1'); return 'done'; } catch (e) { return e.name; } })()") == "TypeError"  # fmt: skip
    assert browser.js("fetch('data:text/plain,x').then(() => 'done', e => e.name)") == "TypeError"
    assert browser.js("window.__hacked") is None
    refused = {text.split(" ")[0] for text in browser.js("window.__violations")}
    assert {"require-trusted-types-for", "img-src", "connect-src"} <= refused
    browser.log.clear()
    browser.js("window.__violations.length = 0")


CONTRAST = """(() => {
  const parse = t => t.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return parse(getComputedStyle(document.body).backgroundColor); };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const texts = [...document.querySelectorAll('main *')].filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const inks = texts.map(e => [e.outerHTML.slice(0, 80), ratio(parse(e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color), ground(e))]);
  const marks = [...document.querySelectorAll('.mark, .chosen[r], .bar, .frame, .axis')].map(e => [e.outerHTML.slice(0, 80), ratio(parse(getComputedStyle(e)[e.matches('.front') ? 'fill' : 'stroke']), ground(e))]);
  return [inks.filter(([, r]) => r < 4.5), marks.filter(([, r]) => r < 3), inks.length, marks.length];
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_can_both_be_read(dark: bool, browser: Browser, show: Any) -> None:
    """Every text has 4.5 : 1 against what is behind it, every mark and line of a picture 3 : 1 (WCAG 2.2, AA)."""
    found = sweep(3, 3, simplex(3, 2), steps=range(1, 9), scales=("0.5", "1"), error=3.0)
    show(found, dark=dark)
    ground = browser.js("getComputedStyle(document.body).backgroundColor")

    assert (ground == "rgb(255, 255, 255)") != dark
    faint_texts, faint_marks, texts, marks = browser.js(CONTRAST)
    assert (faint_texts, faint_marks) == ([], [])
    assert texts > 100
    assert marks > 90


def test_every_control_has_a_name(browser: Browser, show: Any) -> None:
    """A screen reader finds no slider, box, list, button, option or table without one; the live regions are there."""
    for kind in ("three of each", "five steps, five scales", "samples"):
        show(documents()[kind])
        browser.js(
            "document.querySelectorAll('details').forEach(d => d.replaceWith(...d.children))"
        )  # groups by nature
        nodes = browser.tell("Accessibility.getFullAXTree")["nodes"]
        roles = {"slider", "button", "checkbox", "switch", "combobox", "option", "listbox", "group", "region", "img", "image"}  # fmt: skip
        found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored") and n["role"]["value"] in roles]  # fmt: skip
        assert len(found) > 20
        assert [role for role, name in found if not name] == []
        assert browser.js("document.querySelectorAll('[role=status]').length") == 2


def test_without_script_everything_written_and_drawn_is_there(browser: Browser, show: Any) -> None:
    """Pictures, tables and samples stand open; of the controls there is nothing."""
    browser.tell("Emulation.setScriptExecutionDisabled", value=True)
    try:
        show(with_samples())
        nodes = browser.tell("Accessibility.getFullAXTree")["nodes"]
    finally:
        browser.tell("Emulation.setScriptExecutionDisabled", value=False)
    seen = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]

    assert ("image", "reward1 against reward0") in seen or ("img", "reward1 against reward0") in seen
    assert ("columnheader", "command") in seen
    assert any(name == "Samples, by point" for _, name in seen)
    assert not {role for role, _ in seen} & {"slider", "combobox", "checkbox"}
    show(with_samples())  # for the check after the test, which asks the page


def test_thousands_of_points_are_fast(browser: Browser, show: Any) -> None:
    """2024 points × 8 rewards: there within seconds, and a slider's step takes less than half a second."""
    found = sweep(4, 8, simplex(4, 21))
    assert len(found["points"]) == 2024
    start = time.monotonic()
    show(found)
    assert browser.js(SHOWN) == 2024
    assert time.monotonic() - start < 20

    step = "(() => { const s = document.querySelector('#wish-0'), t = performance.now(); for (const v of [.1, .4, .7, .9]) { s.value = v; s.dispatchEvent(new Event('input')); document.body.offsetWidth; } return (performance.now() - t) / 4; })()"
    assert browser.js(step) < 500


def test_what_a_script_reads_is_what_the_document_says(browser: Browser, show: Any) -> None:
    """The embedded data is the document's, digit for digit."""
    found = documents()["eight rewards"]
    show(found)
    data = json.loads(browser.text("#data"))

    assert [[score[0] for score in row["select"]] for row in data["points"]] == [
        [score["value"] for score in row["select"].values()] for row in found["points"]
    ]
    assert [row["lambda"] for row in data["points"]] == [
        [float(Fraction(share)) for share in row["lambda"].values()] for row in found["points"]
    ]
