"""Does a converted face show the person of its reference? As dlib's network sees it.

The network hardly sees how good a picture is, and drawn faces less well than real ones. A measure
of research: nobody is to be identified by it.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.convert.converter import ALIGNED_PIXELS, read_face
from xfavot.evaluation.images import Compared, preservation
from xfavot.evaluation.manifest import Faces, Output
from xfavot.evaluation.rows import DEFINITIONS, Row
from xfavot.image.io import to_float
from xfavot.models import face_encoder

NAME = face_encoder.NAME
Vector = NDArray[np.float64]


class FaceEncoder(face_encoder.FaceEncoder):
    """The network, which knows the files that it has read."""

    def __init__(self) -> None:
        """Read the weights."""
        super().__init__()
        self.known: dict[Path, Vector] = {}

    @torch.no_grad()
    def read(self, file: Path) -> Vector:
        """Find the face in a picture and encode it: (128,), of length 1.

        Raises:
            DataError: it is no picture, or has no face.
        """
        if file not in self.known:
            face = read_face(file, name=str(file), size=ALIGNED_PIXELS, aligned=False)
            pixels = torch.from_numpy(face).permute(2, 0, 1)[None]
            self.known[file] = self(to_float(pixels))[0].double().numpy()
        return self.known[file]


NEAR, SOURCE, NEARER = "face_similarity", "face_similarity_to_source", "face_nearer_reference"


def identity(group: Faces, encoder: FaceEncoder, *, seed: int) -> list[Row]:
    """Measure whom converted faces show; the reference counts where it is a face.

    Args:
        group: outputs in files, in whose pictures the face is looked for, or of a checkpoint.
        encoder: the network.
        seed: of the bootstrap, over people where they are known, else over outputs.
    """

    def measure(one: Output) -> dict[str, tuple[float, float]]:
        files = (one.output, one.source, one.task.guidance == "face" and one.reference)
        compared = _compared(*(encoder.read(file) for file in files if file))
        return {metric: (value, 1.0) for metric, _, value in compared}

    @torch.no_grad()
    def compare(source: Tensor, made: Tensor, *shown: Tensor) -> Compared:
        vectors = [encoder(to_float(x)).double().numpy() for x in (made, source, *shown)]
        return chain.from_iterable(map(_compared, *vectors))

    if not group.outputs:
        return preservation(group, seed=seed, compare=compare, family="face_identity")
    return group.measured(NEAR, measure, DEFINITIONS["face_identity"].__getitem__, seed=seed)


def _compared(made: Vector, source: Vector, shown: Vector | None = None) -> Compared:
    """Yield metrics and values of unit vectors (128,): output, source and reference."""
    yield SOURCE, False, float(made @ source)
    if shown is not None:
        yield NEAR, False, float(made @ shown)
        yield NEARER, False, float(made @ shown > made @ source)
