"""Figures as SVG: valid, safe, deterministic, true to the numbers; the terminal's spider."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.figures import front as front_module
from rsoup.figures.advantage import advantage
from rsoup.figures.axes import Box, scale, thinned
from rsoup.figures.connectivity import connectivity
from rsoup.figures.drawing import SMALL, fit, px, width_of, wrap
from rsoup.figures.front import front, staircase
from rsoup.figures.labels import Room, spread
from rsoup.figures.layers import cosines, layers
from rsoup.figures.normalise import LEAST, normalised
from rsoup.figures.palettes import contrast, diverging, ink_on, ramp
from rsoup.figures.series import Axis, Band, Kind, Layer, Mark, Model, Panel, Step, short_lambdas, undominated
from rsoup.figures.shapes import MOST_SETS
from rsoup.figures.spider import spider
from rsoup.figures.terminal_spider import columns_of, lines
from rsoup.figures.training import fronts, measures
from rsoup.figures.transfer import transfer

NS = "{http://www.w3.org/2000/svg}"
TAGS = {"svg", "title", "desc", "rect", "g", "text", "tspan", "line", "polyline", "polygon", "circle", "path"}
X, Y, LOW = Axis("reward"), Axis("other"), Axis("perplexity", maximise=False)
ROW = (0.3, 0.5, 0.2, 0.9)


def marks_with(value: float = 0.4, name: str = "n") -> list[Mark]:
    """Marks of every kind with errors; one of them has `value`, all labels are `name`."""
    kinds: list[Kind] = ["front", "front", "dominated", "expert", "expert", "base", "compared", "predicted"]
    xs = [value, 0.6, 0.4, 0.0, 1.0, 0.1, 0.3, 0.8]
    return [
        Mark(x, 1 - x, 0.02, 0.03, label=name, kind=kind, group=name)
        for x, kind in zip(xs, kinds, strict=True)
    ]


def panel_with(value: float = 0.7, name: str = "n") -> Panel:
    """A metric over λ with one point of `value`, and a predicted one."""
    points = [
        Mark(0, 0.1, None, 0.01),
        Mark(0.5, value, None, 0.01),
        Mark(1, 0.8),
        Mark(0.2, 0.3, kind="predicted"),
    ]
    return Panel(Axis(name, maximise=False), tuple(points), guard=True, verdict=name)


def steps_with(value: float = 0.4, name: str = "n") -> list[Step]:
    """Two steps of measured marks."""
    kept = tuple(mark for mark in marks_with(value, name) if mark.kind not in ("compared", "predicted"))
    return [Step(100, kept), Step(200, tuple(replace(mark, y=mark.y + 1) for mark in kept))]


FIGURES: dict[str, Callable[..., str]] = {
    "front": lambda v=0.4, n="n": front(
        marks_with(v, n), Axis(n), Axis(n, maximise=False), reference=(0, 2), curve=[(0, 1), (1, 0)], second=n, note=n
    ),
    "spider": lambda v=0.4, n="n": spider(
        [Model(n, (v, 1, 2), "base"), Model(n, (1, 2, -3)), Model(n, (0, 0, 0), "predicted")],
        [Axis(n), Axis(n, maximise=False), Axis(n)], over="base", note=n,
    ),
    "connectivity": lambda v=0.7, n="n": connectivity([panel_with(v, n)] * 4, n, n, note=n),
    "advantage": lambda v=0.4, n="n": advantage(
        [Band(2, v, v - 1, v + 1), Band(3, 0.1)], what=n, over=n, interval=n, worth=2.5, note=n
    ),
    "fronts": lambda v=0.4, n="n": fronts(steps_with(v, n), Axis(n), Axis(n), note=n),
    "measures": lambda v=0.4, n="n": measures(
        [Panel(Axis(n), (Mark(100, v, None, 0.1), Mark(1600, 2)), guard=True, verdict=n)] * 2, note=n
    ),
    "transfer": lambda v=0.4, n="n": transfer(
        [n, n], [Axis(n), Axis(n, maximise=False)], [[v, 1], [2, 3]], base=[1, 1], antagonistic=[(0, 1)], note=n
    ),
    "layers": lambda v=0.4, n="n": layers(
        [Layer(n, (v, None)), Layer("layer 0", (1, 2)), Layer("layer 1", (2, 1))], [n, n], what=n, note=n
    ),
    "cosines": lambda v=0.4, n="n": cosines([n, n], [[1, v], [None, 1]], note=n),
}  # fmt: skip


def read(svg: str) -> ElementTree.Element:
    """The root of a figure, which is valid XML."""
    return ElementTree.fromstring(svg)


def tags(root: ElementTree.Element, tag: str, **wanted: str) -> list[ElementTree.Element]:
    """The elements of a tag with those attributes."""
    found = root.iter(NS + tag)
    return [e for e in found if all(e.get(k.replace("_", "-")) == v for k, v in wanted.items())]


def said(root: ElementTree.Element) -> str:
    """All drawn words."""
    return "\n".join("".join(text.itertext()) for text in tags(root, "text"))


def points_of(e: ElementTree.Element) -> list[tuple[float, float]]:
    """The corners of a polygon or polyline."""
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in str(e.get("points")).split())]


def ticks_of(root: ElementTree.Element, anchor: str) -> list[tuple[float, float]]:
    """(value, pixel) of the ticks of the y axis (anchor `end`) or the x axis (`middle`)."""
    found = []
    for text in tags(root, "text", font_size="11", text_anchor=anchor, fill="#1a1a1a"):
        if text.get("x") is not None and re.fullmatch(r"−?[\d.]+(e[−+]?\d+)?", str(text.text)):
            value = float(str(text.text).replace("−", "-"))
            found.append(
                (value, float(str(text.get("y"))) - 4 if anchor == "end" else float(str(text.get("x"))))
            )
    return found


def linear(ticks: list[tuple[float, float]]) -> Callable[[float], float]:
    """Where values lie in pixels, by the first and the last tick."""
    (a, low), (b, high) = ticks[0], ticks[-1]
    return lambda value: low + (value - a) / (b - a) * (high - low)


# --- every figure


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_picture_with_a_title_and_a_description(name: str) -> None:
    """The root is an svg in pixels with a viewBox, read as an image by its title, on white; equal calls are equal."""
    svg = FIGURES[name]()
    root = read(svg)

    assert svg == FIGURES[name]()
    assert root.tag == f"{NS}svg"
    assert (root.get("role"), root.get("viewBox")) == ("img", f"0 0 {root.get('width')} {root.get('height')}")
    assert [child.tag for child in root][:3] == [NS + tag for tag in ("title", "desc", "rect")]
    assert root[0].text == root.get("aria-label")
    assert root[2].attrib == {"width": root.get("width"), "height": root.get("height"), "fill": "#ffffff"}


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='x",
    "&lt;&amp;\x00\x1b[31m\u202e\u200b\ud800\ufffe",
    "]]><![CDATA[ <!-- ",
    "x" * 5000,
    "日本語" * 40,
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", FIGURES)
def test_words_cannot_inject_anything(name: str, text: str) -> None:
    """Whatever names say, there are the same kinds of elements and attributes, and no invisible character."""
    svg = FIGURES[name](n=text)
    plain, hostile = read(FIGURES[name]()), read(svg)
    attributes = {key for e in hostile.iter() for key in e.attrib}

    assert {e.tag.removeprefix(NS) for e in hostile.iter()} <= TAGS
    assert attributes <= {key for e in plain.iter() for key in e.attrib} | {
        "transform",
        "text-anchor",
        "x",
        "y",
    }
    assert not any(key.startswith("on") or key in ("id", "style", "class", "href") for key in attributes)
    assert all(c.isprintable() or c == "\n" for c in svg)
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", FIGURES)
def test_numbers_that_are_not_finite_are_refused(name: str, value: float) -> None:
    """NaN and infinity are a ValueError in every figure."""
    with pytest.raises(ValueError, match=r"finite|not in"):
        FIGURES[name](v=value)


@pytest.mark.parametrize("value", [0.0, 0.4, 1e-12, 1.0, 5e-324, -1e9, 1e300, 1.7e308, -1.7e308])
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_drawn_outside_the_sheet(name: str, value: float) -> None:
    """Every mark, line and word lies inside the view box, whatever the size of the numbers."""
    if name == "cosines" and abs(value) > 1:
        pytest.skip("a cosine")
    root = read(FIGURES[name](v=value, n="a name of some length, twenty or so"))
    width, height = float(str(root.get("width"))), float(str(root.get("height")))

    for x, y in extents(root):
        assert -0.5 <= x <= width + 0.5
        assert -0.5 <= y <= height + 0.5


def extents(root: ElementTree.Element) -> list[tuple[float, float]]:
    """Corners of everything drawn, words by their estimated width; what is moved in a legend is left out."""
    found = []
    moved = {e for g in tags(root, "g") if g.get("transform") for e in g.iter()}
    for e in (e for e in root.iter() if e not in moved):
        a = {k: float(v) for k, v in e.attrib.items() if re.fullmatch(r"-?[\d.]+", v)}
        if e.tag == f"{NS}circle":
            found += [(a["cx"] - a["r"], a["cy"] - a["r"]), (a["cx"] + a["r"], a["cy"] + a["r"])]
        elif e.tag == f"{NS}line":
            found += [(a["x1"], a["y1"]), (a["x2"], a["y2"])]
        elif e.tag in (f"{NS}polygon", f"{NS}polyline"):
            found += points_of(e)
        elif e.tag == f"{NS}text":
            found += corners(e)
    return found


def corners(text: ElementTree.Element) -> list[tuple[float, float]]:
    """Both ends of a text's baseline, turned as it is."""
    size = float(text.get("font-size") or 12)
    wide = width_of("".join(text.itertext()), size)
    start = {"middle": -wide / 2, "end": -wide}.get(text.get("text-anchor", ""), 0.0)
    if (turned := text.get("transform")) is None:
        x, y = float(str(text.get("x"))), float(str(text.get("y")))
        return [(x + start, y), (x + start + wide, y - 0.7 * size)]
    found = re.fullmatch(r"translate\((\S+) (\S+)\) rotate\((\S+)\)", turned)
    assert found is not None
    x, y, angle = map(float, found.groups())
    angle = math.radians(angle)
    return [(x + at * math.cos(angle), y + at * math.sin(angle)) for at in (start, start + wide)]


