"""Headers → mismatches: can these checkpoints be mixed, tensor by tensor? Pure; no weights are read."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsoup.errors import listing, show
from rsoup.tensors import Header


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A group of tensors with the same fault: which kind, which tensors, what to say of them, a guess why.

    Kinds: `missing` (not in every checkpoint), `shape`, `dtype` (one side cannot be averaged), `state` (of a
    training run, not of the model), `quantised`, `config`, `tokenizer`, `empty`.
    """

    kind: str
    what: str
    tensors: tuple[str, ...] = ()
    guess: str | None = None


def dropped(headers: Sequence[Header], globs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """For each glob of `--drop`, the tensor names it matches in any of the checkpoints."""
    names = dict.fromkeys(name for header in headers for name in header)
    return {glob: tuple(name for name in names if fnmatch.fnmatchcase(name, glob)) for glob in globs}


def compare_headers(checkpoints: Mapping[str, Header]) -> list[Mismatch]:
    """Every way in which the tensor sets, shapes and dtypes of `checkpoints` (name → header) differ.

    The first checkpoint is the measure. Tensors with the same fault are one mismatch.
    """
    found: list[Mismatch] = []
    if empty := [name for name, header in checkpoints.items() if not header]:
        found.append(
            Mismatch("empty", f"{listing(empty)} {'hold' if len(empty) > 1 else 'holds'} no tensors")
        )
    return [*found, *_state(checkpoints), *_missing(checkpoints), *_unlike(checkpoints)]


_STATE = re.compile(
    r"^(?P<root>(?:.*\.)?(?:optimizers?|optim|optimizer_states?|optimizer_state_dict|opt_state|lr_schedulers?|"
    r"lr_scheduler_state_dict|grad_scaler|(?:cuda_|cpu_)?rng_states?))(?:\.|$)"
)
_MOMENTS = re.compile(r"(?:^|\.)(?P<leaf>exp_avg|exp_avg_sq|max_exp_avg_sq|momentum_buffer)(?:\.|$)")
_EMA = re.compile(r"^(?P<root>(?:.*\.)?(?:ema|ema_model|model_ema|ema_weights))\.")


def _state(checkpoints: Mapping[str, Header]) -> list[Mismatch]:
    """What a training run keeps beside its model: mixing an optimizer's moments means nothing."""
    groups: dict[str, dict[str, None]] = {}
    for tensor in dict.fromkeys(tensor for header in checkpoints.values() for tensor in header):
        if found := _STATE.match(tensor):
            glob = f"{found['root']}.*" if len(tensor) > len(found["root"]) else found["root"]
            groups.setdefault(glob, {})[tensor] = None
        elif found := _MOMENTS.search(tensor):
            groups.setdefault(f"*{found['leaf']}*", {})[tensor] = None
    return [
        Mismatch(
            "state",
            f"{_count(list(tensors))} of an optimizer or a random generator, not of the model: {listing(list(tensors), 3)}",
            tuple(tensors),
            f"leave out what only the training needs: --drop '{show(glob)}'",
        )
        for glob, tensors in groups.items()
    ]


def averaged_copies(header: Header) -> list[str]:
    """Notes on tensors that look like a running average (EMA) kept beside the weights: mixed like weights."""
    roots: dict[str, int] = {}
    for tensor in header:
        if found := _EMA.match(tensor):
            roots[found["root"]] = roots.get(found["root"], 0) + 1
    return [
        f"{count} tensors under '{show(root)}' look like a running average of the weights and are mixed as such; "
        f"without them: --drop '{show(root)}.*'"
        for root, count in roots.items()
    ]


def own_heads(header: Header, *, with_base: bool) -> list[str]:
    """A note on heads that every fine-tuning makes anew, if there are any: value heads; without a base, scores too."""
    heads = {
        name: found["head"]
        for name in header
        if (found := _HEAD.match(name)) and (_OWN_HEAD if with_base else _OWN_HEAD_OR_SCORE).match(name)
    }
    if not heads:
        return []
    drops = " ".join(f"--drop '{show(head)}.*'" for head in dict.fromkeys(heads.values()))
    return [
        f"{listing(list(heads), 2)}: heads that a fine-tuning makes anew are averaged like all tensors, which is sound "
        f"only if they began the same in all checkpoints; without them: {drops}"
    ]


def _missing(checkpoints: Mapping[str, Header]) -> list[Mismatch]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for tensor in dict.fromkeys(tensor for header in checkpoints.values() for tensor in header):
        lacking = tuple(name for name, header in checkpoints.items() if tensor not in header)
        if lacking:
            groups.setdefault(lacking, []).append(tensor)
    result = []
    for lacking, tensors in groups.items():
        having = [name for name in checkpoints if name not in lacking]
        what = (
            f"{_count(tensors)} of {listing(having)} not in {listing(list(lacking))}: {listing(tensors, 3)}"
        )
        guess = _why_missing(tensors, checkpoints, having[0], lacking[0])
        result.append(Mismatch("missing", what, tuple(tensors), guess))
    return result


def _count(tensors: Sequence[str]) -> str:
    return "1 tensor" if len(tensors) == 1 else f"{len(tensors)} tensors"


_HEAD = re.compile(
    r"^(?P<head>(?:.*\.)?(?:v_head|score|value_head|reward_head|classifier|regression_head))\."
)
_OWN_HEAD = re.compile(r"^(?:.*\.)?(?:v_head|value_head|reward_head)\.")
_OWN_HEAD_OR_SCORE = re.compile(r"^(?:.*\.)?(?:v_head|value_head|reward_head|score)\.")
_ONE_EXPERT, _FUSED_EXPERTS = re.compile(r"experts\.[0-9]+\."), re.compile(r"experts\.[a-z_]+$")


def _why_missing(
    tensors: Sequence[str], checkpoints: Mapping[str, Header], having: str, lacking: str
) -> str | None:
    ours, theirs = checkpoints[having], checkpoints[lacking]
    if all(name.endswith(("lm_head.weight", "embed_out.weight")) for name in tensors):
        return f"a tied head, stored by one and left out by the other? if it equals the embeddings: --drop '{show(tensors[0])}'"
    heads = dict.fromkeys(found["head"] if (found := _HEAD.match(name)) else "" for name in tensors)
    if all(heads):
        drops = " ".join(f"--drop '{show(head)}.*'" for head in heads)
        return f"a value, reward or task head that the soup does not need? then: {drops}"
    if any(".lora_" in name or "lora_A" in name for name in tensors):
        return "a LoRA adapter? merge it into its base first"
    (apart, fused), (other_apart, other_fused) = _ways(ours), _ways(theirs)
    if (apart, fused) != (other_apart, other_fused) and ((apart and other_fused) or (fused and other_apart)):
        return (
            "fused experts in one and separate ones in the other: saved with save_original_format=False? "
            "load it with transformers and save it again without that"
        )
    renamed = _renamed(tensors, ours, theirs)
    if renamed is None:
        return None
    old, new = renamed
    where = f"in '{show(lacking)}' the same tensors"
    if not old:
        return f"{where} are called '{show(new)}…': saved from a wrapped model? save the model inside the wrapper"
    if not new:
        return (
            f"{where} lack the prefix '{show(old)}': saved from the inner model, or here from a wrapped one?"
        )
    return (
        f"{where} are called '{show(new)}…' instead of '{show(old)}…': load and save it with the same version"
    )


def _ways(header: Header) -> tuple[bool, bool]:
    """Whether there are experts stored one by one, and experts stored as one tensor."""
    return any(map(_ONE_EXPERT.search, header)), any(map(_FUSED_EXPERTS.search, header))


def _renamed(tensors: Sequence[str], ours: Header, theirs: Header) -> tuple[str, str] | None:
    """(a, b) if every one of our `tensors` begins with a and is theirs with b in its place; else None."""
    parts = max((name.split(".") for name in tensors), key=len)
    nearest: tuple[int, str] = (0, "")
    for other in theirs:
        if other in ours or other.rpartition(".")[2] != parts[-1]:
            continue
        alike = 0
        for one, two in zip(reversed(parts), reversed(other.split(".")), strict=False):
            if one != two:
                break
            alike += 1
        nearest = max(nearest, (alike, other))
    alike, other = nearest
    if not alike:
        return None
    old = "".join(f"{part}." for part in parts[:-alike])
    new = "".join(f"{part}." for part in other.split(".")[:-alike])
    if alike == 1 and old and new:
        return None  # nothing but `weight` in common

    def there(name: str) -> bool:
        other = theirs.get(new + name[len(old) :]) if name.startswith(old) else None
        return other is not None and other.shape == ours[name].shape

    return (old, new) if all(map(there, tensors)) else None


def _unlike(checkpoints: Mapping[str, Header]) -> list[Mismatch]:
    shapes: dict[tuple[str, str], list[str]] = {}
    dtypes: dict[tuple[str, str, str, str], list[str]] = {}
    seen: dict[str, str] = {}  # tensor → the first checkpoint that has it: the measure
    for name, header in checkpoints.items():
        for tensor, spec in header.items():
            first = seen.setdefault(tensor, name)
            measure = checkpoints[first][tensor]
            if measure.shape != spec.shape:
                shapes.setdefault((first, name), []).append(tensor)
            elif measure.dtype != spec.dtype and not (measure.dtype.kind == spec.dtype.kind == "float"):
                dtypes.setdefault((first, name, measure.dtype.name, spec.dtype.name), []).append(tensor)
    result = []
    for (one, other), tensors in shapes.items():
        a, b = checkpoints[one], checkpoints[other]
        examples = "; ".join(f"'{show(t)}' is {list(a[t].shape)} and {list(b[t].shape)}" for t in tensors[:3])
        more = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
        what = f"{_count(tensors)} of another shape in '{show(one)}' and '{show(other)}': {examples}{more}"
        result.append(Mismatch("shape", what, tuple(tensors), _why_shape(tensors, a, b, one, other)))
    for (one, other, kind, other_kind), tensors in dtypes.items():
        what = f"{_count(tensors)} stored as {kind} in '{show(one)}' and as {other_kind} in '{show(other)}': {listing(tensors, 3)}"
        guess = "one of them is quantised? mix the originals, then quantise"
        result.append(Mismatch("dtype", what, tuple(tensors), guess))
    return result


VOCABULARY = re.compile(
    r"(?:^|\.)(?:embed_tokens|embed_tokens_per_layer|wte|word_embeddings|tok_embeddings|lm_head|embed_in|embed_out|shared|"
    r"embeddings|output|predictions\.decoder|predictions|decoder|generator_lm_head|final_logits)(?:\.weight|\.bias|_bias)$"
)


def _why_shape(tensors: Sequence[str], one: Header, other: Header, first: str, second: str) -> str | None:
    if all(sorted(one[tensor].shape) == sorted(other[tensor].shape) for tensor in tensors):
        return "transposed in one of them (Conv1D and Linear)?"
    rows = {(one[tensor].shape[:1], other[tensor].shape[:1]) for tensor in tensors}
    alike = all(one[tensor].shape[1:] == other[tensor].shape[1:] for tensor in tensors)
    if alike and len(rows) == 1 and all(map(VOCABULARY.search, tensors)):
        ((a,), (b,)) = next(iter(rows))
        larger = first if a > b else second
        return (
            f"a resized or padded vocabulary: rows {min(a, b)} to {max(a, b) - 1} exist only in '{show(larger)}'; "
            "--vocab truncate cuts them off, --vocab pad fills up the others, resize_token_embeddings does it by hand"
        )
    if all(_HEAD.match(tensor) for tensor in tensors):
        return "task heads for other numbers of labels? leave them out with --drop"
    return "models of different sizes?"
