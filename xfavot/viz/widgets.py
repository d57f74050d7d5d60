"""What people touch in a notebook: players, a list of files, the explorer.

Every widget has a static twin, since callbacks die with the kernel. Sounds are never normalised for
playing, which would hide errors of level. ipywidgets and IPython come with the extra ``notebooks``.
"""

from __future__ import annotations

import base64
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.convert import Converter
from xfavot.convert.converter import ConvertedFace, ConvertedVoice
from xfavot.convert.inputs import read_face, read_voice
from xfavot.data.sample import Example
from xfavot.errors import DataError, XFaVoTError
from xfavot.evaluation.copy_synthesis import Copy
from xfavot.report.artifact import rounded
from xfavot.viz import figures
from xfavot.viz.drawing import FAINT, SPECTROGRAM, Album, Board, Drawing, styled

# Files that people add in the explorer: checked by size and type before they are decoded


MOST_UPLOAD_BYTES = 20_000_000
UPLOADS = {
    "face": (".jpg", ".jpeg", ".png", ".webp"),
    "voice": (".wav", ".flac", ".ogg", ".mp3", ".mp4"),
}


def check_upload(name: str, size: int, kind: str) -> None:
    """Refuse a file that is too large or of another type, before any of it is decoded.

    Args:
        name: its name.
        size: bytes.
        kind: "face" or "voice".

    Raises:
        DataError: too large, empty, or of another type.
    """
    allowed = UPLOADS[kind]
    if Path(name).suffix.lower() not in allowed:
        raise DataError(f"upload {name!r}: expected a {kind} as {', '.join(allowed)}")
    if not 0 < size <= MOST_UPLOAD_BYTES:
        raise DataError(
            f"upload {name!r} has {size} bytes; expected 1 to {MOST_UPLOAD_BYTES}; shorten it"
        )


