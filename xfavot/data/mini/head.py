"""The head in space: where a point of the face lands in the picture, and how light falls on it.

The head is an ellipsoid with a jaw. Points of the face are given in the head's own frontal frame
(pixels of the 128x128 picture, x right, y down, origin between temples), lifted onto the surface,
turned by yaw, pitch and roll, and placed so that eyes and mouth keep the canonical places of a crop
aligned as in CelebA-HQ.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from xfavot.data.mini.canvas import SIZE, Array, smooth
from xfavot.data.mini.factors import Nuisance, Person

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
    return cast("Array", lean @ nod @ turn)


class Head:
    """Geometry and shading of one person in one pose."""

    def __init__(self, person: Person, pose: Nuisance) -> None:
        """Shape the head of a person and turn it."""
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
        middle = self.on([[0.0, (EYE[1] + MOUTH_Y) / 2]])[0]
        self.origin = np.array(TARGET) - middle
        azimuth, height = np.radians([pose.light, pose.light_height])
        self.light = np.array(
            [np.sin(azimuth) * np.cos(height), -np.sin(height), np.cos(azimuth) * np.cos(height)]
        )
        self.strength = pose.light_strength

    def landmarks(self) -> Array:
        """Eyes, tip of the nose and corners of the mouth in the picture, (5, 2)."""
        flat = [[-EYE[0], EYE[1]], [EYE[0], EYE[1]], [0, 15], [-11, MOUTH_Y - 1], [11, MOUTH_Y - 1]]
        return self.on(np.array(flat, dtype=np.float64), lift=np.array([0.0, 0.0, 9.0, 2.0, 2.0]))

    def place(self, points: Array | list[list[float]]) -> Array:
        """Picture coordinates (N, 2) of points (N, 3) of the head's frame."""
        return (np.asarray(points, dtype=np.float64) @ self.matrix.T)[:, :2] + self.origin

    def on(self, points: Array | list[list[float]], *, lift: float | Array = 0.0) -> Array:
        """Picture coordinates (N, 2) of points (N, 2) on the face, `lift` pixels above it."""
        flat = np.asarray(points, dtype=np.float64)
        inner = 1 - (flat[:, 0] / (1.03 * self.half)) ** 2 - (flat[:, 1] / 64.0) ** 2
        z = DEPTH * np.sqrt(np.maximum(inner, 0.04)) + lift
        return self.place(np.column_stack([flat, z]))

    def curve(self, points: list[list[float]], *, closed: bool = True, lift: float = 0.0) -> Array:
        """A smooth curve through points of the face, in picture coordinates."""
        return smooth(self.on(points, lift=lift), closed=closed)

    def outline(self) -> Array:
        """The silhouette of the face without hair, (M, 2).

        Every height has an elliptical section, whose far side bounds the turned face; the near
        side is bounded by the ear and the line from there to the chin.
        """
        w, j, c, e = self.half, self.jaw, self.chin_width, self.chin
        right = [
            (0.50 * w, -49.0), (0.86 * w, -34.0), (0.985 * w, -14.0), (0.99 * w, 3.0),
            (0.94 * w, 17.0), (j, 30.0), (0.52 * (j + c) + 1.0, e - 9.0), (c, e - 2.0),
        ]  # fmt: skip
        x, y = np.array([(0.0, -53.0), *right, (0.0, e), *[(-a, b) for a, b in right[::-1]]]).T
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
        grid = np.arange(SIZE) + 0.5
        centre = self.place([[0.0, 0.0, 0.0]])[0]
        x = np.broadcast_to(grid - centre[0], (SIZE, SIZE))
        y = np.broadcast_to((grid - centre[1])[:, None], (SIZE, SIZE))
        a = quadric[2, 2]
        b = quadric[0, 2] * x + quadric[1, 2] * y
        c = quadric[0, 0] * x * x + 2 * quadric[0, 1] * x * y + quadric[1, 1] * y * y - 1
        z = (np.sqrt(np.maximum(b * b - a * c, 0.0)) - b) / a
        normal = np.stack([x, y, z], axis=-1) @ quadric
        return cast("Array", normal / np.linalg.norm(normal, axis=-1, keepdims=True))

    def blobs(self, table: list[Blob]) -> tuple[Array, Array, Array]:
        """A sum of soft bumps on the face.

        Args:
            table: x, y, lift, width, height (standard deviations, pixels) and amount of each.

        Returns:
            The sum and its slopes along x and y, each (128, 128).
        """
        grid = np.arange(SIZE) + 0.5
        total, along_x, along_y = (np.zeros((SIZE, SIZE)) for _ in range(3))
        places = self.on([[b[0], b[1]] for b in table], lift=np.array([b[2] for b in table]))
        for (left, top), (_, _, _, wide, high, amount) in zip(places, table, strict=True):
            u, v = (grid - left) / wide, (grid - top) / high
            gu, gv = np.exp(-0.5 * u * u), amount * np.exp(-0.5 * v * v)
            bump = gv[:, None] * gu
            total += bump
            along_x -= bump * (u / wide)
            along_y -= bump * (v / high)[:, None]
        return total, along_x, along_y

    def lit(self, normal: Array) -> Array:
        """Light on a surface: about 0 in shade and 1 facing the light; (128, 128)."""
        return np.asarray(np.clip(0.5 + 0.62 * (normal @ self.light - 0.35), 0.0, 1.15))
