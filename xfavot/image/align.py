"""Faces found and brought into CelebA-HQ's framing.

Paper: "aligned as done in" CelebA-HQ (Karras et al. 2018, appendix C), Sec. 4. Status: STATED. A
square is laid over the face from the eyes and the mouth: its x axis follows the eyes (and is
corrected by the line from eyes to mouth), its side grows with the larger of 4 eye distances and 3.6
eye-mouth distances, its centre lies a tenth of the way from the eyes to the mouth. Where the square
leaves the picture, the original mirrors the picture and blurs what it mirrored; here the edge is
carried on outward under a growing blur, because faces cut off at the forehead (VoxCeleb, LRS3)
would get a second pair of eyes above the first. No super-resolution is applied.

Landmarks come from MTCNN with the weights that facenet-pytorch ships.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot.errors import DataError, ShapeError

# MTCNN (Zhang et al. 2016): three small networks that find faces and five landmarks in a picture


PNET_PIXELS, PNET_STRIDE = 12, 2  # what P-Net sees at once, and the step to its next place
RNET_PIXELS, ONET_PIXELS = 24, 48
PYRAMID_FACTOR = 0.709  # about half the area from level to level
PROPOSED_PROBABILITY, LIKELY_PROBABILITY = 0.6, 0.7  # least of P-Net; of R-Net and O-Net
LEVEL_OVERLAP, MOST_OVERLAP = 0.5, 0.7  # of boxes of one level, of any; more is the same face
CROPS_AT_ONCE = 128  # bounds the memory on a cluttered picture

# By network: kernel and stride of the pooling after each convolution, 0 for none; number of the
# dense layer; heads for the two logits of "a face", the corrections of the box and the landmarks.
PARTS: dict[str, tuple[tuple[tuple[int, int], ...], str, tuple[str, ...]]] = {
    "pnet": (((2, 2), (0, 0), (0, 0)), "", ("conv4_1", "conv4_2")),
    "rnet": (((3, 2), (3, 2), (0, 0)), "4", ("dense5_1", "dense5_2")),
    "onet": (((3, 2), (3, 2), (2, 2), (0, 0)), "5", ("dense6_1", "dense6_2", "dense6_3")),
}

Array = NDArray[np.float32]


class _Network(NamedTuple):
    """One of the three: its weights by name, and how they hang together, as in :data:`PARTS`."""

    weights: dict[str, Tensor]
    pools: tuple[tuple[int, int], ...]
    dense: str
    heads: tuple[str, ...]

    def __call__(self, x: Tensor) -> list[Array]:
        """Apply to (B, 3, H, W): each head's (B, C, H', W') of P-Net, (B, C) of the others."""
        parts = []
        for batch in torch.split(x, CROPS_AT_ONCE):
            for number, (kernel, stride) in enumerate(self.pools, start=1):
                batch = functional.conv2d(batch, *self._pair(f"conv{number}"))
                batch = functional.prelu(batch, self.weights[f"prelu{number}.weight"])
                if kernel:
                    batch = functional.max_pool2d(batch, kernel, stride, ceil_mode=True)
            apply: Any = functional.conv2d
            if self.dense:
                apply = functional.linear
                batch = batch.permute(0, 3, 2, 1).flatten(1)  # the weights count columns first
                batch = apply(batch, *self._pair(f"dense{self.dense}"))
                batch = functional.prelu(batch, self.weights[f"prelu{self.dense}.weight"])
            parts.append([apply(batch, *self._pair(head)) for head in self.heads])
        return [torch.cat(part).numpy() for part in zip(*parts, strict=True)]

    def _pair(self, layer: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{layer}.weight"], self.weights[f"{layer}.bias"]


@torch.inference_mode()
def find_faces(image: NDArray[np.uint8], *, smallest: int) -> tuple[Array, Array, Array]:
    """Find every face of a picture.

    Args:
        image: (H, W, 3) uint8.
        smallest: pixels a side of the smallest face that is looked for.

    Returns:
        Boxes (F, 4), probabilities (F,) and landmarks (F, 5, 2) of the faces in pixels, best first.
        Landmarks are left eye, right eye, nose, left and right corner of the mouth as the picture
        shows them.

    Raises:
        DataError: facenet-pytorch, whose wheel carries the weights, is not installed.
    """
    pnet, rnet, onet = _networks()
    pixels = torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2).float()  # (1, 3, H, W)
    boxes = _proposed(pnet, pixels, smallest)
    boxes, score, offsets = _likely(rnet, pixels, boxes, RNET_PIXELS)
    kept = _distinct(boxes, score, MOST_OVERLAP)
    boxes = _square(_moved(boxes[kept], offsets[kept], rim=1))
    boxes, score, offsets, places = _likely(onet, pixels, boxes, ONET_PIXELS)
    sides = boxes[:, None, 2:] - boxes[:, None, :2] + 1
    points = sides * places.reshape(-1, 2, 5).swapaxes(1, 2) + boxes[:, None, :2] - 1  # (F, 5, 2)
    boxes = _moved(boxes, offsets, rim=1)
    kept = _distinct(boxes, score, MOST_OVERLAP, rim=1, of_smaller=True)
    return boxes[kept], score[kept], points[kept]


