"""A small soft painter: smooth shapes, blurred shadows and textures at a multiple of 128 pixels.

Coordinates are pixels of the final 128x128 picture (x right, y down). Work happens on a larger
canvas that is averaged down at the end, which gives clean edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xfavot.errors import DataError

try:
    from PIL import Image, ImageChops, ImageDraw, ImageFilter
except ImportError as error:
    raise DataError(
        'drawing the corpus `mini` needs Pillow; got no module PIL; pip install "xfavot[mini]"'
    ) from error

Array = NDArray[np.float64]
Paint = tuple[float, float, float]  # sRGB, 0..255; what is out of range is clipped
SIZE = 128  # pixels of a finished picture
SCALE = 3  # canvas pixels per finished pixel
_SEGMENTS = 7  # points a spline segment is drawn with
# Pillow cuts coordinates to whole pixels: rounded, 63.9999999999 of one processor and 64.0 of
# another are the same place.
_DECIMALS = 4


def _basis() -> Array:
    t = np.arange(_SEGMENTS) / _SEGMENTS
    powers = np.stack([np.ones_like(t), t, t**2, t**3], axis=1)
    matrix = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    return powers @ matrix  # (segments, 4)


_BASIS = _basis()


def smooth(points: Array, *, closed: bool) -> Array:
    """A Catmull-Rom spline through points.

    Args:
        points: (N, 2).
        closed: whether the curve returns to its start.

    Returns:
        (M, 2) points along the curve.
    """
    if closed:
        around = np.concatenate([points[-1:], points, points[:2]])
    else:
        around = np.concatenate(
            [2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]]
        )
    quads = np.stack([around[i : len(around) - 3 + i] for i in range(4)], axis=1)  # (N, 4, 2)
    curve = (_BASIS @ quads).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def ellipse(x: float, y: float, rx: float, ry: float, *, points: int = 24) -> Array:
    """Points (N, 2) around (x, y), clockwise from the right."""
    angle = np.linspace(0, 2 * np.pi, points + 1)[:-1]
    return np.column_stack([x + rx * np.cos(angle), y + ry * np.sin(angle)])


def image_of(array: NDArray[np.floating]) -> Image.Image:
    """An RGB image of the canvas's size from floats (h, w, 3) in 0..255."""
    small = Image.fromarray(np.clip(array + 0.5, 0, 255).astype(np.uint8))
    return small.resize((SIZE * SCALE, SIZE * SCALE), Image.Resampling.BICUBIC)


def tint(colour: tuple[float, ...], factor: float, warm: float = 0.0) -> Paint:
    """A colour made lighter or darker, and warmer by `warm` (red up, blue down)."""
    red, green, blue = colour
    return red * factor * (1 + warm), green * factor, blue * factor * (1 - warm)


class Canvas:
    """An RGB picture that shapes are laid upon."""

    def __init__(self, background: Image.Image) -> None:
        """Start with a background of the canvas's size."""
        self.image = background

    def _mask(
        self, shapes: list[Array], blur: float, alpha: float, width: float
    ) -> tuple[Image.Image, tuple[int, int]] | None:
        """Alpha mask of the shapes and the canvas place of its corner; None when outside."""
        pad = 3 * blur + width + 1
        stacked = np.concatenate(shapes).round(_DECIMALS)
        limit = SIZE * SCALE
        low = np.clip(np.floor((stacked.min(axis=0) - pad) * SCALE), 0, limit).astype(int)
        high = np.clip(np.ceil((stacked.max(axis=0) + pad) * SCALE), 0, limit).astype(int)
        if (high <= low).any():
            return None
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        shrink = max(1.0, blur * SCALE / 2)
        work = (max(1, round(size[0] / shrink)), max(1, round(size[1] / shrink)))
        mask = Image.new("L", work, 0)
        draw = ImageDraw.Draw(mask)
        factor = SCALE * np.array(work) / np.array(size)
        level = round(255 * alpha)
        for shape in shapes:
            flat = ((shape - low / SCALE) * factor).round(_DECIMALS).ravel().tolist()
            if width > 0:
                pixels = max(1, round(width * float(factor.mean())))
                draw.line(flat, fill=level, width=pixels, joint="curve")
            elif len(flat) >= 6:
                draw.polygon(flat, fill=level)
        if blur > 0:
            mask = mask.filter(ImageFilter.GaussianBlur(blur * float(factor.mean())))
        if work != size:
            mask = mask.resize(size, Image.Resampling.BILINEAR)
        return mask, (int(low[0]), int(low[1]))

    def fill(
        self,
        shape: Array | list[Array],
        paint: Paint | Image.Image,
        *,
        alpha: float = 1.0,
        blur: float = 0.0,
        width: float = 0.0,
        shift: tuple[float, float] = (0.0, 0.0),
        inside: Array | None = None,
    ) -> None:
        """Lay a shape (or several as one) on the picture.

        Args:
            shape: (N, 2) outline, or a list of outlines.
            paint: a colour, or an image of the canvas's size.
            alpha: opacity, 0..1.
            blur: standard deviation of the edge's softness, pixels.
            width: 0 fills the outline; otherwise the outline is a line of this width, pixels.
            shift: moves the shape right and down, pixels; for shadows.
            inside: (N, 2) outline outside which nothing is painted.
        """
        parts = shape if isinstance(shape, list) else [shape]
        shapes = [np.asarray(part, dtype=np.float64) + np.array(shift) for part in parts]
        made = self._mask(shapes, blur, alpha, width)
        if made is None:
            return
        mask, (left, top) = made
        if inside is not None:
            limit = Image.new("L", mask.size, 0)
            flat = (inside * SCALE - (left, top)).round(_DECIMALS).ravel().tolist()
            ImageDraw.Draw(limit).polygon(flat, fill=255)
            mask = ImageChops.multiply(mask, limit)
        box = (left, top, left + mask.size[0], top + mask.size[1])
        if isinstance(paint, Image.Image):
            self.image.paste(paint.crop(box), box, mask)
        else:
            red, green, blue = (min(255, max(0, round(c))) for c in paint)
            self.image.paste((red, green, blue), box, mask)

    def finished(self) -> NDArray[np.uint8]:
        """The picture at its final size, (128, 128, 3)."""
        return np.asarray(self.image.reduce(SCALE))
