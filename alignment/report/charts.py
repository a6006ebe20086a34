"""Geometry of small line charts: from points to paths and ticks. The page's template writes the SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 190  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 10, 28  # margins that hold tick labels
SMOOTH_FROM = 60  # points past which a smoothed line is drawn over them
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a chart."""

    label: str
    points: list[Point]  # step, value; finite
    path: str  # through every point
    smooth: str  # smoothed, "" if the points are few
    dots: list[Point]  # in drawing units; only where the points are too few for a line
    end: Point  # the last point, in drawing units


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float  # in drawing units
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All that the template needs to draw one chart."""

    title: str
    unit: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    summary: str  # first and last value of the main series
    description: str  # for screen readers
    steps: Point  # the horizontal axis, from and to
    across: str = "step"  # the quantity of the x axis

    def data(self) -> dict[str, object]:
        """What the pointer's readout needs: series and how steps map to drawing units."""
        places = [*self.steps, LEFT, WIDTH - RIGHT]
        return {"series": [line.points for line in self.lines], "x": places, "across": self.across}


def chart(
    title: str,
    series: Sequence[tuple[str, Sequence[Point]]],
    unit: str = "",
    *,
    across: str = "step",
    scattered: Sequence[str] = (),
) -> Chart:
    """Lay out one chart; its horizontal axis begins at step 0 unless the run began far from there.

    Args:
        series: label and (step, value) points, steps ascending, values finite; at least one point each.
        across: what the horizontal axis is. scattered: labels of series whose points are not joined.
    """
    steps = [step for _, points in series for step, _ in points]
    values = [value for _, points in series for _, value in points]
    first, last = min(steps), max(steps)
    if 0 < first <= last / 5:
        first = 0.0
    x_ticks = nice_ticks(first, last, 5)
    y_ticks = nice_ticks(min(values), max(values), 4)
    low, high = min(y_ticks[0], *values), max(y_ticks[-1], *values)

    def x(step: float) -> float:
        share = 0.5 if first == last else (step - first) / (last - first)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for label, points in series:
        placed = [(x(step), y(value)) for step, value in points]
        smooth = ""
        if len(points) >= SMOOTH_FROM:
            means = smoothed([value for _, value in points], len(points) // 20)
            smooth = _path([(x(step), y(value)) for (step, _), value in zip(points, means, strict=True)])
        alone = label in scattered
        dots = placed if alone or len(placed) < 8 else []
        path, smooth = ("", "") if alone else (_path(placed), smooth)
        lines.append(Line(label, list(points), path, smooth, dots, placed[-1]))
    main = series[0][1]
    ends = f"{number(main[0][1])} → {number(main[-1][1])}" if len(main) > 1 else number(main[0][1])
    return Chart(
        title,
        unit,
        lines,
        [Tick(x(tick), axis_number(tick, x_ticks)) for tick in x_ticks if first <= tick <= last],
        [Tick(y(tick), axis_number(tick, y_ticks)) for tick in y_ticks],
        ends,
        f"{title}: {ends} over {'steps' if across == 'step' else across} {first:g} to {last:g}",
        (first, last),
        across,
    )


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that enclose [low, high], 1, 2 or 5 times a power of ten apart."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) if step > 1e-9 else i * step for i in range(first, last + 1)]


def smoothed(values: Sequence[float], reach: int) -> list[float]:
    """Local straight-line fit over each value and up to `reach` on either side.

    Inside, that is the running mean; at the ends, where a mean would bend a steep start flat, it follows the slope.
    """
    found = []
    for i in range(len(values)):
        near = range(max(0, i - reach), min(len(values), i + reach + 1))
        middle = sum(near) / len(near)
        mean = sum(values[j] for j in near) / len(near)
        spread = sum((j - middle) ** 2 for j in near)
        slope = sum((j - middle) * (values[j] - mean) for j in near) / spread if spread else 0.0
        found.append(mean + slope * (i - middle))
    return found


def number(value: float) -> str:
    """A value in three significant digits, as a person would write it."""
    size = abs(value)
    if size == 0 or not math.isfinite(size):
        return "0" if size == 0 else f"{value}"
    if size >= 1e6 or size < 1e-3:
        mantissa, _, exponent = f"{size:.2e}".partition("e")
        text = f"{mantissa}e{int(exponent)}"
    else:
        text = f"{size:,.0f}" if size >= 99.95 else f"{size:#.3g}"
    return f"−{text}" if value < 0 else text


def axis_number(value: float, ticks: Sequence[float]) -> str:
    """A tick's label with no more decimals than the distance of ticks needs."""
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(value) or 1.0
    largest = max(abs(tick) for tick in ticks)
    if largest >= 1e6 or largest < 1e-3:
        return number(value)
    if largest >= 10_000:
        text = f"{abs(value) / 1000:g}k"
    else:
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        text = f"{abs(value):.{decimals}f}"
    return f"−{text}" if value < 0 else text


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points)
