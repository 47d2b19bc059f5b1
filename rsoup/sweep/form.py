"""The keys of a sweep file and what may be written behind each: nodes in, a SweepSpec out."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, Final

from rsoup import mix as mixes
from rsoup.errors import UsageError, show
from rsoup.quantities import parse_size
from rsoup.recipe_form import KEYS as RECIPE_KEYS
from rsoup.recipe_form import Form, spoken
from rsoup.recipe_nodes import Node, Problems
from rsoup.sweep import asking
from rsoup.sweep.mixes_csv import read_mixes
from rsoup.sweep.score import Metric
from rsoup.sweep.spec import OUTPUT_BYTES, STRATEGIES, Design, EvaluatorSpec, SweepSpec

KEYS: Final = (
    "points",
    "strategy",
    "metric",
    "accept_equal",
    "evaluate",
    "repeats",
    "report",
    "report_all",
    "track",
)
POINT_KEYS: Final = (
    *("grid", "scheffe", "list", "csv", "random", "sobol", "seed", "through", "scales", "refine"),
)
EVALUATOR_KEYS: Final = (
    *("run", "function", "rewards", "guards", "files", "version", "metrics_file", "timeout", "output_limit"),
)
METRIC_KEYS: Final = ("metric", "direction", "error")


class SweepForm(Form):
    """A sweep file's nodes, filled in; what is wrong is noted in `problems`, and reading goes on.

    Everything a recipe may say but λ, and `points`, `evaluate` and their like beside it.
    """

    def __init__(self, root: Node, problems: Problems, folder: str) -> None:
        self._problems = problems
        self.own: dict[str, Node] = {}
        if root.kind == "mapping":
            self._check_keys(root)
            self.own = {key.text: value for key, value in root.pairs if key.text in KEYS}
            pairs = tuple((k, v) for k, v in root.pairs if k.text in RECIPE_KEYS and k.text != "lambda")
            root = replace(root, pairs=pairs)
        super().__init__(root, problems, folder)
        if any(key.text == "lambda" for node in self.ingredients for key, _ in node.pairs):
            problems.at(self.places["ingredients"], "a sweep has no λ of its own; write points: {grid: 11}")
        self.strategy = self._one("strategy", self._choice(STRATEGIES)) or "points"
        self.evaluators = [self._evaluator(node) for node in self._own_list("evaluate", "- run: python score.py {model}")]  # fmt: skip
        self.design, self.refine = self._design(self.own.get("points"))

    def _check_keys(self, root: Node) -> None:
        known = [*RECIPE_KEYS, *KEYS]
        for key, _ in root.pairs:
            if key.text == "lambda":
                self._problems.at(key, "a sweep has no λ of its own; write points: {list: [[0.3, 0.7]]}")
            elif key.text not in known and not self._problems.full:
                self._problems.at(key, f"unknown key '{show(key.text)}'; a sweep has a recipe's keys and {', '.join(KEYS)}")  # fmt: skip

    def spec(self) -> SweepSpec:
        """The sweep, its parts held against each other. Raises UsageError E02xx with the file's name."""
        counts = {
            key: self._number(self.own[key], 1 if key == "repeats" else 0)
            for key in ("repeats", "report")
            if key in self.own
        }
        metric = self._one("metric", str)
        equal = self._one("accept_equal", self._choice(("true", "false"))) == "true"
        report_all = self._one("report_all", self._choice(("true", "false"))) == "true"
        track = self._one("track", asking.parse_track)
        self._problems.check()
        try:
            return asking.make_spec(
                self.request, self.evaluators, self.design, strategy=self.strategy, metric=metric, accept_equal=equal,
                refine=self.refine, repeats=counts.get("repeats", 1), report_repeats=counts.get("report", 0),
                report_all=report_all, track=track,
            )  # fmt: skip
        except UsageError as error:
            message, hint = spoken(error)
            node = self.own.get("points") or self.places["ingredients"]
            where = error.where or self._problems.where(node.line, node.column)
            raise UsageError(error.code, message, where=where, hint=hint) from error

    # ----- single values

    def _one(self, key: str, check: Any) -> Any:
        return self._value(self.own[key], check) if key in self.own else None

    def _choice(self, words: tuple[str, ...]) -> Any:
        def check(text: str) -> str:
            if text not in words:
                raise UsageError("E0210", f"'{show(text)}' is none of {', '.join(words)}")
            return text

        return check

    def _number(self, node: Node, least: int) -> int:
        found = self._value(node, lambda text: asking.parse_count(text, "here", least=least))
        return least if found is None else int(found)

    def _own_list(self, key: str, example: str) -> tuple[Node, ...]:
        return self._items(self.own[key], example, least=1) if key in self.own else ()

    # ----- points

    def _design(self, node: Node | None) -> tuple[Design, int]:
        if node is None:
            return Design(), 0
        row = self._keys(node, POINT_KEYS)
        numbers = {
            key: self._number(row[key], 2 if key == "grid" else 0)
            for key in ("grid", "random", "sobol", "seed", "refine")
            if key in row
        }
        flag = self._value(row["scheffe"], self._choice(("true", "false"))) if "scheffe" in row else None
        through = self._items(row["through"], "[NAME]") if "through" in row else ()
        design = Design(
            grid=numbers.get("grid"),
            scheffe=flag == "true",
            mixes=(*self._listed(row.get("list")), *self._from_csv(row.get("csv"))),
            random=numbers.get("random", 0),
            sobol=numbers.get("sobol", 0),
            seed=numbers.get("seed", 0),
            waypoints=tuple(name for item in through if (name := self._value(item, self._choice(tuple(self._names))))),
            scales=self._scales(row.get("scales")),
        )  # fmt: skip
        return design, numbers.get("refine", 0)

    def _listed(self, node: Node | None) -> list[tuple[Fraction, ...]]:
        found = []
        for item in () if node is None else self._items(node, "[[0.3, 0.7], [0.5, 0.5]]", least=1):
            shares = self._mix(item)
            if shares is None or not self._all_readable:
                continue
            try:
                found.append(asking.checked_mix([Fraction(share) for share in shares], self.request))
            except UsageError as error:
                self._problems.at(item, "; ".join(filter(None, spoken(error))))
        return found

    def _from_csv(self, node: Node | None) -> tuple[tuple[Fraction, ...], ...]:
        if node is None or not self._all_readable:
            return ()
        path = self._value(node, self._path)
        return () if path is None else read_mixes(path, self.request)

    def _scales(self, node: Node | None) -> tuple[Fraction, ...]:
        if node is None:
            return Design().scales
        if node.kind == "mapping":
            row = self._keys(node, ("grid",), ("grid",))
            count = self._number(row["grid"], 2) if "grid" in row else 2
            return asking.parse_scales(f"grid:{count}")
        values = [self._value(item, mixes.parse_number) for item in self._items(node, "[0, 0.5, 1]", least=1)]
        return tuple(value for value in values if value is not None) or Design().scales

    # ----- evaluators

    def _evaluator(self, node: Node) -> EvaluatorSpec:
        row = self._keys(node, EVALUATOR_KEYS)
        if node.kind == "mapping" and ("run" in row) == ("function" in row):
            self._problems.at(node, "an evaluator needs either 'run' or 'function'; write run: python score.py {model}")  # fmt: skip
        metrics = [
            *self._metrics(row.get("rewards"), guard=False),
            *self._metrics(row.get("guards"), guard=True),
        ]
        texts = {
            key: self._value(row[key], str)
            for key in ("run", "function", "version", "metrics_file")
            if key in row
        }
        files = self._items(row["files"], "[data.jsonl]") if "files" in row else ()
        limit = self._value(row["output_limit"], parse_size) if "output_limit" in row else None
        return EvaluatorSpec(
            tuple(metrics),
            run=texts.get("run"),
            function=texts.get("function"),
            files=tuple(path for item in files if (path := self._value(item, str))),
            version=texts.get("version"),
            metrics_file=texts.get("metrics_file"),
            timeout_seconds=self._value(row["timeout"], asking.parse_duration) if "timeout" in row else None,
            output_bytes=OUTPUT_BYTES if limit is None else limit,
        )

    def _metrics(self, node: Node | None, *, guard: bool) -> list[Metric]:
        """A list as the command line takes each, or a mapping by name."""
        if node is None:
            return []
        if node.kind != "mapping":
            items = self._items(node, "[helpful, harmless]", least=1)
            found = [self._value(item, lambda text: asking.parse_metric(text, guard=guard)) for item in items]
            return [metric for metric in found if metric is not None]
        return [metric for name, value in node.pairs if (metric := self._metric(name, value, guard=guard))]

    def _metric(self, name: Node, node: Node, *, guard: bool) -> Metric | None:
        """`NAME: ADDRESS`, or `NAME: {metric: ADDRESS, direction: minimise, error: ADDRESS}`."""
        if node.kind == "text":
            return self._value(node, lambda text: asking.metric(name.text, text, guard=guard))
        row = self._keys(node, METRIC_KEYS)
        parts = {key: self._value(row[key], str) for key in ("metric", "error") if key in row}
        direction = self._value(row["direction"], self._choice(("maximise", "minimise"))) if "direction" in row else None  # fmt: skip

        def made(text: str) -> Metric:
            return asking.metric(
                text,
                parts.get("metric"),
                error_address=parts.get("error"),
                maximise=None if direction is None else direction == "maximise",
                guard=guard,
            )

        return self._value(name, made)
