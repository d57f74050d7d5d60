"""Curves of training, tracks of pitch, copies by vocoders, and the bars of the correspondence.

Every function returns a :class:`xfavot.viz.drawing.Drawing`, which shows itself in a notebook and
is written with ``.save(path)``. Nothing is computed here beyond what drawing needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.convert import Task
from xfavot.errors import DataError
from xfavot.evaluation.copy_synthesis import Copy
from xfavot.evaluation.cpr import CHANCE, TRUTH
from xfavot.viz.drawing import (
    FAINT,
    INK,
    PALETTE,
    PITCH_RANGE_HZ,
    Drawing,
    show_spectrogram,
    styled,
    title_of,
)

NOT_TERMS = ("step", "epoch", "seconds", "s_per_step", "eta_s", "lr", "time", "wall_s", "memory")
# the paper's order: generators, then discriminators, then the warm-up
TERM_ORDER = (
    *("adv", "sty", "ds", "cyc", "sc", "f0", "norm", "advcls", "xm"),
    *("adv_real", "adv_fake", "r1", "cls", "rec_image", "rec_audio"),
)
PASS_ORDER = ("i2i", "a2i", "z2i", "a2a", "i2a", "z2a", "")
SMOOTHED = 25  # records in the running mean of a long curve


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
    points = [
        (*_name(key), record["step"], float(value))
        for record in metrics
        for key, value in record.items()
        if "step" in record and isinstance(value, int | float) and not isinstance(value, bool)
    ]
    frame = pd.DataFrame(points, columns=["term", "pass", "held_out", "step", "value"])
    frame = frame[~frame["term"].isin(NOT_TERMS)]
    if frame.empty:
        raise DataError("curves: no record holds a term; expected the lines of metrics.jsonl")
    terms = _ordered(frame["term"], TERM_ORDER)
    colours = dict(zip(_ordered(frame["pass"], PASS_ORDER), cycle(PALETTE), strict=False))
    columns = min(columns, len(terms))
    rows = math.ceil(len(terms) / columns)
    figure = Figure(figsize=(2.3 * columns, 1.6 * rows + 0.5), layout="constrained")
    for index, term in enumerate(terms):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.set_title(term)
        axes.set_xlabel("step" if index + columns >= len(terms) else "")
        for _, line in frame[frame["term"] == term].groupby(["pass", "held_out"]):
            name, held_out = line[["pass", "held_out"]].iloc[0]
            _curve(axes, line, colours[name], held_out=held_out)
    handles = [Line2D([], [], color=c, label=name or "all") for name, c in colours.items()]
    if frame["held_out"].any():
        handles.append(Line2D([], [], color="black", linestyle="--", label="validation"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8))
    return Drawing(figure)


def _name(key: str) -> tuple[str, str, bool]:
    """Term, pass and whether it is of the validation split."""
    *before, term = key.split("/")
    return term, before[-1] if before and "2" in before[-1] else "", key.startswith("val/")


def _ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    there = set(names)
    return [name for name in order if name in there] + sorted(there - set(order))


def _curve(axes: Any, line: pd.DataFrame, colour: str, *, held_out: bool) -> None:
    """Draw a curve; a long one faintly, with its running mean on top."""
    steps, values = line["step"], line["value"]
    if held_out:
        axes.plot(steps, values, "--", color=colour, linewidth=0.9, marker=".", markersize=3)
        return
    long = len(values) > 4 * SMOOTHED
    axes.plot(steps, values, color=colour, alpha=0.25 if long else 1.0, linewidth=0.8)
    if long:
        axes.plot(steps, values.rolling(SMOOTHED, center=True).mean(), color=colour)


@styled
def f0_tracks(tracks: Mapping[str, NDArray[np.float32]]) -> Drawing:
    """Draw pitch tracks over time.

    Args:
        tracks: label to (T,) Hz, 0 where unvoiced, one value each 12.5 ms.
    """
    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.add_subplot()
    for (label, f0), colour in zip(tracks.items(), cycle(PALETTE), strict=False):
        seconds = np.arange(len(f0)) * MEL.hop / MEL.sample_rate
        axes.plot(seconds, np.where(f0 > 0, f0, np.nan), color=colour, label=label)
    axes.set(xlabel="time (s)", ylabel="pitch (Hz)", yscale="log", ylim=PITCH_RANGE_HZ)
    ticks = (60, 80, 100, 150, 200, 300, 400, 500)
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([], minor=True)
    figure.legend(loc="outside right upper")
    return Drawing(figure)


# What a vocoder does to recordings


TRANSFORM, WINDOW, STEP = 1024, 720, 120  # samples: fine enough in time to show the pulses
LEVELS_DB = (-75.0, 10.0)  # of a bin, drawn as black and as white
SHOWN_SECONDS = 1.2


@styled
def spectrograms(made: Sequence[Copy], *, rows: int = 4) -> Drawing:
    """Draw recordings beside their copies, 1.2 s of each, up to 12 kHz.

    Args:
        made: what :func:`xfavot.evaluation.copy_synthesis.copies` returned, at least one.
        rows: clips, spread evenly over the corpora.
    """
    chosen = spread(made, rows)
    names = list(chosen[0].sounds)
    size = (0.6 + 3.0 * len(names), 0.6 + 1.75 * len(chosen))
    figure = Figure(figsize=size, layout="constrained")
    fields = figure.subplots(len(chosen), len(names), sharex=True, sharey=True, squeeze=False)
    for copy, line in zip(chosen, fields, strict=True):
        start = _loudest(copy.sounds[names[0]])
        for name, axes in zip(names, line, strict=True):
            part = copy.sounds[name][start : start + round(SHOWN_SECONDS * MEL.sample_rate)]
            size = (len(part) / MEL.sample_rate, MEL.sample_rate / 2000)
            show_spectrogram(axes, _decibels(part), LEVELS_DB, size)
            axes.grid(visible=False)
            axes.set_title(name, fontsize=7, color=FAINT)
        line[0].set(yticks=[0, 4, 8, 12], ylabel="kHz")
        line[0].set_title(f"{copy.label}: {names[0]}", fontsize=7, color=FAINT)
    for axes in fields[-1]:
        axes.set(xticks=[0.0, 0.4, 0.8], xlabel="time (s)")
    return Drawing(figure)


def spread(made: Sequence[Copy], count: int) -> list[Copy]:
    """Take copies from every corpus in turn, women and men in turn."""
    queues: dict[str, list[Copy]] = {}
    for copy in made:
        queues.setdefault(copy.clip.item.corpus, []).append(copy)
    turns = [queue[i] for i in range(len(made)) for queue in queues.values() if i < len(queue)]
    return turns[:count]


def _loudest(wave: NDArray[np.float32]) -> int:
    """Return where the part of 1.2 s with the most energy starts."""
    size = round(SHOWN_SECONDS * MEL.sample_rate)
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    return int((energy[size:] - energy[:-size]).argmax()) if len(wave) > size else 0


def _decibels(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """(F, T) magnitudes in dB; a sine of full scale has about 50."""
    window = torch.hann_window(WINDOW)
    x = torch.nn.functional.pad(torch.from_numpy(wave), (0, max(0, TRANSFORM - len(wave))))
    spectrum = torch.stft(x, TRANSFORM, STEP, WINDOW, window, return_complex=True).abs()
    return np.asarray((20 * (spectrum + 1e-6).log10()).numpy())


# The correspondence preference ratio (paper: Fig. 5)


RECORDED = "#9aa3aa"  # the colour of recordings, which no model made


@styled
def preferences(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    """Draw the ratio of every system and task as bars: of people, or else of the first classifier.

    Args:
        rows: of :func:`xfavot.report.study.result_rows`, at least one.
    """
    frame = pd.DataFrame(rows)
    frame = frame[frame["metric"] == frame["metric"][0]]
    systems, tasks = list(frame["system"].unique()), list(frame["task"].unique())
    colours, width = cycle(PALETTE), 0.72 / len(systems)
    figure = Figure(figsize=(5.4, 3.0), layout="constrained")
    axes = figure.add_subplot()
    for number, (system, one) in enumerate(frame.groupby("system", sort=False)):
        x = one["task"].map(tasks.index) + width * (number - (len(systems) - 1) / 2)
        spread = [one["value"] - one["ci_low"], one["ci_high"] - one["value"]]
        colour = RECORDED if system == TRUTH else next(colours)
        axes.bar(x, one["value"], 0.9 * width, color=colour, label=system)
        axes.errorbar(x, one["value"], spread, fmt="none", ecolor=INK, capsize=2.5)
        for place, value in zip(x, one["value"], strict=True):
            axes.text(place, 0.02, f"{value:.2f}", ha="center", color="white", weight="bold")
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    axes.axhline(CHANCE, color=INK, linestyle="--", linewidth=0.8)
    axes.set_xticks(range(len(tasks)), [title_of(Task(task)) for task in tasks])
    axes.grid(axis="x", visible=False)
    axes.set(ylim=(0, 1.02), ylabel="CPR", title=f"{frame['metric'].iloc[0]}; dashed: chance")
    axes.set_xlabel(f"lines: 95 % ({frame['interval'].iloc[0]}), {frame['n'].max()} at most a bar")
    figure.legend(loc="outside upper left", ncols=4)
    return Drawing(figure)