def _proposed(pnet: _Network, pixels: Tensor, smallest: int) -> Array:
    """Boxes (B, 4) that P-Net proposes over the pyramid."""
    height, width = pixels.shape[2:]
    found = [np.zeros((0, 9), np.float32)]  # corners, probability, corrections
    scale = PNET_PIXELS / smallest
    while min(height, width) * scale >= PNET_PIXELS:
        level = _resized(pixels, (int(height * scale + 1), int(width * scale + 1)))
        logits, offsets = pnet(level)
        chance = torch.from_numpy(logits).softmax(dim=1)[0, 1].numpy()  # (H', W')
        rows, columns = np.nonzero(chance >= np.float32(PROPOSED_PROBABILITY))
        near = PNET_STRIDE * np.stack([columns, rows], axis=1).astype(np.float32) + 1
        ends = np.concatenate([near, near + (PNET_PIXELS - 1)], axis=1) / np.float32(scale)
        parts = [np.floor(ends), chance[rows, columns, None], offsets[0, :, rows, columns]]
        boxes = np.concatenate(parts, axis=1)
        found.append(boxes[_distinct(boxes[:, :4], boxes[:, 4], LEVEL_OVERLAP)])
        scale *= PYRAMID_FACTOR
    boxes = np.concatenate(found)
    boxes = boxes[_distinct(boxes[:, :4], boxes[:, 4], MOST_OVERLAP)]
    return _square(_moved(boxes[:, :4], boxes[:, 5:]))


def _likely(network: _Network, pixels: Tensor, boxes: Array, size: int) -> tuple[Array, ...]:
    """Boxes in which R-Net or O-Net sees a face, its probability, and the other heads' values.

    Boxes that do not touch the picture are left out.
    """
    whole = boxes.astype(np.int64)
    near = np.maximum(whole[:, :2] - 1, 0)
    far = np.minimum(whole[:, 2:], (pixels.shape[3], pixels.shape[2]))
    inside = (far > near).all(axis=1)
    crops = [
        _resized(pixels[:, :, top:bottom, left:right], (size, size))
        for (left, top), (right, bottom) in zip(near[inside], far[inside], strict=True)
    ]
    logits, *others = network(torch.cat([pixels.new_zeros((0, 3, size, size)), *crops]))
    chance = torch.from_numpy(logits).softmax(dim=1)[:, 1].numpy()
    rows = chance > np.float32(LIKELY_PROBABILITY)
    return boxes[inside][rows], chance[rows], *(values[rows] for values in others)


def _moved(boxes: Array, offsets: Array, rim: int = 0) -> Array:
    """Correct boxes by offsets in units of their sides, a side counting `rim` pixels more."""
    sides = boxes[:, 2:] - boxes[:, :2] + rim
    moved: Array = boxes + offsets * np.concatenate([sides, sides], axis=1)
    return moved


def _square(boxes: Array) -> Array:
    """Widen the shorter side of each box about its middle."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.max(axis=1, keepdims=True)
    near = boxes[:, :2] + sides * np.float32(0.5) - longer * np.float32(0.5)
    return np.concatenate([near, near + longer], axis=1)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Average to another size, and bring 0 ... 255 to -1 ... 1 as the weights were trained."""
    return (functional.interpolate(pixels, size, mode="area") - 127.5) * 0.0078125


def _distinct(
    boxes: Array, score: Array, most: float, *, rim: int = 0, of_smaller: bool = False
) -> NDArray[np.intp]:
    """Choose boxes, best first, none of which overlaps a better one by more than `most`.

    Args:
        boxes: (B, 4).
        score: (B,).
        most: of the shared area in the area of both (or of the smaller).
        rim: pixels that a side counts more than the difference of its ends.
        of_smaller: see `most`.

    Returns:
        Their numbers.
    """
    near, far = boxes[:, :2], boxes[:, 2:]
    areas = (far - near + rim).prod(axis=1)
    # among equals as facenet-pytorch chooses at the end
    left = np.argsort(score)[::-1] if of_smaller else np.argsort(-score, kind="stable")
    chosen = []
    while len(left):
        best, left = left[0], left[1:]
        chosen.append(best)
        sides = np.minimum(far[best], far[left]) - np.maximum(near[best], near[left]) + rim
        shared = np.maximum(sides, 0).prod(axis=1)
        smaller = np.minimum(areas[best], areas[left])
        whole = smaller if of_smaller else areas[best] + areas[left] - shared
        left = left[~(shared / whole > np.float32(most))]
    return np.array(chosen, dtype=np.intp)


