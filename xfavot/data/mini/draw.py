"""Drawn faces of the corpus `mini`: 128x128 RGB, a pure function of person and nuisance."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xfavot.data.mini import extras, features, hair
from xfavot.data.mini.canvas import SIZE, Array, Canvas, ellipse, image_of, smooth, tint
from xfavot.data.mini.factors import Nuisance, Person, stream
from xfavot.data.mini.head import EYE, Blob, Head

SHADE = np.array([0.60, 0.47, 0.45])  # colour of skin in shade, as a share of its own


def _background(pose: Nuisance) -> Image.Image:
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


def _skin(head: Head, person: Person, pose: Nuisance) -> Image.Image:
    """Lit skin over the whole canvas, with the relief of the face and rosy parts."""
    man = person.gender == "m"
    smile = 0.6 * person.liveliness + pose.smile
    relief: list[Blob] = [(0, 3, 4, 3.2, 9, 2.0), (0, 15, 9, 4.2, 3.8, 3.4), (0, 47, 2, 7, 5, 2.2),
                          (0, 40, 0, 9, 2.6, -1.4), (0, 24, 1, 1.6, 3, -0.5),
                          (0, -26, 0, 18, 10, 1.2)]  # fmt: skip
    rosy: list[Blob] = [(0, 15, 9, 5, 4, 0.5), (0, 48, 2, 7, 4, 0.25)]
    for s in (-1.0, 1.0):
        relief += [(s * 5.6, 18, 5, 2.4, 2.4, 1.2), (s * 14, -11, 2, 8, 3.4, 1.0 + 0.8 * man),
                   (s * EYE[0], -2, 0, 7.5, 5.0, -2.0), (s * 20, 12, 0, 8, 6, 2.0 + 1.2 * smile),
                   (s * 26, 28, 0, 6, 9, -0.9 - 0.8 * person.age * (1 - person.size))]  # fmt: skip
        rosy += [(s * 20, 15, 0, 8, 6, 0.45 + 0.35 * person.liveliness),
                 (s * EYE[0], 3, 0, 7, 4, 0.25)]  # fmt: skip
    _, slope_x, slope_y = head.blobs(relief)
    normal = head.normals()
    normal[..., 0] -= slope_x
    normal[..., 1] -= slope_y
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    light = head.lit(normal)
    light = 0.78 + (light - 0.78) * (0.35 + 0.65 * head.strength)
    red, _, _ = head.blobs(rosy)
    base = np.array(person.skin, dtype=np.float64) * (
        1 + red[..., None] * np.array([0.03, -0.11, -0.09])
    )
    colour = base * (SHADE + (1.05 - SHADE) * np.clip(light, 0, 1.15)[..., None])
    chin = head.on([[0.0, head.chin]])[0][1]
    under = np.clip((np.arange(SIZE) - chin + 13) / 13, 0.0, 1.0) ** 2
    colour *= 1 - under[:, None, None] * np.array([0.16, 0.22, 0.22])
    half = head.light + np.array([0.0, 0.0, 1.0])
    gloss = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 26
    return image_of(colour + (34 * gloss * (0.4 + 0.6 * head.strength))[..., None])


def _body(canvas: Canvas, head: Head, person: Person) -> None:
    """Neck, shoulders and clothes."""
    base = head.place([[0.0, 40.0, -6.0]])[0]
    x = 0.8 * base[0] + 0.2 * 64.0
    width = (0.41 + 0.10 * (person.gender == "m") + 0.14 * person.size) * head.half
    shoulder = 46 + 20 * person.size + 5 * (person.gender == "m")
    top, slope, dark = 117.0, 3.0 - 6.0 * person.size, tint(person.clothes, 0.62)
    body = smooth(np.array([[x - shoulder - 12, 140], [x - shoulder, 126 + slope],
        [x - 0.62 * shoulder, top + 2 + slope], [x - width, top - 4], [x + width, top - 4],
        [x + 0.62 * shoulder, top + 2 + slope], [x + shoulder, 126 + slope],
        [x + shoulder + 12, 140]]), closed=True)  # fmt: skip
    neck = np.array([[base[0] - 1.04 * width, 78], [base[0] + 1.04 * width, 78], [x + width, 112],
                     [x + width * 1.15, 119], [x, 130], [x - width * 1.15, 119],
                     [x - width, 112]])  # fmt: skip
    light = 1.0 + 0.16 * head.light[0] * head.strength
    canvas.fill(body, person.clothes)
    canvas.fill(body, dark, alpha=0.5, blur=6.0, inside=body,
                shift=(-float(np.sign(head.light[0])) * 34.0, 6.0))  # fmt: skip
    outline, away = head.outline(), -float(head.light[0])
    canvas.fill(outline, (20, 10, 14), alpha=0.35, blur=4.0, shift=(4 * away, 14.0),
                inside=body)  # fmt: skip
    dressed = canvas.image.copy()
    canvas.fill(smooth(neck, closed=True), tint(person.skin, 0.80 * light, 0.05))
    canvas.fill(outline, tint(person.skin, 0.42, 0.1), alpha=0.75, blur=2.6, shift=(3 * away, 7.0),
                inside=smooth(neck, closed=True))  # fmt: skip
    _collar(canvas, dressed, person, x, width, float(np.sign(head.light[0])))


def _collar(
    canvas: Canvas, dressed: Image.Image, person: Person, x: float, width: float, lit: float
) -> None:
    """Where the clothes end: at the neck, `width` to both sides of `x`.

    `dressed` is the picture before the neck was drawn; the sign of `lit` is the side of the light.
    """
    cloth = person.clothes

    def from_here(line: Array) -> None:
        """Lay the clothes over the neck from a line down."""
        corners = np.array([[x + width + 20, 134], [x - width - 20, 134]])
        canvas.fill(np.concatenate([line, corners]), dressed)

    if person.collar == "high":
        rim, seam = (
            smooth(np.array([[x - half, y], [x, y + 4.5], [x + half, y]]), closed=False)
            for half, y in ((width + 1.5, 109.5), (1.08 * width + 3.0, 120.0))
        )
        from_here(seam)
        canvas.fill(seam, tint(cloth, 0.5), width=2.0, alpha=0.45, blur=1.0, shift=(0.0, 0.8))
        band = np.concatenate([rim, seam[::-1]])
        canvas.fill(band, tint(cloth, 0.95))
        canvas.fill(band, tint(cloth, 0.55), alpha=0.45, blur=3.5, inside=band,
                    shift=(-lit * 1.5 * width, 0.0))  # fmt: skip
        canvas.fill(rim, tint(cloth, 0.6), width=1.2, alpha=0.7, blur=0.4)
    elif person.collar == "shirt":
        for s in (-1.0, 1.0):
            flap = np.array([[x + s * (width + 1), 110], [x + s * 1.5, 126],
                             [x + s * 12, 131], [x + s * (width + 9), 118]])  # fmt: skip
            canvas.fill(flap, (20, 14, 16), alpha=0.4, blur=1.2, shift=(0.0, 1.5))
            canvas.fill(flap, tint(cloth, 1.25))
    else:
        low = 127.0 if person.collar == "v" else 121.0
        mid = 0.4 * 113 + 0.6 * low
        neckline = np.array([[x - width - 4, 113], [x - 0.5 * width, mid], [x, low],
                             [x + 0.5 * width, mid], [x + width + 4, 113]])  # fmt: skip
        line = neckline if person.collar == "v" else smooth(neckline, closed=False)
        from_here(line)
        canvas.fill(line, tint(cloth, 0.7), width=1.6, alpha=0.9, blur=0.3)


def _ear(canvas: Canvas, head: Head, person: Person, skin: Image.Image, side: float) -> None:
    """One ear, with an earring where the person wears them."""
    flat = np.array([[0.93, -6.0], [1.06, -8.0], [1.13, -3.0], [1.09, 6.0], [1.00, 12.5],
                     [0.93, 10.0]])  # fmt: skip
    solid = np.column_stack([side * flat[:, 0] * head.half, flat[:, 1], [6, 0, -4, -2, 3, 7]])
    shape = smooth(head.place(solid), closed=True)
    canvas.fill(shape, skin)
    centre = shape.mean(axis=0)
    canvas.fill(centre + 0.55 * (shape - centre), tint(person.skin, 0.58, 0.08),
                alpha=0.55, blur=1.0)  # fmt: skip
    if person.earrings and not hair.STYLES[person.hair_style].locks:
        x, y = head.place([[side * 0.99 * head.half, 14.5, 0.0]])[0]
        stud = ellipse(x, y, 1.9, 1.9, points=16)
        canvas.fill(stud, (222, 184, 96))
        canvas.fill(stud * 0.5 + np.array([x - 0.5, y - 0.5]) * 0.5, (255, 246, 214), blur=0.3)


def draw_face(person: Person, pose: Nuisance) -> tuple[NDArray[np.uint8], Array]:
    """Draw one picture.

    Args:
        person: who; see :func:`xfavot.data.mini.factors.people`.
        pose: pose, gaze, mouth, light and background.

    Returns:
        The picture, (128, 128, 3) RGB, eyes and mouth about the canonical places of an aligned
        crop; and its landmarks, (5, 2) pixels: eyes, nose, corners of the mouth.
    """
    head = Head(person, pose)
    canvas = Canvas(_background(pose))
    skin, strands = _skin(head, person, pose), hair.texture(head, person)
    outline = head.outline()
    covered = hair.STYLES[person.hair_style].locks
    hair.behind(canvas, head, person, strands, skin)
    _body(canvas, head, person)
    if not covered:
        _ear(canvas, head, person, skin, head.side)
    canvas.fill(outline, skin)
    edge = tint(person.skin, 0.5, 0.05)
    canvas.fill(outline, edge, width=3.2, alpha=0.32, blur=1.8, inside=outline)
    extras.freckles(canvas, head, person)
    features.lines_of_age(canvas, head, person, pose)
    for side in (-1.0, 1.0):
        features.eye(canvas, head, person, pose, side)
    features.nose(canvas, head, person)
    extras.beard(canvas, head, person, strands)
    features.mouth(canvas, head, person, pose)
    features.brows(canvas, head, person, pose)
    hair.front(canvas, head, person, strands)
    if not covered:
        _ear(canvas, head, person, skin, -head.side)
        if abs(pose.yaw) < 0.2:
            _ear(canvas, head, person, skin, head.side)
    extras.glasses(canvas, head, person)
    warm = np.array([1 + 0.03 * pose.warmth, 1.0, 1 - 0.04 * pose.warmth])
    picture = canvas.finished().astype(np.float64) * warm
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8), head.landmarks()
