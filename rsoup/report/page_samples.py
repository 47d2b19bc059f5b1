"""What an evaluator left of a point, samples of text and small images: read from its folder, and checked."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SAMPLES: Final = 8  # of one point
CHARACTERS: Final = 4000  # of one prompt or output
IMAGES: Final = 8  # of one point
IMAGE_BYTES: Final = 256 * 1024
FILE: Final = "samples.jsonl"
_LINE: Final = 64 * 1024
_ENDINGS: Final = (".png", ".jpg", ".jpeg")
_MAGIC: Final = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}
_URI: Final = re.compile(r"data:image/(png|jpeg);base64,([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one soup answered to one prompt."""

    prompt: str
    output: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture, as the `data:` address of a PNG or JPEG."""

    name: str
    data: str


@dataclass(frozen=True, slots=True)
class Left:
    """Everything the page can show of what a point's evaluator left."""

    samples: tuple[Sample, ...] = ()
    images: tuple[Image, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.samples or self.images)

    @property
    def size(self) -> int:
        """Characters on the page."""
        texts = sum(len(sample.prompt) + len(sample.output) for sample in self.samples)
        return texts + sum(len(image.data) for image in self.images)


def left(point: Mapping[str, object]) -> Left:
    """`samples` and `images` of a point of a metrics document, in its order; both may be absent.

    Samples are `{"prompt": str, "output": str}`, images `{"name": str, "data": "data:image/png;base64,…"}`.
    The first SAMPLES and IMAGES are taken. Raises TypeError for another form, ValueError for an image that is
    neither PNG nor JPEG.
    """
    samples = [_pair(item, "prompt", "output") for item in _items(point, "samples")[:SAMPLES]]
    images = [_pair(item, "name", "data") for item in _items(point, "images")[:IMAGES]]
    return Left(
        tuple(Sample(prompt, output) for prompt, output in samples),
        tuple(Image(name, _checked(data)) for name, data in images),
    )


def _items(point: Mapping[str, object], key: str) -> list[object]:
    found = point.get(key) or []
    if not isinstance(found, list):
        raise TypeError(f"{key} is not a list")
    return found


def _pair(item: object, first: str, second: str) -> tuple[str, str]:
    if not isinstance(item, Mapping):
        raise TypeError(f"one of the {first}s is not a table")
    one, two = item[first], item[second]
    if not isinstance(one, str) or not isinstance(two, str):
        raise TypeError(f"a {first} or its {second} is not a text")
    return one, two


def _checked(data: str) -> str:
    found = _URI.fullmatch(data)
    if found is None or _kind(_decoded(found[2])) != found[1]:
        raise ValueError("an image is not the data: address of a PNG or JPEG in base64")
    return data


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _kind(data: bytes) -> str | None:
    return next((kind for kind, magic in _MAGIC.items() if data.startswith(magic)), None)


def collect(folder: str) -> dict[str, object]:
    """`samples` and `images` of a metrics document's point, from the folder its evaluator wrote to.

    The first SAMPLES lines of `samples.jsonl` that are objects with the texts `prompt` and `output` (cut to
    CHARACTERS), and the first IMAGES of its `*.png`, `*.jpg` and `*.jpeg` by name, of at most IMAGE_BYTES.
    Whatever else is there, links and malformed lines among it, is passed over: an evaluator owes the page
    nothing. No key where there is nothing to show.
    """
    found: dict[str, object] = {}
    if samples := _samples(os.path.join(folder, FILE)):
        found["samples"] = samples
    if images := _images(folder):
        found["images"] = images
    return found


def _samples(path: str) -> list[dict[str, str]]:
    found = []
    lines = (_read(path, 4 * SAMPLES * _LINE) or b"").split(b"\n")
    for line in lines:
        sample = _sample(line) if len(line) <= _LINE else None
        if sample is not None:
            found.append(sample)
        if len(found) == SAMPLES:
            break
    return found


def _sample(line: bytes) -> dict[str, str] | None:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(item, dict):
        return None
    prompt, output = item.get("prompt"), item.get("output")
    if not isinstance(prompt, str) or not isinstance(output, str):
        return None
    return {"prompt": _cut(prompt), "output": _cut(output)}


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"


def _images(folder: str) -> list[dict[str, str]]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith(_ENDINGS))
    except OSError:
        return []
    found = []
    for name in names:
        data = _read(os.path.join(folder, name), IMAGE_BYTES, whole=True)
        kind = None if data is None else _kind(data)
        if data is not None and kind is not None:
            uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
            found.append({"name": os.fsencode(name).decode("utf-8", "replace"), "data": uri})
        if len(found) == IMAGES:
            break
    return found


def _read(path: str, limit: int, *, whole: bool = False) -> bytes | None:
    """The first `limit` bytes of a regular file; None for anything else, and for a longer one if it must be `whole`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or (whole and status.st_size > limit):
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(limit)
    except OSError:
        return None
    finally:
        os.close(handle)
