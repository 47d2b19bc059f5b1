"""The assignment problem: one column for each row, none twice, with the greatest sum."""

from __future__ import annotations

import math
from collections.abc import Sequence


def assign(scores: Sequence[Sequence[float]]) -> list[int | None]:
    """For each row its column, so that Σ scores[row][column] is greatest; None for rows beyond the number of columns.

    Which rows go without where there are more rows than columns is part of the maximum. Exact, O(n³) (the Hungarian
    method with potentials); deterministic for one order of rows and columns. Raises ValueError for rows of different
    lengths and scores that are not finite.
    """
    rows = len(scores)
    columns = len(scores[0]) if rows else 0
    if any(len(row) != columns for row in scores) or not all(math.isfinite(v) for row in scores for v in row):
        raise ValueError("scores are a matrix of finite numbers")
    if rows > columns:
        turned = assign([[row[k] for row in scores] for k in range(columns)])
        found: list[int | None] = [None] * rows
        for column, row in enumerate(turned):
            if row is not None:
                found[row] = column
        return found
    taken: list[int] = [-1] * (columns + 1)  # the row of each column; the last column stands for none
    potential, price = [0.0] * rows, [0.0] * (columns + 1)
    for row in range(rows):
        _place(row, scores, taken, potential, price)
    found = [None] * rows
    for column in range(columns):
        if taken[column] >= 0:
            found[taken[column]] = column
    return found


def _place(
    row: int,
    scores: Sequence[Sequence[float]],
    taken: list[int],
    potential: list[float],
    price: list[float],
) -> None:
    """The cheapest way to give the row a column, moving others on (Dijkstra over reduced costs −score)."""
    columns = len(taken) - 1
    current, taken[columns] = columns, row
    cost, before, done = [math.inf] * columns, [columns] * columns, [False] * (columns + 1)
    while taken[current] >= 0:
        done[current] = True
        mover = taken[current]
        for column in range(columns):
            if not done[column]:
                reduced = -scores[mover][column] - potential[mover] - price[column]
                if reduced < cost[column]:
                    cost[column], before[column] = reduced, current
        nearest = min((c for c in range(columns) if not done[c]), key=cost.__getitem__)
        step = cost[nearest]
        for column in range(columns + 1):
            if done[column]:
                potential[taken[column]] += step
                price[column] -= step
            elif column < columns:
                cost[column] -= step
        current = nearest
    while current != columns:
        taken[current] = taken[before[current]]
        current = before[current]
    taken[columns] = -1
