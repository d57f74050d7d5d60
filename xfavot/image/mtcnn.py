"""MTCNN (Zhang et al. 2016): three small networks that find faces and five landmarks in a picture.

The weights, thresholds and the pyramid's factor are those of facenet-pytorch 2.6, whose wheel
carries the weights, and its landmarks are reproduced (a test compares them). The package itself is
not imported: it pulls in torchvision, and with it torch's compiler, which nothing here needs and
which every worker of a preparation would have to hold.

P-Net slides over a pyramid of the picture and proposes boxes, R-Net sorts them out, O-Net sorts
again and places the landmarks. Boxes are x and y of the top left, then of the bottom right corner,
in pixels.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot.errors import DataError

PNET_PIXELS, PNET_STRIDE = 12, 2  # what P-Net sees at once, and the step to its next place
RNET_PIXELS, ONET_PIXELS = 24, 48
PYRAMID_FACTOR = 0.709  # about half the area from level to level
LEAST_PROBABILITIES = (0.6, 0.7, 0.7)  # of P-Net, R-Net, O-Net
LEVEL_OVERLAP, MOST_OVERLAP = 0.5, 0.7  # of boxes of one level, of any; more is the same face
CROPS_AT_ONCE = 128  # bounds the memory on a cluttered picture

Array = NDArray[np.float32]


class Faces(NamedTuple):
    """What was found: boxes (F, 4), probabilities (F,) and landmarks (F, 5, 2), in pixels."""

    boxes: Array
    probabilities: Array
    landmarks: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class _Network:
    """One of the three: its weights by name, and how they hang together.

    `pools` holds kernel and stride of the pooling after each convolution, 0 for none; `heads` give
    the two logits of "a face", the corrections of the box and, O-Net's, the landmarks.
    """

    weights: dict[str, Tensor]
    pools: tuple[tuple[int, int], ...]
    dense: str
    heads: tuple[str, ...]

    def hidden(self, x: Tensor) -> Tensor:
        """Apply the convolutions: (B, 3, H, W) to (B, C, H', W')."""
        for number, (kernel, stride) in enumerate(self.pools, start=1):
            x = functional.conv2d(x, *self._pair(f"conv{number}"))
            x = functional.prelu(x, self.weights[f"prelu{number}.weight"])
            if kernel:
                x = functional.max_pool2d(x, kernel, stride, ceil_mode=True)
        return x

    def slide(self, x: Tensor) -> list[Tensor]:
        """Apply P-Net: (1, 3, H, W) to its heads' (1, C, H', W')."""
        x = self.hidden(x)
        return [functional.conv2d(x, *self._pair(head)) for head in self.heads]

    def judge(self, crops: Tensor) -> list[Array]:
        """Apply R-Net or O-Net: (B, 3, S, S) to each head's (B, C)."""
        parts = []
        for batch in torch.split(crops, CROPS_AT_ONCE):
            x = self.hidden(batch).permute(0, 3, 2, 1).flatten(1)  # the weights count columns first
            x = functional.linear(x, *self._pair(f"dense{self.dense}"))
            x = functional.prelu(x, self.weights[f"prelu{self.dense}.weight"])
            parts.append([functional.linear(x, *self._pair(head)) for head in self.heads])
        return [torch.cat(part).numpy() for part in zip(*parts, strict=True)]

    def _pair(self, layer: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{layer}.weight"], self.weights[f"{layer}.bias"]


@torch.inference_mode()
def find_faces(image: NDArray[np.uint8], *, smallest: int) -> Faces:
    """Find every face of a picture.

    Args:
        image: (H, W, 3) uint8.
        smallest: pixels a side of the smallest face that is looked for.

    Returns:
        The faces, best first. Landmarks are left eye, right eye, nose, left and right corner of
        the mouth as the picture shows them.

    Raises:
        DataError: facenet-pytorch, whose wheel carries the weights, is not installed.
    """
    pnet, rnet, onet = _networks()
    pixels = torch.from_numpy(np.array(image))[None].permute(0, 3, 1, 2).float()  # (1, 3, H, W)
    boxes, crops = _cut(pixels, _proposed(pnet, pixels, smallest), RNET_PIXELS)
    if not len(boxes):
        return _no_faces()
    logits, offsets = rnet.judge(crops)
    kept, score = _likely(logits, LEAST_PROBABILITIES[1])
    boxes, offsets = boxes[kept], offsets[kept]
    kept = _distinct(boxes, score, MOST_OVERLAP)
    boxes, crops = _cut(pixels, _square(_moved(boxes[kept], offsets[kept], rim=1)), ONET_PIXELS)
    if not len(boxes):
        return _no_faces()
    logits, offsets, places = onet.judge(crops)
    kept, score = _likely(logits, LEAST_PROBABILITIES[2])
    boxes, offsets, places = boxes[kept], offsets[kept], places[kept]
    sides = boxes[:, None, 2:] - boxes[:, None, :2] + 1
    points = sides * places.reshape(-1, 2, 5).swapaxes(1, 2) + boxes[:, None, :2] - 1  # (F, 5, 2)
    boxes = _moved(boxes, offsets, rim=1)
    kept = _distinct(boxes, score, MOST_OVERLAP, rim=1, of_smaller=True)
    return Faces(boxes[kept], score[kept], points[kept])


def _proposed(pnet: _Network, pixels: Tensor, smallest: int) -> Array:
    """Boxes (B, 4) that P-Net proposes over the pyramid."""
    height, width = pixels.shape[2:]
    found = [np.zeros((0, 9), np.float32)]  # corners, probability, corrections
    scale = PNET_PIXELS / smallest
    while min(height, width) * scale >= PNET_PIXELS:
        level = _resized(pixels, (int(height * scale + 1), int(width * scale + 1)))
        logits, offsets = pnet.slide(level)
        chance = logits.softmax(dim=1)[0, 1].numpy()  # (H', W')
        rows, columns = np.nonzero(chance >= np.float32(LEAST_PROBABILITIES[0]))
        near = PNET_STRIDE * np.stack([columns, rows], axis=1).astype(np.float32) + 1
        parts = [
            np.floor(near / np.float32(scale)),
            np.floor((near + (PNET_PIXELS - 1)) / np.float32(scale)),
            chance[rows, columns, None],
            offsets[0].numpy()[:, rows, columns].T,
        ]
        boxes = np.concatenate(parts, axis=1)
        found.append(boxes[_distinct(boxes[:, :4], boxes[:, 4], LEVEL_OVERLAP)])
        scale *= PYRAMID_FACTOR
    boxes = np.concatenate(found)
    boxes = boxes[_distinct(boxes[:, :4], boxes[:, 4], MOST_OVERLAP)]
    return _square(_moved(boxes[:, :4], boxes[:, 5:]))


def _likely(logits: Array, least: float) -> tuple[NDArray[np.intp], Array]:
    """Rows whose probability of a face passes `least`, and these probabilities."""
    chance = torch.from_numpy(logits).softmax(dim=1)[:, 1].numpy()
    rows = np.flatnonzero(chance > np.float32(least))
    return rows, chance[rows]


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


def _cut(pixels: Tensor, boxes: Array, size: int) -> tuple[Array, Tensor]:
    """Boxes that touch the picture, and what lies in them, (B, 3, size, size)."""
    height, width = pixels.shape[2:]
    whole = boxes.astype(np.int64)
    near, far = np.maximum(whole[:, :2] - 1, 0), np.minimum(whole[:, 2:], (width, height))
    inside = (far > near).all(axis=1)
    crops = [
        _resized(pixels[0, :, top:bottom, left:right][None], (size, size))
        for (left, top), (right, bottom) in zip(near[inside], far[inside], strict=True)
    ]
    return boxes[inside], torch.cat(crops) if crops else pixels.new_zeros((0, 3, size, size))


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
    left = np.argsort(-score, kind="stable")
    if of_smaller:  # among equals as facenet-pytorch chooses at the end
        left = np.argsort(score)[::-1]
    chosen = []
    while len(left):
        best, left = left[0], left[1:]
        chosen.append(best)
        sides = np.minimum(far[best], far[left]) - np.maximum(near[best], near[left]) + rim
        shared = np.maximum(sides, 0).prod(axis=1)
        if of_smaller:
            whole = np.minimum(areas[best], areas[left])
        else:
            whole = areas[best] + areas[left] - shared
        left = left[~(shared / whole > np.float32(most))]
    return np.array(chosen, dtype=np.intp)


def _no_faces() -> Faces:
    boxes, points = np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32)
    return Faces(boxes, np.zeros(0, np.float32), points)


