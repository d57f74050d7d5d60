"""Look, tables and charts of the report page: HTML and inline SVG that need nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 520, 150  # units of the drawing, bars and labels
FLOOR = 128  # of the bars
BINS = 26
LAST_PERCENTILE = 99.0  # the last bar holds what lies beyond
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1.2em;"
    "color:#26313a;background:#fff}h1{font-size:1.7em;margin:0}h2{font-size:1.15em;margin:2.2em 0 "
    ".6em;border-bottom:2px solid #e3e9ec}p{margin:.3em 0}.note{color:#667}"
    "table{border-collapse:collapse;margin:.6em 0}td,th{padding:.2em .9em;text-align:right;"
    "border-bottom:1px solid #e3e9ec;font-variant-numeric:tabular-nums}th{font-weight:600;"
    "color:#556}td:first-child,th:first-child{text-align:left;padding-left:0}.left td{text-align:"
    "left;overflow-wrap:anywhere;font-size:.9em;vertical-align:top}.left th{text-align:left}"
    ".tiles{display:flex;flex-wrap:wrap;gap:.8em;margin:1.4em 0}.tiles div{background:#f1f5f7;"
    "border-radius:8px;padding:.6em 1.1em;color:#556;min-width:6em}.tiles b{display:block;"
    "font-size:1.5em;color:#26313a}.bars td:last-child{width:22em;text-align:left}.bars i{display:"
    "block;height:.8em;min-width:2px;background:#6b7f86;border-radius:2px}"
    ".charts,.players{display:flex;flex-wrap:wrap;gap:1em 2em}.chart{flex:1 1 26em;max-width:34em;"
    "margin:0}figcaption{font-size:.9em;color:#556}figcaption span{display:inline-block;width:.8em;"
    "height:.8em;border-radius:2px;margin:0 .3em 0 .8em}svg{width:100%}svg text{font-size:11px;"
    "fill:#667}svg line{stroke:#b9c4ca}img{max-width:100%;border-radius:4px}figure{margin:1em 0}"
    ".players>div{flex:1 1 20em;max-width:22em;display:flex;gap:.8em;align-items:center}"
    ".players img{width:72px}.players p{font-size:.85em;line-height:1.3;overflow-wrap:anywhere}"
    "audio{width:15em;height:32px}summary{cursor:pointer;padding:.25em 0}"
)
COLOURS = {"female": "#a8557f", "male": "#3f7397"}
PLAIN_COLOUR = "#6b7f86"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], style: str = "") -> str:
    """Return an HTML table, every cell escaped.

    Args:
        head: names of the columns.
        rows: cells; an `int` is written with commas.
        style: class of the table.
    """
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_plain(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f'<table class="{style}"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>'


def tiles(numbers: Mapping[str, object]) -> str:
    """Return the large numbers at the head of the page, name under number."""
    parts = [
        f"<div><b>{html.escape(_plain(number))}</b>{html.escape(name)}</div>"
        for name, number in numbers.items()
    ]
    return f"<div class=tiles>{''.join(parts)}</div>"


def bars(counts: Sequence[tuple[str, int]]) -> str:
    """Return named bars, one under the other, as long as their counts."""
    most = max((count for _, count in counts), default=1)
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{count:,}</td>"
        f'<td><i style="width:{100 * count / most:.1f}%"></i></td></tr>'
        for name, count in counts
    )
    return f"<table class=bars>{rows}</table>"


def folded(summary: str, content: str, *, unfolded: bool = False) -> str:
    """Return content that opens at a click on its summary, which is escaped."""
    state = " open" if unfolded else ""
    return f"<details{state}><summary>{html.escape(summary)}</summary>{content}</details>"


def histogram(groups: Mapping[str, ArrayLike], *, title: str, unit: str = "") -> str:
    """Draw how often values occur, the groups stacked.

    Args:
        groups: values by name, drawn from the floor up; `COLOURS` has the names.
        title: what is counted, over the drawing.
        unit: of the values.

    Returns:
        A figure, or nothing if there is no value. The last bar holds everything above the 99th
        percentile.
    """
    values = {name: np.asarray(group, dtype=float) for name, group in groups.items()}
    together = np.concatenate([np.zeros(0), *values.values()])
    if not len(together):
        return ""
    whole = bool((together == together.round()).all())
    high = float(np.percentile(together, LAST_PERCENTILE, method="higher"))
    step = _round_step((high - together.min()) / BINS, whole=whole)
    first = int(np.floor(together.min() / step + 1e-9))
    edges = step * np.arange(first, int(np.floor(high / step)) + 2)
    values = {name: group.clip(max=high) for name, group in values.items()}
    counts = {name: np.histogram(group, edges)[0] for name, group in values.items()}
    total = np.sum(list(counts.values()), axis=0)
    bar = WIDTH / len(total)
    shapes, base = [], np.zeros(len(total))
    for name, part in counts.items():
        colour = COLOURS.get(name, PLAIN_COLOUR)
        for place, count in enumerate(part):
            if count:
                tall = (FLOOR - 16) * count / total.max()
                base[place] += tall
                span = f"{edges[place]:g} to {edges[place + 1]:g} {unit}".strip()
                shapes.append(
                    f'<rect x="{place * bar + 0.5:.1f}" y="{FLOOR - base[place]:.1f}" '
                    f'width="{bar - 1:.1f}" height="{tall:.1f}" fill="{colour}">'
                    f"<title>{html.escape(f'{span}: {count:,} {name}'.strip())}</title></rect>"
                )
    more = " and more" if together.max() >= edges[-1] else ""
    last = f"{edges[-2] if whole else edges[-1]:g}{more}"
    middle = len(total) // 2
    marks = [(0.0, "start", f"{edges[0]:g}"), (WIDTH, "end", last)]
    if middle:
        marks.append((middle * bar, "middle", f"{edges[middle]:g} {unit}"))
    ticks = "".join(
        f'<text x="{x:.0f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{html.escape(text)}</text>'
        for x, anchor, text in marks
    )
    ticks += f'<text x="0" y="10">{total.max():,}</text>'
    legend = "".join(
        f'<span style="background:{COLOURS.get(name, PLAIN_COLOUR)}"></span>{html.escape(name)} '
        for name in counts
        if name
    )
    return (
        f"<figure class=chart><figcaption>{html.escape(title)} {legend}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f'{"".join(shapes)}<line x1="0" x2="{WIDTH}" y1="{FLOOR}" y2="{FLOOR}"/>{ticks}</svg>'
        "</figure>"
    )


def _round_step(least: float, *, whole: bool) -> float:
    """Return 1, 2 or 5 times a power of ten, at least `least`; of whole numbers at least 1."""
    least = max(least, 1.0 if whole else 1e-3)
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(k * power for k in (1, 2, 5, 10) if k * power >= least * (1 - 1e-9)))


def _plain(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
