"""Faces that another system made: FID and LPIPS from files, by the protocol's own networks.

FID holds the outputs of a system and task against the distinct real faces that the manifest names,
sources and references alike, not against a training split: its rows are comparable within one
manifest and with no table of the paper. LPIPS is the diversity of the outputs of each source that
has two or more, mean over sources; every output is held against its source for pose and contours.
Files of any size are cropped centrally and brought to one size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from xfavot.errors import DataError
from xfavot.evaluation.face_preservation import METRICS, Kept
from xfavot.evaluation.foreign_manifest import Output
from xfavot.evaluation.frechet import frechet_distance
from xfavot.evaluation.image_protocol import Metrics, to_floats
from xfavot.evaluation.ledger import UNUSABLE, Group, Ledger, Sample
from xfavot.evaluation.lpips_distance import FEWEST_OUTPUTS, LPIPS
from xfavot.image.io import load_image, resize_image

AT_ONCE = 32  # images
FEWEST = 2  # images of either kind
UNUSABLE_DEFINITION = "share of outputs that cannot be read as images"


def score(
    group: Group, outputs: Sequence[Output], everything: Sequence[Output], metrics: Metrics,
    ledger: Ledger, *, size: int,
) -> None:  # fmt: skip
    """Measure the faces of one system and task.

    Args:
        group: names for the rows.
        outputs: of that system and task.
        everything: the whole manifest, where the real faces are.
        metrics: networks, and why others are missing.
        ledger: receives rows and reasons.
        size: pixels a side to which every picture is brought.
    """
    good = [one for one in outputs if _readable(group, one, size, ledger)]
    share = [Sample(float(one not in good), 1.0, one.who) for one in outputs]
    ledger.mean(group, UNUSABLE, share, UNUSABLE_DEFINITION)
    for metric, reason in metrics.missing.items():
        ledger.lacks(group, metric, reason, len(outputs))
    real = real_faces(everything)
    for extractor in metrics.extractors:
        if min(len(good), len(real)) < FEWEST:
            reason = f"{len(good)} outputs and {len(real)} real faces; expected {FEWEST} of both"
            ledger.lacks(group, extractor.metric, f"{reason} at least; list more", len(outputs))
            continue
        try:
            known = extractor.moments(_batches(real, size))
            made = extractor.moments(_batches([one.output for one in good], size))
            value = frechet_distance(known, made)
        except DataError as error:
            ledger.lacks(group, extractor.metric, error, len(outputs))
            continue
        ledger.add(group, {
            "metric": extractor.metric, "value": value, "n": made.count, "seed": ledger.seed,
            "definition": f"{extractor.definition}; against {known.count} faces of the manifest",
        })  # fmt: skip
    for distance in metrics.distances:
        _diversity(group, good, distance, ledger, size)
    if metrics.preserved and good:
        _preservation(group, good, ledger, size)


def real_faces(everything: Sequence[Output]) -> list[Path]:
    """Distinct real faces that a manifest names."""
    found: dict[Path, None] = {}
    for one in everything:
        if one.task.output == "face":
            found[one.source] = None
        if one.task.guidance == "face" and one.reference is not None:
            found[one.reference] = None
    return list(found)


def _diversity(
    group: Group, outputs: Sequence[Output], distance: LPIPS, ledger: Ledger, size: int
) -> None:
    by_source: dict[Path, list[Output]] = {}
    for one in outputs:
        by_source.setdefault(one.source, []).append(one)
    samples, single = [], 0
    for members in by_source.values():
        if len(members) < FEWEST_OUTPUTS:
            single += 1
            continue
        images = torch.cat(list(_batches([one.output for one in members], size)))
        value = float(distance.diversity(to_floats(images)[None])[0])
        samples.append(Sample(value, 1.0, str(members[0].source)))
    if single:
        ledger.lacks(group, distance.metric, f"sources with one output; expected "
                     f"{FEWEST_OUTPUTS} or more for a diversity; list more", single)  # fmt: skip
    ledger.mean(group, distance.metric, samples, f"{distance.definition}; from 8-bit files")


def _preservation(group: Group, outputs: Sequence[Output], ledger: Ledger, size: int) -> None:
    kept = Kept()
    try:
        sources = _batches([one.source for one in outputs], size)
        made = _batches([one.output for one in outputs], size)
        for before, after in zip(sources, made, strict=True):
            kept.add(before, after)
    except DataError as error:  # a source that is no picture
        for metric in METRICS:
            ledger.lacks(group, metric, error, len(outputs))
        return
    for row in kept.rows(seed=ledger.seed):
        ledger.add(group, {**row, "seed": ledger.seed})


def _readable(group: Group, one: Output, size: int, ledger: Ledger) -> bool:
    try:
        _read(one.output, size)
    except DataError as error:
        ledger.lacks(group, "all", error)
        return False
    return True


def _batches(files: Iterable[Path], size: int) -> Iterator[Tensor]:
    """Pictures as (n, 3, H, W) uint8, a few at once."""
    waiting: list[Tensor] = []
    for file in files:
        waiting.append(_read(file, size))
        if len(waiting) == AT_ONCE:
            yield torch.stack(waiting)
            waiting = []
    if waiting:
        yield torch.stack(waiting)


def _read(file: Path, size: int) -> Tensor:
    return torch.from_numpy(resize_image(load_image(file), size).copy()).permute(2, 0, 1)
