"""What a file is by its first bytes, when it is not the safetensors file it was taken for."""

from __future__ import annotations

_SAVE_AGAIN = "load it with torch and save it with safetensors.torch.save_file"
_MARKUP = (b"<!doctype html", b"<html", b"<head", b"<?xml")
_FORMATS = (
    (
        b"version https://git-lfs",
        "a git-lfs pointer, the note that stands for a file not yet fetched",
        "run: git lfs pull",
    ),
    (
        b"GGUF",
        "a GGUF file, whose weights are packed for llama.cpp",
        "mix the original checkpoints, then convert the soup",
    ),
    (b"PK\x03\x04", "a zip archive, such as torch.save writes", _SAVE_AGAIN),
    (b"\x80\x02", "a Python pickle, as old torch.save wrote", _SAVE_AGAIN),
    (b"\x80\x03", "a Python pickle", _SAVE_AGAIN),
    (b"\x80\x04", "a Python pickle", _SAVE_AGAIN),
    (b"\x80\x05", "a Python pickle", _SAVE_AGAIN),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (
        b"\x89HDF",
        "an HDF5 file (TensorFlow or Keras weights)",
        "convert it with transformers: from_pretrained(..., from_tf=True)",
    ),
)


def other_format(head: bytes) -> tuple[str, str] | None:
    """What a file that begins with `head` is and what to do about it; None where nothing tells."""
    if head.lstrip().lower().startswith(_MARKUP):
        return "a web page saved under this name", "fetch the file again, with a token if it is gated"
    if head.lstrip()[:1] in (b"{", b"["):
        return "a JSON text", "name the folder or the weight file, not what lies beside it"
    if head.startswith(b"\x93NUMPY"):
        return "a NumPy array", "save it as a tensor, with safetensors or torch.save"
    for magic, what, hint in _FORMATS:
        if head.startswith(magic):
            return what, hint
    return None


def other_than_torch(head: bytes) -> tuple[str, str] | None:
    """What a file under a PyTorch file's name is by its first 512 bytes, and what to do; None if nothing tells."""
    if head[8:10] == b'{"':
        return "a safetensors file under another name", "give it a name that ends in .safetensors"
    if head[257:].startswith(b"ustar"):
        return "a tar archive, as the first versions of torch wrote", _SAVE_AGAIN
    return other_format(head)
