"""Faces found and brought into CelebA-HQ's framing.

Paper: "aligned as done in" CelebA-HQ (Karras et al. 2018, appendix C), Sec. 4. Status: STATED. A
square is laid over the face from the eyes and the mouth: its x axis follows the eyes (and is
corrected by the line from eyes to mouth), its side grows with the larger of 4 eye distances and 3.6
eye-mouth distances, its centre lies a tenth of the way from the eyes to the mouth. Where the square
leaves the picture, the original mirrors the picture and blurs what it mirrored; here the edge is
carried on outward under a growing blur, because faces cut off at the forehead (VoxCeleb, LRS3)
would get a second pair of eyes above the first. No super-resolution is applied.

Landmarks come from MTCNN with the weights that facenet-pytorch ships (`image.mtcnn`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.errors import DataError, ShapeError
from xfavot.image.mtcnn import find_faces

# Where the landmarks of an aligned frontal face lie, in widths of the crop (x, y): left eye, right
# eye, nose, left and right corner of the mouth, as the picture shows them. Eyes and mouth follow
# from the framing; the spread is the mean of MTCNN's landmarks on CelebA-HQ, GRID, LRS3, VoxCeleb.
ALIGNED: NDArray[np.float32] = np.array(
    [[0.379, 0.477], [0.621, 0.477], [0.5, 0.625], [0.4, 0.747], [0.6, 0.747]],
    dtype=np.float32,
)
EYE_FACTOR = 2.0  # half side in eye distances
MOUTH_FACTOR = 1.8  # half side in eye-mouth distances
CENTRE_SHIFT = 0.1  # of the eye-mouth distance, from the eyes down
LEAST_PROBABILITY = 0.9
SMALLEST_FACE = 0.08  # of the shorter side of the picture
DETECTION_PIXELS = 640  # a larger picture is scaled down for detection only
# Outside the picture: blur radius, and how far out it is reached, in widths of the crop.
BORDER_BLURS = ((0.02, 0.02), (0.05, 0.06), (0.10, 0.15))


def align_quad(landmarks: NDArray[Any]) -> NDArray[np.float64]:
    """Return the corners of the square that frames a face as in CelebA-HQ.

    Args:
        landmarks: (5, 2) in pixels: eyes, nose, mouth corners.

    Returns:
        (4, 2) in pixels: top left, bottom left, bottom right, top right of the upright face.

    Raises:
        ShapeError: not (5, 2).
        DataError: a landmark is not finite, or the eyes and the mouth coincide.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (5, 2):
        raise ShapeError(
            f"landmarks: got shape {points.shape}; expected (5, 2): eyes, nose, mouth corners"
        )
    if not np.isfinite(points).all():
        raise DataError("landmarks: a coordinate is not finite; expected pixels; detect again")
    eyes = (points[0] + points[1]) / 2
    across = points[1] - points[0]
    down = (points[3] + points[4]) / 2 - eyes
    x = across + _left_of(down)
    length = np.hypot(*x)
    half = max(EYE_FACTOR * np.hypot(*across), MOUTH_FACTOR * np.hypot(*down))
    if length < 1e-6 or half < 1e-6:
        raise DataError("landmarks: eyes and mouth coincide; expected a face; detect again")
    x *= half / length
    y = -_left_of(x)
    centre = eyes + CENTRE_SHIFT * down
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def align_face(image: NDArray[np.uint8], landmarks: NDArray[Any], size: int) -> NDArray[np.uint8]:
    """Cut an upright face out of a picture in CelebA-HQ's framing.

    Args:
        image: (H, W, 3) uint8.
        landmarks: (5, 2) in pixels of `image`.
        size: pixels of a side of the result.

    Returns:
        (size, size, 3) uint8.

    Raises:
        ShapeError: landmarks are not (5, 2).
        DataError: landmarks are not a face's.
    """
    from PIL import Image

    quad = align_quad(landmarks)
    side = float(np.hypot(*(quad[3] - quad[0])))
    if side < 2:
        raise DataError(f"landmarks: the face is {side:.1f} pixels wide; expected 2 or more")
    shrink = max(int(side / (4 * size)), 1)
    picture = Image.fromarray(np.ascontiguousarray(image))
    if shrink > 1:
        picture = picture.reduce(shrink)
        quad /= shrink
        side /= shrink
    low = np.floor(quad.min(axis=0)).astype(int) - 4
    high = np.ceil(quad.max(axis=0)).astype(int) + 4
    patch = _patch(np.asarray(picture), low, high, side)
    corners = tuple(float(value) for value in (quad - low).reshape(-1))
    fine = size * int(np.clip(np.ceil(side / size), 1, 4))
    crop = patch.transform((fine, fine), Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)
    if fine != size:
        crop = crop.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(crop, dtype=np.uint8)


