"""How figures look and how they are kept, and the sheet on which conversions are shown.

One style, safe for the colour-blind. Figures are made without pyplot, so nothing global changes and
no window opens. Matplotlib comes with the extra ``notebooks``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from xfavot import __version__
from xfavot.convert import Grid, Panel, Task
from xfavot.errors import DataError
from xfavot.files import write_whole

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec
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
    "figure.titlesize": 9.0,
    "figure.titleweight": "bold",
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


class Drawing:
    """A figure that shows itself in a notebook; once saved, it shows what is on disk."""

    def __init__(self, figure: Figure) -> None:
        """Keep the figure."""
        self.figure = figure
        self.path: Path | None = None

    def save(self, path: str | PathLike[str]) -> Drawing:
        """Write the figure whole or not at all.

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
        try:
            write_whole(target, self.render(kind))
        except OSError as error:
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

    def html(self) -> str:
        """Return the picture as a tag, to be shown among other HTML."""
        data, size = self._repr_png_()
        return png_tag(data, width=str(size["width"]))

    def __repr__(self) -> str:
        """Say where it is, for logs."""
        return f"figure {self.path}" if self.path else "figure"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        saved = self.path if self.path and self.path.suffix == ".png" else None
        data = saved.read_bytes() if saved and saved.exists() else self.render()
        return data, {"width": round(self.figure.get_figwidth() * 96)}


def png_tag(data: bytes, *, width: str = "") -> str:
    """Return a tag that holds the bytes of a PNG file, `width` pixels wide or as wide as it is."""
    source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    return f'<img width="{width}" style="max-width:100%" src="{source}">'


