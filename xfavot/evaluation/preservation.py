"""Does a converted face keep the pose and the contours of its source? This project's own measures.

Both are held against chance: the same output and another source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfavot.evaluation.manifest import Faces
from xfavot.evaluation.rows import Row, ratio, with_means
from xfavot.image.align import detect

POSE, CONTOUR, FOUND = METRICS = ("pose_error", "contour_f", "face_found")
FACE_DEFINITIONS = {
    POSE: "mean difference of yaw and pitch of output and source, by five landmarks (MTCNN), in "
    "distances of the eyes and of eyes to mouth; chance: against another source",
    CONTOUR: "boundary F-measure of Canny's edges of output and source, within 0.8 % of the "
    "diagonal; chance: against another source",
    FOUND: "share of outputs in which MTCNN finds a face",
}
LEAST_PIXELS = 128  # a side; smaller pictures are enlarged for the detector
CANNY, BLUR = (50.0, 150.0), 1.0  # thresholds on 8 bits; sigma in pixels at 128
TOLERANCE = 0.008  # of the diagonal, as in DAVIS (Perazzi et al. 2016)

Picture = NDArray[np.uint8]
Array = NDArray[np.float64]


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


def edges(image: Picture) -> NDArray[np.bool_]:
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
    """
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


def poses(images: Sequence[Picture]) -> list[Array | None]:
    """Pose of each picture; small ones are enlarged, which changes no proportion.

    Raises:
        DataError: the detector is not installed.
    """
    scale = max(1.0, LEAST_PIXELS / max(min(images[0].shape[:2]), 1)) if images else 1.0
    larger = [
        cv2.resize(one, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        for one in images
    ]
    return [None if one is None else pose(one) for one in detect(larger)]


def preservation(faces: Faces, *, seed: int) -> list[Row]:
    """Measure what outputs keep of their sources; by chance, of the next source in the block.

    Args:
        faces: the group; without pairs of source and output it has no rows.
        seed: of the bootstrap over outputs.

    Raises:
        DataError: the detector is not installed.
    """
    rows: dict[str, list[Row]] = {metric: [] for metric in METRICS}
    for direction, sex in faces.directions.items() if faces.pairs else ():
        assert faces.pairs is not None
        values, chances = kept(faces.pairs(direction))
        for metric in METRICS:
            if not values[metric]:
                continue
            samples = [(value, 1.0, str(n)) for n, value in enumerate(values[metric])]
            row: Row = {"metric": metric, "definition": FACE_DEFINITIONS[metric]}
            row |= {"direction": direction, "sex": sex, **ratio(samples, seed=seed)}
            row["chance"] = float(np.mean(chances[metric])) if chances[metric] else None
            rows[metric].append({**faces.names, **row})
    return with_means(rows)


def kept(
    blocks: Iterator[tuple[Tensor, Tensor]],
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Compare each output with its source, and with that of the next one in its block.

    Args:
        blocks: sources and outputs (n, 3, H, W) uint8, one output of each.

    Returns:
        Values of each metric, and those by chance.
    """
    values: dict[str, list[float]] = {metric: [] for metric in METRICS}
    chances: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for block in blocks:
        before, after = (
            [np.ascontiguousarray(one) for one in x.permute(0, 2, 3, 1).numpy()] for x in block
        )
        first, second = poses(before), poses(after)
        drawn, lines = ([edges(image) for image in images] for images in (before, after))
        values[FOUND] += [float(one is not None) for one in second]
        for n, own in enumerate(second):
            for other, into in ((n, values), ((n + 1) % len(before), chances)):
                if into is chances and other == n:
                    continue
                into[CONTOUR].append(contour_f(lines[n], drawn[other]))
                theirs = first[other]
                if own is not None and theirs is not None:
                    into[POSE].append(float(np.abs(own - theirs).mean()))
    return values, chances
