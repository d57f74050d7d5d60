"""A small soft painter: smooth shapes, blurred shadows and textures at a multiple of 128 pixels.

Coordinates are pixels of the final 128x128 picture (x right, y down). Work happens on a larger
canvas that is averaged down at the end, which gives clean edges.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from xfavot.mini.people import Nuisance, Person, stream, table

Array = NDArray[np.float64]
Points = Array | Sequence[Sequence[float]]
Paint = tuple[float, ...]  # sRGB, 0..255; what is out of range is clipped
SIZE = 128  # pixels of a finished picture
SCALE = 3  # canvas pixels per finished pixel
GRID = np.arange(SIZE) + 0.5  # middles of pixels
_SEGMENTS = 7  # points a spline segment is drawn with
# Pillow cuts coordinates to whole pixels: rounded, 63.9999999999 of one processor and 64.0 of
# another are the same place.
_DECIMALS = 4


_T = np.arange(_SEGMENTS)[:, None] / _SEGMENTS
_CATMULL_ROM = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
_BASIS = np.concatenate([np.ones_like(_T), _T, _T**2, _T**3], axis=1) @ _CATMULL_ROM


def smooth(points: Points, *, closed: bool = False) -> Array:
    """A Catmull-Rom spline through points.

    Args:
        points: (N, 2).
        closed: whether the curve returns to its start.

    Returns:
        (M, 2) points along the curve.
    """
    points = np.asarray(points, dtype=np.float64)
    before, after = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    if closed:
        before, after = points[-1:], points[:2]
    around = np.concatenate([before, points, after])
    quads = np.stack([around[i : len(around) - 3 + i] for i in range(4)], axis=1)  # (N, 4, 2)
    curve = (_BASIS @ quads).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def across(*right: tuple[float, float]) -> list[tuple[float, float]]:
    """A line of both sides: points from the middle to the right, after their mirror images."""
    return [*((-x, y) for x, y in right[::-1] if x), *right]


def unit(vectors: Array) -> Array:
    """Vectors (..., 3) of length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def ellipse(x: float, y: float, rx: float, ry: float, *, points: int = 24) -> Array:
    """Points (N, 2) around (x, y), clockwise from the right."""
    angle = np.linspace(0, 2 * np.pi, points + 1)[:-1]
    return np.column_stack([x + rx * np.cos(angle), y + ry * np.sin(angle)])


def image_of(array: NDArray[np.floating]) -> Image.Image:
    """An RGB image of the canvas's size from floats (h, w, 3) in 0..255."""
    small = Image.fromarray(np.clip(array + 0.5, 0, 255).astype(np.uint8))
    return small.resize((SIZE * SCALE, SIZE * SCALE), Image.Resampling.BICUBIC)


def tint(colour: Paint, factor: float, warm: float = 0.0) -> Paint:
    """A colour made lighter or darker, and warmer by `warm` (red up, blue down)."""
    red, green, blue = colour
    return red * factor * (1 + warm), green * factor, blue * factor * (1 - warm)


def background(pose: Nuisance) -> Image.Image:
    """A soft studio wall: a hue of little saturation, brighter around the head."""
    value = 0.46 + 0.46 * pose.tone
    red, green, blue = colorsys.hsv_to_rgb(pose.hue, 0.08 + 0.20 * (1 - pose.tone), value)
    grid = (np.arange(64) + 0.5) / 64
    x, y = grid[None, :], grid[:, None]
    side = np.sign(pose.light) * 0.25
    glow = np.exp(-((x - 0.5 - side) ** 2 + (y - 0.35) ** 2) / 0.22)
    level = 0.74 + 0.36 * glow - 0.12 * y
    draw = stream(round(pose.hue * 10_000), "lights", round(pose.tone * 10_000))
    for left, top, size, bright in draw.uniform((0, 0, 0.05, 0.03), (1, 0.9, 0.14, 0.10), (5, 4)):
        away = np.sqrt((x - left) ** 2 + (y - top) ** 2)
        level = level + bright * np.clip((size - away) / 0.03 + 0.5, 0, 1)
    return image_of(255 * level[..., None] * np.array([red, green, blue]))


