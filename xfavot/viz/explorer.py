"""The explorer: choices and sliders on the left, the conversion beside, a gallery below.

A style is that of a reference or between two, between the heads of both genders, and moved along
the principal directions of the styles of the samples. What is kept is a file with its provenance in
a folder, which is the gallery. Callbacks die with the kernel; `explore.ipynb` shows pictures, too.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xfavot.convert import Converter, Grid, Panel, Task, convert_grid
from xfavot.convert.converter import ConvertedFace, ConvertedVoice, Style, read_face, read_voice
from xfavot.convert.sheet import panel_of
from xfavot.data.sample import Example
from xfavot.data.store import GENDERS
from xfavot.errors import DataError, XFaVoTError, import_optional
from xfavot.files import unused
from xfavot.media import kind_of, name_of
from xfavot.viz.drawing import conversions, png_tag
from xfavot.viz.widgets import player, players, voices_of

ipywidgets = import_optional("ipywidgets", extra="notebooks", purpose="the explorer")
anywidget = import_optional("anywidget", extra="notebooks", purpose="the explorer's recorder")
traitlets = import_optional("traitlets", extra="notebooks", purpose="the explorer")

GUIDANCE = {"a face": "face", "a voice": "voice", "a code": "latent"}
TASKS = {(task.output, task.guidance): task for task in Task}
CODES = [f"code {number}" for number in range(100)]
NOBODY = "nobody else"
DIRECTIONS = 3  # of the style space that can be moved along
MOST_DEVIATIONS = 3.0
SHOWN_FILES = 12  # of the gallery, the newest first
BREAKS = "overflow-wrap:anywhere;line-height:1.4"
SHEET_PIXELS = "800"  # wide: a laptop's screen without the choices


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
        said = str(error).removeprefix(f"{name_of(content)}: ")
        raise DataError(
            f"upload {name!r}: {said}; expected a picture, a sound or a film of a person"
        ) from error


class Recorder(anywidget.AnyWidget):  # type: ignore[name-defined, misc]
    """A button that records the browser's microphone; `content` becomes a file of what it heard."""

    _esm = Path(__file__).with_name("recorder.js")
    content = traitlets.CBytes().tag(sync=True)


