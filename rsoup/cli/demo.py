"""`rsoup demo`: two tiny experts, a sweep of λ between them, the front."""

from __future__ import annotations

import os

from rsoup.console import Console, use_colour
from rsoup.errors import show
from rsoup.report import sweep_text


def run(out: str, *, seed: int, overwrite: bool, console: Console) -> None:
    """Train and sweep; then show the front beside the experts, and the commands to go on by hand."""
    from rsoup.demo.run import SWEEP
    from rsoup.demo.run import run as run_demo

    result = run_demo(out, seed=seed, overwrite=overwrite, progress=console.talk)
    unicode = (console.out.encoding or "").lower().startswith("utf")
    base = result.rows[0]
    lines = [
        f"{show(result.out)}: a base, two experts and a sweep between them in {result.seconds:.0f} s",
        "",
        *sweep_text.final(result.document, unicode=unicode, colour=use_colour(console.out)),
        f"the base alone: low {base.low:.3f}, high {base.high:.3f}",
        f"report    {show(os.path.join(result.out, SWEEP, 'report.html'))}",
        "",
        "rewards: the probability of answering a held-out digit right, 0–4 (low) and 5–9 (high)",
        "",
        "cook the best compromise; measure twice as many λ (only the new ones run):",
        *(f"  {show(command, 1000)}" for command in result.commands),
    ]
    data = {
        "out": result.out,
        "seed": result.seed,
        "rows": [
            {"label": row.label, "lambda": row.mix or None, "low": row.low, "high": row.high}
            for row in result.rows
        ],
        "metrics": dict(result.document),
        "commands": list(result.commands),
        "base_accuracy": result.accuracy,
        "seconds": round(result.seconds, 3),
    }
    console.result("\n".join(lines), data, result.out)
