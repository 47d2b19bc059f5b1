"""The experiment trackers a sweep can be mirrored to, each behind the same three calls.

The packages are imported in a process of their own (`tracking_worker.py`): they print, ask, wait and register what
runs at the end. What they would add by themselves of the machine, its user and its paths is turned off.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Protocol

Values = Mapping[str, float]
Texts = Mapping[str, str]

PACKAGES: Final[Mapping[str, str]] = {"trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow"}
"""What is installed by pip for the tracker of a name; the names are those of the modules, too."""


@dataclass(frozen=True, slots=True)
class Place:
    """The one run of a sweep in a tracker: `project`, an `identity` that stays, a `name` for people."""

    project: str
    identity: str
    name: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One evaluation: the `number`-th of the ledger, from 0, which ended `seconds` after 1970."""

    number: int
    seconds: float
    values: Values
    texts: Texts


@dataclass(frozen=True, slots=True)
class Closing:
    """What a sweep has found: single `values`, the front as a table, the page."""

    values: Values
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    page: str


class Tracker(Protocol):
    """A run that is open, new or resumed; every call may raise whatever its package does."""

    def log(self, entry: Entry) -> None:
        """Add one evaluation."""

    def close(self, found: Closing | None) -> None:
        """Add what was found, if it is known, and wait until all has arrived."""


class NotSetUpError(Exception):
    """A tracker cannot be used like this; the text is what the user reads, `hint` what to type."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


def imported(tracker: str) -> ModuleType:
    """The tracker's module. Raises NotSetUpError for one that would ask for something, ImportError and what it raises."""
    module = importlib.import_module(tracker)
    if tracker == "wandb":
        settings = module.setup().settings
        if settings.mode in ("online", "run", "shared") and not module.api.api_key:
            raise NotSetUpError("nobody is logged in to wandb", "wandb login; or WANDB_MODE=offline")
    return module


def opened(tracker: str, module: ModuleType, place: Place) -> Tracker:
    """The sweep's run in a tracker, begun or resumed. Raises what the package raises."""
    makers: dict[str, Callable[[Any, Place], Tracker]] = {
        "trackio": _Trackio,
        "wandb": _Wandb,
        "mlflow": _Mlflow,
    }
    return makers[tracker](module, place)


class _Trackio:
    def __init__(self, module: Any, place: Place) -> None:
        self._module = module
        self._run = module.init(
            project=place.project, name=f"{place.name}-{place.identity}", resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        self._run.config.pop("_Username", None)
        self._last = 0

    def log(self, entry: Entry) -> None:
        self._last = entry.number
        self._run.log({**entry.values, **entry.texts}, step=entry.number)

    def close(self, found: Closing | None) -> None:
        if found is not None:
            table = self._module.Table(columns=list(found.columns), data=[list(row) for row in found.rows])
            self._run.log(
                {**found.values, "front": table, "report": self._module.Html(found.page)}, step=self._last
            )
        self._run.finish()


class _Wandb:
    def __init__(self, module: Any, place: Place) -> None:
        entity, _, project = place.project.rpartition("/")
        known = set(module.Settings.model_fields)
        quiet = {
            "console": "off", "silent": True, "disable_code": True, "disable_git": True, "save_code": False,
            "x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False,
            "host": "", "username": "", "email": "", "program": "rsoup", "program_relpath": "", "program_abspath": "",
        }  # fmt: skip
        settings = module.Settings(**{key: value for key, value in quiet.items() if key in known})
        self._module = module
        self._run = module.init(
            project=project, entity=entity or None, id=place.identity, name=place.name, resume="allow",
            settings=settings,
        )  # fmt: skip
        self._run.define_metric("evaluation")
        self._run.define_metric("*", step_metric="evaluation")

    def log(self, entry: Entry) -> None:
        self._run.log({"evaluation": entry.number, **entry.values, **entry.texts})

    def close(self, found: Closing | None) -> None:
        if found is not None:
            self._run.summary.update(dict(found.values))
            table = self._module.Table(columns=list(found.columns), data=[list(row) for row in found.rows])
            self._run.log({"front": table, "report": self._module.Html(found.page, inject=False)})
        self._run.finish()


_MLFLOW_TAG: Final = "rsoup.sweep"


class _Mlflow:
    """By the client alone: the fluent calls would note the user, the program's path and its commit."""

    def __init__(self, module: Any, place: Place) -> None:
        self._entities = importlib.import_module("mlflow.entities")
        self._client = module.MlflowClient()
        experiment = self._client.get_experiment_by_name(place.project)
        where = (
            self._client.create_experiment(place.project) if experiment is None else experiment.experiment_id
        )
        found = self._client.search_runs([where], f"tags.`{_MLFLOW_TAG}` = '{place.identity}'")
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            made = self._client.create_run(where, run_name=place.name, tags={_MLFLOW_TAG: place.identity})
            self._run = made.info.run_id

    def log(self, entry: Entry) -> None:
        at, values = round(entry.seconds * 1000), _plain(entry.values)
        metrics = [self._entities.Metric(key, value, at, entry.number) for key, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, found: Closing | None) -> None:
        if found is not None:
            for key, value in _plain(found.values).items():
                self._client.log_metric(self._run, key, value)
            form = {"columns": list(found.columns), "data": [list(row) for row in found.rows]}
            self._client.log_dict(self._run, form, "front.json")
            self._client.log_text(self._run, found.page, "report.html")
        self._client.set_terminated(self._run)


def _plain(values: Values) -> dict[str, float]:
    """Values under names MLflow takes: what it does not is `_`, and a number tells apart what becomes the same."""
    found: dict[str, float] = {}
    for name, value in values.items():
        plain = key = re.sub(r"[^\w./ -]", "_", name)
        count = 1
        while key in found:
            count += 1
            key = f"{plain}_{count}"
        found[key] = value
    return found
