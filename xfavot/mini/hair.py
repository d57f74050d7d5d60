"""Hair of a drawn head: what lies behind the face, the cap above it, locks and strands."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from xfavot.mini.canvas import (
    GRID,
    SIZE,
    Array,
    Canvas,
    Head,
    across,
    ellipse,
    image_of,
    smooth,
    tint,
    unit,
)
from xfavot.mini.people import Person, stream


@dataclass(frozen=True, slots=True)
class Style:
    """A haircut, in pixels of the finished picture; a row of `hair.csv`."""

    line: float  # height of the hairline at the parting
    drop: float  # how far the hairline falls from the parting to the temple
    bend: float  # 2 curtain of hair .. 6 square corners
    top: float  # volume above the skull
    sides: float  # volume beside it
    part: float  # where the hair parts, -1 .. 1
    fringe: float  # how far hair sweeps into the forehead on the longer side
    sideburn: float  # how far hair reaches down before the ears
    length: float  # how far hair hangs below the middle of the skull, 0 none
    wave: float  # waviness of hanging hair
    curl: float  # radius of curls along the edge
    locks: float  # 1 where hair hangs before the ears
    bun: float  # 1 with a bun
    alpha: float  # thin for cropped hair


with Path(__file__).with_name("hair.csv").open(encoding="utf-8", newline="") as _file:
    STYLES = {name: Style(*map(float, row)) for name, *row in list(csv.reader(_file))[1:]}


def _strand_table(person: Person) -> Array:
    """Brightness along the hairline, 512 values of unit variance, coarse and fine strands."""
    draw = stream(person.texture, "strands")
    total, offset = np.zeros(512), np.arange(-24, 25)
    for width in (1.0, 3.5, 9.0):
        kernel = np.exp(-0.5 * (offset / width) ** 2)
        row = np.convolve(np.pad(draw.normal(size=512), 24, mode="wrap"), kernel, "valid")
        total += row / row.std()
    return np.asarray(total / total.std())


def _curls(person: Person) -> Array:
    """A cloud of curls in locks, (128, 128), unit variance."""
    draw = stream(person.texture, "cloud")
    total = np.zeros((SIZE, SIZE))
    for cells, share in ((20, 0.7), (40, 0.8), (72, 0.5)):
        small = Image.fromarray(draw.normal(size=(cells, cells)).astype(np.float32))
        cloud = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float64)
        ridge = np.abs(cloud / cloud.std())
        total += share * (ridge - ridge.mean())
    return np.asarray(total / total.std())


def texture(head: Head, person: Person) -> Image.Image:
    """Lit hair with strands, an image of the canvas's size."""
    cx, cy, width, height = head.skull(6.0)
    style = STYLES[person.hair_style]
    x, y = (GRID - cx)[None, :] / width, (GRID - cy)[:, None] / height
    radius = np.sqrt(x * x + np.where(y > 0, 0.3, 1.0) * y * y) + 1e-6
    dome = np.sqrt(np.clip(1 - np.minimum(radius, 0.97) ** 2, 0, 1))
    outside = np.maximum(radius, 1)
    upright = np.where(y > 0, 0.2, 1.0) * y / outside
    normal = unit(np.stack([x / outside, upright, dome], axis=-1))
    lit = np.clip(0.45 + 0.6 * (normal @ head.light - 0.2), 0.0, 1.1)
    part = style.part * 0.5 + (head.place([[0.0, -44.0, 20.0]])[0][0] - cx) / width
    wavy = style.wave * 0.02 * np.sin(10 * y + 3 * x)
    around = np.arctan2(x - part * np.clip(1 - y, 0, 1), 1.05 + 0.25 * np.abs(y) - y * (y < 0))
    place = (((around + wavy) * 96) % 512).astype(int)
    strands = _curls(person) if style.curl else _strand_table(person)[place]
    band = np.exp(-0.5 * ((radius - 0.68 + 0.03 * strands) / 0.09) ** 2)
    band *= np.clip((0.2 - y) / 0.4, 0, 1)
    low = np.exp(-0.5 * ((y - 0.62 + 0.06 * strands) / 0.10) ** 2) * (style.length > 45)
    facing = np.clip(0.55 + 0.8 * (x * head.light[0] * 1.5 + 0.2), 0.1, 1.2)
    base = np.array(person.hair, dtype=np.float64)
    depth = (0.12 if style.curl else 0.075) * (1.15 - 0.5 * base.mean() / 255)
    value = (0.60 + 0.52 * lit + depth * strands) * (1 - 0.16 * np.clip(y - 0.4, 0, 1))
    sheen = (0.22 * base + 46) * (0.25 if style.curl or style.alpha < 1 else 1.0)
    shine = (0.6 * band + 0.25 * low) * facing
    return image_of(base * value[..., None] + sheen * shine[..., None])


