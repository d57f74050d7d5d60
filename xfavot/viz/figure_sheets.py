"""The paper's pictures of conversions (Fig. 1, 3, 4, 6 to 9): blocks of sources and references.

A block has its references on top and its sources on the left, as the paper prints them. A voice is
a spectrogram with its pitch track; the dashed line is the pitch of the reference.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xfavot.convert import Grid, Panel
from xfavot.viz import drawing
from xfavot.viz.drawing import FAINT, INK, Board, Drawing, styled
from xfavot.viz.grids import levels_of, show_panel

FACE = (1.0, 1.0)  # inches
VOICE = (1.55, 0.85)
GAP, MARGIN, BETWEEN = 0.07, 0.2, 0.35
TITLE, CAPTION, LABEL, FOOT = 0.42, 0.3, 0.2, 0.4  # inches of height
SPEAKER = 0.42  # a side of the face of a reference voice's speaker

Size = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Part of a figure: a caption such as "(a) A face after a voice" and its conversions."""

    caption: str
    grid: Grid


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Sizes of a block, inches."""

    head: Size  # of a reference
    side: Size  # of a source
    cell: Size
    speakers: bool  # faces of reference voices' speakers stand above
    caption: float  # its height

    @property
    def step(self) -> float:
        return max(self.head[0], self.cell[0]) + GAP

    @property
    def top(self) -> float:
        if not self.head[1]:
            return self.caption + LABEL
        above = SPEAKER + GAP if self.speakers else 0.0
        return self.caption + LABEL + above + self.head[1] + 3 * GAP


def _plan(part: Block) -> _Plan:
    grid = part.grid
    output = FACE if grid.task.output == "face" else VOICE
    head = {"face": FACE, "voice": VOICE, "latent": (output[0], 0.0)}[grid.task.guidance]
    shown = grid.task.guidance == "voice" and any(r.speaker_face is not None for r in grid.rows)
    if grid.task.guidance == "voice" and grid.task.output == "face":
        head = (FACE[0] * 1.25, VOICE[1] * 0.85)
    caption = CAPTION if part.caption else 0.0
    return _Plan(head=head, side=output, cell=output, speakers=shown, caption=caption)


def _size(part: Block) -> Size:
    grid, plan = part.grid, _plan(part)
    wide = plan.side[0] + 3 * GAP + len(grid.rows) * plan.step - GAP
    return wide, plan.top + len(grid.columns) * (plan.cell[1] + LABEL)


@styled
def blocks(parts: Sequence[Block], *, title: str, note: str, across: bool = False) -> Drawing:
    """Draw blocks of conversions, one below the other or side by side.

    Args:
        parts: at least one.
        title: above all.
        note: at the foot.
        across: side by side.
    """
    sizes = [_size(part) for part in parts]
    wide, high = [s[0] for s in sizes], [s[1] for s in sizes]
    spaces = BETWEEN * (len(parts) - 1)
    inner = (sum(wide) + spaces, max(high)) if across else (max(wide), sum(high) + spaces)
    board = Board(max(2 * MARGIN + inner[0], 5.6), TITLE + inner[1] + FOOT)
    board.text(MARGIN, 0.27, title, fontsize=11, weight="bold", color=INK)
    panels = [panel for part in parts for panel in _panels(part.grid)]
    speakers = any(_plan(part).speakers for part in parts)
    _foot(board, note, panels, speakers=speakers)
    levels = levels_of(panels)
    x, y = MARGIN, TITLE
    for part, size in zip(parts, sizes, strict=True):
        _draw(board, x, y, part, levels)
        x, y = (x + size[0] + BETWEEN, y) if across else (x, y + size[1] + BETWEEN)
    return Drawing(board.figure)


def _foot(board: Board, note: str, panels: Sequence[Panel], *, speakers: bool) -> None:
    """Say at the foot how to read the fields, and where they come from."""
    low, high = drawing.PITCH_RANGE_HZ
    lines = []
    if any(panel.f0 is not None for panel in panels):
        lines.append(f"Line on a voice: pitch ({low:.0f} to {high:.0f} Hz, log) and its median.")
    if speakers:
        lines.append("The model hears a voice and does not see its speaker.")
    board.text(MARGIN, board.height - 0.24, " ".join(lines), fontsize=6.5, color=FAINT)
    board.text(MARGIN, board.height - 0.1, note, fontsize=6.5, color=FAINT)


def _panels(grid: Grid) -> list[Panel]:
    return [*grid.columns, *grid.rows, *(cell for cells in grid.cells for cell in cells)]


def _draw(board: Board, x: float, y: float, part: Block, levels: tuple[float, float]) -> None:
    grid, plan = part.grid, _plan(part)
    board.text(x, y + 0.16, part.caption, fontsize=9, weight="bold", color=INK)
    left, top = x + plan.side[0] + 3 * GAP, y + plan.top
    board.text(x + plan.side[0] / 2, top - 1.2 * GAP, "source", fontsize=7, color=FAINT,
               ha="center")  # fmt: skip
    for number, reference in enumerate(grid.rows):
        middle = left + number * plan.step + (plan.step - GAP) / 2
        if plan.head[1]:
            _reference(board, middle, y + plan.caption, reference, plan, levels)
        else:
            board.text(middle, top - 1.2 * GAP, reference.label, fontsize=7, ha="center",
                       color=FAINT)  # fmt: skip
    for row, source in enumerate(grid.columns):
        high = top + row * (plan.cell[1] + LABEL)
        show_panel(board, (x, high, *plan.side), source, levels)
        board.text(x + plan.side[0] / 2, high + plan.side[1] + 0.13, source.label, fontsize=7,
                   ha="center", color=FAINT)  # fmt: skip
        for number, cells in enumerate(grid.cells):
            place = left + number * plan.step + (plan.step - GAP - plan.cell[0]) / 2
            target = drawing.median_hz(grid.rows[number].f0)
            show_panel(board, (place, high, *plan.cell), cells[row], levels, target)


def _reference(
    board: Board, middle: float, y: float, panel: Panel, plan: _Plan, levels: tuple[float, float]
) -> None:
    board.text(middle, y + 0.12, panel.label, fontsize=7, ha="center", color=FAINT)
    y += LABEL
    if plan.speakers:
        if panel.speaker_face is not None:
            place = (middle - SPEAKER / 2, y, SPEAKER, SPEAKER)
            drawing.show_face(board.axes(*place), panel.speaker_face)
        y += SPEAKER + GAP
    show_panel(board, (middle - plan.head[0] / 2, y, *plan.head), panel, levels)


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.fill(part, 14) for part in name.split(", "))


@styled
def comparison(
    sources: Sequence[Panel],
    references: Sequence[Panel],
    systems: Mapping[str, Sequence[Panel]],
    *,
    title: str,
    note: str,
) -> Drawing:
    """Draw faces led by voices, a column a pair and a row a system (paper: Fig. 3).

    Args:
        sources: faces.
        references: voices, one each.
        systems: name to converted faces, one each.
        title: above all.
        note: at the foot.
    """
    count = len(sources)
    left, step, voice = 1.05, FACE[0] + 2 * GAP, VOICE[1] * 0.75
    shown = any(panel.speaker_face is not None for panel in references)
    heights = {
        "source": FACE[1], "reference voice": voice, **({"its speaker": 0.55} if shown else {}),
        **dict.fromkeys(systems, FACE[1]),
    }  # fmt: skip
    height = TITLE + sum(heights.values()) + LABEL * 2 + len(heights) * 2 * GAP + FOOT
    board = Board(MARGIN + left + count * step - 2 * GAP + MARGIN, height)
    board.text(MARGIN, 0.27, title, fontsize=11, weight="bold", color=INK)
    _foot(board, note, references, speakers=shown)
    levels = levels_of(references)
    y = TITLE + LABEL
    for name, high in heights.items():
        strong = {"weight": "bold", "color": INK} if name in systems else {"color": FAINT}
        board.text(MARGIN, y + high / 2, _wrapped(name), fontsize=8, va="center", **strong)
        for number in range(count):
            x = MARGIN + left + number * step
            source, reference = sources[number], references[number]
            if name == "source":
                board.text(x + FACE[0] / 2, y - 0.06, source.label, fontsize=7, ha="center",
                           color=FAINT)  # fmt: skip
                show_panel(board, (x, y, *FACE), source, levels)
            elif name in systems:
                show_panel(board, (x, y, *FACE), systems[name][number], levels)
            elif name == "its speaker":
                if reference.speaker_face is not None:
                    place = (x + (FACE[0] - high) / 2, y, high, high)
                    drawing.show_face(board.axes(*place), reference.speaker_face)
            else:
                show_panel(board, (x, y, FACE[0], high), reference, levels)
                board.text(x + FACE[0] / 2, y + high + 0.13, reference.label, fontsize=7,
                           ha="center", color=FAINT)  # fmt: skip
        y += high + 2 * GAP + (LABEL if name.startswith("reference") else 0.0)
    return Drawing(board.figure)
