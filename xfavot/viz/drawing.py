"""How figures of the package look and how they are kept: one style, safe for the colour-blind.

Figures are made without pyplot, so nothing global changes and no window opens. Matplotlib comes
with the extra ``notebooks``.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
from collections.abc import Callable, Iterable
from functools import wraps
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from xfavot import __version__
from xfavot.errors import DataError

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
        log_mel, origin="lower", aspect="auto", cmap=SPECTROGRAM, vmin=levels[0], vmax=levels[1],
        extent=(0, frames, 0, bands), interpolation="nearest",
    )  # fmt: skip
    outline = [withStroke(linewidth=2.2, foreground="black")]
    if reference_hz > 0:
        axes.plot([0, frames], [height(reference_hz)] * 2, "--", color="white", linewidth=0.7)
    if f0 is not None and (f0 > 0).any():
        track = np.where(f0 > 0, f0, np.nan)
        line = axes.plot(np.arange(frames) + 0.5, height(track), color=PITCH_COLOUR, linewidth=1.1)
        line[0].set_path_effects(outline)
        axes.text(
            0.97, 0.95, f"{median_hz(f0):.0f} Hz", transform=axes.transAxes, ha="right", va="top",
            color="white", fontsize=7, path_effects=outline,
        )  # fmt: skip
    axes.set(xlim=(0, frames), ylim=(0, bands))


def median_hz(f0: NDArray[np.float32] | None) -> float:
    """Median of the voiced frames of a pitch track in Hz, 0 where none is voiced."""
    voiced = f0[f0 > 0] if f0 is not None else np.zeros(0, dtype=np.float32)
    return float(np.median(voiced)) if len(voiced) else 0.0
