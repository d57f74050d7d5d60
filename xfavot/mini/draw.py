"""Drawn faces of the corpus `mini`: 128x128 RGB, a pure function of person and nuisance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xfavot.mini.canvas import EYE, MOUTH_Y, Array, Canvas, Head, across, ellipse, smooth, tint
from xfavot.mini.people import Nuisance, Person, stream

WHITE = (250, 248, 244)
DARK = (34, 22, 24)
GLASSES = {  # frame; power of the outline, half width and height of a lens, width of its rim
    "round": ((122, 78, 46), 2.0, 10.6, 10.2, 1.5),
    "square": ((40, 34, 38), 4.5, 11.8, 8.4, 1.9),
}


def eye(canvas: Canvas, head: Head, person: Person, pose: Nuisance, side: float) -> None:
    """One eye; `side` is 1 for the right-hand one of the picture."""
    woman = person.gender == "f"
    big = 0.92 + 0.2 * person.eye_size + 0.06 * woman
    x, y = side * EYE[0], EYE[1]
    wide, tilt = 7.6 * big, 0.9 * person.eye_tilt + 0.4 * woman
    upper = (0.45 if pose.blink else 4.7 - 0.7 * person.age) * big + 0.5 * person.liveliness
    lower = 2.9 * big - max(0.0, 0.8 * pose.smile + 0.4 * person.liveliness)

    def at(points: Any) -> Array:
        return head.on([[x + side * a, y + b] for a, b in points])

    if pose.blink:
        lid = [(-wide, 1.2), (-0.4 * wide, 2.6), (0.3 * wide, 2.9), (wide, 0.8 - tilt)]
        canvas.fill(smooth(at(lid)), tint(DARK, 1.1), width=1.5, alpha=0.9)
        fold = smooth(at(np.subtract(lid, (0, 4.5))))
        canvas.fill(fold, tint(person.skin, 0.55, 0.05), width=0.9, alpha=0.6)
        return
    top = [(-wide, 1.4), (-0.55 * wide, -0.72 * upper), (0.08 * wide, -upper)]
    top += [(0.62 * wide, -0.70 * upper - 0.5 * tilt), (wide, -0.1 - tilt)]
    low = [(0.55 * wide, 0.82 * lower - 0.3 * tilt), (0.0, lower), (-0.55 * wide, 0.8 * lower)]
    upper_line = smooth(at(top))
    opening = np.concatenate([upper_line, smooth(at([top[-1], *low, top[0]]))])
    crease = smooth(at([(a * 1.02, b - 2.3) for a, b in top]))
    canvas.fill(crease, tint(person.skin, 0.52, 0.06), width=1.0, alpha=0.55, blur=0.35)
    canvas.fill(opening, tint(WHITE, 0.97))
    centre = (1.9 * pose.gaze_x * side, -0.4 + 1.2 * -pose.gaze_y)
    radius = 4.1 * big

    def disc(r: float, dx: float = 0.0, dy: float = 0.0) -> Array:
        return at(ellipse(centre[0] + side * dx, centre[1] + dy, r, r))

    canvas.fill(disc(radius), tint(person.eyes, 0.58), inside=opening)
    canvas.fill(disc(radius * 0.86), person.eyes, inside=opening)
    bright = disc(radius * 0.55, dy=radius * 0.35)
    canvas.fill(bright, tint(person.eyes, 1.5), alpha=0.7, blur=0.7, inside=opening)
    canvas.fill(disc(radius * 0.42), (14, 11, 13), inside=opening)
    lid_shade = np.concatenate([upper_line, at([(wide, -8), (-wide, -8)])])
    canvas.fill(lid_shade, (52, 36, 44), alpha=0.5, blur=0.9, shift=(0.0, 1.1), inside=opening)
    glint = np.sign(head.light[0]) or 1.0
    canvas.fill(disc(1.15, 1.4 * glint, -1.5), (255, 255, 255), alpha=0.95)
    canvas.fill(disc(0.6, -1.3 * glint, 1.4), (255, 255, 255), alpha=0.5)
    inner = smooth(at([(-wide, 1.4), *low[::-1], (wide, -tilt)]))
    canvas.fill(inner, tint(person.skin, 0.6, 0.1), width=0.7, alpha=0.55)
    canvas.fill(upper_line, tint(DARK, 0.9), width=1.25 + 0.75 * woman, alpha=0.95)
    if woman:
        wing = [(0.7 * wide, -0.6 * upper - 0.5 * tilt), (wide, -tilt)]
        wing += [(wide + 2.4, -2.2 - 1.3 * tilt), (0.9 * wide, -1.9 - tilt)]
        canvas.fill(at(wing), tint(DARK, 0.9), alpha=0.9)


def brows(canvas: Canvas, head: Head, person: Person, pose: Nuisance) -> None:
    """Both brows; they rise with liveliness and a smile."""
    man = person.gender == "m"
    thick = (1.5 + 1.5 * person.brow) * (1.25 if man else 0.85)
    raised = 2.2 * person.liveliness + 1.2 * pose.smile - 0.8 * person.age
    colour = tint(person.hair, 0.72) if sum(person.hair) > 300 else tint(person.hair, 0.9)
    arch = 0.9 - 0.7 * man + 0.4 * person.eye_tilt
    for side in (-1.0, 1.0):
        spine = [(5.8, -12.2), (10.5, -13.5 - 0.4 * arch), (16.5, -13.9 - arch), (24.0, -11.2)]
        half = np.array([0.75 * thick, thick, 0.8 * thick, 0.15]) / 2
        middle = np.array(spine) * (side, 1) - (0, raised)
        edges = [middle - half[:, None] * (0, 1), (middle + half[:, None] * (0, 1))[::-1]]
        for alpha, blur in ((0.35, 0.9), (0.8, 0.3)):
            canvas.fill(head.curve(np.concatenate(edges), lift=1.5), colour, alpha=alpha, blur=blur)


def nose(canvas: Canvas, head: Head, person: Person) -> None:
    """Tip, wings and nostrils, lifted from the face so that they move with the pose."""
    man = person.gender == "m"
    wide = 4.4 + 1.8 * person.nose + 0.7 * man
    drop = 16.0 + 1.6 * man + 1.2 * person.age
    side = -1.0 if head.light[0] > 0 else 1.0
    dark = tint(person.skin, 0.60, 0.05)
    line = [(2.2, -4.0), (2.6, 6.0), (wide, drop + 1), (wide - 1.5, drop + 2.5), (1.5, drop - 3)]
    flank = head.on([(side * x, y) for x, y in line], lift=np.array([3.0, 5.0, 4.0, 5.0, 9.0]))
    canvas.fill(flank, dark, alpha=0.20 + 0.22 * head.strength, blur=1.3)
    below = [*across((0, drop + 4.6), (wide, drop + 1.6)), (0, drop + 2.4)]
    canvas.fill(head.curve(below, lift=5.0), dark, alpha=0.62, blur=1.0)
    for s in (-1.0, 1.0):
        hole = head.on(ellipse(s * 0.52 * wide, drop + 1.7, 1.5, 0.85), lift=6.5)
        canvas.fill(hole, tint(person.skin, 0.30, 0.1), alpha=0.8, blur=0.35)
        line = [(0.92, drop - 2.6), (1.06, drop), (0.86, drop + 2)]
        wing = head.line([(s * x * wide, y) for x, y in line], lift=4.5)
        canvas.fill(wing, dark, width=0.9, alpha=0.5, blur=0.4)
    light = head.on([[-side * 0.7, drop - 2.5]], lift=11.0)[0]
    spot = ellipse(light[0], light[1], 1.5, 1.2, points=16)
    canvas.fill(spot, (255, 246, 236), alpha=0.25 + 0.3 * head.strength, blur=0.8)
    bridge = head.on([[-side * 0.4, -1.0], [-side * 0.5, drop - 5]], lift=np.array([5.0, 9.0]))
    canvas.fill(bridge, (255, 246, 236), width=1.4, alpha=0.20, blur=0.9)


def lip_colour(person: Person) -> tuple[float, ...]:
    """Natural lips for men, a stronger rose or red for women."""
    rose = np.array([196.0, 62.0, 74.0] if person.lips > 0.5 else [206.0, 92.0, 96.0])
    rose *= 0.55 + 0.45 * np.mean(person.skin) / 210
    amount = 0.45 + 0.35 * person.liveliness if person.gender == "f" else 0.22
    natural = np.array(person.skin) * (0.86, 0.64, 0.62)
    return tuple((natural + (rose - natural) * amount).tolist())


def mouth(canvas: Canvas, head: Head, person: Person, pose: Nuisance) -> None:
    """Lips, teeth and tongue; corners rise with the smile."""
    woman = person.gender == "f"
    smile = float(np.clip(0.5 + 0.55 * person.liveliness + pose.smile, 0.0, 1.15))
    wide = 10.2 + 2.4 * smile - 1.6 * pose.mouth + 0.8 * (not woman)
    gap = 7.5 * pose.mouth
    full = 0.75 + 0.5 * person.lips + 0.18 * woman - 0.15 * person.age
    up, down = 2.5 * full, 3.3 * full
    rise = 3.0 * smile
    y = MOUTH_Y - 0.5
    corner = y - rise + 0.4
    middle, low = y - 0.1 * rise, y + down + 0.8 * gap
    bow = [(0, y - 0.85 * up - 0.3 * gap), (0.17 * wide, y - 1.12 * up - 0.3 * gap)]
    bow += [(0.45 * wide, y - up - 0.25 * gap - 0.15 * rise)]
    inner_top, inner_low, above, below = (
        head.line(across(*line, (wide, corner)), lift=2.0)
        for line in (
            [(0, y + 0.25 - 0.3 * gap), (0.5 * wide, middle - 0.25 * gap)],
            [(0, y + 0.3 + 0.75 * gap), (0.5 * wide, middle + 0.55 * gap + 0.2)],
            bow,
            [(0, low), (0.55 * wide, y + 0.62 * down + 0.6 * gap - 0.1 * rise)],
        )
    )
    lips = lip_colour(person)
    shadow = head.curve(across((0, low + 3.4), (6, low + 1)))
    canvas.fill(shadow, tint(person.skin, 0.6), alpha=0.6, blur=1.4)
    canvas.fill(np.concatenate([above, below[::-1]]), lips, alpha=0.5, blur=0.6)
    hole = np.concatenate([inner_top, inner_low[::-1]])
    if gap > 0.6:
        canvas.fill(hole, (62, 18, 24))
        edge = across((0, y - 0.4 * gap - 1.5), (0.72 * wide, y - 0.35 * gap - 0.4 * rise - 1))
        tips = across((0, y + 0.12 * gap + 0.9), (0.6 * wide, y + 0.02 * gap + 0.5))
        teeth = head.curve([*edge, *tips[::-1]], lift=1.0)
        canvas.fill(teeth, (246, 241, 232), alpha=0.96, inside=hole)
        tongue = ellipse(0.0, y + 0.8 * gap + 0.8, 0.5 * wide, 0.32 * gap + 0.6)
        tongue = head.on(tongue, lift=1.0)
        canvas.fill(tongue, (196, 84, 88), alpha=0.85, blur=0.6, inside=hole)
        canvas.fill(inner_top, (40, 10, 16), width=1.2, alpha=0.5, blur=0.5)
    canvas.fill(np.concatenate([above, inner_top[::-1]]), tint(lips, 0.9))
    canvas.fill(np.concatenate([inner_low, below[::-1]]), tint(lips, 1.04))
    gloss = across((0, y + 0.55 * down + 0.8 * gap), (3.6, y + 0.45 * down + 0.78 * gap))
    shine = head.line(gloss, lift=3.0)
    canvas.fill(shine, (255, 236, 230), width=1.2, alpha=0.32 + 0.18 * woman, blur=0.6)
    if gap <= 0.6:
        canvas.fill(inner_top, tint(lips, 0.42), width=0.9, alpha=0.9)
    for s in (-1.0, 1.0):
        dimple = head.on(ellipse(s * (wide + 0.6), corner, 0.9, 1.0), lift=1.0)
        canvas.fill(dimple, tint(person.skin, 0.5), alpha=0.55, blur=0.6)


def lines_of_age(canvas: Canvas, head: Head, person: Person, pose: Nuisance) -> None:
    """Folds beside the mouth, crow's feet, lines of the forehead, bags below the eyes."""
    dark = tint(person.skin, 0.58, 0.04)
    old = float(np.clip(1.45 * person.age - 0.45, 0.0, 1.0))
    fold = 0.10 + 0.22 * person.liveliness + 0.5 * old + 0.3 * pose.smile
    for s in (-1.0, 1.0):
        places = ((6.8, 17.0), (11.0, 22.5), (13.8, 29.5), (13.6, 34.0))
        line = head.line([(s * x, y) for x, y in places])
        canvas.fill(line, dark, width=1.1, alpha=min(max(fold, 0.05), 0.8), blur=0.7)
        bag = head.line([[s * 9.0, 4.0], [s * 14.5, 6.8], [s * 21.0, 4.0]])
        canvas.fill(bag, dark, width=1.2, alpha=0.12 + 0.5 * old, blur=0.7)
        if old > 0.15:
            for k in (-1.0, 0.0, 1.0):
                crow = head.on([[s * 24.5, -1.5 + 1.6 * k], [s * 28.6, -2.2 + 3.4 * k]])
                canvas.fill(crow, dark, width=0.7, alpha=0.75 * old, blur=0.25)
    if old > 0.15:
        for k in range(3):
            level = -22.0 - 4.2 * k
            crease = across((0, level + 0.8), (7, level), (15.0 - 2 * k, level + 1.2))
            canvas.fill(head.line(crease), dark, width=0.8, alpha=0.62 * old, blur=0.35)


