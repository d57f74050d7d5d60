"""How figures of the package look and how they are kept: one style, safe for the colour-blind.

Figures are made without pyplot, so nothing global changes and no window opens. Matplotlib comes
with the extra ``notebooks``.
"""

from __future__ import annotations

import base64
import contextlib
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from xfavot import __version__
from xfavot.convert import Grid, Panel
from xfavot.errors import DataError
from xfavot.evaluation.cpr import CHANCE, TRUTH
from xfavot.report.artifact import rounded

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke
except ImportError as error:
    raise DataError(
        'figures need matplotlib, which is not installed; run: pip install "xfavot[notebooks]"'
    ) from error

INK = "#222222"
FAINT = "#6f6f6f"
RULE = "#d9d9d9"
# Okabe and Ito's palette, in the order in which lines take the colours
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SPECTROGRAM = "magma"
PITCH_COLOUR = "#7DF9FF"
PITCH_RANGE_HZ = (60.0, 500.0)  # of the logarithmic scale that pitch tracks are drawn on
DPI = 160

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.2,
    "figure.facecolor": "white",
    "savefig.dpi": DPI,
}

P = ParamSpec("P")


def styled(draw: Callable[P, Drawing]) -> Callable[P, Drawing]:
    """Make a drawing function use the package's style."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Drawing:
        with mpl.rc_context(RC):
            return draw(*args, **kwargs)

    return inner


class Drawing:
    """A figure that shows itself in a notebook; once saved, it shows what is on disk."""

    def __init__(self, figure: Figure) -> None:
        """Keep the figure."""
        self.figure = figure
        self.path: Path | None = None

    def save(self, path: str | PathLike[str]) -> Drawing:
        """Write the figure atomically.

        Args:
            path: a name that ends in ``.png`` or ``.pdf``; its folder is made.

        Returns:
            The drawing itself.

        Raises:
            DataError: another ending, or the file cannot be written.
        """
        target = Path(path)
        kind = target.suffix.lower().lstrip(".")
        if kind not in ("png", "pdf"):
            raise DataError(f"figure {target.name!r}: expected a name that ends in .png or .pdf")
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(self.render(kind))
            os.replace(part, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise DataError(
                f"figure {target} cannot be written ({error}); expected a writable folder with "
                "free space; free some space or choose another place"
            ) from error
        self.path = target
        return self

    def render(self, kind: str = "png") -> bytes:
        """Return the figure as the bytes of a "png" or a "pdf" file."""
        buffer = io.BytesIO()
        name = "Software" if kind == "png" else "Creator"
        with mpl.rc_context(RC):
            self.figure.savefig(buffer, format=kind, metadata={name: f"xfavot {__version__}"})
        return buffer.getvalue()

    def __repr__(self) -> str:
        """Say where it is, for logs."""
        return f"figure {self.path}" if self.path else "figure"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        read_back = self.path is not None and self.path.suffix == ".png" and self.path.exists()
        data = self.path.read_bytes() if read_back and self.path else self.render()
        return data, {"width": round(self.figure.get_figwidth() * 96)}


class Album:
    """Drawings that show themselves one below the other."""

    def __init__(self, drawings: Iterable[Drawing]) -> None:
        """Keep the drawings."""
        self.drawings = tuple(drawings)

    def __repr__(self) -> str:
        """Say how many there are, for logs."""
        return f"{len(self.drawings)} figures"

    def _repr_html_(self) -> str:
        return "\n".join(f"<p>{_image_tag(drawing)}</p>" for drawing in self.drawings)


def _image_tag(drawing: Drawing) -> str:
    data, size = drawing._repr_png_()
    text = base64.b64encode(data).decode("ascii")
    name = escape(drawing.path.name if drawing.path else "figure")
    source = f"data:image/png;base64,{text}"
    return f'<img alt="{name}" width="{size["width"]}" style="max-width:100%" src="{source}">'


class Board:
    """A figure whose fields are placed in inches from the top left, so that all have their size.

    Args:
        width: inches.
        height: inches.
    """

    def __init__(self, width: float, height: float) -> None:
        """Make the empty figure."""
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        """Add a field without ticks whose top left corner is (x, y)."""
        place = (
            x / self.width,
            1.0 - (y + height) / self.height,
            width / self.width,
            height / self.height,
        )
        axes = self.figure.add_axes(place)
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write at (x, y)."""
        self.figure.text(x / self.width, 1.0 - y / self.height, text, **style)


def show_face(axes: Any, pixels: NDArray[np.uint8]) -> None:
    """Draw a face, (H, W, 3) uint8."""
    axes.imshow(pixels, interpolation="bicubic", aspect="auto")