# --- the front


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=30),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_points_lie_where_the_ticks_say(places: list[tuple[float, float]], up: bool, right: bool) -> None:
    """The pixels of every point are those of its values on the axes whose ticks are written."""
    marks = [Mark(x, y, kind="dominated") for x, y in places]
    root = read(front(marks, Axis("x", right), Axis("y", up)))
    across, along = linear(ticks_of(root, "middle")), linear(ticks_of(root, "end"))
    drawn = [(float(c[1].get("cx") or 0), float(c[1].get("cy") or 0)) for c in tags(root, "g") if len(c) == 2]

    assert len(drawn) == len(places)
    for (x, y), (at_x, at_y) in zip(places, drawn, strict=True):
        assert across(x) == pytest.approx(at_x, abs=0.05)
        assert along(y) == pytest.approx(at_y, abs=0.05)


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=30),
    st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_the_shaded_area_is_the_hypervolume(
    points: list[tuple[float, float]], reference: tuple[float, float], right: bool, up: bool
) -> None:
    """The staircase's area is moocore's hypervolume of the same points, whatever the directions."""
    import moocore

    steps = staircase(points, reference, Axis("x", right), Axis("y", up))
    edges = zip(steps, [*steps[1:], *steps[:1]], strict=True)
    area = abs(math.fsum(a * d - b * c for (a, b), (c, d) in edges)) / 2

    assert area == pytest.approx(moocore.hypervolume(points, ref=reference, maximise=[right, up]), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30), st.booleans(), st.booleans())
