"""`rsoup ensemble`: files of outputs → the gap between a soup and the ensemble of its experts."""

from __future__ import annotations

from collections.abc import Sequence

from rsoup.console import Console
from rsoup.errors import UsageError, show, show_path
from rsoup.front.ensembling import ensembling
from rsoup.front.logits import read_logits
from rsoup.mix import parse_number

SCHEMA = "rsoup-ensemble/1"


def run(experts: Sequence[str], soup: str, mix: str, labels: str | None, *, console: Console) -> None:
    """Read everything, compare, show. Raises UsageError E0257 for files, E0201 for λ."""
    shares = tuple(map(parse_number, mix.split(",")))
    if sum(shares) != 1 or min(shares) < 0:
        raise UsageError(
            "E0257", f"--lambda {show(mix)} are no shares of 1", hint="one per expert: --lambda 0.3,0.7"
        )
    if len(shares) != len(experts):
        raise UsageError(
            "E0257", f"{len(shares)} λ for {len(experts)} files of experts' outputs", hint="one λ per expert"
        )
    arrays = list(read_logits(*experts, soup).values())
    if len(arrays) != len(experts) + 1:
        raise UsageError(
            "E0257",
            f"{len(arrays)} arrays in {len(experts) + 1} files",
            hint="one array per file, on the same inputs",
        )
    right = None
    if labels is not None:
        found = list(read_logits(labels).values())
        if len(found) != 1 or found[0].dtype.kind not in "iu" or found[0].shape != arrays[-1].shape[:-1]:
            raise UsageError(
                "E0257", "the labels are not one whole number per input", where=show_path(labels),
                hint=f"an array of the shape {arrays[-1].shape[:-1]}",
            )  # fmt: skip
        right = found[0]
        if int(right.min()) < 0 or int(right.max()) >= arrays[-1].shape[-1]:
            raise UsageError(
                "E0257", f"a label is none of the {arrays[-1].shape[-1]} outputs", where=show_path(labels),
                hint="labels count from 0",
            )  # fmt: skip
    result = ensembling(arrays[:-1], arrays[-1], [float(share) for share in shares], right)
    names = [show(path, 40) for path in experts]
    relative = "-" if result.relative is None else f"{result.relative:.4g}"
    lines = [
        f"{result.inputs} inputs × {result.outputs} outputs",
        f"  gap        {result.gap:.4g} (rms of soup − ensemble; {relative} of the experts' spread {result.spread:.4g})",
        f"  largest    {result.largest:.4g} at one input",
        f"  agreement  {result.agreement:.2%} of the inputs have the same largest output",
    ]
    if result.accuracy is not None:
        *each, both, one = result.accuracy
        parts = [f"{name} {value:.2%}" for name, value in zip(names, each, strict=True)]
        lines.append(f"  right      {' · '.join(parts)} · ensemble {both:.2%} · soup {one:.2%}")
    data = {
        "format": SCHEMA,
        "definition": "gap = rms of f(x, Σλθ) − Σλf(x, θ) over inputs and outputs; O(‖θᵢ − Σλθ‖²) by Lemma 4",
        "gap": result.gap,
        "relative": result.relative,
        "spread": result.spread,
        "largest": result.largest,
        "agreement": result.agreement,
        "accuracy": None
        if result.accuracy is None
        else {
            "experts": list(result.accuracy[:-2]),
            "ensemble": result.accuracy[-2],
            "soup": result.accuracy[-1],
        },
        "inputs": result.inputs,
        "outputs": result.outputs,
    }
    console.result("\n".join(lines), data, relative)