def _edge(head: Head, style: Style, person: Person) -> Array:
    """Outer edge of the cap from the left side over the top to the right, (M, 2)."""
    cx, cy, width, height = head.skull(0.0)
    angle = np.linspace(-0.53 * np.pi, 0.53 * np.pi, 73)  # 0 is up
    upward = np.clip(np.cos(angle), 0, 1)
    grow = style.sides + (style.top - style.sides) * upward**1.3
    if style.part:
        grow = grow * (1 - 0.20 * np.sin(angle) * np.sign(style.part) * upward)
    if not style.locks:  # it meets the skull before the ears
        grow = grow * (1 - 0.8 * np.clip((np.abs(angle) / np.pi - 0.38) / 0.14, 0, 1) ** 2)
    phase = stream(person.texture, "edge").uniform(0, 6, 4)
    if style.curl:
        lobes = np.abs(np.sin(angle * 31 / style.curl + phase[0])) - 0.5
        grow = grow + style.curl * (0.5 * lobes + 0.22 * np.sin(angle * 7 + phase[1]))
    elif style.alpha == 1:
        grow = grow + 0.5 * np.sin(angle * 5 + phase[2]) + 0.45 * np.sin(angle * 13 + phase[3])
    x = cx + (width + grow) * np.sin(angle)
    y = cy - (height + grow) * np.cos(angle)
    return np.column_stack([x, y])


def _line(head: Head, style: Style) -> Array:
    """The hairline from the right ear over the forehead to the left, (M, 2)."""
    w, part = head.half, style.part * 0.5 * head.half
    sides = []
    for s in (1.0, -1.0):
        burn = style.sideburn - 11.0 * head.turned * (s == head.side) * (not style.locks)
        u = np.linspace(0.0, 1.0, 7)
        x = part + (s * 0.80 * w - part) * u
        longer = style.part * s < 0
        sweep = style.fringe * np.sin(np.pi * np.minimum(u * 1.15, 1.0)) if longer else 0.0 * u
        y = style.line + style.drop * u**style.bend + sweep
        corner = y[-1]
        ear = [[0.845, 0.5 * (corner + burn) - 2], [0.90, burn - 1.5], [0.975, burn - 4.0]]
        if style.locks:
            ear = [[0.86, 0.5 * (corner + burn)], [0.92, burn + 8]]
        sides.append(np.concatenate([np.column_stack([x, y]), np.array(ear) * (s * w, 1)]))
    points = np.concatenate([sides[0][::-1], sides[1][1:]])
    return smooth(head.on(points, lift=0.6), closed=False)


def _hanging(head: Head, style: Style, inner: float) -> list[Array]:
    """Outlines of the hair that hangs at both sides, `inner` half widths from the middle."""
    cx, cy, width, height = head.skull(style.sides)
    shapes = []
    for s in (-1.0, 1.0):
        level = np.linspace(-26.0, style.length, 11)
        t = np.clip(level / style.length, 0, 1)
        curve = np.where(level < 0, np.sqrt(np.clip(1 - (level / height) ** 2, 0, 1)), 1.0)
        long = style.length > 50
        flare = 0.07 * t if long else 0.11 * np.sin(np.pi * t) - 0.12 * t**8
        wave = style.wave * np.sin(level * 0.2 + s) * np.clip(t * 3, 0, 1)
        outer = np.column_stack([cx + s * width * (curve + flare) + wave, cy + level])
        tuck = 0.05 * np.sin(np.pi * t) - (0.0 if long else 0.10 * t**3)
        depth = 14.0 - 10.0 * t
        solid = np.column_stack([s * (inner + tuck) * head.half, level - 8.0, depth])
        inside = head.place(solid) + np.column_stack([0.7 * wave, np.zeros_like(wave)])
        tip = 0.5 * (outer[-1] + inside[-1]) + (0.0, 2.0 if long else 0.0)
        edge = np.concatenate([outer, [tip], inside[::-1]])
        shapes.append(smooth(edge, closed=False))  # closed, the spline would bulge at its top
    return shapes


