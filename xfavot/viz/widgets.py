"""What people touch in a notebook: players, a list of files; the explorer is a room of its own.

Callbacks die with the kernel, so notebooks show pictures and players beside them. Sounds are never
normalised for playing, which would hide errors of level. ipywidgets and IPython come with the extra
``notebooks``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xfavot.audio.mel import MEL
from xfavot.convert import Grid
from xfavot.errors import import_optional
from xfavot.viz.drawing import curves, png_tag

ipython = import_optional("IPython.display", extra="notebooks", purpose="the widgets")

SHOWN_FILES = 4  # of a folder, by name
MOST_PLAYERS = 6  # clips embedded in one output; 5 s cost 0.3 MB
CONVERTED = " converted after "


class Html:
    """A piece of HTML that shows itself in a notebook."""

    def __init__(self, html: str, *, log: str) -> None:
        """Keep the text, and what logs show instead of it."""
        self.html, self.log = html, log

    def __repr__(self) -> str:
        """Say what it is, for logs."""
        return self.log

    def _repr_html_(self) -> str:
        return self.html


class Live:
    """Outputs of a cell that are drawn anew in place: curves, and the newest samples below.

    Under papermill the notebook keeps the last state.
    """

    def __init__(self, *, seconds: float = 30.0) -> None:
        """Show nothing yet; curves are drawn again after `seconds` at the earliest."""
        self.seconds, self.drawn = seconds, -math.inf
        self.lines, self.pictures = (
            ipython.display(Html("", log=what), display_id=True) for what in ("curves", "samples")
        )

    def curves(self, metrics: Callable[[], Any], *, path: str | PathLike[str] = "") -> None:
        """Draw the terms of a run so far, if the last drawing is old enough.

        Args:
            metrics: returns the records; called only to draw.
            path: file to save the drawing to, which is then made in any case.
        """
        if path or time.monotonic() - self.drawn >= self.seconds:
            drawing = curves(metrics())
            self.lines.update(drawing.save(path) if path else drawing)
            self.drawn = time.monotonic()

    def images(self, paths: Sequence[Path]) -> None:
        """Show the PNG files among some."""
        tags = [png_tag(path.read_bytes()) for path in paths if path.suffix == ".png"]
        self.pictures.update(Html("".join(f"<p>{tag}</p>" for tag in tags), log="samples"))


def show(*things: Any) -> None:
    """Show things below a cell, each by its own form, or its text in a log."""
    ipython.display(*things)


def players(clips: Mapping[str, Any] | Sequence[Path], *, limit: int = MOST_PLAYERS) -> Html:
    """Show audio players, at the level that the clips have.

    Args:
        clips: samples (N,) at 24 kHz by their labels, or paths. More than `limit` are spread evenly
            over the whole list, and the folders of files left out are named.
        limit: clips embedded at most.
    """
    if not isinstance(clips, Mapping):
        clips = {f"{clip.parent.name}: {clip.stem.replace('_', ' ')}": clip for clip in clips}
    places = np.linspace(0, len(clips) - 1, min(limit, len(clips))).round()
    chosen = [list(clips)[int(place)] for place in places]
    rows = "".join(
        f"<tr><td style='text-align:left'>{escape(label)}</td><td>{player(clips[label])}</td></tr>"
        for label in chosen
    )
    left = [clip for label, clip in clips.items() if label not in chosen]
    folders = sorted({str(clip.parent) for clip in left if isinstance(clip, Path)})
    more = f"<p>{len(left)} more in <code>{escape(', '.join(folders))}</code></p>"
    return Html(f"<table>{rows}</table>{more if folders else ''}", log=f"{len(chosen)} players")


def player(clip: Any) -> str:
    """A player without normalisation; samples beyond full scale are clipped, as in a file."""
    if isinstance(clip, Path):
        return str(ipython.Audio(filename=str(clip), embed=True)._repr_html_())
    wave = np.clip(clip, -1.0, 1.0)
    return str(ipython.Audio(wave, rate=MEL.sample_rate, normalize=False)._repr_html_())


def voices_of(grids: Sequence[Grid]) -> dict[str, Any]:
    """Voices of grids by label: references, then each source with what was made of it."""
    labelled = [(f"reference {panel.label}", panel) for grid in grids for panel in grid.rows]
    for grid in grids:
        for source, made in zip(grid.columns, zip(*grid.cells, strict=True), strict=True):
            after = [f"{source.label}{CONVERTED}{reference.label}" for reference in grid.rows]
            labelled += [(f"source {source.label}", source), *zip(after, made, strict=True)]
    heard: dict[str, Any] = {}
    for label, panel in labelled:
        if panel.waveform is not None:  # a second one of the same label gets a number
            again = sum(other.partition(", ")[0] == label for other in heard)
            heard[f"{label}, {again + 1}" if again else label] = panel.waveform
    return heard


def files(folder: str | PathLike[str]) -> pd.DataFrame:
    """Show what a folder holds on disk: a row a folder below it, which names its first four files.

    Args:
        folder: for example a run's folder.
    """
    there = [p for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.name[0] != "."]
    rows = [(str(p.parent.relative_to(folder)), p.name, p.stat().st_size / 1e6) for p in there]
    frame = pd.DataFrame(rows, columns=["folder", "file", "MB"]).groupby("folder")
    named = frame["file"].agg(lambda names: ", ".join(names[:SHOWN_FILES]))
    return pd.DataFrame({"files": frame.size(), "first": named, "MB": frame["MB"].sum().round(2)})