class Canvas:
    """An RGB picture that shapes are laid upon."""

    def __init__(self, pose: Nuisance) -> None:
        """Start with the background."""
        self.image = background(pose)

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
        corners = np.concatenate(shapes).round(_DECIMALS)
        pad, limit = 3 * blur + width + 1, SIZE * SCALE
        low = np.clip(np.floor((corners.min(axis=0) - pad) * SCALE), 0, limit).astype(int)
        high = np.clip(np.ceil((corners.max(axis=0) + pad) * SCALE), 0, limit).astype(int)
        if (high <= low).any():
            return
        left, top, right, bottom = box = (*low.tolist(), *high.tolist())
        size = right - left, bottom - top
        shrink = max(1.0, blur * SCALE / 2)  # a soft mask is drawn smaller
        work = max(1, round(size[0] / shrink)), max(1, round(size[1] / shrink))
        factor = SCALE * np.array(work) / np.array(size)
        mask = Image.new("L", work, 0)
        draw, level = ImageDraw.Draw(mask), round(255 * alpha)
        for part in shapes:
            flat = ((part - low / SCALE) * factor).round(_DECIMALS).ravel().tolist()
            if width > 0:
                pixels = max(1, round(width * float(factor.mean())))
                draw.line(flat, fill=level, width=pixels, joint="curve")
            elif len(flat) >= 6:
                draw.polygon(flat, fill=level)
        if blur > 0:
            mask = mask.filter(ImageFilter.GaussianBlur(blur * float(factor.mean())))
        if work != size:
            mask = mask.resize(size, Image.Resampling.BILINEAR)
        if inside is not None:
            hole = Image.new("L", size, 0)
            flat = (inside * SCALE - low).round(_DECIMALS).ravel().tolist()
            ImageDraw.Draw(hole).polygon(flat, fill=255)
            mask = ImageChops.multiply(mask, hole)
        if isinstance(paint, Image.Image):
            self.image.paste(paint.crop(box), box, mask)
        else:
            red, green, blue = (min(255, max(0, round(c))) for c in paint)
            self.image.paste((red, green, blue), box, mask)

    def picture(self) -> Array:
        """The finished picture, (128, 128, 3) in 0..255."""
        return np.asarray(self.image.reduce(SCALE)).astype(np.float64)


# Haircuts, in pixels of the finished picture; `hair.csv` has a row each:
#   line      height of the hairline at the parting
#   drop      how far the hairline falls from the parting to the temple
#   bend      2 curtain of hair .. 6 square corners
#   top       volume above the skull
#   sides     volume beside it
#   part      where the hair parts, -1 .. 1
#   fringe    how far hair sweeps into the forehead on the longer side
#   sideburn  how far hair reaches down before the ears
#   length    how far hair hangs below the middle of the skull, 0 none
#   wave      waviness of hanging hair
#   curl      radius of curls along the edge
#   locks     1 where hair hangs before the ears
#   bun       1 with a bun
#   alpha     thin for cropped hair
STYLES = {
    row.pop("style"): SimpleNamespace(**{name: float(value) for name, value in row.items()})
    for row in table("hair.csv")
}


# The head in space: where a point of the face lands in the picture, and how light falls on it


EYE = (15.2, -2.0)  # frontal place of the right-hand eye, pixels
MOUTH_Y = 31.0  # pixels
TARGET = (64.0, 76.0)  # middle between eyes and mouth in the picture, pixels
YAW_DEGREES = 26.0
PITCH_DEGREES = 14.0
DEPTH = 41.0  # half depth of the head, pixels
Blob = tuple[float, float, float, float, float, float]  # x, y, lift, width, height, amount


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """Rotation matrix of the head; angles in degrees; right, up and clockwise are positive."""
    a, b, c = np.radians([yaw, pitch, roll])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    lean = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(lean @ nod @ turn)


SHADE = np.array([0.60, 0.47, 0.45])  # colour of skin in shade, as a share of its own


