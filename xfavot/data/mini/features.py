"""Eyes, brows, nose, mouth and lines of age of a drawn face."""

from __future__ import annotations

import numpy as np

from xfavot.data.mini.canvas import Array, Canvas, Paint, ellipse, smooth, tint
from xfavot.data.mini.factors import Nuisance, Person
from xfavot.data.mini.head import EYE, MOUTH_Y, Head

WHITE: Paint = (250, 248, 244)
DARK: Paint = (34, 22, 24)


def ring(head: Head, x: float, y: float, rx: float, ry: float, lift: float = 0.0) -> Array:
    """An ellipse on the face around (x, y), in picture coordinates."""
    return head.on(ellipse(x, y, rx, ry), lift=lift)


def eye(canvas: Canvas, head: Head, person: Person, pose: Nuisance, side: float) -> None:
    """One eye; `side` is 1 for the right-hand one of the picture."""
    woman = person.gender == "f"
    big = 0.92 + 0.2 * person.eye_size + 0.06 * woman
    x, y = side * EYE[0], EYE[1]
    wide, tilt = 7.6 * big, 0.9 * person.eye_tilt + 0.4 * woman
    upper = (0.45 if pose.blink else 4.7 - 0.7 * person.age) * big + 0.5 * person.liveliness
    lower = 2.9 * big - max(0.0, 0.8 * pose.smile + 0.4 * person.liveliness)

    def at(points: list[tuple[float, float]], lift: float = 0.0) -> Array:
        return head.on([[x + side * a, y + b] for a, b in points], lift=lift)

    if pose.blink:
        lid = [(-wide, 1.2), (-0.4 * wide, 2.6), (0.3 * wide, 2.9), (wide, 0.8 - tilt)]
        canvas.fill(smooth(at(lid), closed=False), tint(DARK, 1.1), width=1.5, alpha=0.9)
        fold = [(a, b - 4.5) for a, b in lid]
        canvas.fill(
            smooth(at(fold), closed=False), tint(person.skin, 0.55, 0.05), width=0.9, alpha=0.6
        )
        return
    top = [(-wide, 1.4), (-0.55 * wide, -0.72 * upper), (0.08 * wide, -upper),
           (0.62 * wide, -0.70 * upper - 0.5 * tilt), (wide, -0.1 - tilt)]  # fmt: skip
    low = [(0.55 * wide, 0.82 * lower - 0.3 * tilt), (0.0, lower), (-0.55 * wide, 0.8 * lower)]
    upper_line = smooth(at(top), closed=False)
    opening = np.concatenate([upper_line, smooth(at([top[-1], *low, top[0]]), closed=False)])
    crease = smooth(at([(a * 1.02, b - 2.3) for a, b in top]), closed=False)
    canvas.fill(crease, tint(person.skin, 0.52, 0.06), width=1.0, alpha=0.55, blur=0.35)
    canvas.fill(opening, tint(WHITE, 0.97))
    centre = (1.9 * pose.gaze_x * side, -0.4 + 1.2 * -pose.gaze_y)
    radius = 4.1 * big

    def disc(r: float, dx: float = 0.0, dy: float = 0.0) -> Array:
        return at(ellipse(centre[0] + side * dx, centre[1] + dy, r, r).tolist())

    canvas.fill(disc(radius), tint(person.eyes, 0.58), inside=opening)
    canvas.fill(disc(radius * 0.86), person.eyes, inside=opening)
    canvas.fill(
        disc(radius * 0.55, dy=radius * 0.35),
        tint(person.eyes, 1.5),
        alpha=0.7,
        blur=0.7,
        inside=opening,
    )
    canvas.fill(disc(radius * 0.42), (14, 11, 13), inside=opening)
    shade = np.concatenate([upper_line, at([(wide, -8), (-wide, -8)])])
    shade = shade + np.array([0.0, 1.1])
    canvas.fill(shade, (52, 36, 44), alpha=0.5, blur=0.9, inside=opening)
    glint = np.sign(head.light[0]) or 1.0
    canvas.fill(disc(1.15, 1.4 * glint, -1.5), (255, 255, 255), alpha=0.95)
    canvas.fill(disc(0.6, -1.3 * glint, 1.4), (255, 255, 255), alpha=0.5)
    inner = smooth(at([(-wide, 1.4), *low[::-1], (wide, -tilt)]), closed=False)
    canvas.fill(inner, tint(person.skin, 0.6, 0.1), width=0.7, alpha=0.55)
    lash = 1.25 + 0.75 * woman
    canvas.fill(upper_line, tint(DARK, 0.9), width=lash, alpha=0.95)
    if woman:
        wing = at([(0.7 * wide, -0.6 * upper - 0.5 * tilt), (wide, -tilt),
                   (wide + 2.4, -2.2 - 1.3 * tilt), (0.9 * wide, -1.9 - tilt)])  # fmt: skip
        canvas.fill(wing, tint(DARK, 0.9), alpha=0.9)