def test_undominated_points_are_those_that_no_other_beats(
    points: list[tuple[int, int]], right: bool, up: bool
) -> None:
    """As by comparing every pair."""
    turned = [(x if right else -x, y if up else -y) for x, y in points]
    best = {
        p
        for p, t in zip(points, turned, strict=True)
        if not any(o != t and o[0] >= t[0] and o[1] >= t[1] for o in turned)
    }

    assert undominated(points, Axis("x", right), Axis("y", up)) == best


def test_what_is_predicted_never_looks_like_what_is_measured() -> None:
    """Predicted marks alone are hollow and dashed, in the front, the curves and the spider."""
    measured = [mark for mark in marks_with() if mark.kind != "predicted"]
    guessed = [*measured, *(Mark(0.7 + i / 10, 0.5, 0.1, 0.1, kind="predicted") for i in range(3))]

    def hollow(svg: str) -> int:
        marks = [
            e
            for e in read(svg).iter()
            if e.tag in (f"{NS}circle", f"{NS}polygon") and e.get("stroke-dasharray")
        ]
        assert all(mark.get("fill") in ("#ffffff", "#009E73") for mark in marks)
        return len(marks)

    assert hollow(front(measured, X, Y)) == 0
    assert hollow(front(guessed, X, Y)) == 3 + 1  # and the legend's
    assert hollow(connectivity([replace(panel_with(), marks=panel_with().marks[:3])], "a", "b")) == 0
    assert hollow(connectivity([panel_with()], "a", "b")) == 1 + 1
    models = [Model("a", (1, 2, 3)), Model("b", (2, 1, 3))]
    assert hollow(spider(models, [X] * 3)) == 0
    assert hollow(spider([*models, Model("c", (1, 1, 1), "predicted")], [X] * 3)) == 1 + 3 + 1
    assert "not measured" in said(read(front(guessed, X, Y)))


@pytest.mark.parametrize("curve", [[], [(0.0, 1.0), (0.5, 0.9), (1.0, 0.0)]])
def test_a_smoothed_curve_replaces_no_point(curve: list[tuple[float, float]]) -> None:
    """All points are drawn with it as without it; the caption says that it is smoothed."""
    marks = marks_with()
    root = read(front(marks, X, Y, curve=curve))

    assert len([g for g in tags(root, "g") if len(g) == 2 and g[0].tag == f"{NS}title"]) == len(marks)
    assert ("smoothed" in said(root)) == bool(curve)


def test_error_bars_are_one_standard_error_to_each_side() -> None:
    """A bar's ends are the values ± the error on the axis."""
    marks = [Mark(0, 0), Mark(2, 5, 0.25, 1.5), Mark(4, 10)]
    root = read(front(marks, X, Y))
    across, along = linear(ticks_of(root, "middle")), linear(ticks_of(root, "end"))
    ends = [
        tuple(float(str(e.get(k))) for k in ("x1", "y1", "x2", "y2"))
        for e in tags(root, "line", stroke="#595959")
    ]

    assert any(e == pytest.approx((across(1.75), along(5), across(2.25), along(5)), abs=0.05) for e in ends)
    assert any(e == pytest.approx((across(2), along(3.5), across(2), along(6.5)), abs=0.05) for e in ends)


def test_the_chord_joins_two_experts() -> None:
    """It goes from one expert to the other; one expert, or three, have none."""
    experts = [Mark(0, 1, kind="expert"), Mark(1, 0, kind="expert"), Mark(0.2, 0.2, kind="expert")]
    for count in (1, 2, 3):
        root = read(front([Mark(0.5, 0.9), *experts[:count]], X, Y))
        dashed = tags(root, "polyline", stroke_dasharray="6 4")
        assert len(dashed) == (count == 2)
        across, along = linear(ticks_of(root, "middle")), linear(ticks_of(root, "end"))
        for chord in dashed:
            assert points_of(chord)[0] == pytest.approx((across(0), along(1)), abs=0.05)
            assert points_of(chord)[1] == pytest.approx((across(1), along(0)), abs=0.05)


def test_compared_sets_have_a_look_of_their_own() -> None:
    """Twenty sets are twenty pairs of shape and colour, with their names in the legend; more are refused."""
    names = [f"set {i}" for i in range(MOST_SETS)]
    marks = [Mark(i, i, kind="compared", group=name) for i, name in enumerate(names)]
    root = read(front(marks, X, Y))
    looks = set()
    for group in (g for g in tags(root, "g") if len(g) == 2):
        polygon = points_of(group[1])
        centre = [sum(part) / len(polygon) for part in zip(*polygon, strict=True)]
        shape = tuple(tuple(round(p - c) for p, c in zip(point, centre, strict=True)) for point in polygon)
        looks.add((shape, group[1].get("fill")))

    assert len(looks) == MOST_SETS == 20
    assert all(name in said(root).split("\n") for name in names)
    with pytest.raises(ValueError, match="compared sets"):
        front([*marks, Mark(0, 0, kind="compared", group="one more")], X, Y)


@pytest.mark.parametrize("up", [True, False])
def test_the_direction_of_improvement_is_on_the_axes(up: bool) -> None:
    """`better →` points to more, `← better` to less, which is also said in words."""
    words = said(read(front([Mark(0, 0)], Axis("a", up), Axis("b", up)))).split("\n")

    assert words.count("better →") == 2 * up
    assert words.count("← better") == 2 * (not up)
    assert ("a (lower is better)" in words) == (not up)