def behind(
    canvas: Canvas, head: Head, person: Person, paint: Image.Image, skin: Image.Image
) -> None:
    """Hair at the back of the head, behind neck and shoulders, and a bun."""
    style = STYLES[person.hair_style]
    cx, cy, width, height = head.skull(style.sides)
    if style.bun:
        x, y = head.place([[0.0, -54.0, -12.0]])[0]
        knot = ellipse(x, y + 3, 14, 10, points=32)
        canvas.fill(knot, paint)
        canvas.fill(knot, (0, 0, 0), alpha=0.4, blur=2.5, shift=(0.0, 9.0), inside=knot)
    back = head.place([[0.0, -4.0, -14.0]])[0]
    short = not style.length and not style.bun
    nape = head.place([[0.0, 25.0 if short else 34.0, -16.0]])[0]
    low, round_off = (11.0, 0.86) if short else (14.0, 0.93)
    wide = np.array([0, 0.8, 1, round_off, 0.66, 0, -0.66, -round_off, -1, -0.8]) * width
    x = np.array([cx, cx, *[back[0]] * 2, *[nape[0]] * 3, *[back[0]] * 2, cx])
    right = [cy - 0.6 * height, back[1], back[1] + low, nape[1] - 6]
    y = [cy - height, *right, nape[1], *right[::-1]]
    shape = smooth(np.column_stack([x + wide, y]), closed=True)
    if style.alpha < 1:
        canvas.fill(shape, skin)
    if style.line < -50:
        shape = np.maximum(shape, [-1e3, back[1] - 16])
    canvas.fill(shape, paint, alpha=style.alpha, blur=0.6 if style.alpha < 1 else 0.2)
    if style.locks:
        both = _hanging(head, style, 0.1)
        canvas.fill([*both], paint)
        dark = np.array(across((0.66, style.length), (0.72, 0.0))) * (width, 1) + (cx, cy)
        canvas.fill(dark, (12, 6, 8), alpha=0.5, blur=5.0, inside=np.concatenate(both))
    elif style.length:
        angle = np.linspace(0, 2 * np.pi, 121)[:-1]
        bump = style.curl * (0.55 * np.abs(np.sin(angle * 8.5)) + 0.3 * np.sin(angle * 5))
        x = cx + (width + 1 + bump) * np.sin(angle)
        ball = np.column_stack([x, cy + 8 + (height - 2 + bump) * np.cos(angle)])
        canvas.fill(ball, paint)
        canvas.fill(ball * 0.7 + 0.3 * np.array([cx, cy + 60]), (0, 0, 0), alpha=0.35, blur=6)


def front(canvas: Canvas, head: Head, person: Person, paint: Image.Image) -> None:
    """The cap above the face with its shadow, strands at the hairline, and hanging locks."""
    style = STYLES[person.hair_style]
    edge, outline = _edge(head, style, person), head.outline()
    if style.line < -50:  # bald: hair at the sides only
        for s, part in ((-1.0, edge[:17]), (1.0, edge[:-18:-1])):
            places = ((0.93, 9), (0.86, 4), (0.86, -8), (0.93, -20))
            inner = head.curve([(s * x * head.half, y) for x, y in places], closed=False)
            canvas.fill(np.concatenate([part, inner[::-1]]), paint, alpha=0.75, blur=1.1)
        return
    line = _line(head, style)
    cap = np.concatenate([edge, line])
    canvas.fill(cap, (46, 22, 18), alpha=0.40, blur=2.2, shift=(0.0, 2.4), inside=outline)
    if style.alpha < 1:
        canvas.fill(cap, paint, alpha=style.alpha, blur=1.2)
        return
    locks = _hanging(head, style, 0.84) if style.locks else []
    for shape in locks:
        canvas.fill(shape, (34, 18, 16), alpha=0.4, blur=2.0, shift=(0.0, 1.2), inside=outline)
        canvas.fill(shape, paint, blur=0.3)
    canvas.fill(cap, paint, blur=0.3)
    draw = stream(person.texture, "tips")
    middle = len(line) / 2
    light, deep = list[Array](), list[Array]()
    for pick in draw.integers(10, len(line) - 10, size=80):
        lean = (pick - middle) / middle + 0.6 * style.part
        tip = line[pick] + (2.2 * lean + draw.normal() * 0.6, draw.uniform(0.2, 2.2))
        root = line[pick] + (-1.5 * lean, -5.0)
        (light if pick % 3 == 0 else deep).append(np.array([root, line[pick], tip]))
    canvas.fill(deep, tint(person.hair, 0.6, 0.03), width=0.4, alpha=0.3)
    canvas.fill(light, tint(person.hair, 1.35), width=0.4, alpha=0.3)
    if not style.curl:
        loose = []
        for pick in draw.integers(4, len(edge) - 4, size=16):
            along = edge[min(pick + 3, len(edge) - 1)] - edge[pick]
            out = (edge[pick] - edge.mean(axis=0)) * 0.012
            loose.append(np.array([edge[pick], edge[pick] + 0.6 * along + 2.2 * out]))
        canvas.fill(loose, person.hair, width=0.5, alpha=0.5)
