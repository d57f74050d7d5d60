"""What a converted face keeps: pose against the truth of `mini`, contours against SciPy."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

pytest.importorskip("facenet_pytorch", reason="the detector's weights are not installed")

from tests.parity.test_fid import group
from xfavot.evaluation.images import CONTOUR, FOUND, POSE, contour_f, edges, pose, preservation
from xfavot.image.align import detect
from xfavot.mini import draw
from xfavot.mini import people as people_mini


@cache
def drawn(person: int, face: int, *, of: int | None = None) -> NDArray[np.uint8]:
    """A person in the pose and light of a face; `of` names whose."""
    nuisance = people_mini.nuisance(5, of or person, 0, face)
    return draw.draw_face(people_mini.person(person, seed=5), nuisance)[0]


def stack(*images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def test_landmarks_tell_the_pose_of_drawn_faces() -> None:
    truth, found = [], []
    for number, face in product(range(1, 7), range(3)):
        nuisance = people_mini.nuisance(5, number, 0, face)
        (landmarks,) = detect([drawn(number, face)])
        if landmarks is not None:
            truth.append((nuisance.yaw, nuisance.pitch))
            found.append(pose(landmarks))
    assert len(found) >= 16
    yaw, pitch = (abs(np.corrcoef(*one)[0, 1]) for one in np.stack([truth, found]).T.swapaxes(1, 2))
    assert yaw > 0.9
    assert pitch > 0.4


def test_pose_of_a_turned_picture_is_the_same() -> None:
    face = np.array([[40, 50], [80, 50], [65, 70], [45, 95], [77, 95]], dtype=np.float32)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    aside, down = pose(face)
    np.testing.assert_allclose(pose(face @ turn.T * 3 + 7), (aside, down), atol=1e-6)
    assert aside > 0.05, "the nose lies to the right"
    assert 0.4 < down < 0.5
    mirrored = (face * [-1, 1])[[1, 0, 2, 4, 3]]
    np.testing.assert_allclose(pose(mirrored), (-aside, down), atol=1e-6)


def test_contours_agree_as_by_distances_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for size in (64, 128):
        a, b = (ndimage.binary_dilation(rng.random((size, size)) < 0.01) for _ in range(2))
        reach = np.ceil(0.008 * size * 2**0.5)
        near = [ndimage.distance_transform_edt(~one) <= reach for one in (a, b)]
        precision, recall = near[1][a].mean(), near[0][b].mean()
        wanted = 2 * precision * recall / (precision + recall)
        assert contour_f(a, b) == pytest.approx(wanted, abs=1e-12) == contour_f(b, a)
    assert contour_f(a, a) == 1
    assert contour_f(a, a & False) == 0
    assert contour_f(a & False, a & False) == 1
    square = np.zeros((64, 64, 3), np.uint8)
    square[16:48, 16:48] = 255
    line = edges(square)
    assert line[30, 14:18].any()
    assert not line[28:36, 28:36].any()


def rows_of(sources: torch.Tensor, outputs: torch.Tensor) -> dict[str, dict[str, Any]]:
    faces = group(pairs=lambda _: iter([(sources, outputs)]), directions={"": ""})
    return {row["metric"]: row for row in preservation(faces, seed=0)}


def test_another_person_in_the_same_pose_keeps_more_than_one_in_another() -> None:
    people, poses = (1, 2, 5, 6, 9, 10), (2, 1, 6, 5, 10, 9)
    rows = rows_of(
        stack(*(drawn(n, 0) for n in poses)),
        stack(*(drawn(n, 0, of=m) for n, m in zip(people, poses, strict=True))),
    )
    assert rows[POSE]["value"] < 0.7 * rows[POSE]["chance"]
    assert rows[CONTOUR]["value"] > rows[CONTOUR]["chance"]
    assert rows[CONTOUR]["ci_low"] <= rows[CONTOUR]["value"] <= rows[CONTOUR]["ci_high"]
    assert rows[FOUND]["n"] == 6
    assert rows[FOUND]["value"] >= 5 / 6
    x = stack(*(cv2.resize(drawn(n, 0), (64, 64), interpolation=cv2.INTER_AREA) for n in people))
    found = {name: row["value"] for name, row in rows_of(x, x).items()}
    assert found == {POSE: 0, CONTOUR: 1, FOUND: 1}


def test_pictures_without_faces_have_no_pose() -> None:
    noise = torch.randint(0, 255, (3, 3, 64, 64), dtype=torch.uint8)
    rows = rows_of(noise, noise)
    assert POSE not in rows
    assert (rows[FOUND]["value"], rows[CONTOUR]["value"]) == (0.0, 1.0)
    assert preservation(group(), seed=0) == [], "real faces have no source"


def test_directions_are_averaged() -> None:
    faces = stack(*(drawn(n, 0) for n in (1, 2)))
    rows = preservation(group(pairs=lambda _: iter([(faces, faces)])), seed=0)
    found = {(row["metric"], row["direction"]): row for row in rows}
    for way in ("female to male", "male to female", "mean"):
        assert (found[POSE, way]["value"], found[CONTOUR, way]["value"]) == (0.0, 1.0)
        assert found[CONTOUR, way]["chance"] < 0.9
    assert found[CONTOUR, "mean"]["n"] == 4
