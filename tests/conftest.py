"""Fixtures every test may ask for; how their checkpoints are made stands in `checkpoints.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
from checkpoints import Family, related, write_folder
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network; those of the Hub have a server of their own
settings.register_profile("rsoup", deadline=None)  # a busy machine is no counterexample
settings.load_profile("rsoup")


class Folders(NamedTuple):
    """A base and two fine-tunes of it on disk, where nothing else lies, and what they hold."""

    root: Path
    base: Path
    one: Path
    two: Path
    family: Family


@pytest.fixture(scope="session")
def family() -> Family:
    """A base and two fine-tunes, made once: copy before you change them."""
    return related(2)


@pytest.fixture
def base_and_two(tmp_path: Path, family: Family) -> Folders:
    """The family as three single-file folders with config.json: tmp_path/base, one and two."""
    return Folders(
        tmp_path,
        write_folder(tmp_path / "base", family.base),
        write_folder(tmp_path / "one", family.tuned[0]),
        write_folder(tmp_path / "two", family.tuned[1]),
        family,
    )


@pytest.fixture(scope="session")
def zoo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the adapters that tests share are made, each kind once."""
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture
def two_models(base_and_two: Folders) -> list[str]:
    """The two fine-tunes' paths as a command line takes them."""
    return [str(base_and_two.one), str(base_and_two.two)]