def test_a_far_reference_point_does_not_squash_the_points() -> None:
    """It is left outside the picture, which the caption says; a near one is inside."""
    marks = [Mark(5.22 + i / 100, 0.82 - i / 1000) for i in range(5)]
    near, far = (read(front(marks, X, Y, reference=ref)) for ref in ((5.22, 0.816), (0.0, 0.0)))
    plain = read(front(marks, X, Y))

    assert ticks_of(far, "middle") == ticks_of(plain, "middle")
    assert "(0, 0), outside the picture" in said(far).replace("\n", " ")
    assert "outside" not in said(near)
    assert "reference point" in said(near).split("\n")


LABELS = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.text("abcdefg0.", min_size=1, max_size=9)),
    min_size=1,
    max_size=40,
)


@given(LABELS, st.booleans())
@settings(max_examples=50, deadline=None)
def test_labels_cover_neither_each_other_nor_a_point(
    places: list[tuple[float, float, str]], up: bool
) -> None:
    """No two labels overlap, none lies on a point, and the caption counts those that found no room."""
    marks = [Mark(x, y, label=label) for x, y, label in places]
    root = read(front(marks, X, Axis("y", up)))
    boxes = []
    for text in tags(root, "text", paint_order="stroke"):
        x, y = float(str(text.get("x"))), float(str(text.get("y")))
        boxes.append((x, y - 0.74 * SMALL, x + width_of(str(text.text), SMALL), y))
    left_out = re.search(r"(\d+) of the labels", said(root))

    assert len(boxes) + (int(left_out.group(1)) if left_out else 0) == len(places)
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    for g in (g for g in tags(root, "g") if len(g) == 2):
        x, y = float(str(g[1].get("cx"))), float(str(g[1].get("cy")))
        assert not any(left < x < right and top < y < bottom for left, top, right, bottom in boxes)


def test_one_label_always_has_room() -> None:
    """A single point is labelled, and two far from each other both are."""
    assert "here" in said(read(front([Mark(1, 1, label="here")], X, Y)))
    both = said(read(front([Mark(0, 1, label="here"), Mark(1, 0, label="there")], X, Y)))
    assert "here" in both
    assert "there" in both


def test_labels_of_two_shares_are_the_second_share() -> None:
    """`0.3,0.7` is written 0.7, and the caption says whose; other labels stay whole."""
    short = said(
        read(front([Mark(0, 1, label="0.3,0.7"), Mark(1, 0, label="2/3,1/3")], X, Y, second="rouge"))
    )
    whole = said(read(front([Mark(0, 1, label="0.3,0.7"), Mark(1, 0, label="best")], X, Y, second="rouge")))

    assert {"0.7", "1/3"} <= set(short.split("\n"))
    assert "λ of rouge" in short
    assert {"0.3,0.7", "best"} <= set(whole.split("\n"))
    assert "λ of" not in whole
    assert short_lambdas(["0.2,0.3,0.5"]) == (["0.2,0.3,0.5"], False)
    assert short_lambdas(["", "1e-3,0.999"]) == (["", "0.999"], True)


def test_a_line_joins_the_front_and_its_experts() -> None:
    """An expert that a soup dominates is not on the line; the others are its ends."""
    marks = [
        Mark(0, 1, kind="expert"), Mark(0.5, 0.9), Mark(1, 0.5), Mark(0.9, 0.1, kind="expert"), Mark(0.2, 0.2, kind="dominated")
    ]  # fmt: skip
    root = read(front(marks, X, Y))
    across = linear(ticks_of(root, "middle"))
    (joined,) = tags(root, "polyline", stroke="#0072B2")

    assert [x for x, _ in points_of(joined)] == pytest.approx([across(0), across(0.5), across(1)], abs=0.05)


@pytest.mark.parametrize(
    "marks",
    [[Mark(1, 1)], [Mark(1, 1), Mark(2, 2)], [Mark(3, 3, label="same")] * 5, [Mark(0, 1e-320), Mark(0, 0)],
     [Mark(-1.7e308, 1), Mark(1.7e308, 1 + 1e-15)]],
)  # fmt: skip
def test_few_or_equal_points_are_drawn(marks: list[Mark]) -> None:
    """One, two, equal, tiny and huge points are figures like others."""
    root = read(front(marks, X, LOW, reference=(0.5, 4)))

    assert len([g for g in tags(root, "g") if len(g) == 2]) == len(marks)
    assert "nan" not in said(root)


def test_thousands_of_points_are_drawn_in_a_second() -> None:
    """5 000 soups, and 5 000 experts, take less than a second each, and every one is there."""
    draw = random.Random(5)
    for kind in ("dominated", "front", "expert"):
        marks = [Mark(draw.random(), draw.random(), label=f"{i}", kind=kind) for i in range(5000)]  # type: ignore[arg-type]
        began = time.process_time()
        svg = front(marks, X, Y, reference=(0, 0))
        assert time.process_time() - began < 1.5
        assert len([g for g in tags(read(svg), "g") if len(g) == 2]) == 5000


def test_no_points_and_negative_errors_are_refused() -> None:
    """ValueError for both, and for an error bar that ends at infinity."""
    for wrong in ([], [Mark(0, 0, -1.0)], [Mark(1.7e308, 0, 1.7e308)]):
        with pytest.raises(ValueError, match=r"no point|negative|finite"):
            front(wrong, X, Y)


# --- spider maps

VALUES = st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 4), min_size=1, max_size=8)


@given(VALUES, st.lists(st.booleans(), min_size=4, max_size=4))
def test_the_worst_is_at_zero_and_the_best_at_one(rows: list[tuple[float, ...]], up: list[bool]) -> None:
    """Per axis and in its direction; where all are equal they are at one."""
    models = [Model("m", row) for row in rows]
    for index, span in enumerate(normalised(models, [Axis("a", flag) for flag in up])):
        column = [row[index] if up[index] else -row[index] for row in rows]
        low, high = min(column), max(column)
        for row, turned in zip(rows, column, strict=True):
            differ = high / 2 > low / 2  # the smallest number of all is not told from zero
            expected = (turned - low) / (high - low) if differ else 1.0
            assert span.at(row[index]) == pytest.approx(expected, abs=1e-9)


