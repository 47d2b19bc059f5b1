"""Members of zip archives that were compressed with Zstandard, which Python reads from 3.14 on by itself."""

from __future__ import annotations

import importlib
import io
import struct
import zipfile
from typing import Final

from rsoup.errors import show
from rsoup.sweep.scores import EvaluationFailed

ZSTANDARD: Final = 93
_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")


def inflate(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """A member's bytes, at most `most`, compressed in any way.

    Raises EvaluationFailed where it is larger, or nothing that reads Zstandard is installed, ValueError,
    OSError or BadZipFile where the archive is damaged.
    """
    if member.file_size > most:
        raise EvaluationFailed(f"'{show(member.filename)}' is larger than {most >> 20} MiB")
    if member.compress_type != ZSTANDARD:
        with archive.open(member) as file:
            return file.read(most)
    with open(path, "rb") as raw:
        raw.seek(member.header_offset)
        head = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
        raw.seek(head[-2] + head[-1], 1)
        data = raw.read(member.compress_size)
    return _frames(data, member.file_size)


def _frames(data: bytes, size: int) -> bytes:
    """`size` bytes from one frame after another, no more."""
    for name in ("compression.zstd", "zstandard"):
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        try:
            if name == "zstandard":
                reader = library.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
            else:
                reader = library.ZstdFile(io.BytesIO(data))
            done: bytes = reader.read(size + 1)
        except library.ZstdError as error:
            raise ValueError(str(error)) from None
        if len(done) != size:
            raise ValueError("it does not have the size it claims")
        return done
    raise EvaluationFailed(
        "inspect-ai compressed its log with Zstandard, which nothing here reads: "
        "give it --log-format json, or pip install zstandard"
    )
