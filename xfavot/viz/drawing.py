"""How figures look and are kept; the sheet of conversions, curves, bars of the correspondence.

One style, safe for the colour-blind. Figures are made without pyplot, so nothing global changes and
no window opens. Matplotlib comes with the extra ``notebooks``.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, cycle
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xfavot import __version__
from xfavot.convert import Grid, Panel, Task
from xfavot.errors import DataError
from xfavot.evaluation.cpr import CHANCE, TRUTH
from xfavot.files import write_whole

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
    from matplotlib.gridspec import GridSpec
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text
except ImportError as error:
    raise DataError(
        'figures need matplotlib, which is not installed; run: pip install "xfavot[notebooks]"'
    ) from error

INK, FAINT, RULE = "#222222", "#6f6f6f", "#d9d9d9"  # as in the style sheet
# Okabe and Ito's palette and more for many systems, in the order in which lines take the colours
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#882255", "#999933", "#332288", "#44AA99", "#AA4499", "#661100"),  # Tol's muted, and a brown
)
SPECTROGRAM = "magma"
PITCH_COLOUR = "#7DF9FF"
PITCH_RANGE_HZ = (60.0, 500.0)  # of the logarithmic scale that pitch tracks are drawn on
STYLE = Path(__file__).with_name("paper.mplstyle")
RC: Any = mpl.rc_params_from_file(STYLE, use_default_template=False)

styled = mpl.rc_context(RC)  # decorates a function that draws


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
        """
        self.path = Path(path)
        write_whole(self.path, self.render(self.path.suffix.lstrip(".")))
        return self

    def render(self, kind: str = "png") -> bytes:
        """Return the figure as the bytes of a "png" or a "pdf" file."""
        buffer = io.BytesIO()
        says: dict[str, str | None] = {"Software": f"xfavot {__version__}"}
        if kind == "pdf":  # without a date the same figure is the same file
            says = {"Creator": says["Software"], "CreationDate": None}
        with mpl.rc_context(RC):
            make_legible(self.figure)
            self.figure.savefig(buffer, format=kind, metadata=says)
        return buffer.getvalue()

    def html(self) -> str:
        """Return the picture as a tag, to be shown among other HTML."""
        data, size = self._repr_png_()
        return png_tag(data, width=str(size["width"]))

    def __repr__(self) -> str:
        """Say where it is, for logs."""
        return f"figure {self.path}" if self.path else "figure"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        saved = self.path and self.path.suffix == ".png" and self.path.exists()
        data = self.path.read_bytes() if self.path and saved else self.render()
        return data, {"width": round(self.figure.get_figwidth() * 96)}


def png_tag(data: bytes, *, width: str = "") -> str:
    """Return a tag that holds the bytes of a PNG file, `width` pixels wide or as wide as it is."""
    source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    return f'<img width="{width}" style="max-width:100%" src="{source}">'


# Names in any script


PLACEHOLDERS = ("lastresort", "notdef", "blank")  # fonts that have a glyph for all, and show none
NOTE = "numbered names: no installed font has their letters"
NUMBERS: dict[str, int] = {}  # of names that no font can write, in the order in which they came


def make_legible(figure: Figure) -> None:
    """Let every text of a figure use fonts that have its letters.

    A name in letters that no installed font has becomes a number, the same one in all figures, and
    a note says so; what is written beside a figure keeps the name.
    """
    usual = list(RC["font.family"])
    known = {chr(code) for code in get_font(findfont(FontProperties(family=usual))).get_charmap()}
    texts = [text for text in figure.findobj(Text) if not _letters(text) <= known]
    families, lost = _fallbacks(frozenset[str]().union(*map(_letters, texts)) - known)
    for text in texts:
        text.set_fontfamily([*usual, *families])
        if lost & _letters(text):
            one = f"[{re.escape(''.join(sorted(lost)))}]"
            text.set_text(re.sub(f"{one}+( +{one}+)*", _numbered, text.get_text()))
    if lost:
        place = 1 - 0.06 / figure.get_figheight()
        figure.text(0.99, place, NOTE, ha="right", va="top", fontsize=6.5, color=FAINT)


