"""Draws docs/front.svg: the demo's two experts and 21 of their soups, merged by rsoup and scored for real.

Run it from the repository: python docs/front.py
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import rsoup
from rsoup.demo import train

STEPS = 20
LEFT, TOP, WIDTH, HEIGHT = 64, 20, 420, 300


def measured(seed: int = 0) -> tuple[dict[str, float], list[tuple[Fraction, dict[str, float]]]]:
    """(rewards of the base, [(λ of `low`, rewards of the soup)]), every soup written and read as a checkpoint."""
    from safetensors.torch import load_file, save_file

    policies = train.train(seed, progress=lambda _: None)
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for name, weights in {"base": policies.base, **policies.experts}.items():
            save_file(dict(weights), f"{folder}/{name}.safetensors")
        for step in range(STEPS + 1):
            share = Fraction(step, STEPS)
            recipe = rsoup.make_recipe(
                {"low": f"{folder}/low.safetensors", "high": f"{folder}/high.safetensors"},
                mix=[share, 1 - share],
                base=f"{folder}/base.safetensors",
            )
            rsoup.merge(recipe, f"{folder}/soup-{step}.safetensors")
            soup = load_file(f"{folder}/soup-{step}.safetensors")
            points.append((share, train.rewards(soup, policies.held_out)))
    return train.rewards(policies.base, policies.held_out), points


def place(rewards: dict[str, float]) -> tuple[float, float]:
    """Pixels of a point whose axes go from 0 to 1."""
    return LEFT + rewards["low"] * WIDTH, TOP + (1 - rewards["high"]) * HEIGHT


def svg(base: dict[str, float], points: list[tuple[Fraction, dict[str, float]]]) -> str:
    """The picture: soups as a line with dots, the chord between the experts dashed, the base as a cross."""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(rewards) for _, rewards in points))
    dots = "".join(
        f'<circle cx="{place(r)[0]:.1f}" cy="{place(r)[1]:.1f}" r="{5 if share in (0, 1) else 3}" fill="#c2410c"/>'
        for share, r in points
    )
    labels = "".join(
        f'<text x="{place(r)[0] + dx:.1f}" y="{place(r)[1] + dy:.1f}">{text}</text>'
        for (share, r) in points
        for at, text, dx, dy in (
            (Fraction(0), "λ = (0, 1)", -10, -14),
            (Fraction(1, 2), "λ = (½, ½)", 8, -8),
            (Fraction(1), "λ = (1, 0)", -68, 20),
        )
        if share == at
    )
    (x1, y1), (x2, y2) = place(points[0][1]), place(points[-1][1])
    bx, by = place(base)
    ticks = "".join(
        f'<text x="{LEFT + v * WIDTH:.0f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{v}</text>'
        f'<text x="{LEFT - 8}" y="{TOP + (1 - v) * HEIGHT + 4:.0f}" text-anchor="end">{v}</text>'
        for v in (0, 0.5, 1)
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 380" font-family="sans-serif" font-size="12" fill="#333">
<title>Rewards of two experts and of their soups</title>
<rect width="520" height="380" fill="#fff"/>
<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#bbb"/>
<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#888" stroke-dasharray="4 4"/>
<polyline points="{line}" fill="none" stroke="#c2410c" stroke-width="1.5"/>{dots}{labels}
<path d="M{bx - 5:.1f},{by - 5:.1f}l10,10m0,-10l-10,10" stroke="#1d4ed8" stroke-width="2"/>
<text x="{bx - 32:.1f}" y="{by + 18:.1f}" fill="#1d4ed8">base</text>{ticks}
<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 40}" text-anchor="middle">reward "low": held-out digits 0–4 answered right</text>
<text transform="translate(20,{TOP + HEIGHT / 2}) rotate(-90)" text-anchor="middle">reward "high": digits 5–9</text>
</svg>
"""


if __name__ == "__main__":
    Path(__file__).with_name("front.svg").write_text(svg(*measured()), encoding="utf-8")