def show_voice(
    axes: Any,
    log_mel: NDArray[np.float32],
    *,
    f0: NDArray[np.float32] | None = None,
    levels: tuple[float, float] = (-4.0, 0.5),
    reference_hz: float = 0.0,
) -> None:
    """Draw a spectrogram with its pitch track on a scale of its own.

    Args:
        axes: the field.
        log_mel: (80, T), log10.
        f0: (T,) Hz, 0 where unvoiced; its median is written into the corner.
        levels: log10 magnitudes drawn as black and as white.
        reference_hz: pitch of the reference, drawn as a dashed line; 0 for none.
    """
    low, high = np.log(PITCH_RANGE_HZ)
    bands, frames = log_mel.shape

    def height(hz: Any) -> Any:
        return (np.log(hz) - low) / (high - low) * bands

    axes.imshow(
        log_mel,
        origin="lower",
        aspect="auto",
        cmap=SPECTROGRAM,
        vmin=levels[0],
        vmax=levels[1],
        extent=(0, frames, 0, bands),
        interpolation="nearest",
    )
    outline = [withStroke(linewidth=2.2, foreground="black")]
    if reference_hz > 0:
        axes.plot([0, frames], [height(reference_hz)] * 2, "--", color="white", linewidth=0.7)
    if f0 is not None and (f0 > 0).any():
        track = np.where(f0 > 0, f0, np.nan)
        line = axes.plot(np.arange(frames) + 0.5, height(track), color=PITCH_COLOUR, linewidth=1.1)
        line[0].set_path_effects(outline)
        axes.text(
            0.97,
            0.95,
            f"{median_hz(f0):.0f} Hz",
            transform=axes.transAxes,
            ha="right",
            va="top",
            color="white",
            fontsize=7,
            path_effects=outline,
        )
    axes.set(xlim=(0, frames), ylim=(0, bands))


def median_hz(f0: NDArray[np.float32] | None) -> float:
    """Median of the voiced frames of a pitch track in Hz, 0 where none is voiced."""
    voiced = f0[f0 > 0] if f0 is not None else np.zeros(0, dtype=np.float32)
    return float(np.median(voiced)) if len(voiced) else 0.0


# The conversion grid: sources on top, references on the left, conversions between


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
        left - 2 * GAP,
        top + cell[1] / 2,
        "sources",
        fontsize=7.5,
        color=FAINT,
        ha="right",
        va="center",
    )
    board.text(
        left - 3 * GAP - head_size[0] / 2,
        top + cell[1],
        "references",
        fontsize=7.5,
        color=FAINT,
        ha="center",
    )
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
            board.text(
                MARGIN + row_height / 2,
                y - 0.06,
                "its speaker",
                ha="center",
                fontsize=7,
                color=FAINT,
            )
            show_face(board.axes(MARGIN, y, row_height, row_height), panel.speaker_face)
        target_hz = median_hz(panel.f0)
        for column, converted in enumerate(cells):
            place = (left + column * (cell[0] + GAP), y + (row_height - cell[1]) / 2, *cell)
            show_panel(board, place, converted, levels, target_hz)
    board.text(MARGIN, height - 0.12, grid.note, fontsize=6.5, color=FAINT)
    return Drawing(board.figure)


def _legend(grid: Grid, aside: bool) -> str:
    kept = "pose and expression" if grid.task.output == "face" else "words and melody"
    lines = [f"Each field keeps its column's {kept} and takes its row's identity."]
    if grid.task.output == "voice":
        low, high = PITCH_RANGE_HZ
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
        show_face(axes, panel.face)
    elif panel.log_mel is not None:
        show_voice(axes, panel.log_mel, f0=panel.f0, levels=levels, reference_hz=reference_hz)


# Bars of timings: one a row of a table, medians with the range of the rounds


BAR_HEIGHT_IN = 0.21
LABEL_WIDTH_IN = 3.4


