"""Face against voice by a checkpoint's own styles: is this face the speaker of this voice?

Real held-out samples, nothing is converted: the cosine of E_I's and E_A's styles is what L_xm
(paper, Eq. 4) trains. Each encoder reads under the head of the sample's sex, so all pairs can be
told apart by the choice of the head; pairs of one sex cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from xfavot.convert.converter import Converter
from xfavot.data.manifest import Store
from xfavot.evaluation.held_out import SPLITS
from xfavot.evaluation.style_space import style_space
from xfavot.evaluation.verification import cross_modal_rows

TASK = "verification"
PER_SPEAKER = 20  # faces, and as many voices, of everybody at most
DEFINITION = (
    "real faces against real voices, cosine of their styles under the heads of their own sex, up "
    f"to {PER_SPEAKER} of either a person; galleries hold everybody's mean"
)


def score(
    converter: Converter,
    stores: Sequence[Store],
    speakers: str,
    *,
    system: str,
    dataset: str,
    seed: int,
) -> list[dict[str, Any]]:
    """Measure verification and retrieval between faces and voices.

    Args:
        converter: the checkpoint.
        stores: the mixture.
        speakers: "seen" or "unseen", whose samples.
        system, dataset: for the rows.
        seed: of the draws.

    Returns:
        Rows of :func:`xfavot.evaluation.verification.cross_modal_rows`, with their names.

    Raises:
        DataError: nobody has faces and voices there, or not both sexes do.
        ConfigError: the model has no faces or no voices.
    """
    space = style_space(
        converter, stores, split=SPLITS[speakers], per_speaker=PER_SPEAKER, seed=seed
    )
    vectors = torch.from_numpy(space.styles)
    faces, voices = (
        [space.speakers[code] for code in space.speaker[space.kind == kind]] for kind in (0, 1)
    )
    rows = cross_modal_rows(
        vectors[torch.from_numpy(space.kind == 0)], vectors[torch.from_numpy(space.kind == 1)],
        faces, voices, dict(zip(space.speakers, space.genders, strict=True)), seed=seed,
    )  # fmt: skip
    names = {"system": system, "task": TASK, "dataset": dataset, "definition": DEFINITION}
    return [{**row, **names} for row in rows]