@given(VALUES, st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 7))
def test_the_base_is_at_zero(rows: list[tuple[float, ...]], up: list[bool], which: int) -> None:
    """By the base: it lies at 0, the best at 1 where one is better, the worst at the centre where none is."""
    models = [Model("m", row, "base" if i == which % len(rows) else "front") for i, row in enumerate(rows)]
    for index, span in enumerate(normalised(models, [Axis("a", flag) for flag in up], "base")):
        turned = [row[index] if up[index] else -row[index] for row in rows]
        base, low, high = turned[which % len(rows)], min(turned), max(turned)
        shares = [span.at(row[index]) for row in rows]
        assert shares[which % len(rows)] == 0
        if high / 2 - base / 2:
            assert max(shares) == 1
        elif low / 2 - base / 2:
            assert min(shares) == pytest.approx(LEAST)
        for share, value in zip(shares, turned, strict=True):
            if value / 2 - base / 2:
                assert (share > 0) == (value > base) or share == 0  # tiny differences may round away


@pytest.mark.parametrize("count", range(3, 9))
def test_a_spider_has_a_polygon_per_model(count: int) -> None:
    """With a corner per axis, and all the names and values in the picture; the caption says the normalisation."""
    draw = random.Random(count)
    axes = [Axis(f"metric {i}", i % 2 == 0) for i in range(count)]
    models = [Model(f"model {j}", tuple(draw.uniform(-2, -1) for _ in axes)) for j in range(5)]
    root = read(spider(models, axes))
    drawn = [g for g in tags(root, "g") if len(g) and g[0].tag == f"{NS}title"]

    assert [len(points_of(g[1])) for g in drawn] == [count] * 5
    assert all(axis.name in said(root) for axis in axes)
    assert all(model.name in said(root) for model in models)
    assert "normalised" in said(root)
    best = [(max if axis.maximise else min)(m.values[i] for m in models) for i, axis in enumerate(axes)]
    assert all(f"→ {value:.4g}".replace("-", "−") in said(root) for value in best)


@given(st.floats(0.1, 10), st.floats(-10, 10))
def test_a_spider_does_not_see_units(factor: float, shift: float) -> None:
    """Other units and offsets, or a metric turned with its direction, give the same polygons."""
    rows = [(1.0, 5.0, -3.0), (2.0, 4.0, -9.0), (1.5, 4.5, -8.0)]
    spans = normalised([Model("m", row) for row in rows], [X, LOW, X])
    others = [tuple(factor * value + shift for value in row) for row in rows]
    turned = [(-a, -b, -c) for a, b, c in rows]
    for changed, axes in ((others, [X, LOW, X]), (turned, [LOW, X, LOW])):
        again = normalised([Model("m", row) for row in changed], axes)
        for row, other in zip(rows, changed, strict=True):
            assert [s.at(v) for s, v in zip(spans, row, strict=True)] == pytest.approx(
                [s.at(v) for s, v in zip(again, other, strict=True)], abs=1e-9
            )


@pytest.mark.parametrize(
    ("models", "axes", "over"),
    [(1, 2, "shown"), (1, 9, "shown"), (0, 3, "shown"), (9, 3, "shown"), (2, 3, "base")],
)
def test_a_spider_that_cannot_be_read_is_refused(models: int, axes: int, over: str) -> None:
    """Too few or many axes or models, or no base to count from, are a ValueError, in SVG and in the terminal."""
    rows = [Model("m", (1.0,) * axes) for _ in range(models)]
    for draw in (spider, lines):
        with pytest.raises(ValueError, match=r"axes|models|base"):
            draw(rows, [X] * axes, over=over)


# --- the terminal


@given(
    VALUES, st.lists(st.booleans(), min_size=4, max_size=4), st.booleans(), st.sampled_from(["shown", "base"])
)
@settings(deadline=None)
def test_the_terminal_shows_every_model_in_order(
    rows: list[tuple[float, ...]], up: list[bool], unicode: bool, over: str
) -> None:
    """A letter per model on every strip, from worse to better; at most 20 lines of 80 columns; ASCII on request."""
    models = [Model(f"model {i}", row, "base" if i == 0 else "front") for i, row in enumerate(rows)]
    axes = [Axis("日本語 metric of a long name" if unicode else "metric", flag) for flag in up]
    drawn = lines(models, axes, over=over, unicode=unicode)  # type: ignore[arg-type]
    spans = normalised(models, axes, over)  # type: ignore[arg-type]

    assert len(drawn) <= 20
    assert all(columns_of(line) <= 80 for line in drawn)
    assert unicode or all(line.isascii() for line in drawn)
    for index, line in enumerate(drawn[1:5]):
        strip = re.search(r"  ([A-H─-]{10,})  ", line)
        assert strip is not None
        letters = [c for c in strip.group(1) if c.isalpha()]
        assert sorted(letters) == list("ABCDEFGH"[: len(rows)])
        shares = [spans[index].at(rows["ABCDEFGH".index(c)][index]) for c in letters]
        assert shares == sorted(shares)


def test_the_terminal_puts_letters_where_they_belong() -> None:
    """The worst stands at the left end, the best at the right end, halfway in the middle."""
    models = [Model("low", (0.0, 2.0, 0.0)), Model("half", (1.0, 1.0, 5.0)), Model("high", (2.0, 0.0, 10.0))]
    drawn = lines(models, [X, LOW, X], width=80, unicode=False)
    strips = [re.search(r"  ([A-C-]{10,})  ", line) for line in drawn[1:4]]

    for found in strips:
        assert found is not None
        strip = found.group(1)
        assert (strip[0], strip[-1]) == ("A", "C")
        assert abs(strip.index("B") - (len(strip) - 1) / 2) <= 0.5
    assert "v lower is better" in drawn