def brows(canvas: Canvas, head: Head, person: Person, pose: Nuisance) -> None:
    """Both brows; they rise with liveliness and a smile."""
    man = person.gender == "m"
    thick = (1.5 + 1.5 * person.brow) * (1.25 if man else 0.85)
    raised = 2.2 * person.liveliness + 1.2 * pose.smile - 0.8 * person.age
    colour = tint(person.hair, 0.72) if sum(person.hair) > 300 else tint(person.hair, 0.9)
    arch = 0.9 - 0.7 * man + 0.4 * person.eye_tilt
    for side in (-1.0, 1.0):
        spine = [(5.8, -12.2), (10.5, -13.5 - 0.4 * arch), (16.5, -13.9 - arch), (24.0, -11.2)]
        width = [0.75 * thick, thick, 0.8 * thick, 0.15]
        above = [[side * x, y - raised - w / 2] for (x, y), w in zip(spine, width, strict=True)]
        below = [[side * x, y - raised + w / 2] for (x, y), w in zip(spine, width, strict=True)]
        shape = head.curve([*above, *below[::-1]], lift=1.5)
        canvas.fill(shape, colour, alpha=0.35, blur=0.9)
        canvas.fill(shape, colour, alpha=0.8, blur=0.3)


def nose(canvas: Canvas, head: Head, person: Person) -> None:
    """Tip, wings and nostrils, lifted from the face so that they move with the pose."""
    man = person.gender == "m"
    wide = 4.4 + 1.8 * person.nose + 0.7 * man
    drop = 16.0 + 1.6 * man + 1.2 * person.age
    side = -1.0 if head.light[0] > 0 else 1.0
    dark = tint(person.skin, 0.60, 0.05)
    flank = head.on([[side * 2.2, -4.0], [side * 2.6, 6.0], [side * wide, drop + 1],
                     [side * (wide - 1.5), drop + 2.5], [side * 1.5, drop - 3]],
                    lift=np.array([3.0, 5.0, 4.0, 5.0, 9.0]))  # fmt: skip
    canvas.fill(flank, dark, alpha=0.20 + 0.22 * head.strength, blur=1.3)
    under = head.curve(
        [[-wide, drop + 1.6], [0, drop + 4.6], [wide, drop + 1.6], [0, drop + 2.4]], lift=5.0
    )
    canvas.fill(under, dark, alpha=0.62, blur=1.0)
    for s in (-1.0, 1.0):
        hole = ring(head, s * 0.52 * wide, drop + 1.7, 1.5, 0.85, 6.5)
        canvas.fill(hole, tint(person.skin, 0.30, 0.1), alpha=0.8, blur=0.35)
        wing = head.curve(
            [[s * 0.92 * wide, drop - 2.6], [s * 1.06 * wide, drop], [s * 0.86 * wide, drop + 2]],
            closed=False,
            lift=4.5,
        )
        canvas.fill(wing, dark, width=0.9, alpha=0.5, blur=0.4)
    light = head.on([[-side * 0.7, drop - 2.5]], lift=11.0)[0]
    spot = ellipse(light[0], light[1], 1.5, 1.2, points=16)
    canvas.fill(spot, (255, 246, 236), alpha=0.25 + 0.3 * head.strength, blur=0.8)
    bridge = head.on([[-side * 0.4, -1.0], [-side * 0.5, drop - 5]], lift=np.array([5.0, 9.0]))
    canvas.fill(bridge, (255, 246, 236), width=1.4, alpha=0.20, blur=0.9)