def _letters(text: Text) -> set[str]:
    return {sign for sign in text.get_text() if sign.isprintable() and not sign.isspace()}


def _numbered(name: re.Match[str]) -> str:
    return f"name {NUMBERS.setdefault(name[0], len(NUMBERS) + 1)}"


@functools.cache
def _fallbacks(missing: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Installed font families that have letters, as few as will do, and the letters none has."""
    covered: dict[str, set[str]] = {}
    for font in fontManager.ttflist if missing else ():
        nothing = any(word in font.name.lower().replace(" ", "") for word in PLACEHOLDERS)
        if font.style == "normal" and not nothing:
            with suppress(OSError, RuntimeError):  # removed or damaged since the list was made
                codes = get_font(font.fname).get_charmap()
                covered.setdefault(font.name, set()).update(c for c in missing if ord(c) in codes)
    families: list[str] = []
    while best := max(sorted(covered), key=lambda name: len(covered[name] & missing), default=""):
        if not covered[best] & missing:
            break
        families.append(best)
        missing -= covered[best]
    return families, missing


# One face, one voice


def show_panel(
    axes: Any, panel: Panel, levels: tuple[float, float] = (-4.0, 0.5), reference_hz: float = 0.0
) -> None:
    """Draw a face; a voice as a spectrogram with its pitch track; or, without either, the label.

    Args:
        axes: the field; its ticks and frame vanish.
        panel: what is shown; the label of a face or voice stands above it, the median of the pitch
            in the corner.
        levels: log10 magnitudes drawn as black and as white.
        reference_hz: pitch of the reference, drawn as a dashed line; 0 for none.
    """
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if panel.face is None and panel.log_mel is None:
        axes.text(0.5, 0.5, panel.label, ha="center", va="center", transform=axes.transAxes)
        return
    axes.set_title(panel.label, loc="center", fontsize=8, pad=3)
    if panel.face is not None:
        axes.imshow(panel.face, interpolation="bicubic")
    elif panel.log_mel is not None:
        bands, frames = panel.log_mel.shape  # (80, T)
        show_spectrogram(axes, panel.log_mel, levels, (frames, bands))
        axes.set(xlim=(0, frames), ylim=(0, bands))
        low, high = np.log(PITCH_RANGE_HZ)
        scale = bands / (high - low)
        if reference_hz > 0:
            height = (np.log(reference_hz) - low) * scale
            axes.plot([0, frames], [height] * 2, "--", color="white", linewidth=0.7)
        if panel.f0 is not None and (median := median_hz(panel.f0)):
            look: Any = {"path_effects": [withStroke(linewidth=2.2, foreground="black")]}
            track = (np.log(np.where(panel.f0 > 0, panel.f0, np.nan)) - low) * scale
            axes.plot(np.arange(frames) + 0.5, track, color=PITCH_COLOUR, linewidth=1.1, **look)
            look |= {"transform": axes.transAxes, "ha": "right", "va": "top", "fontsize": 7}
            axes.text(0.97, 0.95, f"{median:.0f} Hz", color="white", **look)


def show_spectrogram(
    axes: Any,
    magnitudes: NDArray[np.float32],
    levels: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """Draw (F, T) magnitudes between two levels, on axes that end at `size`."""
    look = {"cmap": SPECTROGRAM, "aspect": "auto", "origin": "lower", "interpolation": "nearest"}
    extent = (0, size[0], 0, size[1])
    axes.imshow(magnitudes, vmin=levels[0], vmax=levels[1], extent=extent, **look)


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
    foot = [*_legend([*parts.values()]), note or first.note]
    top, bottom = 0.42, 0.2 + 0.13 * len(foot)
    width, height = max(inner[0] + 2 * MARGIN, 5.6), top + inner[1] + bottom
    figure = Figure(figsize=(width, height))

    def write(x: float, y: float, text: str, size: float, **look: Any) -> None:
        figure.text(x / width, 1 - y / height, text, fontsize=size, **look)

    write(MARGIN, 0.27, title or title_of(first.task), 11, weight="bold")
    write(MARGIN, height - 0.1, "\n".join(foot), 6.5, color=FAINT)
    panels = chain.from_iterable(_panels(grid) for grid in parts.values())
    levels = levels_of(panel for panel in panels if panel.label)  # recordings, not conversions
    x, y = MARGIN, top
    for number, (name, grid) in enumerate(parts.items()):
        widths, heights, gap = plans[number]
        write(x, y + 0.16, name, 9, weight="bold")
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
    aside = [max(heights)] if _with_speakers(grid) else []
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


def _legend(grids: Sequence[Grid]) -> list[str]:
    """Say how to read the fields."""
    lines = []
    if all(map(_guides, grids)):
        kept = " or ".join(KEPT[output] for output in dict.fromkeys(g.task.output for g in grids))
        lines.append(f"Each field keeps its column's {kept} and takes its row's identity.")
    if any(panel.log_mel is not None for grid in grids for panel in _panels(grid)):
        low, high = PITCH_RANGE_HZ
        dashed = "; dashed: the reference's" if any(g.task is Task.A2A for g in grids) else ""
        lines.append(f"Line: pitch ({low:.0f} to {high:.0f} Hz, log) and its median{dashed}.")
    if any(map(_with_speakers, grids)):
        lines.append("The model hears a reference voice and does not see its speaker.")
    return lines


def _guides(grid: Grid) -> bool:
    """Whether the rows are references, not a comparison of systems."""
    return grid.task.guidance == "latent" or any(map(_kind, grid.rows))


def _with_speakers(grid: Grid) -> bool:
    return any(row.speaker_face is not None for row in grid.rows)


def _panels(grid: Grid) -> Iterable[Panel]:
    return chain(grid.columns, grid.rows, *grid.cells)


def _kind(panel: Panel) -> str:
    return "face" if panel.face is not None else "voice" if panel.log_mel is not None else ""


# Curves of training


NOT_TERMS = ("step", "epoch", "seconds", "s_per_step", "eta_s", "lr", "time", "wall_s", "memory")
# the paper's order: generators, then discriminators, then the warm-up
TERM_ORDER = (
    *("adv", "sty", "ds", "cyc", "sc", "f0", "norm", "advcls", "xm"),
    *("adv_real", "adv_fake", "r1", "cls", "rec_image", "rec_audio"),
)
PASS_ORDER = ("i2i", "a2i", "z2i", "a2a", "i2a", "z2a", "")
SMOOTHED = 25  # records in the running mean of a long curve


@styled
def curves(metrics: Iterable[Mapping[str, Any]], *, columns: int = 4) -> Drawing:
    """Draw every logged term over the steps, one small plot a term, one line a pass.

    Terms are named ``g/a2i/sty``: the last part names the plot, the pass before it the line. Terms
    of the validation split (``val/...``) are dashed.

    Args:
        metrics: the records of ``metrics.jsonl``, each with a ``step``.
        columns: plots a row.

    Raises:
        DataError: no record holds a term.
    """
    points = [
        (*_name(key), record["step"], float(value))
        for record in metrics
        for key, value in record.items()
        if "step" in record and isinstance(value, int | float) and not isinstance(value, bool)
    ]
    frame = pd.DataFrame(points, columns=["term", "pass", "held_out", "step", "value"])
    frame = frame[~frame["term"].isin(NOT_TERMS)]
    if frame.empty:
        raise DataError("curves: no record holds a term; expected the lines of metrics.jsonl")
    terms = _ordered(frame["term"], TERM_ORDER)
    colours = dict(zip(_ordered(frame["pass"], PASS_ORDER), cycle(PALETTE), strict=False))
    columns = min(columns, len(terms))
    rows = math.ceil(len(terms) / columns)
    figure = Figure(figsize=(2.3 * columns, 1.6 * rows + 0.5), layout="constrained")
    for index, term in enumerate(terms):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.set_title(term)
        axes.set_xlabel("step" if index + columns >= len(terms) else "")
        for _, line in frame[frame["term"] == term].groupby(["pass", "held_out"]):
            name, held_out = line[["pass", "held_out"]].iloc[0]
            _curve(axes, line, colours[name], held_out=held_out)
    handles = [Line2D([], [], color=c, label=name or "all") for name, c in colours.items()]
    if frame["held_out"].any():
        handles.append(Line2D([], [], color="black", linestyle="--", label="validation"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8))
    return Drawing(figure)


def _name(key: str) -> tuple[str, str, bool]:
    """Term, pass and whether it is of the validation split."""
    *before, term = key.split("/")
    return term, before[-1] if before and "2" in before[-1] else "", key.startswith("val/")


def _ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    there = set(names)
    return [name for name in order if name in there] + sorted(there - set(order))


def _curve(axes: Any, line: pd.DataFrame, colour: str, *, held_out: bool) -> None:
    """Draw a curve; a long one faintly, with its running mean on top."""
    steps, values = line["step"], line["value"]
    if held_out:
        axes.plot(steps, values, "--", color=colour, linewidth=0.9, marker=".", markersize=3)
        return
    long = len(values) > 4 * SMOOTHED
    axes.plot(steps, values, color=colour, alpha=0.25 if long else 1.0, linewidth=0.8)
    if long:
        axes.plot(steps, values.rolling(SMOOTHED, center=True).mean(), color=colour)


# The correspondence preference ratio (paper: Fig. 5)


RECORDED = "#9aa3aa"  # the colour of recordings, which no model made
NARROW = 5  # bars of a task, from which on their numbers stand upright


@styled
def preferences(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    """Draw the ratio of every system and task as bars: of people, or else of the first classifier.

    Args:
        rows: of :func:`xfavot.report.study.result_rows`, at least one.
    """
    frame = pd.DataFrame(rows)
    frame = frame[frame["metric"] == frame["metric"][0]]
    systems, tasks = list(frame["system"].unique()), list(frame["task"].unique())
    made = [system for system in systems if system != TRUTH]
    colours = dict.fromkeys(systems, RECORDED) | dict(zip(made, cycle(PALETTE), strict=False))
    most = int(frame["task"].value_counts().max())
    many, width = most > NARROW, 0.8 / most
    figure = Figure(figsize=(max(5.4, 0.36 * most * len(tasks)), 3.0), layout="constrained")
    axes = figure.add_subplot()
    for number, (_, one) in enumerate(frame.groupby("task", sort=False)):
        x = number + width * (np.arange(len(one)) - (len(one) - 1) / 2)
        apart = [one["value"] - one["ci_low"], one["ci_high"] - one["value"]]
        axes.bar(x, one["value"], 0.9 * width, color=[colours[name] for name in one["system"]])
        axes.errorbar(x, one["value"], apart, fmt="none", ecolor=INK, capsize=2.5)
        how: dict[str, Any] = {
            "ha": "center",
            "color": "white",
            "weight": "bold",
            "rotation": 90 if many else 0,
        }
        for place, value in zip(x, one["value"], strict=True):
            axes.text(place, 0.02, f"{value:.2f}", **how)
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    axes.axhline(CHANCE, color=INK, linestyle="--", linewidth=0.8)
    axes.set_xticks(range(len(tasks)), [title_of(Task(task)) for task in tasks])
    axes.grid(axis="x", visible=False)
    axes.set(ylim=(0, 1.02), ylabel="CPR", title=f"{frame['metric'].iloc[0]}; dashed: chance")
    axes.set_xlabel(f"lines: 95 % ({frame['interval'].iloc[0]}), {frame['n'].max()} at most a bar")
    shown = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=shown, loc="outside upper left", ncols=5 if many else 4)
    return Drawing(figure)