@pytest.mark.parametrize("width", [10, 60, 80, 132])
def test_the_terminal_is_narrow_enough_for_eight_of_all(width: int) -> None:
    """Eight models with long names over eight metrics with long names and numbers, some predicted."""
    models = [
        Model(
            "name " * 9, tuple(-1.23456e-5 * (i + j + 1) for j in range(8)), "predicted" if i % 2 else "front"
        )
        for i in range(8)
    ]
    drawn = lines(models, [Axis("metric " * 9, i % 2 == 0) for i in range(8)], width=width)

    assert len(drawn) <= 20
    assert all(columns_of(line) <= max(60, width) for line in drawn)
    assert all(letter in drawn[1] for letter in "AbCdEfGh")


def test_colour_changes_nothing_but_colour() -> None:
    """Without its escapes a coloured spider is the plain one; hostile names have no escapes of their own."""
    models = [Model("a\x1b[2J\u202e", (1, 2, 3)), Model("b", (3, 2, 1))]
    plain, coloured = lines(models, [X] * 3), lines(models, [X] * 3, colour=True)

    assert [re.sub(r"\x1b\[\d+m", "", line) for line in coloured] == plain
    assert all(line.isprintable() for line in plain)


# --- curves, tables


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=12), st.booleans())
@settings(deadline=None, max_examples=60)
def test_points_below_the_chord_are_marked(values: list[float], up: bool) -> None:
    """Exactly the inner points that are worse than the straight line between the ends, and one gap at most."""
    n = len(values) - 1
    marks = tuple(Mark(i / n, value) for i, value in enumerate(values))
    root = read(connectivity([Panel(Axis("a", up), marks)], "first", "second"))
    span = max(values) - min(values)
    gaps = [
        (values[0] * (1 - i / n) + values[-1] * i / n - v) * (1 if up else -1) for i, v in enumerate(values)
    ]
    clear = [gap for gap in gaps[1:-1] if abs(gap - 1e-9 * span) > 1e-12]
    groups = [g for g in tags(root, "g") if len(g) == 2 and g[1].get("fill") == "#D55E00"]

    if len(clear) == n - 1:
        assert len(groups) == sum(gap > 1e-9 * span for gap in clear)
        assert len(tags(root, "line", stroke="#D55E00")) == (len(groups) > 0)


@pytest.mark.parametrize("up", [True, False])
def test_a_metric_that_is_a_straight_line_is_not_below_it(up: bool) -> None:
    """Rounding is no gap: 1 001 points on the chord itself, or all equal, none is marked."""
    marks = tuple(
        Mark(i / 1000, 0.1 * (1 - i / 1000) + 0.7 * (i / 1000) - 1e-16 * (i % 3)) for i in range(1001)
    )
    equal = tuple(Mark(i / 1000, 0.1) for i in range(1001))
    began = time.process_time()
    root = read(connectivity([Panel(Axis("a", up), marks), Panel(Axis("a", up), equal)], "first", "second"))

    assert time.process_time() - began < 1.5
    assert not [e for e in root.iter() if e.get("fill") == "#D55E00" or e.get("stroke") == "#D55E00"]


@pytest.mark.parametrize(
    "xs", [[0.0, 0.5], [0.5, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.5], [0.0, 1.0, -0.1], []]
)
def test_a_curve_without_its_experts_is_refused(xs: list[float]) -> None:
    """Exactly one measured point at each end, and λ within [0, 1]."""
    with pytest.raises(ValueError, match=r"chord|λ|no point"):
        connectivity([Panel(X, tuple(Mark(x, 1) for x in xs))], "a", "b")
    with pytest.raises(ValueError, match="soups"):
        connectivity([Panel(X, (Mark(0, 1), Mark(1, 1), Mark(0.5, 0, kind="compared")))], "a", "b")
    with pytest.raises(ValueError, match="no metric"):
        connectivity([], "a", "b")


def test_guards_and_verdicts_are_said() -> None:
    """Every panel has its metric's name, that it is a guard, its direction and its verdict."""
    names = [f"metric {i}" for i in range(8)]
    panels = [
        replace(panel_with(), axis=Axis(n, maximise=False), guard=i > 4, verdict="PASS")
        for i, n in enumerate(names)
    ]
    words = said(read(connectivity(panels, "a", "b"))).split("\n")

    assert words.count("PASS") == 8
    assert [w for w in words if w in names] == names
    assert words.count("guard, lower is better") == 3
    assert words.count("lower is better") == 5


def test_advantage_has_its_zero_and_its_interval() -> None:
    """Zero is inside the picture even where all is above it; the band's corners are the interval's ends."""
    bands = [Band(m, 1.0 + m / 10, 0.5 + m / 10, 2.0 + m / 10) for m in (5, 2, 3)]
    root = read(advantage(bands, worth=4))
    along, across = linear(ticks_of(root, "end")), linear(ticks_of(root, "middle"))
    zero = tags(root, "line", stroke_width="1.2")
    (band,) = tags(root, "polygon", fill_opacity="0.15")
    expected = [(across(m), along(2.0 + m / 10)) for m in (2, 3, 5)]
    expected += [(across(m), along(0.5 + m / 10)) for m in (5, 3, 2)]

    assert [float(str(e.get("y1"))) for e in zero] == pytest.approx([along(0)], abs=0.05)
    for found, corner in zip(points_of(band), expected, strict=True):
        assert found == pytest.approx(corner, abs=0.05)
    assert "worth 4 trainings" in said(root)


