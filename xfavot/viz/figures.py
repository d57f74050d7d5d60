"""Figures: conversion grids, spectrograms, pitch, training curves, contact sheets.

Every function returns a :class:`xfavot.viz.drawing.Drawing`, which shows itself in a notebook and
is written with ``.save(path)``. Nothing is computed here beyond what drawing needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.convert import Panel
from xfavot.errors import DataError
from xfavot.viz.drawing import (
    GAP,
    MARGIN,
    PALETTE,
    PITCH_RANGE_HZ,
    Board,
    Drawing,
    conversion_grid,
    conversion_grids,
    levels_of,
    show_panel,
    styled,
)

__all__ = [
    "contact_sheet",
    "conversion_grid",
    "conversion_grids",
    "curves",
    "f0_tracks",
    "mel_grid",
]

NOT_TERMS = ("step", "epoch", "seconds", "s_per_step", "eta_s", "lr", "time", "wall_s", "memory")
# the paper's order: generators, then discriminators, then the warm-up
TERM_ORDER = (
    *("adv", "sty", "ds", "cyc", "sc", "f0", "norm", "advcls", "xm"),
    *("adv_real", "adv_fake", "r1", "cls", "rec_image", "rec_audio"),
)
SMOOTHED = 25  # records in the running mean of a long curve


@styled
def mel_grid(
    log_mels: Sequence[NDArray[np.float32]],
    labels: Sequence[str],
    *,
    f0: Sequence[NDArray[np.float32]] | None = None,
    columns: int = 3,
) -> Drawing:
    """Draw spectrograms side by side, all on one colour scale.

    Args:
        log_mels: (80, T) each, log10.
        labels: one each.
        f0: (T,) each, Hz, 0 where unvoiced.
        columns: spectrograms a row.

    Raises:
        DataError: nothing to draw, or not one label each.
    """
    _require_labels(len(log_mels), len(labels))
    tracks = f0 if f0 is not None else [None] * len(log_mels)
    panels = [
        Panel(label="", log_mel=mel, f0=track) for mel, track in zip(log_mels, tracks, strict=True)
    ]
    return _sheet(panels, labels, (2.4, 1.2), columns, "")


@styled
def contact_sheet(
    faces: Sequence[NDArray[np.uint8]], labels: Sequence[str], *, columns: int = 8, title: str = ""
) -> Drawing:
    """Draw faces side by side with a label each.

    Args:
        faces: (H, W, 3) uint8 each.
        labels: one each.
        columns: faces a row.
        title: text above all.

    Raises:
        DataError: nothing to draw, or not one label each.
    """
    _require_labels(len(faces), len(labels))
    return _sheet([Panel(label="", face=f) for f in faces], labels, (1.0, 1.0), columns, title)


def _sheet(
    panels: Sequence[Panel],
    labels: Sequence[str],
    size: tuple[float, float],
    columns: int,
    title: str,
) -> Drawing:
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    top = 0.5 if title else MARGIN
    board = Board(
        2 * MARGIN + columns * (size[0] + GAP) - GAP, top + rows * (size[1] + 0.25) + MARGIN / 2
    )
    board.text(MARGIN, 0.3, title, fontsize=10, weight="bold")
    levels = levels_of(panels)
    for index, (panel, label) in enumerate(zip(panels, labels, strict=True)):
        x = MARGIN + (index % columns) * (size[0] + GAP)
        y = top + (index // columns) * (size[1] + 0.25)
        show_panel(board, (x, y, *size), panel, levels)
        board.text(x + size[0] / 2, y + size[1] + 0.14, label, ha="center", fontsize=7)
    return Drawing(board.figure)


def _require_labels(things: int, labels: int) -> None:
    if things == 0 or things != labels:
        raise DataError(
            f"figure: got {things} things to draw and {labels} labels; expected one label each, "
            "and at least one"
        )


@styled
def f0_tracks(tracks: Mapping[str, NDArray[np.float32]]) -> Drawing:
    """Draw pitch tracks over time.

    Args:
        tracks: label to (T,) Hz, 0 where unvoiced, one value each 12.5 ms.

    Raises:
        DataError: nothing to draw.
    """
    _require_labels(len(tracks), len(tracks))
    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.add_subplot()
    for (label, f0), colour in zip(tracks.items(), _colours(), strict=False):
        seconds = np.arange(len(f0)) * MEL.hop / MEL.sample_rate
        axes.plot(seconds, np.where(f0 > 0, f0, np.nan), color=colour, label=label)
    axes.set(xlabel="time (s)", ylabel="pitch (Hz)", yscale="log")
    axes.set_ylim(PITCH_RANGE_HZ)
    ticks = (60, 80, 100, 150, 200, 300, 400, 500)
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([], minor=True)
    figure.legend(loc="outside right upper")
    return Drawing(figure)


def _colours() -> Iterable[str]:
    return (PALETTE[i % len(PALETTE)] for i in range(10_000))


@styled
def curves(metrics: Iterable[Mapping[str, Any]], *, columns: int = 4) -> Drawing:
    """Draw every logged term over the steps, one small plot a term, one line a pass.

    Terms are named ``g/a2i/sty``: the last part names the plot, the pass before it the line. Terms
    of the validation split (``val/...``) are dashed.

    Args:
        metrics: the records of ``metrics.jsonl``, each with a ``step``.
        columns: plots a row.

    Raises:
        DataError: no record holds a term.
    """
    plots: dict[str, dict[tuple[str, bool], list[tuple[float, float]]]] = {}
    for record in metrics:
        for key, value in record.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            *before, term = key.split("/")
            if "step" not in record or not number or term in NOT_TERMS:
                continue
            line = (before[-1] if before and "2" in before[-1] else "", key.startswith("val/"))
            points = plots.setdefault(term, {}).setdefault(line, [])
            points.append((float(record["step"]), float(value)))
    if not plots:
        raise DataError("curves: no record holds a term; expected the lines of metrics.jsonl")
    terms = [t for t in TERM_ORDER if t in plots] + sorted(set(plots) - set(TERM_ORDER))
    passes = sorted({name for lines in plots.values() for name, _ in lines}, key=_rank)
    colour = dict(zip(passes, _colours(), strict=False))
    columns = min(columns, len(terms))
    rows = math.ceil(len(terms) / columns)
    figure = Figure(figsize=(2.3 * columns, 1.6 * rows + 0.5), layout="constrained")
    for index, term in enumerate(terms):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.set_title(term)
        axes.set_xlabel("step" if index + columns >= len(terms) else "")
        for (name, held_out), points in sorted(plots[term].items()):
            _curve(axes, np.asarray(points), colour[name], held_out=held_out)
    handles = [Line2D([], [], color=colour[name], label=name or "all") for name in passes]
    if any(held_out for lines in plots.values() for _, held_out in lines):
        handles.append(Line2D([], [], color="black", linestyle="--", label="validation"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8))
    return Drawing(figure)


def _rank(name: str) -> tuple[int, str]:
    """Passes in the order of the grids, whatever else there is after them."""
    order = ("i2i", "a2i", "z2i", "a2a", "i2a", "z2a", "")
    return (order.index(name) if name in order else len(order), name)


def _curve(axes: Any, points: NDArray[Any], colour: str, *, held_out: bool) -> None:
    """Draw a curve; a long one faintly, with its running mean on top."""
    steps, values = points.T
    if held_out:
        axes.plot(steps, values, "--", color=colour, linewidth=0.9, marker=".", markersize=3)
        return
    long = len(values) > 4 * SMOOTHED
    axes.plot(steps, values, color=colour, alpha=0.25 if long else 1.0, linewidth=0.8)
    if long:
        kernel = np.ones(SMOOTHED) / SMOOTHED
        inner = slice(SMOOTHED // 2, len(values) - (SMOOTHED - 1) // 2)
        axes.plot(steps[inner], np.convolve(values, kernel, mode="valid"), color=colour)