@lru_cache(maxsize=1)
def _networks() -> tuple[_Network, ...]:
    """Load P-Net, R-Net and O-Net."""
    package = importlib.util.find_spec("facenet_pytorch")
    if package is None or package.origin is None:
        raise DataError(
            "face detection needs the weights in facenet-pytorch, which is not installed; run: pip "
            "install --no-deps facenet-pytorch==2.6.0, or give aligned images"
        )
    networks = []
    for name, layers in PARTS.items():
        file = Path(package.origin).parent / "data" / f"{name}.pt"
        saved = torch.load(file, map_location="cpu", weights_only=True)
        # saved transposed, used in order: as facenet-pytorch does, so that results equal its
        weights = {layer: weight.contiguous() for layer, weight in saved.items()}
        networks.append(_Network(weights, *layers))
    return tuple(networks)


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
        raise ShapeError(f"landmarks: got shape {points.shape}; expected eyes, nose, mouth (5, 2)")
    eyes = (points[0] + points[1]) / 2
    across = points[1] - points[0]
    down = (points[3] + points[4]) / 2 - eyes
    left = np.array([[0.0, -1.0], [1.0, 0.0]])  # turns eyes-to-mouth into left-to-right-eye
    x = across + down @ left
    length = np.hypot(*x)
    half = max(EYE_FACTOR * np.hypot(*across), MOUTH_FACTOR * np.hypot(*down))
    if not (length >= 1e-6 and half >= 1e-6):
        raise DataError("landmarks: not finite, or eyes and mouth coincide; expected a face's")
    x *= half / length
    y = -x @ left
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
    from PIL import Image, ImageFilter

    quad = align_quad(landmarks)
    side = float(np.hypot(*(quad[3] - quad[0])))
    if side < 2:
        raise DataError(f"landmarks: the face is {side:.1f} pixels wide; expected 2 or more")
    shrink = max(int(side / (4 * size)), 1)
    pixels = np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(shrink))
    quad, side = quad / shrink, side / shrink
    low = np.floor(quad.min(axis=0)).astype(int) - 4
    high = np.ceil(quad.max(axis=0)).astype(int) + 4
    columns, rows = (np.arange(first, last) for first, last in zip(low, high, strict=True))
    in_columns, in_rows = columns.clip(0, pixels.shape[1] - 1), rows.clip(0, pixels.shape[0] - 1)
    patch = pixels[in_rows[:, None], in_columns[None]]
    away = np.maximum(abs(rows - in_rows)[:, None], abs(columns - in_columns)[None])
    for radius, reach in BORDER_BLURS if away.any() else ():
        blurred = Image.fromarray(patch).filter(ImageFilter.GaussianBlur(radius * side))
        weight = (away / (reach * side)).clip(0, 1)[..., None]
        weight = weight * weight * (3 - 2 * weight)
        mixed = patch * (1 - weight) + np.asarray(blurred) * weight
        patch = mixed.round().astype(np.uint8)
    corners = tuple((quad - low).reshape(-1).tolist())
    fine = size * int(np.clip(np.ceil(side / size), 1, 4))
    crop = Image.fromarray(np.ascontiguousarray(patch)).transform(
        (fine, fine), Image.Transform.QUAD, corners, Image.Resampling.BICUBIC
    )
    return np.asarray(crop.resize((size, size), Image.Resampling.LANCZOS), dtype=np.uint8)


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
    return np.asarray(offset @ np.stack([x, y], axis=1) * (size / (x @ x)), dtype=np.float32)


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
    return [_main_face(image) for image in images]


def _main_face(image: NDArray[np.uint8]) -> Array | None:
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(1.0, DETECTION_PIXELS / max(height, width))
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture = picture.resize((max(round(width * scale), 1), max(round(height * scale), 1)))
    shorter = min(picture.size)
    if shorter < 24:
        return None
    smallest = max(20, int(SMALLEST_FACE * shorter))
    boxes, probabilities, landmarks = find_faces(np.asarray(picture), smallest=smallest)
    corners = boxes.astype(np.float64)  # (F, 4)
    sizes = np.sqrt(np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1))
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    away = np.hypot(*(middles - np.array(picture.size) / 2).T)
    score = np.where(probabilities < LEAST_PROBABILITY, -np.inf, sizes - 0.5 * away)
    if not np.isfinite(score).any():
        return None
    back = np.array([width / picture.size[0], height / picture.size[1]], dtype=np.float32)
    found: Array = landmarks[int(score.argmax())] * back
    return found
