"""Curves with bands, side by side, as one SVG that any page can show."""

from dataclasses import dataclass
from html import escape

from alignment.report.charts import axis_number, nice_ticks

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7")  # Okabe and Ito, for any colour vision
WIDTH, HEIGHT = 330, 250  # of one panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 30, 40


@dataclass(frozen=True, slots=True)
class Band:
    """A mean with its interval, and the points it was made of."""

    label: str
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    dots: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One measure."""

    title: str
    axis: str
    bands: list[Band]


def picture(panels: list[Panel]) -> str:
    """Draw panels side by side with one legend."""
    width, height = WIDTH * len(panels), HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for place, panel in enumerate(panels):
        parts.append(f'<g transform="translate({place * WIDTH},0)">{_panel(panel)}</g>')
    for place, band in enumerate(panels[0].bands):
        x = LEFT + 110 * place
        parts.append(f'<rect x="{x}" y="{HEIGHT + 6}" width="14" height="4" fill="{COLOURS[place]}"/>')
        parts.append(f'<text x="{x + 20}" y="{HEIGHT + 12}">{escape(band.label)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel) -> str:
    x_ticks = nice_ticks(0.0, max(x for band in panel.bands for x, _ in band.dots), 6)
    values = [y for band in panel.bands for y in (*band.low, *band.high, *(dot[1] for dot in band.dots))]
    y_ticks = nice_ticks(min(values), max(values), 5)
    x_last, low, high = x_ticks[-1], y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> str:
        right = LEFT + x / x_last * (WIDTH - LEFT - RIGHT)
        down = TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return f"{right:.1f},{down:.1f}"

    parts = [f'<text x="{LEFT}" y="16" font-weight="600">{escape(panel.title)}</text>']
    for tick in y_ticks:
        start, end = at(0, tick), at(x_last, tick)
        parts.append(f'<path d="M{start}L{end}" stroke="#e5e5e5"/>')
        down = float(start.split(",")[1]) + 4
        parts.append(f'<text x="{LEFT - 6}" y="{down:.1f}" text-anchor="end">{axis_number(tick, y_ticks)}</text>')
    for tick in x_ticks:
        right = at(tick, low).split(",")[0]
        parts.append(f'<text x="{right}" y="{HEIGHT - 24}" text-anchor="middle">{axis_number(tick, x_ticks)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(panel.axis)}</text>')
    for colour, band in zip(COLOURS, panel.bands, strict=False):
        upper = [at(x, y) for x, y in zip(band.x, band.high, strict=True)]
        lower = [at(x, y) for x, y in zip(band.x, band.low, strict=True)]
        line = "L".join(at(x, y) for x, y in zip(band.x, band.mean, strict=True))
        parts.append(f'<path d="M{"L".join(upper + lower[::-1])}Z" fill="{colour}" opacity="0.15"/>')
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for dot in band.dots:
            right, down = at(*dot).split(",")
            parts.append(f'<circle cx="{right}" cy="{down}" r="2" fill="{colour}" opacity="0.6"/>')
    return "".join(parts)
