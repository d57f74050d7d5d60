"""dlib's face network: the port, its crop, its gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xfavot.convert import Task
from xfavot.errors import DataError, ShapeError
from xfavot.evaluation.face_encoder import FEATURES, SIDE, FaceEncoder, identity
from xfavot.evaluation.manifest import Faces, Output, names_of

ENCODER = FaceEncoder()


def patterns() -> torch.Tensor:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    pictures = [
        [np.sin(6 * x * (k + 1) + c) + np.cos(5 * y * (k + 2) - c * k) for c in range(3)]
        for k in range(4)
    ]
    return torch.from_numpy((127.5 + 60 * np.array(pictures)).round()).float() / 127.5 - 1


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


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (2, 3, 64, 48), (3, 64, 64)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="faces"):
        ENCODER(torch.zeros(shape))


def test_identity_of_outputs_is_held_against_reference_and_source() -> None:
    vectors = {"source": [1.0, 0.0], "reference": [0.0, 1.0], "near": [0.6, 0.8], "far": [0.8, 0.6]}

    class Known(FaceEncoder):
        def read(self, file: Path) -> np.ndarray:
            if file.name not in vectors:
                raise DataError(f"{file}: no face was found in it")
            return np.array(vectors[file.name])

    def row(output: str, task: Task = Task.I2I) -> Output:
        source, reference = Path("source"), Path("reference")
        return Output(
            task=task,
            source=source,
            reference=reference,
            output=Path(output),
            model="ours",
            speaker=output,
        )

    outputs = [row("near"), row("far"), row("odd"), row("near", Task.A2I)]
    group = in_memory(make=lambda: outputs)
    group.__dict__["failures"] = {}
    rows = identity(group, Known(), seed=0)
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
    rows = identity(in_memory(pairs=lambda _: iter([block])), ENCODER, seed=0)
    found = {one["metric"]: one for one in rows}
    assert found["face_similarity"]["value"] == pytest.approx(1.0, abs=1e-5)
    assert found["face_nearer_reference"]["value"] == 1.0
    vectors = ENCODER(patterns())
    expected = float((vectors[1:] * vectors[:-1]).sum(1).mean())
    assert found["face_similarity_to_source"]["value"] == pytest.approx(expected, abs=1e-3)
    assert found["face_similarity"]["n"] == 3


def in_memory(**settings: Any) -> Faces:
    names = names_of(Task.I2I, system="ours", dataset="x")
    nothing: Any = lambda _: iter(())  # noqa: E731
    return Faces(names=names, directions={"": ""}, blocks=nothing, real=nothing, **settings)