class Head:
    """Geometry and shading of one person in one pose; `skin` and `hair` are painted with."""

    def __init__(self, person: Person, pose: Nuisance) -> None:
        """Shape the head of a person and turn it."""
        self.person, self.pose, self.style = person, pose, STYLES[person.hair_style]
        man = person.gender == "m"
        self.half = 33.0 + 5.5 * person.size + 1.2 * man  # half width at the temples, pixels
        self.jaw = (0.66 + 0.07 * man + 0.11 * person.size + 0.10 * person.jaw) * self.half
        self.chin_width = (0.24 + 0.10 * man + 0.10 * person.jaw) * self.half
        self.chin = 51.0 + 2.0 * man + 2.5 * person.size - 1.5 * person.jaw
        self.side = float(np.sign(pose.yaw) or 1.0)
        self.turned = abs(pose.yaw)
        self.matrix_yaw = rotation(pose.yaw * YAW_DEGREES, 0.0, 0.0)
        self.matrix_rest = rotation(0.0, pose.pitch * PITCH_DEGREES, pose.roll)
        self.matrix = self.matrix_rest @ self.matrix_yaw
        self.origin = np.zeros(2)
        self.origin = np.array(TARGET) - self.on([[0.0, (EYE[1] + MOUTH_Y) / 2]])[0]
        azimuth, height = np.radians([pose.light, pose.light_height])
        self.light = np.array(
            [np.sin(azimuth) * np.cos(height), -np.sin(height), np.cos(azimuth) * np.cos(height)]
        )
        self.strength = pose.light_strength

    def landmarks(self) -> Array:
        """Eyes, tip of the nose and corners of the mouth in the picture, (5, 2)."""
        flat = [[-EYE[0], EYE[1]], [EYE[0], EYE[1]], [0, 15], [-11, MOUTH_Y - 1], [11, MOUTH_Y - 1]]
        return self.on(np.array(flat, dtype=np.float64), lift=np.array([0.0, 0.0, 9.0, 2.0, 2.0]))

    def place(self, points: Points) -> Array:
        """Picture coordinates (N, 2) of points (N, 3) of the head's frame."""
        return (np.asarray(points, dtype=np.float64) @ self.matrix.T)[:, :2] + self.origin

    def on(self, points: Points, *, lift: float | Array = 0.0) -> Array:
        """Picture coordinates (N, 2) of points (N, 2) on the face, `lift` pixels above it."""
        flat = np.asarray(points, dtype=np.float64)
        inner = 1 - (flat[:, 0] / (1.03 * self.half)) ** 2 - (flat[:, 1] / 64.0) ** 2
        z = DEPTH * np.sqrt(np.maximum(inner, 0.04)) + lift
        return self.place(np.column_stack([flat, z]))

    def curve(self, points: Points, *, lift: float = 0.0) -> Array:
        """A smooth closed curve through points of the face, in picture coordinates."""
        return smooth(self.on(points, lift=lift), closed=True)

    def line(self, points: Points, *, lift: float = 0.0) -> Array:
        """A smooth open curve through points of the face, in picture coordinates."""
        return smooth(self.on(points, lift=lift))

    def outline(self) -> Array:
        """The silhouette of the face without hair, (M, 2).

        Every height has an elliptical section, whose far side bounds the turned face; the near
        side is bounded by the ear and the line from there to the chin.
        """
        w, j, c, e = self.half, self.jaw, self.chin_width, self.chin
        wide = [0.50 * w, 0.86 * w, 0.985 * w, 0.99 * w, 0.94 * w, j, 0.52 * (j + c) + 1.0, c]
        high = [-49.0, -34.0, -14.0, 3.0, 17.0, 30.0, e - 9.0, e - 2.0]
        x = np.array([0.0, *wide, 0.0, *[-a for a in wide[::-1]]])
        y = np.array([-53.0, *high, e, *high[::-1]])
        sine, cosine = abs(self.matrix_yaw[0, 2]), self.matrix_yaw[0, 0]
        share = np.clip((y - 20.0) / (e - 20.0), 0.0, 1.0)
        jawline = 31.0 * share * share * (3 - 2 * share)
        depth = np.where(y < 0, 38.0 * np.sqrt(np.clip(1 - (y / 53) ** 2, 0, 1)), 38 - 0.14 * y)
        far = np.sqrt((x * cosine) ** 2 + (depth * sine) ** 2)
        near = -np.abs(x) * cosine + jawline * sine
        near = np.where(y < -20, -np.sqrt((x * cosine) ** 2 + (depth * sine) ** 2), near)
        middle = np.where(y > 0, depth * sine, 0.0)
        turned = np.where(x == 0, middle, np.where(x * self.side > 0, far, near))
        ahead = depth * cosine * np.where(x == 0, y > 0, share)
        points = np.column_stack([self.side * turned, y, ahead])
        return smooth((points @ self.matrix_rest.T)[:, :2] + self.origin, closed=True)

    def skull(self, grow: float) -> Array:
        """Centre x, y and half width, half height of the skull with `grow` pixels of hair."""
        centre = self.place([[0.0, -8.0, -4.0]])[0]
        width = self.half * (1.0 + 0.07 * self.turned) + grow
        return np.array([centre[0], centre[1], width, 45.0 + grow])

    def normals(self) -> Array:
        """Unit normals (128, 128, 3) of the head's ellipsoid, continued smoothly outside it."""
        axes = np.array([1.06 * self.half, 58.0, DEPTH])
        quadric = self.matrix @ np.diag(axes**-2.0) @ self.matrix.T
        x, y = np.meshgrid(*(GRID - middle for middle in self.place([[0.0, 0.0, 0.0]])[0]))
        a = quadric[2, 2]
        b = quadric[0, 2] * x + quadric[1, 2] * y
        c = quadric[0, 0] * x * x + 2 * quadric[0, 1] * x * y + quadric[1, 1] * y * y - 1
        z = (np.sqrt(np.maximum(b * b - a * c, 0.0)) - b) / a
        return unit(np.stack([x, y, z], axis=-1) @ quadric)

    def blobs(self, table: list[Blob]) -> tuple[Array, Array, Array]:
        """A sum of soft bumps on the face.

        Args:
            table: x, y, lift, width, height (standard deviations, pixels) and amount of each.

        Returns:
            The sum and its slopes along x and y, each (128, 128).
        """
        total, along_x, along_y = (np.zeros((SIZE, SIZE)) for _ in range(3))
        places = self.on([[b[0], b[1]] for b in table], lift=np.array([b[2] for b in table]))
        for (left, top), (_, _, _, wide, high, amount) in zip(places, table, strict=True):
            u, v = (GRID - left) / wide, (GRID - top) / high
            gu, gv = np.exp(-0.5 * u * u), amount * np.exp(-0.5 * v * v)
            bump = gv[:, None] * gu
            total += bump
            along_x -= bump * (u / wide)
            along_y -= bump * (v / high)[:, None]
        return total, along_x, along_y

    def skin(self) -> Image.Image:
        """Lit skin over the whole canvas, with the relief of the face and rosy parts."""
        person, man = self.person, self.person.gender == "m"
        smile = 0.6 * person.liveliness + self.pose.smile
        relief = list[Blob]([(0, 3, 4, 3.2, 9, 2.0), (0, 15, 9, 4.2, 3.8, 3.4)])
        relief += [(0, 47, 2, 7, 5, 2.2), (0, 40, 0, 9, 2.6, -1.4), (0, 24, 1, 1.6, 3, -0.5)]
        relief += [(0, -26, 0, 18, 10, 1.2)]
        rosy: list[Blob] = [(0, 15, 9, 5, 4, 0.5), (0, 48, 2, 7, 4, 0.25)]
        flush, hollow = 0.45 + 0.35 * person.liveliness, -0.9 - 0.8 * person.age * (1 - person.size)
        for s in (-1.0, 1.0):
            relief += [(s * 5.6, 18, 5, 2.4, 2.4, 1.2), (s * 14, -11, 2, 8, 3.4, 1.0 + 0.8 * man)]
            relief += [(s * EYE[0], -2, 0, 7.5, 5.0, -2.0), (s * 20, 12, 0, 8, 6, 2 + 1.2 * smile)]
            relief += [(s * 26, 28, 0, 6, 9, hollow)]
            rosy += [(s * 20, 15, 0, 8, 6, flush), (s * EYE[0], 3, 0, 7, 4, 0.25)]
        _, slope_x, slope_y = self.blobs(relief)
        normal = self.normals()
        normal[..., 0] -= slope_x
        normal[..., 1] -= slope_y
        normal = unit(normal)
        # about 0 in shade and 1 facing the light
        light = np.clip(0.5 + 0.62 * (normal @ self.light - 0.35), 0.0, 1.15)
        light = 0.78 + (light - 0.78) * (0.35 + 0.65 * self.strength)
        red, _, _ = self.blobs(rosy)
        base = np.array(person.skin) * (1 + red[..., None] * np.array([0.03, -0.11, -0.09]))
        colour = base * (SHADE + (1.05 - SHADE) * np.clip(light, 0, 1.15)[..., None])
        chin = self.on([[0.0, self.chin]])[0][1]
        under = np.clip((np.arange(SIZE) - chin + 13) / 13, 0.0, 1.0) ** 2
        colour *= 1 - under[:, None, None] * np.array([0.16, 0.22, 0.22])
        half = self.light + np.array([0.0, 0.0, 1.0])
        gloss = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 26
        return image_of(colour + (34 * gloss * (0.4 + 0.6 * self.strength))[..., None])

    def hair(self) -> Image.Image:
        """Lit hair with strands, an image of the canvas's size."""
        cx, cy, width, height = self.skull(6.0)
        style = self.style
        x, y = (GRID - cx)[None, :] / width, (GRID - cy)[:, None] / height
        radius = np.sqrt(x * x + np.where(y > 0, 0.3, 1.0) * y * y) + 1e-6
        dome = np.sqrt(np.clip(1 - np.minimum(radius, 0.97) ** 2, 0, 1))
        outside = np.maximum(radius, 1)
        upright = np.where(y > 0, 0.2, 1.0) * y / outside
        normal = unit(np.stack([x / outside, upright, dome], axis=-1))
        lit = np.clip(0.45 + 0.6 * (normal @ self.light - 0.2), 0.0, 1.1)
        part = style.part * 0.5 + (self.place([[0.0, -44.0, 20.0]])[0][0] - cx) / width
        wavy = style.wave * 0.02 * np.sin(10 * y + 3 * x)
        around = np.arctan2(x - part * np.clip(1 - y, 0, 1), 1.05 + 0.25 * np.abs(y) - y * (y < 0))
        place = (((around + wavy) * 96) % 512).astype(int)
        strands = self._curls() if style.curl else self._strands()[place]
        band = np.exp(-0.5 * ((radius - 0.68 + 0.03 * strands) / 0.09) ** 2)
        band *= np.clip((0.2 - y) / 0.4, 0, 1)
        low = np.exp(-0.5 * ((y - 0.62 + 0.06 * strands) / 0.10) ** 2) * (style.length > 45)
        facing = np.clip(0.55 + 0.8 * (x * self.light[0] * 1.5 + 0.2), 0.1, 1.2)
        base = np.array(self.person.hair, dtype=np.float64)
        depth = (0.12 if style.curl else 0.075) * (1.15 - 0.5 * base.mean() / 255)
        value = (0.60 + 0.52 * lit + depth * strands) * (1 - 0.16 * np.clip(y - 0.4, 0, 1))
        sheen = (0.22 * base + 46) * (0.25 if style.curl or style.alpha < 1 else 1.0)
        shine = (0.6 * band + 0.25 * low) * facing
        return image_of(base * value[..., None] + sheen * shine[..., None])

    def _strands(self) -> Array:
        """Brightness along the hairline, 512 values of unit variance, coarse and fine strands."""
        draw = stream(self.person.texture, "strands")
        total, offset = np.zeros(512), np.arange(-24, 25)
        for width in (1.0, 3.5, 9.0):
            kernel = np.exp(-0.5 * (offset / width) ** 2)
            row = np.convolve(np.pad(draw.normal(size=512), 24, mode="wrap"), kernel, "valid")
            total += row / row.std()
        return np.asarray(total / total.std())

    def _curls(self) -> Array:
        """A cloud of curls in locks, (128, 128), unit variance."""
        draw = stream(self.person.texture, "cloud")
        total = np.zeros((SIZE, SIZE))
        for cells, share in ((20, 0.7), (40, 0.8), (72, 0.5)):
            small = Image.fromarray(draw.normal(size=(cells, cells)).astype(np.float32))
            cloud = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).astype(float)
            ridge = np.abs(cloud / cloud.std())
            total += share * (ridge - ridge.mean())
        return np.asarray(total / total.std())
