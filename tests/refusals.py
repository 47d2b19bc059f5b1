"""What the tests of refusals share: two checkpoints, the refusal of their soup, headers in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import tree, write_folder

import rsoup as library
from rsoup.errors import IncompatibleError
from rsoup.tensors import DTYPES, Header, TensorSpec

Tensors = dict[str, torch.Tensor]


def refused(folder: Path, *sides: Path, base: Path | None = None, **options: object) -> IncompatibleError:
    """The refusal of an even soup of `sides`; fails if there is none, or if anything in `folder` changed."""
    before = tree(folder)
    recipe = library.make_recipe(list(sides), uniform=True, base=base, **options)  # type: ignore[arg-type]

    with pytest.raises(IncompatibleError) as error:
        library.merge(recipe, folder / "soup")

    assert before == tree(folder)
    return error.value


def changed(tensors: Tensors, **more: torch.Tensor | None) -> Tensors:
    """A copy of `tensors` with some replaced, added, or (None) taken out; `__` in a name is a point."""
    found = dict(tensors)
    for key, value in more.items():
        name = key.replace("__", ".")
        if value is None:
            del found[name]
        else:
            found[name] = value
    return found


def two(folder: Path, one: Tensors, other: Tensors, **more: object) -> tuple[Path, Path]:
    """Two checkpoint folders, `one` and `other`."""
    return write_folder(folder / "one", one, **more), write_folder(folder / "other", other, **more)  # type: ignore[arg-type]


def header(**tensors: str) -> Header:
    """A header from `name="BF16 2 3"`; `__` in a name is a point."""
    found = {}
    for key, text in tensors.items():
        dtype, *shape = text.split()
        found[key.replace("__", ".")] = TensorSpec(DTYPES[dtype], tuple(map(int, shape)))
    return found


def whats(error: IncompatibleError) -> str:
    """All findings of an error as one text."""
    return "\n".join(f"{problem.where}: {problem.what}" for problem in error.details)