# What not everybody has: freckles, a beard, glasses


def freckles(canvas: Canvas, head: Head, person: Person) -> None:
    """Freckles over nose and cheeks."""
    if person.freckles:
        draw = stream(person.texture, "freckles")
        spots = draw.normal(size=(60, 2)) * (13.0, 3.8) + (0.0, 11.0)
        places = head.on(spots[np.abs(spots[:, 0]) < 0.8 * head.half])
        dots = [p + np.array([[-0.4, 0.0], [0.0, 0.4], [0.4, 0.0], [0.0, -0.4]]) for p in places]
        canvas.fill(dots, tint(person.skin, 0.66, 0.12), alpha=0.55)


def beard(canvas: Canvas, head: Head, person: Person, paint: Image.Image) -> None:
    """Stubble, moustache, goatee or a full beard, with single hairs."""
    if not person.beard:
        return
    w, j, e = head.half, head.jaw, head.chin
    sides = (0.62 * w, 26.5), (0.84 * w, 18), (0.89 * w, 6), (0.98 * w, 0)
    cheeks = across((0, 24.8), (12, 26), *sides)
    jaw = across((0, e + 3.0), (0.62 * j + 3, e - 4), (j + 1.0, 31.0), (0.99 * w, 16.0))
    whole = [*cheeks, *jaw[::-1]]
    below = across((0, e + 2.5), (7.5, e + 1.0), (12.0, 40.0))
    small = [*across((0, 39.5), (9.0, 37.0), (11.5, 30.0)), *below[::-1]]
    lip = across((0, 23.6), (2.0, 22.8), (9.5, 25.0), (13.0, 30.5))
    lip += across((0, 27.4), (8.0, 28.6))[::-1]
    parts = {"stubble": [whole], "moustache": [lip], "goatee": [small, lip], "full": [whole, lip]}
    thin = person.beard == "stubble"
    draw = stream(person.texture, "beard")
    for shape in parts[person.beard]:
        outline = head.curve(shape)
        soft, dark = tint(person.hair, 0.75), tint(person.hair, 0.5)
        if thin:
            canvas.fill(outline, soft, alpha=0.24, blur=1.5, inside=head.outline())
        else:
            canvas.fill(outline, soft, alpha=0.45, blur=1.5)
            canvas.fill(outline, paint, alpha=0.85, blur=0.8)
            canvas.fill(outline, dark, alpha=0.35, blur=2.0, shift=(0.0, 2.0), inside=outline)
        xy = np.array(shape)
        roots = draw.uniform(xy.min(axis=0), xy.max(axis=0), size=(240, 2))
        lean = 0.07 * roots[:, 0] + draw.normal(size=240) * 0.5
        hairs = (0.4 if thin else 1.0) * np.column_stack([lean, np.full(240, 2.4)])
        ends = head.on(np.concatenate([roots, roots + hairs]))
        strands = [ends[[i, i + 240]] for i in range(240)]
        for part, factor in ((strands[::2], 0.55), (strands[1::2], 1.35)):
            canvas.fill(part, tint(person.hair, factor), width=0.4, alpha=0.28, inside=outline)