class Explorer:
    """Choose and slide; the conversion is shown beside the choices. `widget` is all of it.

    Args:
        converter: a loaded checkpoint.
        examples: samples to choose from, whose styles also give the directions.
        folder: where what is kept goes.
    """

    def __init__(
        self,
        converter: Converter,
        examples: Sequence[Example],
        *,
        folder: str | PathLike[str] = "runs/explored",
    ) -> None:
        """Make the widgets and the first conversion."""
        self.converter, self.folder, self.busy = converter, Path(folder), True
        self.examples, self.styles = dict[str, Example](), dict[tuple[str, str, str], Style]()
        self.axes: Tensor | None = None  # (3, S), a standard deviation long
        for one in examples:  # a second sample of a speaker gets a number
            again = sum(label.partition(" #")[0] == one.label for label in self.examples)
            self.examples[f"{one.label} #{again + 1}" if again else one.label] = one
        w, wide = ipywidgets, ipywidgets.Layout(width="27em")
        look: dict[str, Any] = {"layout": wide, "style": {"description_width": "7.5em"}}
        buttons = {"layout": wide, "style": {"description_width": "7.5em", "button_width": "5.2em"}}
        slide = {**look, "continuous_update": False, "readout_format": ".2f"}
        known = [kind for kind in ("face", "voice") if converter.has(kind)]
        guides = {text: kind for text, kind in GUIDANCE.items() if converter.trained_genders(kind)}
        self.output = w.ToggleButtons(options=known, description="convert a", **buttons)
        self.source = w.Dropdown(description="of", **look)
        self.guidance = w.ToggleButtons(options=guides, description="after", **buttons)
        self.reference = w.Dropdown(description="of", **look)
        self.second = w.Dropdown(description="mixed with", **look)
        self.mix = w.FloatSlider(max=1.0, step=0.05, description="how much", **slide)
        self.gender = w.FloatSlider(max=1.0, step=0.05, description="head f ... m", **slide)
        reach = {"min": -MOST_DEVIATIONS, "max": MOST_DEVIATIONS, "step": 0.25, **slide}
        self.moves = [
            w.FloatSlider(description=f"direction {number + 1}", **reach)
            for number in range(DIRECTIONS)
        ]
        self.upload = w.FileUpload(
            accept="image/*,audio/*,video/*", multiple=True, description="add files"
        )
        self.recorder, self.kept = Recorder(), w.Button(description="keep this", icon="save")
        self.said, self.result, self.gallery = w.HTML(layout=wide), w.HTML(), w.HTML()
        tips = {
            self.second: "a second reference, to slide to",
            self.gender: "between the style encoder's heads of both genders",
            self.kept: f"save the result with its provenance in {self.folder}",
            self.upload: "a frontal face, or a clip of speech",
        } | dict.fromkeys(self.moves, "principal directions of the samples' styles, in deviations")
        for widget, text in tips.items():
            widget.tooltip = text
        chosen = [self.output, self.source, self.guidance, self.reference, self.second]
        sliders = [self.mix, self.gender, *self.moves]
        for widget, change in {self.output: self._list, self.guidance: self._list}.items():
            widget.observe(change, names="value")
        self.reference.observe(self._meet, names="value")
        for widget in (self.source, self.second, *sliders):
            widget.observe(self._refresh, names="value")
        self.upload.observe(self._add, names="value")
        self.recorder.observe(self._hear, names="content")
        self.kept.on_click(self._keep)
        files = w.HBox([self.upload, self.kept])
        left = w.VBox([*chosen, *sliders, files, self.recorder, self.said])
        right = w.VBox([self.result], layout=w.Layout(flex="1 1 36em", min_width="30em"))
        row = w.HBox([left, right], layout=w.Layout(flex_flow="row wrap", grid_gap="1em"))
        self.widget = w.VBox([row, self.gallery])
        self._show_gallery()
        self._list()

    def style(self) -> Style:
        """The style that the choices give.

        Raises:
            XFaVoTError: a reference has none.
        """
        parts, share, texts = [(self.reference.value, 1.0)], float(self.mix.value), dict[str, str]()
        if self.second.value != NOBODY and share > 0:
            parts = [(self.reference.value, 1.0 - share), (self.second.value, share)]
            texts["mix"] = " + ".join(f"{weight:.2f} {label}" for label, weight in parts)
        heads = [(head, weight) for head, weight in self._heads().items() if weight > 0]
        kind, vector = self.guidance.value, torch.zeros(())
        for label, weight in parts:
            for head, part in heads:
                vector = vector + weight * part * self._style(kind, label, head).vector
        texts["gender"] = " + ".join(f"{part:.2f} {head}" for head, part in heads)
        moves = torch.tensor([[float(move.value) for move in self.moves]])  # (1, 3)
        if bool(moves.any()):
            axes = self._axes()
            vector = vector + moves.to(axes) @ axes
            texts["directions"] = ", ".join(f"{value:+.2f}" for value in moves[0].tolist())
        texts = {"reference": str(self.reference.value), **texts}
        gender = max(heads, key=lambda one: one[1])[0]
        return Style(vector=vector, guidance=kind, gender=gender, provenance=texts)

    def convert(self) -> Grid:
        """Convert the source that is chosen by :meth:`style`, as a sheet of one field.

        Raises:
            XFaVoTError: a sample or a style cannot be used.
        """
        style, example = self.style(), self.examples.get(self.reference.value)
        panel = Panel(label=str(self.reference.value))
        if example is not None:
            panel = panel_of(self.converter, style.guidance, example)
        panel = dataclasses.replace(panel, label=style.provenance.get("mix", panel.label))
        source, task = self.examples[self.source.value], TASKS[self.output.value, style.guidance]
        note = f"{self.converter.name}: {source.label}"
        return convert_grid(self.converter, task, [source], [(panel, style)], note=note)

    def made(self) -> ConvertedFace | ConvertedVoice:
        """What :meth:`convert` shows, to be saved; its provenance names the samples."""
        example, style = self.examples[self.source.value], self.style()
        made: ConvertedFace | ConvertedVoice
        if self.output.value == "face":
            made = self.converter.convert_face(example.face, aligned=True, style=style)
        else:
            made = self.converter.convert_voice(example.waveform, style=style)
        texts = {**made.provenance, "source": str(self.source.value)}
        return dataclasses.replace(made, provenance=texts)

    def _heads(self) -> dict[str, float]:
        """How much of each gender's head is taken."""
        known, share = self.converter.trained_genders(self.guidance.value), float(self.gender.value)
        return (
            dict(zip(GENDERS, (1 - share, share), strict=True))
            if len(known) > 1
            else {known[0]: 1.0}
        )

    def _style(self, kind: str, label: str, head: str) -> Style:
        """The style of a sample or code by one head, which is encoded once."""
        if (kind, label, head) not in self.styles:
            example = self.examples.get(label)
            if example is None:
                style = self.converter.style_of_latent(CODES.index(label), gender=head)
            elif kind == "face":
                style = self.converter.style_of_face(example.face, gender=head, aligned=True)
            else:
                style = self.converter.style_of_voice(example.waveform, gender=head)
            self.styles[kind, label, head] = style
        return self.styles[kind, label, head]

    def _axes(self) -> Tensor:
        """Principal directions (3, S) of the samples' styles, a standard deviation long each."""
        if self.axes is None:
            vectors = [
                self._style(kind, label, one.gender).vector
                for label, one in self.examples.items()
                for kind, held in (("face", one.face), ("voice", one.waveform))
                if held is not None and one.gender in self.converter.trained_genders(kind)
            ]
            styles = torch.cat(vectors)  # (N, S)
            _, sizes, axes = torch.linalg.svd(styles - styles.mean(dim=0), full_matrices=False)
            axes = torch.zeros(DIRECTIONS, styles.shape[1]).copy_(axes[:DIRECTIONS])
            self.axes = axes * (sizes[:DIRECTIONS] / len(styles) ** 0.5)[:, None]
        return self.axes

    # What happens when something is chosen

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Convert once, after all choices have changed that depend on each other."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False
        self._refresh()

    def _list(self, _change: Any = None) -> None:
        """Offer the samples that have what is converted and what guides."""
        with self._quietly():
            labels = {
                "face": [label for label, one in self.examples.items() if one.face is not None],
                "voice": [
                    label for label, one in self.examples.items() if one.waveform is not None
                ],
                "latent": CODES,
            }
            guides = labels[self.guidance.value]
            for drop, options, first in (
                (self.source, labels[self.output.value], 0),
                (self.reference, guides, -1),
                (self.second, [NOBODY, *guides], 0),
            ):
                before = drop.value
                drop.options = options
                drop.value = before if before in options else options[first]
            self._meet()

    def _meet(self, _change: Any = None) -> None:
        """Take the gender of a reference, as far as it is known."""
        outer, self.busy = self.busy, True
        example, kind = self.examples.get(self.reference.value), self.guidance.value
        gender = example.gender if example is not None else ""
        if example is not None and not gender and kind == "voice":
            with self._telling():
                gender = self.converter.style_of_voice(example.waveform).gender
        if gender:
            self.gender.value = float(GENDERS.index(gender))
        self.busy = outer
        self._refresh()

    def _refresh(self, _change: Any = None) -> None:
        if self.busy:
            return
        started = time.perf_counter()
        with self._telling():
            grid = self.convert()
            sheet = png_tag(conversions(grid).render(), width=SHEET_PIXELS)
            self.result.value = sheet + players(voices_of([grid])).html
            self.said.value = f"<p>converted in {time.perf_counter() - started:.1f} s</p>"

    def _keep(self, _button: Any = None) -> None:
        """Save the result with its provenance."""
        with self._telling():
            made, names = self.made(), (self.source.value, self.reference.value)
            stem = "_after_".join("-".join(re.findall(r"[^\W_]+", name)) for name in names)
            suffix = ".png" if isinstance(made, ConvertedFace) else ".wav"
            path = made.save(unused(self.folder, stem, suffix))
            self._show_gallery()
            self.said.value = f"<p style='{BREAKS}'>saved as {escape(str(path))}</p>"

    def _show_gallery(self) -> None:
        """Show the newest files of the folder."""
        files = [*self.folder.glob("*.png"), *self.folder.glob("*.wav")]
        files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
        shown: dict[str, Callable[[Path], str]] = {
            ".png": lambda file: png_tag(file.read_bytes(), width="96"),
            ".wav": player,
        }
        style = "display:inline-block;margin:0 1em 1em 0;vertical-align:bottom;font-size:85%"
        parts = [
            f"<figure style='{style}'>{shown[file.suffix](file)}"
            f"<figcaption>{escape(file.stem)}</figcaption></figure>"
            for file in files[:SHOWN_FILES]
        ]
        many = f"{len(files)} file{'s' * (len(files) > 1)}"
        title = f"<h4>kept in {escape(str(self.folder))}, {many}</h4>"
        self.gallery.value = title + "".join(parts) if files else ""

    def _add(self, _change: Any) -> None:
        """Take uploaded faces and voices as further samples, and the last one as the source."""
        for file in self.upload.value:
            self._take(file["name"], bytes(file["content"]))

    def _hear(self, _change: Any) -> None:
        """Take a recording as one more sample."""
        again = sum(label.startswith("recording") for label in self.examples)
        self._take(f"recording {again + 1}", self.recorder.content)

    def _take(self, name: str, content: bytes) -> None:
        with self._telling():
            example = read_upload(name, content, self.converter)
            self.examples[example.label] = example
            self.styles.clear()
            self.output.value = "face" if example.face is not None else "voice"
            self._list()
            self.source.value = example.label

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell what cannot be done beside the choices; what is shown stays."""
        try:
            yield
        except XFaVoTError as error:
            self.said.value = f"<p role='alert' style='{BREAKS}'><b>{escape(str(error))}</b></p>"
