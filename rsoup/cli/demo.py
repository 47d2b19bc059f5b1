"""`rsoup demo`: two tiny experts, five soups of them, two rewards each."""

from __future__ import annotations

from rsoup.console import Console, table
from rsoup.errors import show


def run(out: str, *, seed: int, overwrite: bool, console: Console) -> None:
    """Train, merge and score; then show the rewards as a table and the commands to go on by hand."""
    from rsoup.demo.run import run as run_demo

    result = run_demo(out, seed=seed, overwrite=overwrite, progress=console.talk)
    rows = [[row.label, row.mix, f"{row.low:.3f}", f"{row.high:.3f}"] for row in result.rows]
    lines = [
        f"{show(result.out)}: a base, two experts and their soups in {result.seconds:.0f} s",
        "",
        table(rows, ["checkpoint", "λ", "reward low", "reward high"]),
        "",
        "rewards: the probability of answering a held-out digit right, 0–4 (low) and 5–9 (high)",
        "",
        "cook the same soups yourself:",
        *(f"  {show(command, 1000)}" for command in result.commands),
    ]
    data = {
        "out": result.out,
        "seed": result.seed,
        "rows": [
            {"label": row.label, "lambda": row.mix or None, "low": row.low, "high": row.high}
            for row in result.rows
        ],
        "commands": list(result.commands),
        "base_accuracy": result.accuracy,
        "seconds": round(result.seconds, 3),
    }
    console.result("\n".join(lines), data, result.out)