def read_upload(name: str, content: bytes, converter: Converter) -> Example:
    """Read an uploaded file as a sample; a face is found and aligned.

    Args:
        name: its name, of which only the ending is used to read it.
        content: its bytes.
        converter: whose face size counts.

    Raises:
        DataError: too large, of another type, damaged, or without a face.
    """
    suffix = Path(name).suffix.lower()
    kind = "voice" if suffix in UPLOADS["voice"] else "face"
    check_upload(name, len(content), kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{suffix}"
        path.write_bytes(content)
        label = Path(name).name
        if kind == "voice":
            wave = read_voice(path, name=label)
            return Example(label=label, speaker="", gender="", waveform=wave)
        face = read_face(path, name=label, size=converter.image_size, aligned=False)
        return Example(label=label, speaker="", gender="", face=face)


try:
    import ipywidgets
    from IPython import display as ipython
except ImportError as error:
    raise DataError(
        'widgets need ipywidgets, which is not installed; run: pip install "xfavot[notebooks]"'
    ) from error

_player: Any = ipython.Audio
_display: Any = ipython.display

MOST_PLAYERS = 6  # clips embedded in one output; 5 s cost 0.3 MB


class Html:
    """A piece of HTML that shows itself in a notebook."""

    def __init__(self, html: str, *, log: str = "") -> None:
        """Keep the text, and what logs show instead of it."""
        self.html, self.log = html, log

    def __repr__(self) -> str:
        """Say what it is, for logs."""
        return self.log or "HTML"

    def _repr_html_(self) -> str:
        return self.html


class Live:
    """One output of a cell that is drawn anew in place: curves, and the newest samples below.

    Under papermill the notebook keeps the last state.
    """

    def __init__(self, *, seconds: float = 30.0) -> None:
        """Show nothing yet; curves are drawn again after `seconds` at the earliest."""
        self.seconds, self.drawn, self.parts = seconds, -math.inf, {"curves": "", "images": ""}
        self.handle = _display(Html("", log="curves and samples"), display_id=True)

    def curves(self, metrics: Callable[[], Any], *, path: str | PathLike[str] = "") -> None:
        """Draw the terms of a run so far, if the last drawing is old enough.

        Args:
            metrics: returns the records; called only to draw.
            path: file to save the drawing to, which is then made in any case.
        """
        if not path and time.monotonic() - self.drawn < self.seconds:
            return
        drawing = figures.curves(metrics())
        self._show("curves", Album([drawing.save(path) if path else drawing])._repr_html_())
        self.drawn = time.monotonic()

    def images(self, paths: Sequence[Path]) -> None:
        """Show the PNG files among some."""
        found = [path.read_bytes() for path in paths if path.suffix == ".png"]
        texts = [base64.b64encode(content).decode("ascii") for content in found]
        tag = '<p><img style="max-width:100%" src="data:image/png;base64,{}"></p>'
        self._show("images", "".join(tag.format(text) for text in texts))

    def _show(self, part: str, html: str) -> None:
        self.parts[part] = html
        self.handle.update(Html("".join(self.parts.values()), log="curves and samples"))


def players(
    clips: Sequence[Any], labels: Sequence[str] | None = None, *, limit: int = MOST_PLAYERS
) -> Html:
    """Show audio players, at the level that the clips have.

    Args:
        clips: paths, samples (N,) at 24 kHz, or converted voices. More than `limit` are spread
            evenly over the whole list, and the files left out are named.
        labels: one each; left out, file names and tasks.
        limit: clips embedded at most.

    Raises:
        DataError: not one label each.
    """
    names = [_clip_name(clip, i) for i, clip in enumerate(clips)] if labels is None else labels
    if len(names) != len(clips):
        raise DataError(
            f"players: got {len(clips)} clips and {len(names)} labels; expected as many"
        )
    count = min(limit, len(clips))
    chosen = sorted({round(i * (len(clips) - 1) / max(count - 1, 1)) for i in range(count)})
    cells = [(escape(names[i]), _audio(clips[i])._repr_html_()) for i in chosen]
    rows = [f"<tr><td style='text-align:left'>{a}</td><td>{b}</td></tr>" for a, b in cells]
    rest = [clip for i, clip in enumerate(clips) if i not in chosen]
    files = sorted({fspath(Path(clip).parent) for clip in rest if isinstance(clip, str | PathLike)})
    more = f"<p>{len(rest)} more in <code>{escape(', '.join(files))}</code></p>" if files else ""
    return Html(f"<table>{''.join(rows)}</table>{more}", log=f"{len(chosen)} players")


def _clip_name(clip: Any, index: int) -> str:
    if isinstance(clip, str | PathLike):
        path = Path(clip)
        return f"{path.parent.name}: {path.stem.replace('_', ' ')}"
    return f"{index + 1}: {clip.task.value}" if isinstance(clip, ConvertedVoice) else f"{index + 1}"


def _audio(clip: Any) -> Any:
    """Make a player without normalisation; samples beyond full scale are clipped, as in a file."""
    if isinstance(clip, str | PathLike):
        return _player(filename=fspath(clip), embed=True)
    wave = clip.waveform if isinstance(clip, ConvertedVoice) else np.asarray(clip)
    return _player(np.clip(wave, -1.0, 1.0), rate=MEL.sample_rate, normalize=False)


def files(folder: str | PathLike[str], *, pattern: str = "**/*") -> Html:
    """List what a folder holds on disk, with sizes; long folders are counted.

    Args:
        folder: for example a run's folder.
        pattern: which files, as :meth:`pathlib.Path.glob` understands it.
    """
    root = Path(folder)
    groups: dict[Path, list[Path]] = {}
    for path in sorted(root.glob(pattern)):
        if path.is_file() and not path.name.startswith("."):
            groups.setdefault(path.parent, []).append(path)
    rows = []
    for parent, paths in groups.items():
        size = sum(path.stat().st_size for path in paths) / 1e6
        shown = ", ".join(path.name for path in paths[:4])
        more = f" and {len(paths) - 4} more" if len(paths) > 4 else ""
        where = parent.relative_to(root).as_posix()
        rows.append(
            f"<tr><td style='text-align:left'><code>{escape(where)}/</code></td>"
            f"<td style='text-align:left'>{escape(shown + more)}</td><td>{size:.2f} MB</td></tr>"
        )
    table = f"<p><code>{escape(fspath(root))}</code></p><table>{''.join(rows)}</table>"
    log = f"{sum(map(len, groups.values()))} files in {fspath(root)}"
    return Html(table, log=log)


def explorer(converter: Converter, examples: Sequence[Example]) -> Explorer:
    """Show widgets that convert one sample after another, and a static twin below.

    Args:
        converter: a loaded checkpoint.
        examples: samples to choose from, at least one with a face or a voice.

    Raises:
        DataError: no sample.
    """
    if not examples:
        raise DataError("explorer: got no sample; expected at least one; draw some from a store")
    return Explorer(converter, examples)


class Explorer:
    """Choose a source, a guidance and a reference; see :func:`explorer`."""

    def __init__(self, converter: Converter, examples: Sequence[Example]) -> None:
        """Make the widgets and the first conversion."""
        self.converter, self.examples = converter, _by_label(examples)
        wide = {"layout": ipywidgets.Layout(width="22em"), "style": {"description_width": "6em"}}
        drop = ipywidgets.Dropdown
        labels = list(self.examples)
        self.output = drop(options=["face", "voice"], description="convert the", **wide)
        self.source = drop(options=labels, description="of", **wide)
        self.guidance = drop(options=["voice", "face", "latent code"], description="led by", **wide)
        self.reference = drop(options=labels, value=labels[-1], description="of", **wide)
        self.code = ipywidgets.IntSlider(min=0, max=99, description="code", **wide)
        self.gender = drop(options=["reference's", "f", "m"], description="gender", **wide)
        self.upload = ipywidgets.FileUpload(
            accept=",".join(s for kind in UPLOADS.values() for s in kind), description="add a file"
        )
        self.result = ipywidgets.HTML()
        choices = [self.output, self.source, self.guidance, self.reference, self.code, self.gender]
        for choice in choices:
            choice.observe(self._refresh, names="value")
        self.upload.observe(self._added, names="value")
        self.widget = ipywidgets.HBox([ipywidgets.VBox([*choices, self.upload]), self.result])
        self._refresh()

    def _ipython_display_(self) -> None:
        _display(self.widget, self.twin())

    def convert(
        self, output: str, guidance: str, source: Example, reference: Example
    ) -> ConvertedFace | ConvertedVoice:
        """Convert one sample after another.

        Args:
            output: "face" or "voice".
            guidance: "face", "voice" or "latent code".
            source: what is converted.
            reference: what leads, or gives the gender of the latent code.

        Raises:
            DataError: the sample has no such face or voice.
            ConfigError: the gender is not known.
        """
        chosen = self.gender.value if self.gender.value in ("f", "m") else reference.gender
        lead: dict[str, Any] = {"gender": chosen or None}
        if guidance == "face":
            lead |= {"face_reference": _part(reference, "face"), "reference_aligned": True}
        elif guidance == "voice":
            lead |= {"voice_reference": _part(reference, "voice")}
        else:
            lead |= {"latent": int(self.code.value)}
        if output == "face":
            return self.converter.convert_face(_part(source, "face"), aligned=True, **lead)
        return self.converter.convert_voice(_part(source, "voice"), **lead)

    def twin(self) -> Html:
        """Show the first sample led by the last one in every way, without widgets."""
        source, reference = (list(self.examples.values())[i] for i in (0, -1))
        faces: dict[str, Any] = {"source": source.face, "reference": reference.face}
        voices: dict[str, Any] = {"source": source.waveform, "reference": reference.waveform}
        for output, found in (("face", faces), ("voice", voices)):
            for guidance in ("face", "voice", "latent code"):
                if _has(source, output) and (
                    guidance == "latent code" or _has(reference, guidance)
                ):
                    done = self.convert(output, guidance, source, reference)
                    found[f"led by {guidance}"] = (
                        done.image if isinstance(done, ConvertedFace) else done.waveform
                    )
        title = f"{source.label} led by {reference.label}"
        parts = [f"<h4>{escape(title)}</h4>"]
        shown = {label: face for label, face in faces.items() if face is not None}
        if shown:
            sheet = figures.contact_sheet(list(shown.values()), list(shown))
            parts.append(Album([sheet])._repr_html_())
        heard = {label: wave for label, wave in voices.items() if wave is not None}
        parts.append(players(list(heard.values()), list(heard)).html)
        return Html("\n".join(parts), log=title)

    def _refresh(self, _change: Any = None) -> None:
        source, reference = self.examples[self.source.value], self.examples[self.reference.value]
        try:
            done = self.convert(self.output.value, self.guidance.value, source, reference)
        except XFaVoTError as error:
            self.result.value = f"<p>{escape(str(error))}</p>"
            return
        if isinstance(done, ConvertedFace):
            sheet = figures.contact_sheet([done.source, done.image], ["source", "converted"])
            self.result.value = Album([sheet])._repr_html_()
        else:
            clips = [source.waveform, done.waveform]
            self.result.value = players(clips, ["source", "converted"]).html

    def _added(self, _change: Any) -> None:
        """Take an uploaded face or voice as one more sample."""
        for file in self.upload.value:
            try:
                example = read_upload(file["name"], bytes(file["content"]), self.converter)
            except XFaVoTError as error:
                self.result.value = f"<p>{escape(str(error))}</p>"
                continue
            self.examples[example.label] = example
            for choice in (self.source, self.reference):
                choice.options = list(self.examples)


def _by_label(examples: Sequence[Example]) -> dict[str, Example]:
    """Name the samples; a second one of a speaker gets a number."""
    named: dict[str, Example] = {}
    for e in examples:
        count = sum(label.partition(" #")[0] == e.label for label in named)
        named[f"{e.label} #{count + 1}" if count else e.label] = e
    return named


def _has(example: Example, kind: str) -> bool:
    return (example.face if kind == "face" else example.waveform) is not None


def _part(example: Example, kind: str) -> Any:
    if not _has(example, kind):
        raise DataError(f"sample {example.label} has no {kind}; choose another one")
    return example.face if kind == "face" else example.waveform


# What a vocoder does to recordings: losses of its training, measures, spectrograms, players


TRANSFORM, WINDOW, STEP = 1024, 720, 120  # samples: fine enough in time to show the pulses
LEVELS_DB = (-75.0, 10.0)  # of a bin, drawn as black and as white
SHOWN_SECONDS = 1.2
SIZE = (2.9, 1.5)  # inches of a spectrogram
GAP, LEFT, TOP = 0.12, 0.5, 0.55
UNITS = {
    "log_mel_db": "log mel (dB)",
    "voicing_error": "voicing error (share)",
    "gross_pitch_error": "gross pitch error (share)",
    "f0_cents": "F0 error (cents)",
    "speaker_similarity": "speaker similarity",
}
NOTHING = "no vocoder was trained in this run"


def losses(records: Sequence[Mapping[str, float]]) -> Drawing | Html:
    """Draw the records of a vocoder's training over the steps."""
    return figures.curves(records, columns=3) if records else _nothing()


def table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Lay measures of copy synthesis out: one line a corpus and vocoder.

    Args:
        rows: tidy, what :func:`xfavot.evaluation.copy_synthesis.measure` returned.
    """
    if not rows:
        return _nothing()
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["dataset"], row["system"])
        start = {"corpus": key[0], "split": row["task"].rpartition(" ")[2], "vocoder": key[1]}
        line = lines.setdefault(key, {**start, "clips": row["n"]})
        line[row["metric"]] = row["value"]
    heads = [
        "corpus",
        "split",
        "vocoder",
        "clips",
        *(m for m in UNITS if any(m in x for x in lines.values())),
    ]
    cells = [[rounded(lines[key].get(head)) for head in heads] for key in sorted(lines)]
    above = "".join(f"<th>{escape(UNITS.get(head, head))}</th>" for head in heads)
    left = " style='text-align:left'"
    below = (
        "".join(f"<td{left * (i < 3)}>{escape(cell)}</td>" for i, cell in enumerate(line))
        for line in cells
    )
    body = "".join(f"<tr>{line}</tr>" for line in below)
    text = "\n".join(", ".join(line) for line in (heads, *cells))
    return Html(f"<table><tr>{above}</tr>{body}</table>", log=text)


def spectrograms(made: Sequence[Copy], *, rows: int = 4) -> Drawing | Html:
    """Draw recordings beside their copies, 1.2 s of each, up to 12 kHz.

    Args:
        made: what :func:`xfavot.evaluation.copy_synthesis.copies` returned.
        rows: clips, spread evenly over the corpora.
    """
    return _sheet(_spread(made, rows)) if made else _nothing()


def sounds(made: Sequence[Copy]) -> Html:
    """Show players of recordings and copies, at their own level, six in all."""
    if not made:
        return _nothing()
    chosen = _spread(made, max(1, MOST_PLAYERS // len(made[0].sounds)))
    heard = [
        (f"{copy.label}: {name}", wave) for copy in chosen for name, wave in copy.sounds.items()
    ]
    return players([wave for _, wave in heard], [label for label, _ in heard])


def _nothing() -> Html:
    return Html(f"<p>{NOTHING}</p>", log=NOTHING)


def _spread(made: Sequence[Copy], count: int) -> list[Copy]:
    """Take copies from every corpus in turn, women and men in turn."""
    queues: dict[str, list[Copy]] = {}
    for copy in made:
        queues.setdefault(copy.clip.item.corpus, []).append(copy)
    turns = [queue[i] for i in range(len(made)) for queue in queues.values() if i < len(queue)]
    return turns[:count]


@styled
def _sheet(chosen: Sequence[Copy]) -> Drawing:
    names = list(chosen[0].sounds)
    width, height = SIZE
    board = Board(LEFT + len(names) * (width + GAP), TOP + len(chosen) * (height + 2.5 * GAP) + GAP)
    for row, copy in enumerate(chosen):
        y = TOP + row * (height + 2.5 * GAP)
        board.text(LEFT, y - 0.06, copy.label, fontsize=7, color=FAINT)
        start = _loudest(copy.sounds[names[0]])
        for column, name in enumerate(names):
            axes = board.axes(LEFT + column * (width + GAP), y, width, height)
            part = copy.sounds[name][start : start + round(SHOWN_SECONDS * MEL.sample_rate)]
            seconds = len(part) / MEL.sample_rate
            axes.imshow(
                _decibels(part),
                origin="lower",
                aspect="auto",
                cmap=SPECTROGRAM,
                vmin=LEVELS_DB[0],
                vmax=LEVELS_DB[1],
                extent=(0, seconds, 0, MEL.sample_rate / 2000),
                interpolation="nearest",
            )
            if column == 0:
                axes.set(yticks=[0, 4, 8, 12], ylabel="kHz")
            if row == 0:
                axes.set_title(name, pad=16, fontsize=8.5)
            if row == len(chosen) - 1:
                axes.set_xticks([0.0, 0.4, 0.8])
                axes.set_xlabel("time (s)")
    return Drawing(board.figure)


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
