"""Curves as SVG in the page's colors, light or dark; written by hand, because every refresh draws them."""

from collections.abc import Sequence
import math

from markupsafe import Markup

WIDTH, HEIGHT = 340, 208
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 12, 38
MOST_POINTS = 240

Point = tuple[float | int, float | int]


def curve(
    points: Sequence[Point],
    end: float | int,
    label: str,
    x_title: str = "step",
    y_title: str = "loss",
    is_noisy: bool = True,
) -> Markup:
    """Points (x, y) in order of x: each one faint, their running mean bold and labelled with its last value.

    Points that are not finite are left out. end: where the horizontal axis ends; it begins at 0. label: what a screen
    reader says. is_noisy: False draws the points themselves bold, without a mean.
    """
    # Axes that end at a tick, from the values that are shown.
    points = [(float(at), float(value)) for at, value in points if math.isfinite(value)]
    smooth = running_mean(points) if is_noisy else points
    low, high = _range([value for _, value in points], [value for _, value in smooth])
    y_ticks, x_ticks = ticks(low, high, 4), ticks(0.0, float(end), 4)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    if len(y_ticks) > 1 and high > y_ticks[-1]:
        y_ticks.append(round(2 * y_ticks[-1] - y_ticks[-2], 10))
        high = y_ticks[-1]

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / (end or 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (min(max(value, low), high) - low) / (high - low))

    def line(part: Sequence[Point], kind: str) -> str:
        return f'<polyline class="{kind}" points="{" ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in part)}"/>'

    # Grid and axes.
    bottom, middle = HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2
    parts = [f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{Markup.escape(label)}">']
    for tick in y_ticks if points else ():
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_ticks:
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 15}" text-anchor="middle">{_number(tick)}</text>')
    parts.append(_axis_title(f'x="{middle}" y="{HEIGHT - 6}"', x_title))
    parts.append(_axis_title(f'transform="translate(10 {(TOP + bottom) / 2}) rotate(-90)"', y_title))

    # The lines, and the last value above whatever the curve does below it.
    if points:
        parts += [line(thin(points), "raw"), line(thin(smooth), "mean")]
        last, value = smooth[-1]
        parts.append(f'<circle class="end" cx="{x(last):.1f}" cy="{y(value):.1f}" r="3.2"/>')
        anchor = "end" if x(last) > WIDTH / 2 else "start"
        above = max(min(y(v) for s, v in smooth if x(s) > x(last) - 34) - 9, TOP + 8)
        parts.append(f'<text class="last" x="{x(last):.1f}" y="{above:.1f}" text-anchor="{anchor}">{value:.2f}</text>')
    else:
        parts.append(_axis_title(f'x="{middle}" y="{(TOP + bottom) / 2}"', "not begun"))
    parts.append("</svg>")
    return Markup("".join(parts))  # numbers, and words that are escaped


def _axis_title(position: str, words: str) -> str:
    return f'<text class="axis" {position} text-anchor="middle">{Markup.escape(words)}</text>'


def running_mean(points: Sequence[Point]) -> list[Point]:
    """Each point's mean with those before it, over a fifteenth of all points, four at least."""
    window = max(4, len(points) // 15)
    result, total = [], 0.0
    for i, (x, y) in enumerate(points):
        total += y - (points[i - window][1] if i >= window else 0.0)
        result.append((x, total / min(i + 1, window)))
    return result


def thin(points: Sequence[Point]) -> list[Point]:
    """At most about MOST_POINTS of them, the last included."""
    stride = max(1, math.ceil(len(points) / MOST_POINTS))
    return [*points[:-1:stride], *points[-1:]]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from one at or below low to the last one at or below high, in steps of 1, 2 or 5 times 10^n."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]


def _range(raw: Sequence[float], smooth: Sequence[float]) -> tuple[float, float]:
    """From the least to what nearly all stay below: the first steps of a run would flatten the rest."""
    if not raw:
        return 0.0, 1.0
    ordered = sorted(raw)
    low, high = ordered[0], max(ordered[int(0.97 * (len(ordered) - 1))], smooth[-1])
    margin = max(0.04 * (high - low), 1e-3 * abs(high), 1e-6)
    return max(low - margin, 0.0) if low >= 0 else low - margin, high + margin


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"
