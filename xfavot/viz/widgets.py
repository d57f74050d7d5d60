"""What people touch in a notebook: players, a list of files, the explorer.

Callbacks die with the kernel, so notebooks show pictures and players beside them. Sounds are never
normalised for playing, which would hide errors of level. ipywidgets and IPython come with the extra
``notebooks``.
"""

from __future__ import annotations

import dataclasses
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
from xfavot.convert import Converter, Grid, Task, convert_grid
from xfavot.convert.converter import read_face, read_voice
from xfavot.data.sample import Example
from xfavot.data.store import GENDERS
from xfavot.errors import DataError, XFaVoTError, import_optional
from xfavot.media import kind_of
from xfavot.viz.drawing import conversions, curves, png_tag

ipython = import_optional("IPython.display", extra="notebooks", purpose="the widgets")
ipywidgets = import_optional("ipywidgets", extra="notebooks", purpose="the widgets")

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
        f"<tr><td style='text-align:left'>{escape(label)}</td><td>{_player(clips[label])}</td></tr>"
        for label in chosen
    )
    left = [clip for label, clip in clips.items() if label not in chosen]
    folders = sorted({str(clip.parent) for clip in left if isinstance(clip, Path)})
    more = f"<p>{len(left)} more in <code>{escape(', '.join(folders))}</code></p>"
    return Html(f"<table>{rows}</table>{more if folders else ''}", log=f"{len(chosen)} players")


def _player(clip: Any) -> str:
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


# The explorer, and files that people add in it


GUIDANCE = {"audio-guided": "voice", "image-guided": "face", "latent-guided": "latent"}
TASKS = {(task.output, task.guidance): task for task in Task}


def read_upload(name: str, content: bytes, converter: Converter) -> Example:
    """Read an uploaded file as a sample: a picture's face, or the sound of anything else.

    Args:
        name: its name, which is shown; the content decides what it is.
        content: its bytes.
        converter: whose face size counts.

    Raises:
        DataError: neither picture nor sound, damaged, or without a face.
    """
    sample: dict[str, Any] = {"label": Path(name).name, "speaker": "", "gender": ""}
    try:
        if kind_of(content) == "picture":
            size = converter.image_size
            face = read_face(content, name="the picture", size=size, aligned=False)
            return Example(face=face, **sample)
        return Example(waveform=read_voice(content, name="the sound"), **sample)
    except DataError as error:
        raise DataError(
            f"upload {name!r}: {error}; expected a picture, a sound or a film of a person"
        ) from error


class Explorer:
    """Choose a source, a guidance and a reference; the conversion is shown beside the choices.

    Args:
        converter: a loaded checkpoint.
        examples: samples to choose from.
    """

    def __init__(self, converter: Converter, examples: Sequence[Example]) -> None:
        """Make the widgets and the first conversion."""
        self.converter, self.examples = converter, dict[str, Example]()
        for one in examples:  # a second sample of a speaker gets a number
            again = sum(label.partition(" #")[0] == one.label for label in self.examples)
            self.examples[f"{one.label} #{again + 1}" if again else one.label] = one
        wide = {"layout": ipywidgets.Layout(width="22em"), "style": {"description_width": "6em"}}
        drop, labels = ipywidgets.Dropdown, list(self.examples)
        self.guidance = drop(options=GUIDANCE, description="do", **wide)
        self.output = drop(options=["face", "voice"], description="convert the", **wide)
        self.source = drop(options=labels, description="of", **wide)
        self.reference = drop(options=labels, value=labels[-1], description="after", **wide)
        self.code = ipywidgets.IntSlider(min=0, max=99, description="or code", **wide)
        self.gender = drop(options=["reference's", "f", "m"], description="gender", **wide)
        choices = [self.guidance, self.output, self.source, self.reference, self.code, self.gender]
        for choice in choices:
            choice.observe(self._refresh, names="value")
        accepted = "image/*,audio/*,video/*"
        self.upload = ipywidgets.FileUpload(accept=accepted, description="add a file")
        self.upload.observe(self._add, names="value")
        self.result = ipywidgets.HTML()
        self.widget = ipywidgets.HBox([ipywidgets.VBox([*choices, self.upload]), self.result])
        self._refresh()

    def convert(self) -> Grid:
        """Convert the source after the reference that are chosen, as a sheet of one field.

        The reference gives the gender of a latent code, too, unless one is chosen.

        Raises:
            DataError: a sample has no such face or voice.
            ConfigError: the gender is not known.
        """
        source, reference = self.examples[self.source.value], self.examples[self.reference.value]
        task = TASKS[self.output.value, self.guidance.value]
        for example, kind in ((source, task.output), (reference, task.guidance)):
            held = {"face": example.face, "voice": example.waveform, "latent": self.code}
            if held[kind] is None:
                raise DataError(f"sample {example.label} has no {kind}; choose another one")
        gender = self.gender.value if self.gender.value in GENDERS else reference.gender
        after: Any = dataclasses.replace(reference, gender=gender)
        if task.guidance == "latent":
            after = (int(self.code.value), gender)
        note = f"{self.converter.name}: {source.label}"
        return convert_grid(self.converter, task, [source], [after], note=note)

    def _refresh(self, _change: Any = None) -> None:
        try:
            grid = self.convert()
            self.result.value = conversions(grid).html() + players(voices_of([grid])).html
        except XFaVoTError as error:
            self.result.value = f"<p>{escape(str(error))}</p>"

    def _add(self, _change: Any) -> None:
        """Take an uploaded face or voice as one more sample."""
        for file in self.upload.value:
            try:
                example = read_upload(file["name"], bytes(file["content"]), self.converter)
            except DataError as error:
                self.result.value = f"<p>{escape(str(error))}</p>"
                continue
            self.examples[example.label] = example
            self.source.options = self.reference.options = list(self.examples)
