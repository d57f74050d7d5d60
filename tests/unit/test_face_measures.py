"""What a converted face keeps: pose against the truth of `mini`, contours against SciPy."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from tests.conftest import refuses
from tests.parity.test_face_distances import group
from xfavot.convert import Task
from xfavot.errors import DataError, ShapeError
from xfavot.evaluation.face_encoder import FaceEncoder, identity
from xfavot.evaluation.images import CONTOUR, FOUND, POSE, contour_f, edges, pose, preservation
from xfavot.evaluation.manifest import Output
from xfavot.image.align import detect
from xfavot.mini import draw
from xfavot.mini import people as people_mini
from xfavot.models.face_encoder import FEATURES, SIDE

pytest.importorskip("facenet_pytorch", reason="the detector's weights are not installed")


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
        wanted = 2 / (1 / near[1][a].mean() + 1 / near[0][b].mean())  # of precision and recall
        assert contour_f(a, b) == pytest.approx(wanted, abs=1e-12) == contour_f(b, a)
    nothing = a & False
    assert [contour_f(*pair) for pair in ((a, a), (a, nothing), (nothing, nothing))] == [1, 0, 1]
    square = np.zeros((64, 64, 3), np.uint8)
    square[16:48, 16:48] = 255
    line = edges(square)
    assert line[30, 14:18].any()
    assert not line[28:36, 28:36].any()


def rows_of(sources: torch.Tensor, outputs: torch.Tensor) -> dict[str, dict[str, Any]]:
    faces = group(pairs=lambda _: iter([(sources, outputs)]), directions={"": ""})
    return {row["metric"]: row for row in preservation(faces, seed=0)}


def test_another_person_in_the_same_pose_keeps_more_than_one_in_another() -> None:
    pairs = ((1, 2), (2, 1), (5, 6), (6, 5), (9, 10), (10, 9))  # people, and whose pose
    sources, outputs = ([drawn(n, 0) for _, n in pairs], [drawn(n, 0, of=m) for n, m in pairs])
    rows = rows_of(stack(*sources), stack(*outputs))
    assert rows[POSE]["value"] < 0.7 * rows[POSE]["chance"]
    assert rows[CONTOUR]["value"] > rows[CONTOUR]["chance"]
    assert rows[CONTOUR]["ci_low"] <= rows[CONTOUR]["value"] <= rows[CONTOUR]["ci_high"]
    assert rows[FOUND]["n"] == 6
    assert rows[FOUND]["value"] >= 5 / 6


def test_pictures_without_faces_have_no_pose() -> None:
    noise = torch.randint(0, 255, (3, 3, 64, 64), dtype=torch.uint8)
    rows = rows_of(noise, noise)
    assert POSE not in rows
    assert (rows[FOUND]["value"], rows[CONTOUR]["value"]) == (0.0, 1.0)
    assert preservation(group(), seed=0) == [], "real faces have no source"


def test_directions_are_averaged() -> None:
    faces = stack(*(cv2.resize(drawn(n, 0), (64, 64)) for n in (1, 2)))
    rows = preservation(group(pairs=lambda _: iter([(faces, faces)])), seed=0)
    found = {(row["metric"], row["direction"]): row for row in rows}
    for way in ("female to male", "male to female", "mean"):
        values = [found[name, way]["value"] for name in (POSE, CONTOUR, FOUND)]
        assert values == [0, 1, 1]
        assert found[CONTOUR, way]["chance"] < 0.9
    assert found[CONTOUR, "mean"]["n"] == 4


ENCODER = FaceEncoder()


def patterns() -> torch.Tensor:
    k, c = np.ogrid[:4, :3]
    (k, c), (y, x) = (one[:, :, None, None] for one in (k, c)), np.mgrid[:SIDE, :SIDE] / SIDE
    pictures = np.sin(6 * x * (k + 1) + c) + np.cos(5 * y * (k + 2) - c * k)
    return torch.from_numpy((127.5 + 60 * pictures).round()).float() / 127.5 - 1


def test_vectors_are_those_of_dlibs_own_program() -> None:
    """The first numbers of unit vectors by dlib 20.0.1 with its own file, on the same pictures."""
    vectors = ENCODER.of_crops(patterns())
    assert vectors.shape == (4, FEATURES)
    theirs = [
        [-0.0565, 0.0718, 0.0175, -0.0568, -0.0845, -0.0364, -0.0400, -0.0683],
        [-0.0884, 0.0784, 0.0186, -0.0332, -0.0037, -0.0793, -0.0357, -0.0613],
        [-0.0686, 0.1103, 0.0301, -0.0181, -0.0207, -0.0431, -0.0645, -0.0495],
        [-0.0395, 0.0749, 0.0461, 0.0184, -0.0672, -0.0404, 0.0017, -0.0560],
    ]
    np.testing.assert_allclose(vectors[:, :8].numpy(), theirs, atol=0.008)
    own = (vectors @ vectors.T)[*np.triu_indices(4, 1)]
    np.testing.assert_allclose(own, [0.9036, 0.9346, 0.9177, 0.9622, 0.9374, 0.9398], atol=0.003)


def test_a_face_is_cut_and_gradients_reach_it() -> None:
    rim = torch.full((1, 3, 200, 200), 0.5)
    plain = torch.zeros(1, 3, 200, 200)
    rim[:, :, 52:190, 31:169] = 0.0  # dlib's crop; what lies outside it does not count
    torch.testing.assert_close(ENCODER(rim), ENCODER(plain))
    face = patterns()[:1].requires_grad_()
    ENCODER(face)[0, 0].backward()
    assert face.grad is not None
    assert bool(face.grad.abs().sum() > 0)
    assert not list(ENCODER.parameters())
    assert ENCODER(torch.zeros(0, 3, 64, 64)).shape == (0, FEATURES)
    for shape in ((2, 1, 64, 64), (2, 3, 64, 48), (3, 64, 64)):
        refuses(ShapeError, "faces", ENCODER, torch.zeros(shape))


def test_identity_of_outputs_is_held_against_reference_and_source() -> None:
    vectors = {"source": [1.0, 0.0], "reference": [0.0, 1.0], "near": [0.6, 0.8], "far": [0.8, 0.6]}

    def read(file: Path) -> np.ndarray:
        if file.name not in vectors:
            raise DataError(f"{file}: no face was found in it")
        return np.array(vectors[file.name])

    known: dict[str, Any] = {"source": Path("source"), "reference": Path("reference")}
    made = (("near", Task.I2I), ("far", Task.I2I), ("odd", Task.I2I), ("near", Task.A2I))
    outputs = [Output(task=task, output=Path(x), speaker=x, **known) for x, task in made]
    faces = group(make=lambda: outputs, directions={"": ""})
    faces.__dict__["failures"] = {}
    encoder: Any = Mock(read=read)
    rows = identity(faces, encoder, seed=0)
    found = {one["metric"]: (one["value"], one["n"]) for one in rows if "value" in one}
    assert found["face_similarity"] == (pytest.approx(0.7), 2)
    assert found["face_similarity_to_source"] == (pytest.approx(2.0 / 3), 3)
    assert found["face_nearer_reference"] == (0.5, 2)
    (missing,) = [one for one in rows if "reason" in one]
    assert "no face was found" in missing["reason"]


def test_identity_of_a_checkpoints_faces() -> None:
    """Outputs that are their references; the next picture is the source."""
    faces = ((patterns() + 1) * 127.5).round().to(torch.uint8)
    block = faces[1:], faces[:-1], faces[:-1]
    made = group(pairs=lambda _: iter([block]), directions={"": ""})
    rows = identity(made, ENCODER, seed=0)
    found = {one["metric"]: one for one in rows}
    assert found["face_similarity"]["value"] == pytest.approx(1.0, abs=1e-5)
    assert found["face_nearer_reference"]["value"] == 1.0
    vectors = ENCODER(patterns())
    expected = float((vectors[1:] * vectors[:-1]).sum(1).mean())
    assert found["face_similarity_to_source"]["value"] == pytest.approx(expected, abs=1e-3)
    assert found["face_similarity"]["n"] == 3
