"""Conversions for the paper's figures: grids of one task, with the samples that a figure needs.

Sources and references are held-out samples of different people, women and men in turn. Voices are
cut to 2.4 s, so that spectrograms can be read and players stay small.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from xfavot.audio.mel import MEL
from xfavot.convert import Converter, Example, Grid, Panel, Style, Task, examples
from xfavot.convert.inputs import resize_face
from xfavot.convert.sheet import voice_panel
from xfavot.data.items import GENDERS
from xfavot.data.manifest import Store
from xfavot.viz.drawing import median_hz

SHOWN_SECONDS = 2.4


def draw(
    stores: Sequence[Store],
    modality: str,
    *,
    split: str,
    count: int,
    seed: int,
    avoid: Iterable[Example] = (),
) -> tuple[Example, ...]:
    """Draw samples that have a "face" or a "voice", with voices cut short.

    Args:
        stores, split, count, seed: of :func:`xfavot.convert.examples`.
        modality: what every sample must have.
        avoid: samples whose people are taken only when there is nobody else.

    Raises:
        DataError: the split has none.
    """
    drawn = examples(
        stores, modality=modality, split=split, count=count, seed=seed,
        avoid={example.speaker for example in avoid},
    )  # fmt: skip
    longest = int(SHOWN_SECONDS * MEL.sample_rate)
    return tuple(
        e if e.waveform is None else dataclasses.replace(e, waveform=e.waveform[:longest])
        for e in drawn
    )


def led_grid(
    converter: Converter, task: Task, sources: Sequence[Example], references: Sequence[Example]
) -> Grid:
    """Convert every source after every reference.

    Args:
        converter: the model.
        task: of the four guided ones.
        sources, references: of :func:`draw`.
    """
    rows = [_reference(converter, example, task.guidance) for example in references]
    return _grid(converter, task, sources, rows)


def latent_grid(
    converter: Converter, task: Task, sources: Sequence[Example], *, codes: int, seed: int
) -> Grid:
    """Convert every source after random codes, as many for women as for men.

    Args:
        converter: the model.
        task: ``Task.Z2I`` or ``Task.Z2A``.
        sources: of :func:`draw`.
        codes: for each gender.
        seed: of the first code; the others follow.
    """
    rows = [
        (
            Panel(label=f"code {seed + code} ({gender})"),
            converter.style_of_latent(seed + code, gender=gender),
        )
        for gender in GENDERS
        for code in range(codes)
    ]
    return _grid(converter, task, sources, rows)


def _reference(converter: Converter, example: Example, guidance: str) -> tuple[Panel, Style]:
    if guidance == "face":
        style = converter.style_of_face(example.face, gender=example.gender, aligned=True)
        return Panel(label=example.label, face=example.face), style
    style = converter.style_of_voice(example.waveform, gender=example.gender)
    return voice_panel(converter, example), style


def _grid(
    converter: Converter,
    task: Task,
    sources: Sequence[Example],
    rows: Sequence[tuple[Panel, Style]],
) -> Grid:
    faces = task.output == "face"
    columns = tuple(
        Panel(label=e.label, face=e.face) if faces else voice_panel(converter, e) for e in sources
    )
    cells = tuple(
        tuple(_convert(converter, source, style, faces=faces) for source in sources)
        for _, style in rows
    )
    return Grid(
        task=task, note=converter.name, columns=columns, rows=tuple(panel for panel, _ in rows),
        cells=cells,
    )  # fmt: skip


def _convert(converter: Converter, source: Example, style: Style, *, faces: bool) -> Panel:
    if faces:
        face = converter.convert_face(source.face, aligned=True, style=style)
        return Panel(label="", face=face.image)
    voice = converter.convert_voice(source.waveform, style=style)
    return Panel(label="", log_mel=voice.log_mel, f0=voice.f0, waveform=voice.waveform)


def rows_of(item: str, grid: Grid, *, system: str) -> list[dict[str, Any]]:
    """What a grid shows, a row a conversion: who, after whom, and what can be said in numbers.

    Args:
        item: part of the figure, such as "fig1a".
        grid: the conversions.
        system: the model.

    Returns:
        Rows with the median pitch of output, source and reference in Hz (0 where unvoiced), or the
        mean absolute change of a face in grey levels of 255.
    """
    rows = []
    for reference, cells in zip(grid.rows, grid.cells, strict=True):
        for source, cell in zip(grid.columns, cells, strict=True):
            row: dict[str, Any] = {
                "item": item, "system": system, "task": grid.task.value, "source": source.label,
                "reference": reference.label, "change_levels": None, "f0_hz": None,
                "source_f0_hz": None, "reference_f0_hz": None,
            }  # fmt: skip
            if cell.face is not None and source.face is not None:
                seen = resize_face(source.face, len(cell.face)).astype(np.int16)
                row["change_levels"] = float(np.abs(cell.face - seen).mean())
            else:
                row |= {"f0_hz": median_hz(cell.f0), "source_f0_hz": median_hz(source.f0)}
            if reference.f0 is not None:
                row["reference_f0_hz"] = median_hz(reference.f0)
            rows.append(row)
    return rows
