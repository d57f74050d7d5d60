"""Conversions of held-out faces and voices, laid out as one grid a task.

Columns are sources, rows are references (or latent codes); neither was trained on where the split
is ``val`` or ``unseen``. Nothing is drawn here; `xfavot.viz` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from xfavot.convert.converter import Converter, Style, Task
from xfavot.data.sample import Example, examples, first_split, has_any
from xfavot.data.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One field of a grid: a face or a voice (or, for a latent code, the label alone).

    Args:
        label: text beside the field; none of a conversion.
        face: (H, W, 3) uint8; or ``None``.
        log_mel: (80, T) float32; or ``None``.
        f0: (T,) Hz by the checkpoint's F0 network, 0 where unvoiced; or ``None``.
        waveform: (N,) float32 at 24 kHz; or ``None``.
        speaker_face: (H, W, 3) uint8, the face of a reference voice's speaker, which the model did
            not see; or ``None``.
    """

    label: str = ""
    face: NDArray[np.uint8] | None = None
    log_mel: NDArray[np.float32] | None = None
    f0: NDArray[np.float32] | None = None
    waveform: NDArray[np.float32] | None = None
    speaker_face: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Conversions of one task: `cells[row][column]` is source `column` after reference `row`.

    Args:
        task: the task.
        note: which checkpoint and which split, for the foot of a figure.
        columns, rows, cells: sources, references and conversions.
    """

    task: Task
    note: str
    columns: Sequence[Panel]
    rows: Sequence[Panel]
    cells: Sequence[Sequence[Panel]]


# a sample, a latent code and its gender, or what is shown and the style that is taken
Reference: TypeAlias = Example | tuple[int, str] | tuple[Panel, Style]


def sample_grids(
    converter: Converter, stores: Sequence[Store], *, split: str = "", count: int = 4, seed: int = 0
) -> dict[str, Grid]:
    """Convert `count` sources under `count` references, for every task that the stores allow.

    Args:
        converter: a loaded checkpoint.
        stores: prepared stores; without a voice (or a face) the tasks that need one are left out.
        split: the split to draw from; left out, the first of val, unseen and train that holds
            whatever the checkpoint was trained on. The grids' note names it.
        count: sources and references, each.
        seed: seed of the draw and of the latent codes.

    Returns:
        Grids by the task's value, such as ``"a2i"``.

    Raises:
        DataError: the split has neither a face nor a voice of known gender.
    """
    trained = [kind for kind in ("face", "voice") if converter.has(kind)]
    split = split or first_split(stores, trained)
    kinds = [kind for kind in trained if has_any(stores, modality=kind, split=split)]
    draw = partial(examples, stores, split=split, count=count)
    sources = {kind: draw(modality=kind, seed=seed) for kind in kinds or ["face"]}  # or its error
    avoid = {example.speaker for drawn in sources.values() for example in drawn}
    guides: dict[str, Sequence[Reference]] = {}
    for kind in kinds:
        drawn = draw(modality=kind, seed=seed + 1, avoid=avoid)
        guides[kind] = [one for one in drawn if one.gender in converter.trained_genders(kind)]
    if known := converter.trained_genders("latent"):
        codes = range(count)
        guides["latent"] = [(seed + code // len(known), known[code % len(known)]) for code in codes]
    note = f"{converter.name}, split {split}"
    return {
        task.value: convert_grid(
            converter, task, sources[task.output], guides[task.guidance], note=note
        )
        for task in converter.tasks
        if task.output in kinds and guides.get(task.guidance)
    }


def convert_grid(
    converter: Converter,
    task: Task,
    sources: Sequence[Example],
    references: Sequence[Reference],
    *,
    note: str = "",
) -> Grid:
    """Convert every source after every reference.

    Args:
        converter: the model.
        task: what guides what.
        sources: samples that have what is converted.
        references: samples that have what guides, latent codes with a gender each, or styles.
        note: for the foot of a figure.
    """
    known = [_reference(converter, task.guidance, one) for one in references]
    columns = [panel_of(converter, task.output, source) for source in sources]
    cells = [
        [_converted(converter, task.output, source, style) for source in sources]
        for _, style in known
    ]
    rows = [panel for panel, _ in known]
    return Grid(task=task, note=note, columns=columns, rows=rows, cells=cells)


def _reference(converter: Converter, guidance: str, one: Reference) -> tuple[Panel, Style]:
    match one:
        case (Panel() as panel, Style() as style):
            return panel, style
        case (int() as code, str() as gender):
            style = converter.style_of_latent(code, gender=gender)
            return Panel(label=f"code {code} ({gender})"), style
    if guidance == "face":
        style = converter.style_of_face(one.face, gender=one.gender, aligned=True)
    else:
        style = converter.style_of_voice(one.waveform, gender=one.gender)
    return panel_of(converter, guidance, one), style


def panel_of(converter: Converter, kind: str, one: Example) -> Panel:
    """Show the face of a sample, or its voice and beside it its speaker's face, if there is one."""
    if kind == "face":
        return Panel(label=one.label, face=one.face)
    mel, f0 = converter.analyse_voice(one.waveform)
    return Panel(label=one.label, speaker_face=one.face, log_mel=mel, f0=f0, waveform=one.waveform)


def _converted(converter: Converter, output: str, source: Example, style: Style) -> Panel:
    if output == "face":
        face = converter.convert_face(source.face, aligned=True, style=style)
        return Panel(face=face.image)
    voice = converter.convert_voice(source.waveform, style=style)
    return Panel(log_mel=voice.log_mel, f0=voice.f0, waveform=voice.waveform)