@pytest.mark.parametrize("bands", [[], [Band(2, 0), Band(2, 1)], [Band(2, 0, 1, 2)], [Band(2, 0, -2, -1)]])
def test_an_advantage_that_contradicts_itself_is_refused(bands: list[Band]) -> None:
    """No M, an M twice, an interval beside its value."""
    with pytest.raises(ValueError, match=r"M|interval"):
        advantage(bands)


@pytest.mark.parametrize("count", [1, 2, 8, 9, 40])
def test_fronts_along_training_are_coloured_by_step(count: int) -> None:
    """A colour per step, darker for later ones in whatever order they come; the first and last are in the legend."""
    steps = [Step(10 * (i + 1), (Mark(0, i + 1), Mark(1, i))) for i in range(count)]
    root = read(fronts(steps[::-1], X, Y))
    colours = [str(e.get("stroke")) for e in tags(root, "polyline")]

    heights = [points_of(e)[0][1] for e in tags(root, "polyline")]

    assert colours == [ramp(i / max(1, count - 1)) for i in range(count)]
    assert heights == sorted(heights, reverse=True)  # later steps have the higher rewards here
    assert {"step 10", f"step {10 * count}"} <= set(said(root).split("\n"))


def test_fronts_along_training_are_measured() -> None:
    """Predicted and compared points, and a step that is there twice, are refused."""
    for kind in ("predicted", "compared"):
        with pytest.raises(ValueError, match="measured"):
            fronts([Step(1, (Mark(0, 0, kind=kind),))], X, Y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="twice"):
        fronts([Step(1, (Mark(0, 0),)), Step(1, (Mark(0, 0),))], X, Y)
    with pytest.raises(ValueError, match="measured"):
        measures([Panel(X, (Mark(0, 0, kind="predicted"),))])


@pytest.mark.parametrize(
    ("steps", "logarithmic"), [([100, 200, 400, 1600], True), ([100, 200, 300], False), ([0, 1000], False)]
)
def test_doubled_steps_are_evenly_spaced(steps: list[int], logarithmic: bool) -> None:
    """Steps over more than a factor of 8 are on a logarithmic axis, which is said; others and 0 are not."""
    root = read(measures([Panel(X, tuple(Mark(s, i) for i, s in enumerate(steps)))]))
    at = [float(str(c.get("cx"))) for c in tags(root, "circle")]
    turned = [math.log(s) if logarithmic else float(s) for s in steps]
    shares = [(t - turned[0]) / (turned[-1] - turned[0]) for t in turned]

    assert [(a - at[0]) / (at[-1] - at[0]) for a in at] == pytest.approx(shares, abs=1e-3)
    assert ("logarithmic" in said(root)) == logarithmic


def test_a_transfer_matrix_has_its_values_and_colours() -> None:
    """Every value is written; better than the base is bluer, worse redder, and the base row is white."""
    values, base = [[0.9, 30.0], [0.2, 10.0]], [0.5, 20.0]
    root = read(transfer(["a", "b"], [X, LOW], values, base=base))
    cells = tags(root, "rect", height="34")
    colours = [str(e.get("fill")) for e in cells]

    assert [w for w in said(root).split("\n") if re.fullmatch(r"[\d.]+", w)] == [
        "0.5",
        "20",
        "0.9",
        "30",
        "0.2",
        "10",
    ]
    assert colours[:2] == ["#ffffff"] * 2
    assert colours[2:] == [diverging(1), diverging(-1), diverging(-0.75), diverging(1)]
    assert len(tags(root, "rect", height="32", fill="none")) == 2


@pytest.mark.parametrize("count", [1, 2, 8, 30])
def test_antagonistic_pairs_are_marked_at_both_cells(count: int) -> None:
    """Both cells of every pair have a corner, and the legend explains it; a table of 30 × 30 is whole."""
    names = [f"a reward of some length {i}" for i in range(count)]
    values = [[float(i - k) for k in range(count)] for i in range(count)]
    pairs = [(0, count - 1)] if count > 1 else []
    root = read(transfer(names, [Axis(n) for n in names], values, antagonistic=pairs))
    width = float(str(root.get("width")))

    corners_drawn = [e for e in tags(root, "polygon") if e.get("points") != "0,-6 9,-6 9,3"]
    assert len(corners_drawn) == 2 * len(pairs)
    assert ("antagonistic pair" in said(root)) == bool(pairs)
    assert len(tags(root, "rect", height="34")) == count * count
    assert all(-0.5 <= x <= width + 0.5 for x, _ in extents(root))


def test_tables_that_are_not_whole_are_refused() -> None:
    """Another number of rows or columns, a pair that is not there, a cosine beyond 1."""
    for values, pairs in (([[1.0]], []), ([[1.0, 2.0]], []), ([[1.0, 2.0], [3.0, 4.0]], [(0, 2)])):
        with pytest.raises(ValueError, match="table"):
            transfer(["a", "b"], [X, Y], values, antagonistic=pairs)
    for matrix in ([[1.0, 1.1], [0.0, 1.0]], [[1.0, 0.0]], [[1.0], [1.0]]):
        with pytest.raises(ValueError, match=r"cosine|square"):
            cosines(["a", "b"], matrix)


def test_unknown_layers_are_gaps() -> None:
    """A None parts the line; parts of the model that are no numbered layer are dots on no line."""
    values = [0.1, 0.2, None, 0.3, 0.4]
    found = [Layer(f"layer {i}", (v,)) for i, v in enumerate(values)]
    root = read(layers([Layer("embeddings", (0.5,)), *found, Layer("head", (0.6,))], ["a"]))
    runs = [len(points_of(e)) for e in tags(root, "polyline")]

    assert runs == [2, 2]
    assert len(tags(root, "circle")) == 6 + 1  # and the legend's
    assert {"embeddings", "head", "0", "4"} <= set(said(root).split("\n"))
    assert "nothing is known" in said(root)