def align_points(points: NDArray[Any], landmarks: NDArray[Any], size: int) -> NDArray[np.float32]:
    """Carry points of a picture into the crop that `align_face` cuts.

    Args:
        points: (P, 2) in pixels of the picture.
        landmarks: (5, 2), those given to `align_face`.
        size: pixels of a side of the crop.

    Returns:
        (P, 2) float32 in pixels of the crop.
    """
    quad = align_quad(landmarks)
    x, y = quad[3] - quad[0], quad[1] - quad[0]
    offset = np.asarray(points, dtype=np.float64) - quad[0]
    side = float(x @ x)
    return (np.stack([offset @ x, offset @ y], axis=-1) * (size / side)).astype(np.float32)


def outside_share(shape: tuple[int, ...], landmarks: NDArray[Any]) -> float:
    """Return the share of the crop of `align_face` that lies outside the picture.

    Args:
        shape: (H, W, ...) of the picture.
        landmarks: (5, 2) in its pixels.
    """
    quad = align_quad(landmarks)
    grid = (np.arange(32) + 0.5) / 32
    x, y = quad[3] - quad[0], quad[1] - quad[0]
    points = quad[0] + grid[:, None, None] * x + grid[None, :, None] * y  # (32, 32, 2)
    inside = (points >= 0).all(-1) & (points[..., 0] < shape[1]) & (points[..., 1] < shape[0])
    return float(1.0 - inside.mean())


def detect(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32] | None]:
    """Find the main face of each picture: a large one near the middle.

    Args:
        images: pictures (H, W, 3) uint8, of any sizes.

    Returns:
        For each picture (5, 2) float32 in its pixels (x, y): left eye, right eye, nose, left and
        right corner of the mouth as the picture shows them; ``None`` where there is no face.

    Raises:
        DataError: facenet-pytorch, whose wheel carries the weights, is not installed.
    """
    return [_detect_one(image) for image in images]


def _detect_one(image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(1.0, DETECTION_PIXELS / max(height, width))
    picture = Image.fromarray(np.ascontiguousarray(image))
    if scale < 1.0:
        picture = picture.resize((max(round(width * scale), 1), max(round(height * scale), 1)))
    shorter = min(picture.size)
    if shorter < 24:
        return None
    faces = find_faces(np.asarray(picture), smallest=max(20, int(SMALLEST_FACE * shorter)))
    corners = faces.boxes.astype(np.float64)  # (F, 4)
    sizes = np.sqrt(np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1))
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    away = np.hypot(*(middles - np.array(picture.size) / 2).T)
    score = np.where(faces.probabilities < LEAST_PROBABILITY, -np.inf, sizes - 0.5 * away)
    if not np.isfinite(score).any():
        return None
    back = np.array([width / picture.size[0], height / picture.size[1]], dtype=np.float32)
    found: NDArray[np.float32] = faces.landmarks[int(score.argmax())] * back
    return found


def _left_of(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vector turned so that the line from eyes to mouth becomes left eye to right."""
    return np.array([vector[1], -vector[0]])


def _patch(
    pixels: NDArray[np.uint8], low: NDArray[np.int_], high: NDArray[np.int_], side: float
) -> Any:
    """Cut out a rectangle that may leave the picture, whose edge then fades outward.

    Args:
        pixels: (H, W, 3) uint8.
        low, high: (x, y) of the rectangle's corners in pixels.
        side: width of the crop in pixels, the unit of `BORDER_BLURS`.

    Returns:
        A PIL image.
    """
    from PIL import Image, ImageFilter

    rows, columns = np.arange(low[1], high[1]), np.arange(low[0], high[0])
    height, width = pixels.shape[:2]
    clipped_rows, clipped_columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    patch = pixels[clipped_rows[:, None], clipped_columns[None]]
    away = np.maximum(abs(rows - clipped_rows)[:, None], abs(columns - clipped_columns)[None])
    if away.any():
        for radius, reach in BORDER_BLURS:
            blurred = Image.fromarray(patch).filter(ImageFilter.GaussianBlur(radius * side))
            weight = (away / (reach * side)).clip(0, 1)[..., None]
            weight = weight * weight * (3 - 2 * weight)
            mixed = patch * (1 - weight) + np.asarray(blurred) * weight
            patch = mixed.round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(patch))