def glasses(canvas: Canvas, head: Head, person: Person) -> None:
    """Round or square frames standing off the face, with a reflection."""
    if not person.glasses:
        return
    frame, power, rx, ry, rim = GLASSES[person.glasses]
    outline = head.outline()
    end = (0.84, 14.0) if head.style.locks else (1.0, 2.0)  # at hair or ear
    angle = np.linspace(0, 2 * np.pi, 41)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    unit = np.sign(circle) * np.abs(circle) ** (2 / power)
    for s in (-1.0, 1.0):
        flat = unit * (rx, ry) + (s * (EYE[0] + 0.3), EYE[1] + 1.0)
        lens = head.place(np.column_stack([flat, 45.0 - 0.006 * flat[:, 0] ** 2]))
        canvas.fill(lens, (225, 238, 246), alpha=0.06)
        glare = lens.mean(axis=0) + np.array([[-5.5, 1.0], [-2.5, -6.0], [0.5, -6.0], [-3.0, 3.0]])
        canvas.fill(glare, (255, 255, 255), alpha=0.13, blur=0.6, inside=lens)
        shade = tint(person.skin, 0.5)
        canvas.fill(lens, shade, width=1.4, alpha=0.3, blur=0.8, shift=(0.4, 1.3))
        canvas.fill(lens, frame, width=rim)
        if s != head.side or head.turned < 0.2:  # the other arm is behind the lens
            hinge = (s * (EYE[0] + rx), EYE[1] - 2.5, 42.0)
            arm = head.place([hinge, (s * end[0] * head.half, -3.0, end[1])])
            canvas.fill(arm, frame, width=1.7, inside=outline if s == head.side else None)
    bridge = head.place([[-5.2, -2.6, 46.0], [0.0, -4.2, 47.0], [5.2, -2.6, 46.0]])
    canvas.fill(smooth(bridge), frame, width=1.6)


