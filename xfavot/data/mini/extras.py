"""What not everybody has: freckles, a beard, glasses."""

from __future__ import annotations

import numpy as np
from PIL import Image

from xfavot.data.mini.canvas import Canvas, Paint, smooth, tint
from xfavot.data.mini.factors import Person, stream
from xfavot.data.mini.hair import STYLES
from xfavot.data.mini.head import EYE, Head


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
    whole = [[-0.98 * w, 0.0], [-0.89 * w, 6.0], [-0.84 * w, 18.0], [-0.62 * w, 26.5],
             [-12.0, 26.0], [0.0, 24.8], [12.0, 26.0], [0.62 * w, 26.5], [0.84 * w, 18.0],
             [0.89 * w, 6.0], [0.98 * w, 0.0], [0.99 * w, 16.0], [j + 1.0, 31.0],
             [0.62 * j + 3, e - 4], [0.0, e + 3.0], [-0.62 * j - 3, e - 4], [-j - 1.0, 31.0],
             [-0.99 * w, 16.0]]  # fmt: skip
    small = [[-11.5, 30.0], [-9.0, 37.0], [0.0, 39.5], [9.0, 37.0], [11.5, 30.0], [12.0, 40.0],
             [7.5, e + 1.0], [0.0, e + 2.5], [-7.5, e + 1.0], [-12.0, 40.0]]  # fmt: skip
    lip = [[-13.0, 30.5], [-9.5, 25.0], [-2.0, 22.8], [0.0, 23.6], [2.0, 22.8], [9.5, 25.0],
           [13.0, 30.5], [8.0, 28.6], [0.0, 27.4], [-8.0, 28.6]]  # fmt: skip
    parts = {"stubble": [whole], "moustache": [lip], "goatee": [small, lip], "full": [whole, lip]}
    thin = person.beard == "stubble"
    draw = stream(person.texture, "beard")
    for shape in parts[person.beard]:
        outline = head.curve(shape)
        canvas.fill(outline, tint(person.hair, 0.75), alpha=0.24 if thin else 0.45, blur=1.5,
                    inside=head.outline() if thin else None)  # fmt: skip
        if not thin:
            canvas.fill(outline, paint, alpha=0.85, blur=0.8)
            canvas.fill(outline, tint(person.hair, 0.5), alpha=0.35, blur=2.0,
                        shift=(0.0, 2.0), inside=outline)  # fmt: skip
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
    is_round = person.glasses == "round"
    frame: Paint = (40, 34, 38) if not is_round else (122, 78, 46)
    power = 2.0 if is_round else 4.5
    rx, ry = (10.6, 10.2) if is_round else (11.8, 8.4)
    outline = head.outline()
    end = (0.84, 14.0) if STYLES[person.hair_style].locks else (1.0, 2.0)  # at hair or ear
    angle = np.linspace(0, 2 * np.pi, 41)
    unit = np.column_stack(
        [np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / power),
         np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / power)]
    )  # fmt: skip
    for s in (-1.0, 1.0):
        flat = unit * (rx, ry) + (s * (EYE[0] + 0.3), EYE[1] + 1.0)
        lens = head.place(np.column_stack([flat, 45.0 - 0.006 * flat[:, 0] ** 2]))
        canvas.fill(lens, (225, 238, 246), alpha=0.06)
        glare = lens.mean(axis=0) + np.array([[-5.5, 1.0], [-2.5, -6.0], [0.5, -6.0], [-3.0, 3.0]])
        canvas.fill(glare, (255, 255, 255), alpha=0.13, blur=0.6, inside=lens)
        shade = tint(person.skin, 0.5)
        canvas.fill(lens, shade, width=1.4, alpha=0.3, blur=0.8, shift=(0.4, 1.3))
        canvas.fill(lens, frame, width=1.9 if not is_round else 1.5)
        if s != head.side or head.turned < 0.2:  # the other arm is behind the lens
            arm = head.place([[s * (EYE[0] + rx), EYE[1] - 2.5, 42.0],
                              [s * end[0] * head.half, -3.0, end[1]]])  # fmt: skip
            canvas.fill(arm, frame, width=1.7, inside=outline if s == head.side else None)
    bridge = head.place([[-5.2, -2.6, 46.0], [0.0, -4.2, 47.0], [5.2, -2.6, 46.0]])
    canvas.fill(smooth(bridge, closed=False), frame, width=1.6)
