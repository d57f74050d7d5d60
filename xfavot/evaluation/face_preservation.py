"""Does a converted face keep the pose and the contours of its source?

It should (paper, Fig. 1). Pose from five landmarks (MTCNN), since the pictures differ in everything
else: where the nose lies between the eyes and the mouth. Contours as the boundary F-measure (Martin
et al. 2004) of Canny's edges. Beside both stands what the outputs reach against the source of
another output: a measure that does not leave that figure behind has seen nothing but that both are
faces. Detector, edges and tolerance are this project's (A77); the paper measures neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfavot.errors import ShapeError
from xfavot.evaluation.resampled_people import ratio_interval
from xfavot.image.align import detect

POSE, CONTOUR, FOUND = METRICS = ("pose_error", "contour_f", "face_found")
DEFINITIONS = {
    POSE: "mean difference of yaw and pitch of output and source, by five landmarks (MTCNN), in "
    "distances of the eyes and of eyes to mouth; chance: against another source",
    CONTOUR: "boundary F-measure of Canny's edges of output and source, within 0.8 % of the "
    "diagonal; chance: against another source",
    FOUND: "share of outputs in which MTCNN finds a face",
}
LEAST_PIXELS = 128  # a side; smaller pictures are enlarged for the detector
CANNY, BLUR = (50.0, 150.0), 1.0  # thresholds on 8 bits; sigma in pixels at 128
TOLERANCE = 0.008  # of the diagonal, as in DAVIS (Perazzi et al. 2016)

Image = NDArray[np.uint8]
Array = NDArray[np.float64]


def require_detector() -> None:
    """Refuse to begin without the detector.

    Raises:
        DataError: its weights are not installed.
    """
    detect([np.zeros((LEAST_PIXELS, LEAST_PIXELS, 3), np.uint8)])


def pose(landmarks: NDArray[np.floating[Any]]) -> Array:
    """Estimate yaw and pitch of a face.

    Args:
        landmarks: (5, 2) left eye, right eye, nose, corners of the mouth, in pixels.

    Returns:
        (2,) how far the nose lies beside the line from eyes to mouth, in distances of the eyes, and
        how far down it, 0 at the eyes and 1 at the mouth. No degrees: they follow the angles and
        are alike for all faces only roughly.
    """
    points = landmarks.astype(np.float64)
    eyes, nose, mouth = points[:2].mean(0), points[2], points[3:].mean(0)
    wide, down = points[1] - points[0], mouth - eyes
    across = np.array([down[1], -down[0]]) / max(float(np.hypot(*down)), 1e-6)
    aside = (nose - eyes) @ across / max(float(np.hypot(*wide)), 1e-6)
    return np.array([aside, (nose - eyes) @ down / max(float(down @ down), 1e-6)])


def edges(image: Image) -> NDArray[np.bool_]:
    """Find the edges of a picture (H, W, 3): (H, W), by Canny after a Gaussian."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    sigma = BLUR * max(grey.shape) / LEAST_PIXELS
    smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
    return np.asarray(cv2.Canny(smooth, *CANNY, L2gradient=True) > 0)


def contour_f(output: NDArray[np.bool_], source: NDArray[np.bool_]) -> float:
    """Boundary F-measure of two edge maps.

    Args:
        output, source: (H, W).

    Returns:
        2 P R / (P + R): P the share of the output's edges that lie near one of the source's, R the
        share of the source's near one of the output's; 1 if neither has any, 0 if one has none.

    Raises:
        ShapeError: they differ in size.
    """
    if output.shape != source.shape:
        raise ShapeError(
            f"contour_f: edges of {output.shape} and {source.shape}; expected one size; bring both "
            "pictures to it first"
        )
    if not (output.any() and source.any()):
        return float(output.any() == source.any())
    reach = int(np.ceil(TOLERANCE * np.hypot(*output.shape)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (x**2 + y**2 <= reach**2).astype(np.uint8)
    near_source, near_output = (
        cv2.dilate(one.astype(np.uint8), disc) > 0 for one in (source, output)
    )
    precision, recall = near_source[output].mean(), near_output[source].mean()
    return float(2 * precision * recall / max(precision + recall, 1e-12))


@dataclass(slots=True, eq=False)
class Kept:
    """What outputs keep of their sources, block by block; pictures are forgotten."""

    found: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: {POSE: [], CONTOUR: []})
    chances: dict[str, list[float]] = field(default_factory=lambda: {POSE: [], CONTOUR: []})

    def add(self, sources: Tensor, outputs: Tensor) -> None:
        """Compare each output with its source, and with that of the next one in the block.

        Args:
            sources: (n, 3, H, W) uint8.
            outputs: (n, 3, H, W) uint8, one of each.

        Raises:
            ShapeError: they differ in shape.
            DataError: the detector is not installed.
        """
        if sources.shape != outputs.shape:
            raise ShapeError(
                f"preservation: sources are {tuple(sources.shape)}, outputs "
                f"{tuple(outputs.shape)}; expected one output of the same size for each"
            )
        before, after = _pictures(sources), _pictures(outputs)
        first, second = _poses(before), _poses(after)
        self.found += [float(one is not None) for one in second]
        lines = [[edges(image) for image in images] for images in (before, after)]
        for n, line in enumerate(lines[1]):
            for shift, into in ((0, self.values), (1, self.chances)):
                other = (n + shift) % len(before)
                if shift and other == n:
                    continue
                into[CONTOUR].append(contour_f(line, lines[0][other]))
                own, told = second[n], first[other]
                if own is not None and told is not None:
                    into[POSE].append(float(np.abs(own - told).mean()))

    def rows(self, *, seed: int) -> Iterator[dict[str, Any]]:
        """Give metric, value, interval over outputs, n, chance and definition; what has none, not.

        Args:
            seed: of the bootstrap.
        """
        samples = {**self.values, FOUND: self.found}
        for metric, values in samples.items():
            if not values:
                continue
            low, high = ratio_interval(
                values, [1.0] * len(values), list(map(str, range(len(values)))), seed=seed
            )
            others = self.chances.get(metric)
            yield {
                "metric": metric, "value": float(np.mean(values)), "ci_low": low, "ci_high": high,
                "n": len(values), "chance": float(np.mean(others)) if others else None,
                "definition": DEFINITIONS[metric],
            }  # fmt: skip


def _pictures(x: Tensor) -> list[Image]:
    return [np.ascontiguousarray(one) for one in x.permute(0, 2, 3, 1).numpy()]


def _poses(images: Sequence[Image]) -> list[Array | None]:
    """Pose of each picture; small ones are enlarged, which changes no proportion."""
    scale = max(1.0, LEAST_PIXELS / max(min(images[0].shape[:2]), 1)) if images else 1.0
    larger = [
        cv2.resize(one, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        for one in images
    ]
    return [None if one is None else pose(one) for one in detect(larger)]