# Hair: what lies behind the face, the cap above it, locks and strands


def _hair_edge(head: Head, person: Person) -> Array:
    """Outer edge of the cap from the left side over the top to the right, (M, 2)."""
    style, (cx, cy, width, height) = head.style, head.skull(0.0)
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
    y = cy - (height + grow) * np.cos(angle)
    return np.column_stack([cx + (width + grow) * np.sin(angle), y])


def _hair_line(head: Head) -> Array:
    """The hairline from the right ear over the forehead to the left, (M, 2)."""
    style, w = head.style, head.half
    part = style.part * 0.5 * w
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
    return smooth(head.on(points, lift=0.6))


def _hanging(head: Head, inner: float) -> list[Array]:
    """Outlines of the hair that hangs at both sides, `inner` half widths from the middle."""
    style, (cx, cy, width, height) = head.style, head.skull(head.style.sides)
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
        shapes.append(smooth(edge))  # closed, the spline would bulge at its top
    return shapes


def hair_behind(canvas: Canvas, head: Head, paint: Image.Image, skin: Image.Image) -> None:
    """Hair at the back of the head, behind neck and shoulders, and a bun."""
    style, (cx, cy, width, height) = head.style, head.skull(head.style.sides)
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
        both = _hanging(head, 0.1)
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