def lip_colour(person: Person) -> Paint:
    """Natural lips for men, a stronger rose or red for women."""
    base = np.array(person.skin, dtype=np.float64)
    woman = person.gender == "f"
    rose = np.array([196.0, 62.0, 74.0]) if person.lips > 0.5 else np.array([206.0, 92.0, 96.0])
    amount = (0.45 + 0.35 * person.liveliness) if woman else 0.22
    natural = base * np.array([0.86, 0.64, 0.62])
    red, green, blue = natural + (rose * (0.55 + 0.45 * base.mean() / 210) - natural) * amount
    return float(red), float(green), float(blue)


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
    inner_top = [[-wide, corner], [-0.5 * wide, y - 0.1 * rise - 0.25 * gap],
                 [0.0, y + 0.25 - 0.3 * gap], [0.5 * wide, y - 0.1 * rise - 0.25 * gap],
                 [wide, corner]]  # fmt: skip
    inner_low = [[-wide, corner], [-0.5 * wide, y - 0.1 * rise + 0.55 * gap + 0.2],
                 [0.0, y + 0.3 + 0.75 * gap], [0.5 * wide, y - 0.1 * rise + 0.55 * gap + 0.2],
                 [wide, corner]]  # fmt: skip
    bow = [[-wide, corner], [-0.45 * wide, y - up - 0.25 * gap - 0.15 * rise],
           [-0.17 * wide, y - 1.12 * up - 0.3 * gap], [0.0, y - 0.85 * up - 0.3 * gap],
           [0.17 * wide, y - 1.12 * up - 0.3 * gap],
           [0.45 * wide, y - up - 0.25 * gap - 0.15 * rise], [wide, corner]]  # fmt: skip
    bottom = [[-wide, corner], [-0.55 * wide, y + 0.62 * down + 0.6 * gap - 0.1 * rise],
              [0.0, y + down + 0.8 * gap], [0.55 * wide, y + 0.62 * down + 0.6 * gap - 0.1 * rise],
              [wide, corner]]  # fmt: skip
    top, low, above, below = (
        head.curve(line, closed=False, lift=2.0) for line in (inner_top, inner_low, bow, bottom)
    )
    lips = lip_colour(person)
    shadow = head.curve(
        [[-6, y + down + 0.8 * gap + 1], [0, y + down + 0.8 * gap + 3.4],
         [6, y + down + 0.8 * gap + 1]]
    )  # fmt: skip
    canvas.fill(shadow, tint(person.skin, 0.6), alpha=0.6, blur=1.4)
    canvas.fill(np.concatenate([above, below[::-1]]), lips, alpha=0.5, blur=0.6)
    hole = np.concatenate([top, low[::-1]])
    if gap > 0.6:
        canvas.fill(hole, (62, 18, 24))
        teeth = head.curve(
            [[-0.72 * wide, y - 0.35 * gap - 0.4 * rise - 1], [0, y - 0.4 * gap - 1.5],
             [0.72 * wide, y - 0.35 * gap - 0.4 * rise - 1],
             [0.6 * wide, y + 0.02 * gap + 0.5], [0, y + 0.12 * gap + 0.9],
             [-0.6 * wide, y + 0.02 * gap + 0.5]], lift=1.0)  # fmt: skip
        canvas.fill(teeth, (246, 241, 232), alpha=0.96, inside=hole)
        tongue = ring(head, 0.0, y + 0.8 * gap + 0.8, 0.5 * wide, 0.32 * gap + 0.6, 1.0)
        canvas.fill(tongue, (196, 84, 88), alpha=0.85, blur=0.6, inside=hole)
        canvas.fill(top, (40, 10, 16), width=1.2, alpha=0.5, blur=0.5)
    canvas.fill(np.concatenate([above, top[::-1]]), tint(lips, 0.9))
    canvas.fill(np.concatenate([low, below[::-1]]), tint(lips, 1.04))
    shine = head.curve(
        [[-3.6, y + 0.45 * down + 0.78 * gap], [0, y + 0.55 * down + 0.8 * gap],
         [3.6, y + 0.45 * down + 0.78 * gap]], closed=False, lift=3.0)  # fmt: skip
    canvas.fill(shine, (255, 236, 230), width=1.2, alpha=0.32 + 0.18 * woman, blur=0.6)
    if gap <= 0.6:
        canvas.fill(top, tint(lips, 0.42), width=0.9, alpha=0.9)
    for s in (-1.0, 1.0):
        dimple = ring(head, s * (wide + 0.6), corner, 0.9, 1.0, 1.0)
        canvas.fill(dimple, tint(person.skin, 0.5), alpha=0.55, blur=0.6)


def lines_of_age(canvas: Canvas, head: Head, person: Person, pose: Nuisance) -> None:
    """Folds beside the mouth, crow's feet, lines of the forehead, bags below the eyes."""
    dark = tint(person.skin, 0.58, 0.04)
    old = float(np.clip(1.45 * person.age - 0.45, 0.0, 1.0))
    fold = 0.10 + 0.22 * person.liveliness + 0.5 * old + 0.3 * pose.smile
    for s in (-1.0, 1.0):
        line = head.curve(
            [[s * 6.8, 17.0], [s * 11.0, 22.5], [s * 13.8, 29.5], [s * 13.6, 34.0]], closed=False
        )
        canvas.fill(line, dark, width=1.1, alpha=float(np.clip(fold, 0.05, 0.8)), blur=0.7)
        bag = head.curve([[s * 9.0, 4.0], [s * 14.5, 6.8], [s * 21.0, 4.0]], closed=False)
        canvas.fill(bag, dark, width=1.2, alpha=0.12 + 0.5 * old, blur=0.7)
        if old > 0.15:
            for k in (-1.0, 0.0, 1.0):
                crow = head.on([[s * 24.5, -1.5 + 1.6 * k], [s * 28.6, -2.2 + 3.4 * k]])
                canvas.fill(crow, dark, width=0.7, alpha=0.75 * old, blur=0.25)
    if old > 0.15:
        for k in range(3):
            level = -22.0 - 4.2 * k
            line = head.curve(
                [[-15.0 + 2 * k, level + 1.2], [-7, level], [0, level + 0.8], [7, level],
                 [15.0 - 2 * k, level + 1.2]], closed=False)  # fmt: skip
            canvas.fill(line, dark, width=0.8, alpha=0.62 * old, blur=0.35)
