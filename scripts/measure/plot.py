"""The ratios as bars, in one SVG that follows the reader's light or dark mode."""

from __future__ import annotations

from xml.sax.saxutils import escape

from measure.results import Ratio

WIDTH, LEFT, RIGHT, ROW, GAP, TOP, FOOT = 720, 190, 70, 34, 8, 68, 32
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.soft { fill: #59636e }
.bar { fill: #4c78c8 }
.spread { stroke: #1f2328; stroke-width: 1.5 }
.grid { stroke: #d1d9e0 }
.one { stroke: #59636e; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .soft { fill: #9198a1 } .bar { fill: #6f9ae8 }
  .spread { stroke: #e6edf3 } .grid { stroke: #3d444d } .one { stroke: #9198a1 }
}"""


def draw(ratios: list[Ratio], title: str, subtitle: str) -> str:
    """Return a document with one bar for each ratio: its median, and a line over the spread."""
    scale = (WIDTH - LEFT - RIGHT) / max([1.0, *(ratio.spread.high for ratio in ratios)])
    bottom = TOP + ROW * len(ratios)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + FOOT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
        f'<text class="soft" x="16" y="46">{escape(subtitle)}</text>',
    ]
    for fifth in range(int(5 * (WIDTH - LEFT - RIGHT) / scale) + 1):
        parts += _grid_line(LEFT + fifth / 5 * scale, fifth, bottom)
    for row, ratio in enumerate(ratios):
        parts += _bar(ratio, TOP + row * ROW, scale)
    return "\n".join([*parts, "</svg>", ""])


def _grid_line(x: float, fifth: int, bottom: int) -> list[str]:
    kind = "one" if fifth == 5 else "grid"
    return [
        f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>',
        f'<text class="soft" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{fifth / 5:.1f}</text>',
    ]


def _bar(ratio: Ratio, y: int, scale: float) -> list[str]:
    """Draw one: its name, the bar to the median, the line from the lowest to the highest, the number."""
    middle = y + (ROW - GAP) / 2
    low, high, end = (LEFT + value * scale for value in (ratio.spread.low, ratio.spread.high, ratio.spread.middle))
    name = escape(f"{ratio.workload} / {ratio.server}")
    strokes = [(low, high, middle, middle), *((x, x, middle - 5, middle + 5) for x in (low, high))]
    return [
        f'<text x="{LEFT - 10}" y="{middle + 4}" text-anchor="end">{name}</text>',
        f'<rect class="bar" x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{ROW - GAP}" rx="3"/>',
        *(f'<path class="spread" d="M{x1:.1f} {y1}L{x2:.1f} {y2}"/>' for x1, x2, y1, y2 in strokes),
        f'<text x="{WIDTH - 16}" y="{middle + 4}" text-anchor="end">{ratio.spread.middle:.2f}</text>',
    ]