def hair_front(canvas: Canvas, head: Head, person: Person, paint: Image.Image) -> None:
    """The cap above the face with its shadow, strands at the hairline, and hanging locks."""
    style = head.style
    edge, outline = _hair_edge(head, person), head.outline()
    if style.line < -50:  # bald: hair at the sides only
        for s, part in ((-1.0, edge[:17]), (1.0, edge[:-18:-1])):
            places = ((0.93, 9), (0.86, 4), (0.86, -8), (0.93, -20))
            inner = head.line([(s * x * head.half, y) for x, y in places])
            canvas.fill(np.concatenate([part, inner[::-1]]), paint, alpha=0.75, blur=1.1)
        return
    line = _hair_line(head)
    cap = np.concatenate([edge, line])
    canvas.fill(cap, (46, 22, 18), alpha=0.40, blur=2.2, shift=(0.0, 2.4), inside=outline)
    if style.alpha < 1:
        canvas.fill(cap, paint, alpha=style.alpha, blur=1.2)
        return
    locks = _hanging(head, 0.84) if style.locks else []
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


def _body(canvas: Canvas, head: Head, person: Person) -> None:
    """Neck, shoulders and clothes."""
    base = head.place([[0.0, 40.0, -6.0]])[0]
    x = 0.8 * base[0] + 0.2 * 64.0
    width = (0.41 + 0.10 * (person.gender == "m") + 0.14 * person.size) * head.half
    shoulder = 46 + 20 * person.size + 5 * (person.gender == "m")
    top, slope, dark = 117.0, 3.0 - 6.0 * person.size, tint(person.clothes, 0.62)
    sleeve = (0.62 * shoulder, top + 2 + slope), (shoulder, 126 + slope), (shoulder + 12, 140)
    rim = across((width, top - 4), *sleeve)
    body = smooth(np.add(rim, (x, 0)), closed=True)
    nape, side = 1.04 * width, width * 1.15
    edge = [(base[0] - nape, 78), (base[0] + nape, 78), (x + width, 112), (x + side, 119)]
    edge += [(x, 130), (x - side, 119), (x - width, 112)]
    neck = smooth(np.array(edge), closed=True)
    light = 1.0 + 0.16 * head.light[0] * head.strength
    canvas.fill(body, person.clothes)
    lit, outline, away = float(np.sign(head.light[0])), head.outline(), -float(head.light[0])
    canvas.fill(body, dark, alpha=0.5, blur=6.0, inside=body, shift=(-lit * 34.0, 6.0))
    canvas.fill(outline, (20, 10, 14), alpha=0.35, blur=4.0, shift=(4 * away, 14.0), inside=body)
    dressed = canvas.image.copy()
    canvas.fill(neck, tint(person.skin, 0.80 * light, 0.05))
    shade = tint(person.skin, 0.42, 0.1)
    canvas.fill(outline, shade, alpha=0.75, blur=2.6, shift=(3 * away, 7.0), inside=neck)
    _collar(canvas, dressed, person, x, width, lit)


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
            smooth(np.array([[x - half, y], [x, y + 4.5], [x + half, y]]))
            for half, y in ((width + 1.5, 109.5), (1.08 * width + 3.0, 120.0))
        )
        from_here(seam)
        canvas.fill(seam, tint(cloth, 0.5), width=2.0, alpha=0.45, blur=1.0, shift=(0.0, 0.8))
        band = np.concatenate([rim, seam[::-1]])
        canvas.fill(band, tint(cloth, 0.95))
        away = (-lit * 1.5 * width, 0.0)
        canvas.fill(band, tint(cloth, 0.55), alpha=0.45, blur=3.5, inside=band, shift=away)
        canvas.fill(rim, tint(cloth, 0.6), width=1.2, alpha=0.7, blur=0.4)
    elif person.collar == "shirt":
        for s in (-1.0, 1.0):
            corners = ((width + 1, 110), (1.5, 126), (12, 131), (width + 9, 118))
            flap = np.array([(x + s * wide, y) for wide, y in corners])
            canvas.fill(flap, (20, 14, 16), alpha=0.4, blur=1.2, shift=(0.0, 1.5))
            canvas.fill(flap, tint(cloth, 1.25))
    else:
        low = 127.0 if person.collar == "v" else 121.0
        mid = 0.4 * 113 + 0.6 * low
        neckline = np.add(across((0, low), (0.5 * width, mid), (width + 4, 113)), (x, 0))
        line = neckline if person.collar == "v" else smooth(neckline)
        from_here(line)
        canvas.fill(line, tint(cloth, 0.7), width=1.6, alpha=0.9, blur=0.3)