def test_what_check_says_of_layers_can_be_drawn(tmp_path: Path) -> None:
    """The layers and the cosines of `rsoup check --json` are what the figures take, as they are."""
    import torch
    from safetensors.torch import save_file

    from rsoup.cli.check import as_data
    from rsoup.family.checking import check

    names = ["model.embed_tokens.weight", *(f"model.layers.{i}.mlp.weight" for i in range(4))]
    for seed, name in enumerate(["base", "first", "second"]):
        maker = torch.Generator().manual_seed(seed)
        tensors = {n: torch.ones(8, 8) + 0.01 * torch.randn(8, 8, generator=maker) for n in names}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in ("first", "second")}
    found: Any = as_data(check(paths, str(tmp_path / "base.safetensors")))["measures"]
    parts = [Layer(part["name"], tuple(part["relative"])) for part in found["layers"]]

    assert {"embeddings", "0", "1", "2", "3"} <= set(said(read(layers(parts, list(paths)))).split("\n"))
    assert said(read(cosines(list(paths), found["cosine"]))).count("1.00") == 2


@pytest.mark.parametrize("count", [1, 8, 9, 32])
def test_every_ingredient_has_a_line_of_its_own(count: int) -> None:
    """Up to 32 lines differ in colour or dashes; 33 are refused."""
    found = [Layer(f"layer {i}", tuple(float(i + j) for j in range(count))) for i in range(120)]
    root = read(layers(found, [f"i{j}" for j in range(count)]))
    looks = {(e.get("stroke"), e.get("stroke-dasharray")) for e in tags(root, "polyline")}

    assert len(looks) == count
    with pytest.raises(ValueError, match="lines"):
        layers([Layer("layer 0", (1.0,) * 33)], ["x"] * 33)
    with pytest.raises(ValueError, match="known"):
        layers([Layer("layer 0", (None,))], ["x"])


# --- colours and words


def test_colours_are_ordered_and_legible() -> None:
    """The ramp gets darker all the way; words in cells have a contrast of 4.5 at least; both ends differ."""
    shades = [contrast(ramp(i / 200), "#ffffff") for i in range(201)]

    assert shades == sorted(shades)
    assert all(b > a for a, b in zip(shades[::10], shades[10::10], strict=False))
    assert all(contrast(ink_on(diverging(i / 100)), diverging(i / 100)) >= 4.5 for i in range(-100, 101))
    assert diverging(0) == "#ffffff"
    assert (diverging(-1), diverging(1)) == ("#d55e00", "#0072b2")  # Okabe and Ito's vermillion and blue
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@given(st.text(max_size=200), st.floats(40, 400))
def test_wrapped_words_are_all_there_and_fit(text: str, width: float) -> None:
    """Lines are no wider than asked, and joined again they are the words."""
    from rsoup.errors import show

    found = wrap(text, SMALL, width)

    assert all(width_of(line, SMALL) <= width for line in found)
    assert "".join(found).replace(" ", "") == "".join(show(text, 4000).split())
    assert width_of(fit(text, SMALL, width), SMALL) <= width


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20), st.integers(3, 9))
def test_a_scale_holds_its_values_and_its_ticks(values: list[float], about: int) -> None:
    """All values and at least two ticks are between its ends; a higher value is never further down."""
    made = scale(values, about)
    shares = [made.at(value) for value in sorted(values)]

    assert made.low <= min(values)
    assert max(values) <= made.high
    assert 2 <= len(made.ticks) == len(set(made.texts))
    assert all(made.low <= tick <= made.high for tick in made.ticks)
    assert shares == sorted(shares)


@given(st.integers(0, 200))
def test_labels_are_tried_from_the_ends_inwards(count: int) -> None:
    """Every index once, the ends first, then the middle."""
    order = spread(count)

    assert sorted(order) == list(range(count))
    if count > 2:
        assert order[:2] == [0, count - 1]
        assert abs(order[2] - (count - 1) / 2) <= 0.5


@given(st.lists(st.floats(1, 60), min_size=1, max_size=40), st.floats(1, 30))
def test_ticks_that_are_kept_have_room(widths: list[float], apart: float) -> None:
    """Every n-th text is clear of the next, and no smaller n would do."""
    centres = [i * apart for i in range(len(widths))]

    def clear(every: int) -> bool:
        kept = list(zip(centres, widths, strict=True))[::every]
        return all(b - a >= (v + w) / 2 + 8 for (a, v), (b, w) in pairwise(kept))

    every = thinned(centres, widths)
    assert clear(every)
    assert not any(clear(less) for less in range(1, every))


def test_a_place_is_given_once() -> None:
    """A label's place is taken from then on, and never outside the box."""
    room = Room(Box(0, 0, 100, 40))
    places = [room.place(50, 20, "label", 11, 4, (1, -1)) for _ in range(20)]
    found = [place for place in places if place is not None]

    assert 2 <= len(found) == len(set(found)) < 20
    assert all(0 <= x <= 100 - width_of("label", 11) and 0 <= y <= 40 for x, y in found)


@given(st.floats(-1e6, 1e6))
def test_pixels_are_short_and_never_minus_zero(value: float) -> None:
    """Two decimals at most, as near as that allows."""
    text = px(value)

    assert re.fullmatch(r"-?\d+(\.\d{1,2})?", text)
    assert text != "-0"
    assert float(text) == pytest.approx(value, abs=0.0051)


def test_labels_of_a_cloud_are_those_of_its_front() -> None:
    """Where very many points are dominated none of these is labelled, so that the front's labels are read."""
    draw = random.Random(2)
    cloud = [
        Mark(draw.random(), draw.random(), label="cloud", kind="dominated")
        for _ in range(front_module._MOST_DOMINATED + 1)
    ]
    words = said(read(front([*cloud, Mark(2, 2, label="best")], X, Y))).split("\n")

    assert "best" in words
    assert "cloud" not in words
