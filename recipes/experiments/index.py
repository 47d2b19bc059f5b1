"""The index of the experiments, docs/experiments/README.md, from their verdicts.json.

python recipes/experiments/index.py
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from evidence import DELTA, LEAST_SEEDS
from wording import VERDICTS, table

PAGES = Path(__file__).resolve().parents[2] / "docs" / "experiments"


def main() -> None:
    """Write README.md beside the pages."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--pages", type=Path, default=PAGES)
    print(write(arguments.parse_args().pages))


def write(pages: Path) -> Path:
    """README.md from every verdicts.json below `pages`, in order of their folders' names."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(pages.glob(f"*/{VERDICTS}"))]
    (pages / "README.md").write_text(text(found), encoding="utf-8")
    return pages / "README.md"


def text(found: Sequence[Mapping[str, Any]]) -> str:
    """The index: what was asked, how it is decided, a line per setting of every experiment."""
    head = [
        "", "setting", "seeds", "trainings", "against", "LMC", "difference", "95 % interval", "verdict", "worth"
    ]  # fmt: skip
    rows = [
        [
            f"[{one['title']}]({one['page']})" if number == 0 else "", line["setting"], str(line["seeds"]), str(line["trainings"]),
            str(line["against"]), line["lmc"], line["difference"], line["interval"], f"**{line['verdict']}**", line["worth"],
        ]
        for one in found
        for number, line in enumerate(one["lines"])
    ]  # fmt: skip
    return f"""# Are two trainings worth eleven?

Rewarded soups promise that mixing N experts, one training per reward, reaches what M trainings for mixed rewards (MORL) reach. Whether it does depends on the task, and `rsoup verdict` judges it from your own seeds. Here it is measured end to end: trainings from nothing, every merge, sweep and front by rsoup's own commands.

{table(head, rows)}

*LMC*: in how many cells (a cell is a seed) no soup lies below the chord of its experts. *Difference*: expected reward of the soups less that of all the other trainings, in the experts' range, over preferences uniform on the simplex; λ and trainings are chosen on one split and reported on another. *Worth*: the largest number of the other trainings against which the verdict is match or better.

The rule was in the code before the runs, and is [`rsoup verdict`](../front.md#verdict)'s: *better*, the 95 % bootstrap interval over the seeds lies above 0; *match*, above −δ, δ being {DELTA:.0%} of what the other trainings gain over the best single expert; *worse*, below 0 and no match; otherwise, and with fewer than {LEAST_SEEDS} seeds, *inconclusive*.

How to run them again: [recipes/experiments](../../recipes/experiments/README.md).
"""


if __name__ == "__main__":
    main()
