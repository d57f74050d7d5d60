"""The conversion grid: sources on top, references on the left, conversions between.

A voice is a small spectrogram with its pitch track, which has a logarithmic scale of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from xfavot.convert import Grid, Panel
from xfavot.viz import drawing
from xfavot.viz.drawing import FAINT, Album, Board, Drawing, styled

FACE_INCHES = (1.2, 1.2)  # 192 pixels at 160 dpi
VOICE_INCHES = (1.9, 0.95)
GAP, MARGIN = 0.08, 0.2  # inches
TITLES = {
    "i2i": "Faces led by a face",
    "a2i": "Faces led by a voice",
    "z2i": "Faces led by a latent code",
    "a2a": "Voices led by a voice",
    "i2a": "Voices led by a face",
    "z2a": "Voices led by a latent code",
}


@styled
def conversion_grid(grid: Grid) -> Drawing:
    """Draw the conversions of one task: sources on top, references on the left.

    A voice is a small spectrogram with its pitch. Beside a reference voice stands the face of its
    speaker where the corpus has one, for comparison.

    Args:
        grid: what :func:`xfavot.convert.sample_grids` made.
    """
    cell = FACE_INCHES if grid.task.output == "face" else VOICE_INCHES
    head = {"face": FACE_INCHES, "voice": VOICE_INCHES, "latent": (1.0, cell[1])}
    head_size = head[grid.task.guidance]
    row_height = max(cell[1], head_size[1])
    aside = any(panel.speaker_face is not None for panel in grid.rows)
    aside = aside and grid.task.guidance == "voice"
    left = MARGIN + head_size[0] + (row_height + GAP if aside else 0.0) + 3 * GAP
    top = 0.85
    width = left + len(grid.columns) * (cell[0] + GAP) - GAP + MARGIN
    height = top + cell[1] + 3 * GAP + len(grid.rows) * (row_height + 0.2 + GAP) + 0.35
    board = Board(max(width, 5.2), height)
    levels = levels_of([*grid.columns, *grid.rows])
    board.text(MARGIN, 0.28, TITLES[grid.task.value], fontsize=11, weight="bold")
    board.text(MARGIN, 0.36, _legend(grid, aside), fontsize=7, color=FAINT, va="top")
    board.text(
        left - 2 * GAP, top + cell[1] / 2, "sources", fontsize=7.5, color=FAINT, ha="right",
        va="center",
    )  # fmt: skip
    board.text(
        left - 3 * GAP - head_size[0] / 2, top + cell[1], "references", fontsize=7.5, color=FAINT,
        ha="center",
    )  # fmt: skip
    for column, panel in enumerate(grid.columns):
        x = left + column * (cell[0] + GAP)
        board.text(x + cell[0] / 2, top - 0.06, panel.label, ha="center", fontsize=8)
        show_panel(board, (x, top, *cell), panel, levels)
    for row, (panel, cells) in enumerate(zip(grid.rows, grid.cells, strict=True)):
        y = top + cell[1] + 3 * GAP + row * (row_height + 0.2 + GAP) + 0.2
        x = MARGIN + (row_height + GAP if aside else 0.0)
        latent = grid.task.guidance == "latent"
        level = y + row_height / 2 if latent else y - 0.06
        board.text(x + head_size[0] / 2, level, panel.label, ha="center", fontsize=8)
        if not latent:
            show_panel(board, (x, y + (row_height - head_size[1]) / 2, *head_size), panel, levels)
        if aside and panel.speaker_face is not None:
            board.text(MARGIN + row_height / 2, y - 0.06, "its speaker", ha="center", fontsize=7,
                       color=FAINT)  # fmt: skip
            drawing.show_face(board.axes(MARGIN, y, row_height, row_height), panel.speaker_face)
        target_hz = drawing.median_hz(panel.f0)
        for column, converted in enumerate(cells):
            place = (left + column * (cell[0] + GAP), y + (row_height - cell[1]) / 2, *cell)
            show_panel(board, place, converted, levels, target_hz)
    board.text(MARGIN, height - 0.12, grid.note, fontsize=6.5, color=FAINT)
    return Drawing(board.figure)


def _legend(grid: Grid, aside: bool) -> str:
    kept = "pose and expression" if grid.task.output == "face" else "words and melody"
    lines = [f"Each field keeps its column's {kept} and takes its row's identity."]
    if grid.task.output == "voice":
        low, high = drawing.PITCH_RANGE_HZ
        dashed = "; dashed: the reference's" if grid.task.guidance == "voice" else ""
        lines.append(f"Line: pitch ({low:.0f} to {high:.0f} Hz, log) and its median{dashed}.")
    elif aside:
        lines.append("The reference is the voice alone; its speaker's face is for comparison.")
    return "\n".join(lines)


def conversion_grids(grids: Mapping[str, Grid], *, folder: str | PathLike[str] = "") -> Album:
    """Draw every grid and, if a folder is given, write each as a PNG.

    Args:
        grids: what :func:`xfavot.convert.sample_grids` returned.
        folder: where ``grid_<task>.png`` is written; "" for nowhere.
    """
    drawings = [(name, conversion_grid(grid)) for name, grid in grids.items()]
    if folder:
        for name, picture in drawings:
            picture.save(Path(folder) / f"grid_{name}.png")
    return Album(picture for _, picture in drawings)


def levels_of(panels: Iterable[Panel]) -> tuple[float, float]:
    """Log10 magnitudes of black and white: from the noise floor to the peaks of these voices."""
    mels = [panel.log_mel for panel in panels if panel.log_mel is not None]
    if not mels:
        return (-4.0, 0.5)
    values = np.concatenate([mel.ravel() for mel in mels])
    high = float(np.percentile(values, 99.5))
    return max(float(np.percentile(values, 3)), high - 4.0), high


def show_panel(
    board: Board,
    place: tuple[float, float, float, float],
    panel: Panel,
    levels: tuple[float, float],
    reference_hz: float = 0.0,
) -> None:
    """Draw a panel's face or voice at (x, y, width, height) in inches from the top left."""
    axes = board.axes(*place)
    if panel.face is not None:
        drawing.show_face(axes, panel.face)
    elif panel.log_mel is not None:
        drawing.show_voice(
            axes, panel.log_mel, f0=panel.f0, levels=levels, reference_hz=reference_hz
        )