@lru_cache(maxsize=1)
def _networks() -> tuple[_Network, _Network, _Network]:
    """Load P-Net, R-Net and O-Net."""
    package = importlib.util.find_spec("facenet_pytorch")
    if package is None or package.origin is None:
        raise DataError(
            "face detection needs the weights in facenet-pytorch, which is not installed; run: "
            'pip install "xfavot[data]" and pip install --no-deps facenet-pytorch==2.6.0, or give '
            "aligned images"
        )
    folder = Path(package.origin).parent / "data"
    loaded = []
    for name in ("pnet", "rnet", "onet"):
        saved = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
        # saved transposed, used in order: as facenet-pytorch does, so that results equal its
        loaded.append({layer: weight.contiguous() for layer, weight in saved.items()})
    pnet, rnet, onet = loaded
    strided = ((3, 2), (3, 2))
    return (
        _Network(
            weights=pnet, pools=((2, 2), (0, 0), (0, 0)), dense="", heads=("conv4_1", "conv4_2")
        ),
        _Network(weights=rnet, pools=(*strided, (0, 0)), dense="4", heads=("dense5_1", "dense5_2")),
        _Network(
            weights=onet,
            pools=(*strided, (2, 2), (0, 0)),
            dense="5",
            heads=("dense6_1", "dense6_2", "dense6_3"),
        ),
    )