def styled(draw: Callable[P, Drawing]) -> Callable[P, Drawing]:
    """Make a drawing function use the package's style."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Drawing:
        with mpl.rc_context(RC):
            return draw(*args, **kwargs)

    return inner


# One face, one voice


def show_panel(
    axes: Any, panel: Panel, levels: tuple[float, float] = (-4.0, 0.5), reference_hz: float = 0.0
) -> None:
    """Draw a face, a voice or, for a panel with neither, its label.

    Args:
        axes: the field; its ticks and frame vanish.
        panel: what is shown; the label of a face or voice stands above it.
        levels: log10 magnitudes drawn as black and as white.
        reference_hz: pitch of the reference, drawn as a dashed line; 0 for none.
    """
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if panel.face is not None:
        axes.imshow(panel.face, interpolation="bicubic")
    elif panel.log_mel is not None:
        show_voice(axes, panel.log_mel, f0=panel.f0, levels=levels, reference_hz=reference_hz)
    else:
        axes.text(0.5, 0.5, panel.label, ha="center", va="center", transform=axes.transAxes)
        return
    axes.set_title(panel.label, loc="center", fontsize=8, pad=3)


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
        levels, reference_hz: as in :func:`show_panel`.
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
    if reference_hz > 0:
        axes.plot([0, frames], [height(reference_hz)] * 2, "--", color="white", linewidth=0.7)
    if f0 is not None and (f0 > 0).any():
        outline = [withStroke(linewidth=2.2, foreground="black")]
        track = height(np.where(f0 > 0, f0, np.nan))
        where = np.arange(frames) + 0.5
        axes.plot(where, track, color=PITCH_COLOUR, linewidth=1.1, path_effects=outline)
        text = axes.text(0.97, 0.95, f"{median_hz(f0):.0f} Hz", transform=axes.transAxes)
        text.set(ha="right", va="top", color="white", fontsize=7, path_effects=outline)
    axes.set(xlim=(0, frames), ylim=(0, bands))


def median_hz(f0: NDArray[np.float32] | None) -> float:
    """Median of the voiced frames of a pitch track in Hz, 0 where none is voiced."""
    voiced = f0[f0 > 0] if f0 is not None else np.zeros(0, dtype=np.float32)
    return float(np.median(voiced)) if len(voiced) else 0.0


def levels_of(panels: Iterable[Panel]) -> tuple[float, float]:
    """Log10 magnitudes of black and white: from the noise floor to the peaks of these voices."""
    mels = [panel.log_mel.ravel() for panel in panels if panel.log_mel is not None]
    if not mels:
        return (-4.0, 0.5)
    low, high = np.percentile(np.concatenate(mels), (3, 99.5))
    return max(float(low), float(high) - 4.0), float(high)


# The sheet of conversions: sources on top, references on the left, conversions between


SIZES = {"face": (1.1, 1.1), "voice": (1.7, 0.9), "": (0.95, 0.6)}  # inches
GAP, LINE, MARGIN = 0.08, 0.24, 0.2  # inches: between columns, of a label between rows, around
APART = 0.1  # inches: between references or sources and conversions
KEPT = {"face": "pose and expression", "voice": "words and melody"}
GUIDED = {"face": "Image-guided", "voice": "Audio-guided", "latent": "Latent-guided"}


def title_of(task: Task) -> str:
    """Name a task, such as "Audio-guided conversion of faces"."""
    return f"{GUIDED[task.guidance]} conversion of {task.output}s"


@styled
def conversions(
    grids: Grid | Mapping[str, Grid], *, title: str = "", note: str = "", across: bool = False
) -> Drawing:
    """Draw conversions: sources on top, references on the left, each field of both between.

    A voice is a small spectrogram with its pitch. Beside a reference voice stands the face of its
    speaker where the corpus has one, for comparison; a latent code is its label alone.

    Args:
        grids: one, or several by their captions.
        title: above all; left out, the task of the first one.
        note: at the foot; left out, that of the first one.
        across: several stand side by side, not one below the other.
    """
    parts = {"": grids} if isinstance(grids, Grid) else dict(grids)
    first = next(iter(parts.values()))
    caption = 0.3 if any(parts) else 0.0
    plans = [_plan(grid) for grid in parts.values()]
    wide = [sum(widths) + GAP * (len(widths) - 1) for widths, _, _ in plans]
    high = [caption + LINE + sum(heights) + gap * (len(heights) - 1) for _, heights, gap in plans]
    spaces = 0.35 * (len(plans) - 1)
    inner = (sum(wide) + spaces, max(high)) if across else (max(wide), sum(high) + spaces)
    foot = [*_legend(parts.values()), note or first.note]
    top, bottom = 0.42, 0.2 + 0.13 * len(foot)
    width, height = max(inner[0] + 2 * MARGIN, 5.6), top + inner[1] + bottom
    figure = Figure(figsize=(width, height))
    figure.text(
        MARGIN / width, 1 - 0.27 / height, title or title_of(first.task), fontsize=11, weight="bold"
    )
    figure.text(MARGIN / width, 0.1 / height, "\n".join(foot), fontsize=6.5, color=FAINT)
    panels = chain.from_iterable(_panels(grid) for grid in parts.values())
    levels = levels_of(panel for panel in panels if panel.label)  # recordings, not conversions
    x, y = MARGIN, top
    for number, (name, grid) in enumerate(parts.items()):
        widths, heights, gap = plans[number]
        figure.text(x / width, 1 - (y + 0.16) / height, name, fontsize=9, weight="bold")
        places = figure.add_gridspec(
            len(heights),
            len(widths),
            left=x / width,
            right=(x + wide[number]) / width,
            top=1 - (y + caption + LINE) / height,
            bottom=1 - (y + high[number]) / height,
            wspace=GAP / float(np.mean(widths)),
            hspace=gap / float(np.mean(heights)),
            width_ratios=widths,
            height_ratios=heights,
        )
        _fill(figure, places, grid, levels)
        x, y = (x + wide[number] + 0.35, y) if across else (x, y + high[number] + 0.35)
    return Drawing(figure)


def _plan(grid: Grid) -> tuple[list[float], list[float], float]:
    """Return widths and heights of a grid's fields and the gap between rows, in inches.

    There is an empty column and an empty row before the conversions.
    """
    heights = [SIZES[_kind(cells[0])][1] for cells in grid.cells]
    heads = [(_kind(row), high) for row, high in zip(grid.rows, heights, strict=True)]
    head = max(high if kind == "face" else SIZES[kind][0] for kind, high in heads)
    width, height = SIZES[_kind(grid.columns[0])]
    aside = [max(heights)] if any(row.speaker_face is not None for row in grid.rows) else []
    labelled = grid.task.guidance != "latent"
    widths = [*aside, head, APART, *[width] * len(grid.columns)]
    return widths, [height, 0.0 if labelled else APART, *heights], LINE if labelled else GAP


def _fill(figure: Figure, places: GridSpec, grid: Grid, levels: tuple[float, float]) -> None:
    """Draw the fields of a grid at their places."""

    def show(row: int, column: int, panel: Panel, reference_hz: float = 0.0) -> Any:
        axes = figure.add_subplot(places[row, column])
        show_panel(axes, panel, levels, reference_hz)
        return axes

    left = places.ncols - len(grid.columns)
    corner = {"x": 1.0, "ha": "right", "color": FAINT, "fontsize": 7.5}
    axes = show(0, left - 2, Panel(label=""))
    axes.text(y=0.5, s="sources \N{RIGHTWARDS ARROW}", va="center", **corner)
    if _guides(grid):
        guides = "codes" if grid.task.guidance == "latent" else "references"
        axes.text(y=0.0, s=f"{guides} \N{DOWNWARDS ARROW}", va="bottom", **corner)
    for column, source in enumerate(grid.columns, left):
        show(0, column, source)
    for row, (reference, cells) in enumerate(zip(grid.rows, grid.cells, strict=True), 2):
        show(row, left - 2, reference)
        if reference.speaker_face is not None:
            axes = show(row, 0, Panel(label="its speaker", face=reference.speaker_face))
            axes.title.set(fontsize=7, color=FAINT)
        for column, cell in enumerate(cells, left):
            show(row, column, cell, median_hz(reference.f0))


def _legend(grids: Iterable[Grid]) -> list[str]:
    """Say how to read the fields."""
    known = list(grids)
    lines = []
    if all(_guides(grid) for grid in known):
        kept = " or ".join(KEPT[output] for output in dict.fromkeys(g.task.output for g in known))
        lines.append(f"Each field keeps its column's {kept} and takes its row's identity.")
    if any(panel.log_mel is not None for grid in known for panel in _panels(grid)):
        low, high = PITCH_RANGE_HZ
        beside = any(g.task is Task.A2A for g in known)
        dashed = "; dashed: the reference's" if beside else ""
        lines.append(f"Line: pitch ({low:.0f} to {high:.0f} Hz, log) and its median{dashed}.")
    if any(row.speaker_face is not None for grid in known for row in grid.rows):
        lines.append("The model hears a reference voice and does not see its speaker.")
    return lines


def _guides(grid: Grid) -> bool:
    """Whether the rows are references, not a comparison of systems."""
    return grid.task.guidance == "latent" or any(map(_kind, grid.rows))


def _panels(grid: Grid) -> Sequence[Panel]:
    return [*grid.columns, *grid.rows, *chain.from_iterable(grid.cells)]


def _kind(panel: Panel) -> str:
    return "face" if panel.face is not None else "voice" if panel.log_mel is not None else ""
