"""A plot as SVG, drawn by hand: a row for each name, a dot for each value, a bar for the median."""

import statistics
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, ROW, LEFT, RIGHT, TOP = 720, 44, 170, 80, 40


def dots(title: str, values: Mapping[str, Sequence[float]]) -> str:
    """The text of an SVG file; all values are at least 0."""
    most = max(value for several in values.values() for value in several) or 1.0

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / most

    height = TOP + ROW * len(values) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
    ]
    for row, (name, several) in enumerate(values.items()):
        middle, median = TOP + ROW * row + ROW / 2, statistics.median(several)
        parts += [
            f'<text x="{LEFT - 10}" y="{middle + 4:.0f}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{middle - 11:.0f}" width="{x(median) - LEFT:.1f}" height="22" fill="#c9d7ea"/>',
            *(f'<circle cx="{x(value):.1f}" cy="{middle:.0f}" r="3.5" fill="#1f4e8c"/>' for value in several),
            f'<text x="{WIDTH - RIGHT + 10}" y="{middle + 4:.0f}">{median:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