@styled
def timings(rows: Sequence[Mapping[str, Any]], *, label: str, title: str = "") -> Drawing:
    """Draw timings on a logarithmic scale.

    Args:
        rows: with ``system``, ``task``, ``value``, ``lowest``, ``highest`` (one unit, more than 0)
            and ``ratio``; rows of the first one's system have one colour, all others another.
        label: of the axis, with the unit.
        title: text above.

    Raises:
        DataError: no row.
    """
    if not rows:
        raise DataError("timings: got no row; expected at least one; measure something first")
    height = BAR_HEIGHT_IN * len(rows) + 0.9
    figure = Figure(figsize=(7.2, height))
    left, bottom = LABEL_WIDTH_IN / 7.2, 0.5 / height
    axes = figure.add_axes((left, bottom, 0.93 - left, 1 - bottom - 0.36 / height))
    for place, row in enumerate(rows):
        ours = row["system"] == rows[0]["system"]
        axes.barh(place, row["value"], height=0.62, color=PALETTE[0 if ours else 1])
        axes.plot([row["lowest"], row["highest"]], [place, place], color=INK, linewidth=1.0)
        note = f"{rounded(row['value'])}  ({rounded(row['ratio'])} x)"
        axes.annotate(
            note,
            (row["highest"], place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=INK,
        )
    axes.set(xscale="log", xlabel=label, ylim=(len(rows) - 0.4, -0.6))
    lowest, highest = min(r["lowest"] for r in rows), max(r["highest"] for r in rows)
    axes.set_xlim(lowest / 2, highest * 5)
    axes.set_yticks(range(len(rows)), [f"{row['system']}: {row['task']}" for row in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter("{x:g}")
    figure.text(0.01, 1 - 0.2 / height, title, fontsize=9, weight="bold", color=INK)
    figure.text(
        0.01, 0.1 / height, "bar: median; line: lowest to highest round", fontsize=6.5, color=FAINT
    )
    return Drawing(figure)


# Bars of the correspondence preference ratio, as in the paper's Fig. 5


TASKS = {"a2i": "face led by a voice", "i2a": "voice led by a face"}
TRUTH_COLOUR = "#9aa3aa"
GROUP_IN, LEFT_IN, RIGHT_IN = 2.3, 0.62, 0.2
HEIGHT_IN, TITLE_IN, FOOT_IN = 2.75, 0.34, 0.55
LINE_IN, MARK_IN, LETTER_IN = 0.17, 0.42, 0.062  # of the legend: a line, beside a name, in it


@styled
def cpr(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> Drawing:
    """Draw the CPR over all triplets, a group of bars a task and a bar a system.

    People's answers are drawn if there are any, else what the first automatic judge says.

    Args:
        rows: of :func:`xfavot.report.study_answers.result_rows`.
        title: text above.

    Raises:
        DataError: no row.
    """
    if not rows:
        raise DataError("CPR: got no row; expected at least one; read answers back first")
    metric = rows[0]["metric"]
    drawn = [row for row in rows if row["metric"] == metric]
    systems = list(dict.fromkeys(row["system"] for row in drawn))
    tasks = [task for task in TASKS if any(row["task"] == task for row in drawn)]
    width = LEFT_IN + RIGHT_IN + GROUP_IN * max(len(tasks), 2)
    beside = max(1, int(width / (MARK_IN + LETTER_IN * max(map(len, systems)))))
    lines = math.ceil(len(systems) / beside)
    height = HEIGHT_IN + LINE_IN * lines
    body = (height - TITLE_IN - LINE_IN * lines - FOOT_IN) / height
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (LEFT_IN / width, FOOT_IN / height, 1 - (LEFT_IN + RIGHT_IN) / width, body)
    )
    colours = dict(zip([s for s in systems if s != TRUTH], PALETTE * len(systems), strict=False))
    bar = 0.72 / len(systems)
    for row in drawn:
        place = tasks.index(row["task"]) + bar * (
            systems.index(row["system"]) - (len(systems) - 1) / 2
        )
        colour = colours.get(row["system"], TRUTH_COLOUR)
        label = row["system"] if row["task"] == tasks[0] else None
        axes.bar(place, row["value"], width=bar * 0.9, color=colour, label=label)
        spread = [[row["value"] - row["ci_low"]], [row["ci_high"] - row["value"]]]
        axes.errorbar(place, row["value"], spread, color=INK, linewidth=1.0, capsize=2.5)
        axes.text(
            place,
            0.02,
            f"{row['value']:.2f}",
            ha="center",
            va="bottom",
            fontsize=7.5,
            color="white",
            weight="bold",
        )
    axes.axhline(CHANCE, color=INK, linestyle="--", linewidth=0.8)
    axes.text(len(tasks) - 0.42, CHANCE + 0.012, "chance", ha="right", fontsize=6.5, color=FAINT)
    axes.set(ylim=(0, 1.02), xlim=(-0.5, len(tasks) - 0.4), ylabel="CPR")
    axes.set_xticks(range(len(tasks)), [TASKS[task] for task in tasks])
    axes.tick_params(axis="x", length=0, labelcolor=INK, labelsize=8)
    axes.grid(axis="x", visible=False)
    figure.legend(
        loc="upper left",
        ncols=min(beside, len(systems)),
        borderpad=0,
        borderaxespad=0,
        bbox_to_anchor=(0.1 / width, 1 - (TITLE_IN - 0.06) / height),
    )
    figure.text(
        0.1 / width, 1 - 0.2 / height, title or metric, fontsize=9, weight="bold", color=INK
    )
    counts = sorted({row["n"] for row in drawn})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    what = "answers" if metric == "CPR" else "triplets"
    note = f"{metric}; {span} {what} a bar, lines: 95 % ({drawn[0]['interval']})"
    figure.text(0.1 / width, 0.08 / height, note, fontsize=6.5, color=FAINT)
    return Drawing(figure)
