"""What a conversion carries over, read by the judges: sex, identity, pose; and how outputs differ.

Each output of a grid of sources and references is compared with what it should show. Outputs whose
source and reference are one person are left out everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xfavot.evaluation.judges import Judges, read
from xfavot.evaluation.rows import AT_MOST, Row, row

GOAL_SEX = 0.95
GOAL_IDENTITY = {"voice": 0.50, "face": 0.40}
GOAL_POSE = 0.5  # of the difference between random faces
GOAL_DIVERSITY = 0.5  # of the difference between the references' own faces


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Samples in one role: x (n, ...) and codes (n,)."""

    x: Tensor
    speaker: Tensor
    gender: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Conversions of S sources, each led by R references.

    Args:
        task: "a2i" and so on.
        guidance: what gave the styles.
        output: "face" or "voice".
        x: (S, R, ...), faces or log10 mels.
        source, reference: who they are; ``reference.x`` holds real samples of the kind of the
            output, of the references' speakers.
        named: the style came from one person, not from a latent code and a sex alone.
        sought: the goals for identity and diversity apply.
    """

    task: str
    guidance: str
    output: str
    x: Tensor
    source: Side
    reference: Side
    named: bool
    sought: bool


def measures(grid: Grid, judges: Judges, *, pose: Tensor, random_pose: float) -> list[Row]:
    """Judge all outputs of a grid.

    Args:
        grid: the conversions.
        judges: of faces and voices, on the grid's device.
        pose: (S, 2) true pose of source faces; NaN where unknown; (S, 0) for voices.
        random_pose: mean difference of pose between random real faces, used where it is known.

    Returns:
        Rows for sex, identity, pose and diversity.
    """
    judge = judges.face if grid.output == "face" else judges.voice
    shape = grid.x.shape[:2]
    seen = read(judge, grid.x.flatten(0, 1))
    other = grid.source.speaker[:, None] != grid.reference.speaker[None]  # (S, R)
    crossed = grid.source.gender[:, None] != grid.reference.gender[None]
    right = seen.gender.argmax(1).view(shape) == grid.reference.gender[None]
    own = judges.accuracy[f"{grid.output}/gender"]
    rows = []
    for name, chosen in (("all", other), ("cross-sex", crossed), ("same-sex", other & ~crossed)):
        if bool(chosen.any()):
            value, n = float(right[chosen].float().mean()), int(chosen.sum())
            rows.append(
                row(grid.task, grid.guidance, f"sex of the reference, {name} pairs", value, n,
                    chance=0.5, judge=own, goal=GOAL_SEX)
            )  # fmt: skip
    if grid.named:
        right = seen.speaker.argmax(1).view(shape) == grid.reference.speaker[None]
        rows.append(
            row(grid.task, grid.guidance, "identity of the reference",
                float(right[other].float().mean()), int(other.sum()),
                chance=1 / seen.speaker.shape[1], judge=judges.accuracy[f"{grid.output}/speaker"],
                goal=GOAL_IDENTITY[grid.output] if grid.sought else None)
        )  # fmt: skip
    posed = other & pose.isfinite().all(1)[:, None] if pose.shape[1] else other & False
    if bool(posed.any()):
        error = (seen.pose.view(*shape, 2) - pose[:, None]).abs().mean(2)
        rows += _pose_rows(grid, error[posed], judges.accuracy["face/pose"], random_pose)
    features = seen.features.view(*shape, -1)
    return rows + _diversity_rows(grid, features, read(judge, grid.reference.x).features)


def _pose_rows(grid: Grid, error: Tensor, own: float, random_pose: float) -> list[Row]:
    value, n = float(error.mean()), len(error)
    return [
        row(grid.task, grid.guidance, "error of the source's pose", value, n,
            chance=random_pose, judge=own),
        row(grid.task, grid.guidance, "error of pose over that of random faces",
            value / random_pose, n, chance=1.0, judge=own / random_pose, goal=GOAL_POSE,
            sense=AT_MOST),
    ]  # fmt: skip


def _diversity_rows(grid: Grid, features: Tensor, reference_features: Tensor) -> list[Row]:
    """Differences between outputs of one source over those between real reference samples."""
    speaker, gender = grid.reference.speaker, grid.reference.gender
    apart = (speaker[:, None] != speaker[None]).triu(1)  # (R, R)
    within = apart & (gender[:, None] == gender[None])
    faces, goal = grid.output == "face", GOAL_DIVERSITY if grid.sought else None
    spaces = (
        ("L1", grid.x.flatten(2), grid.reference.x.flatten(1)),
        ("judge's features", features, reference_features),
    )
    rows = []
    for space, outputs, own in spaces:
        for label, pairs in (("", apart), (" of one sex", within)):
            value, n = spread(outputs, pairs, grid.source.speaker, speaker)
            real = float(torch.cdist(own, own, p=1.0)[pairs].mean()) / own.shape[1]
            asked = faces and space == "L1" and not label
            rows.append(
                row(grid.task, grid.guidance, f"diversity over the references{label}, {space}",
                    value / real, n, chance=0.0, goal=goal if asked else None)
            )  # fmt: skip
    return rows


def spread(x: Tensor, pairs: Tensor, source: Tensor, reference: Tensor) -> tuple[float, int]:
    """Mean L1 per element between outputs of one source under two references.

    Args:
        x: (S, R, D).
        pairs: (R, R) bool, which references are compared.
        source, reference: (S,), (R,) speaker codes; outputs where they are equal are left out.

    Returns:
        The mean, and the number of pairs behind it.
    """
    distance = torch.cdist(x, x, p=1.0) / x.shape[2]  # (S, R, R)
    other = source[:, None] != reference[None]
    chosen = pairs[None] & other[:, :, None] & other[:, None, :]
    return float(distance[chosen].mean()), int(chosen.sum())


def random_difference(pose: Tensor) -> float:
    """Mean absolute difference between the poses (n, 2) of two faces; NaN with less than two."""
    pose = pose[pose.isfinite().all(1)]
    if len(pose) < 2:
        return float("nan")
    distance = torch.cdist(pose, pose, p=1.0) / pose.shape[1]
    return float(distance.sum() / (len(pose) * (len(pose) - 1)))