def _ear(canvas: Canvas, head: Head, person: Person, skin: Image.Image, side: float) -> None:
    """One ear, with an earring where the person wears them, unless hair covers it."""
    if head.style.locks:
        return
    wide, y = np.array([0.93, 1.06, 1.13, 1.09, 1.00, 0.93]), [-6.0, -8.0, -3.0, 6.0, 12.5, 10.0]
    solid = np.column_stack([side * wide * head.half, y, [6, 0, -4, -2, 3, 7]])
    shape = smooth(head.place(solid), closed=True)
    canvas.fill(shape, skin)
    centre = shape.mean(axis=0)
    inner = centre + 0.55 * (shape - centre)
    canvas.fill(inner, tint(person.skin, 0.58, 0.08), alpha=0.55, blur=1.0)
    if person.earrings:
        left, top = head.place([[side * 0.99 * head.half, 14.5, 0.0]])[0]
        stud = ellipse(left, top, 1.9, 1.9, points=16)
        canvas.fill(stud, (222, 184, 96))
        canvas.fill(stud * 0.5 + np.array([left - 0.5, top - 0.5]) * 0.5, (255, 246, 214), blur=0.3)


def draw_face(person: Person, pose: Nuisance) -> tuple[NDArray[np.uint8], Array]:
    """Draw one picture.

    Args:
        person: who; see :func:`xfavot.mini.people.people`.
        pose: pose, gaze, mouth, light and background.

    Returns:
        The picture, (128, 128, 3) RGB, eyes and mouth about the canonical places of an aligned
        crop; and its landmarks, (5, 2) pixels: eyes, nose, corners of the mouth.
    """
    head = Head(person, pose)
    canvas = Canvas(pose)
    skin, strands = head.skin(), head.hair()
    outline = head.outline()
    hair_behind(canvas, head, strands, skin)
    _body(canvas, head, person)
    _ear(canvas, head, person, skin, head.side)
    canvas.fill(outline, skin)
    edge = tint(person.skin, 0.5, 0.05)
    canvas.fill(outline, edge, width=3.2, alpha=0.32, blur=1.8, inside=outline)
    freckles(canvas, head, person)
    lines_of_age(canvas, head, person, pose)
    for side in (-1.0, 1.0):
        eye(canvas, head, person, pose, side)
    nose(canvas, head, person)
    beard(canvas, head, person, strands)
    mouth(canvas, head, person, pose)
    brows(canvas, head, person, pose)
    hair_front(canvas, head, person, strands)
    _ear(canvas, head, person, skin, -head.side)
    if abs(pose.yaw) < 0.2:
        _ear(canvas, head, person, skin, head.side)
    glasses(canvas, head, person)
    warm = np.array([1 + 0.03 * pose.warmth, 1.0, 1 - 0.04 * pose.warmth])
    picture = canvas.picture() * warm
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8), head.landmarks()
