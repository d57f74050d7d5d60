"""Faces of a checkpoint by the paper's protocol: FID and LPIPS of ten outputs a source.

Paper, App. B: every held-out face of one sex is converted after ten held-out references of the
other sex, faces (`i2i`) or whole utterances (`a2i`); beside them latent codes (`z2i`), one an
output. `image_protocol.py` draws, measures and averages; this file makes the outputs and counts the
real training faces once. Outputs are made and forgotten batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xfavot.convert.results import Task
from xfavot.convert.styles import StyleMaker
from xfavot.data.manifest import Store
from xfavot.data.samples import to_range
from xfavot.errors import DataError
from xfavot.evaluation import fid, held_out, image_protocol
from xfavot.evaluation.feature_moments import Moments
from xfavot.evaluation.held_out import SEXES, SPLITS, TRAIN, Sample
from xfavot.evaluation.image_draws import BATCH, OUTPUTS, Direction
from xfavot.evaluation.image_protocol import Generate, Metrics, Row
from xfavot.evaluation.judges import FaceJudge
from xfavot.evaluation.lpips_distance import LPIPS, unit_package

TASKS = (Task.I2I, Task.A2I, Task.Z2I)
AT_ONCE = 32  # images
TRUTH = "faces"  # the task of real faces
LATENT_STRIDE = 1_000_003  # between the codes of two seeds of a run

Real = Mapping[tuple[str, str], Moments]
Log = Callable[[str], None]


def score(
    task: Task,
    speakers: str,
    maker: StyleMaker,
    stores: Sequence[Store],
    metrics: Metrics,
    real: Real,
    *,
    system: str,
    dataset: str,
    seed: int,
    sources: int = 0,
) -> list[Row]:
    """Convert the held-out faces and measure them.

    Args:
        task: one of :data:`TASKS`.
        speakers: "seen" or "unseen".
        maker: the checkpoint.
        stores: the mixture.
        metrics: what to measure by.
        real: of :func:`real_statistics`.
        system, dataset: for the rows.
        seed: of the draws of sources, references and latent codes.
        sources: faces a direction, drawn at random; 0 for all.

    Returns:
        Rows of `image_protocol.score`, each with `sex` (of the outputs, "" for the mean).

    Raises:
        DataError: a sex has no face or no reference, or see `image_protocol.score`.
    """
    faces = _sources(stores, speakers, sources, seed)
    codes = OUTPUTS * max(BATCH, *map(len, faces.values()))
    styles = {
        name: _styles(task, maker, stores, SPLITS[speakers], code, seed=seed, codes=codes)
        for code, name in SEXES.items()
    }
    counts = {name: len(own) for name, own in styles.items()}
    directions = _directions(faces, counts, f"{task.value}, {speakers} speakers")

    def shown(direction: Direction, chosen: Tensor) -> Tensor:
        own = [faces[direction.source][int(n)] for n in chosen]
        return held_out.pixels(own, maker.image_size)

    def generate(direction: Direction, chosen: Tensor, references: Tensor) -> Tensor:
        x = to_range(shown(direction, chosen))  # (n, 3, H, W)
        style = styles[direction.target][references]  # (n, K, S)
        made = _convert(maker, x.repeat_interleave(style.shape[1], 0), style.flatten(0, 1))
        return made.view(*style.shape[:2], *made.shape[1:])

    return _rows(generate, directions, metrics, real, system=system, task=task.value,
                 dataset=dataset, seed=seed, sources=shown)  # fmt: skip


def score_ground_truth(
    speakers: str, stores: Sequence[Store], metrics: Metrics, real: Real, *, system: str,
    dataset: str, size: int, seed: int, sources: int = 0,
) -> list[Row]:  # fmt: skip
    """Measure the references of `i2i` themselves in the place of its outputs.

    What real faces that were not trained on reach, with the same draws and as many images.

    Args:
        speakers, stores, metrics, real, system, dataset, seed, sources: as in :func:`score`.
        size: pixels a side of the model.

    Raises:
        DataError: see :func:`score`.
    """
    faces = _sources(stores, speakers, sources, seed)
    told = _sources(stores, speakers, 0, seed)
    counts = {name: len(own) for name, own in told.items()}
    directions = _directions(faces, counts, f"ground truth, {speakers} speakers")

    def generate(direction: Direction, chosen: Tensor, references: Tensor) -> Tensor:
        own = [told[direction.target][int(n)] for n in references.flatten()]
        x = held_out.pixels(own, size)
        return x.view(*references.shape, *x.shape[1:])

    return _rows(generate, directions, metrics, real, system=system, task=TRUTH, dataset=dataset,
                 seed=seed)  # fmt: skip


def _sources(
    stores: Sequence[Store], speakers: str, count: int, seed: int
) -> dict[str, list[Sample]]:
    """Faces by sex, all or as many as asked for."""
    return {
        name: drawn(held_out.faces_of(stores, SPLITS[speakers], code), count,
                    [seed, *name.encode()])
        for code, name in SEXES.items()
    }  # fmt: skip


def _directions(
    faces: Mapping[str, Sequence[Sample]], references: Mapping[str, int], where: str
) -> list[Direction]:
    """Both directions, from women to men and back."""
    found = []
    for source, target in (tuple(SEXES.values()), tuple(SEXES.values())[::-1]):
        counts = len(faces[source]), references[target]
        if not all(counts):
            raise DataError(
                f"{where}, {source} to {target}: {counts[0]} {source} faces and {counts[1]} "
                f"{target} references; expected some of both; prepare a corpus with women and men "
                "in this split"
            )
        found.append(
            Direction(source=source, target=target, sources=counts[0], references=counts[1])
        )
    return found


def _rows(
    generate: Generate, directions: Sequence[Direction], metrics: Metrics, real: Real,
    **named: Any,
) -> list[Row]:  # fmt: skip
    """Score, with the batches that the references allow."""
    batch = min(BATCH, *(direction.references for direction in directions))
    smaller = "" if batch == BATCH else f"; batches of {batch}, not {BATCH}: few references"
    by_batch = {one.metric for one in metrics.distances}
    sexes = {direction.name: direction.target for direction in directions}
    return [
        {**row, "sex": sexes.get(row["direction"], ""),
         "definition": row["definition"] + (smaller if row["metric"] in by_batch else "")}
        for row in image_protocol.score(generate, directions, metrics, real, batch=batch, **named)
    ]  # fmt: skip


def real_statistics(
    stores: Sequence[Store], metrics: Metrics, *, size: int, folder: Path,
    on_log: Log | None = None,
) -> dict[tuple[str, str], Moments]:  # fmt: skip
    """Count the training faces of both sexes, once; later calls read what was kept.

    Args:
        stores: the mixture.
        metrics: whose extractors are used.
        size: pixels a side of the model.
        folder: of kept statistics.
        on_log: told what was done.

    Returns:
        Statistics by (metric, sex); a sex without faces has none.
    """
    found = {}
    prepared = "+".join(store.manifest_hash for store in stores)
    for code, name in SEXES.items():
        samples = held_out.faces_of(stores, TRAIN, code)
        for extractor in metrics.extractors if samples else ():
            found[extractor.metric, name] = extractor.real_moments(
                lambda samples=samples: (  # type: ignore[misc]
                    held_out.pixels(samples[at : at + AT_ONCE], size)
                    for at in range(0, len(samples), AT_ONCE)
                ),
                images=f"{prepared} {TRAIN} {name} {size}", folder=folder, on_log=on_log,
            )  # fmt: skip
    return found


def with_judge(metrics: Metrics, judge: FaceJudge, *, name: str, device: torch.device) -> Metrics:
    """Add the judge of faces as substitute, under its own name; it is no FID and no LPIPS.

    Args:
        metrics: those with published weights, which stay.
        judge: a small classifier of the real training faces.
        name: of it, for the rows.
        device: where it is.
    """
    width = judge.speaker.in_features
    extractor = fid.substitute(
        name, lambda x: judge.who(x).mean((2, 3)), dims=width, fingerprint=fid.digest(judge),
        device=device,
    )  # fmt: skip
    layers = nn.Sequential(*(layer for stage in judge.who for layer in stage.children()))
    learnt = [
        torch.full((one.num_features,), 1 / one.num_features)
        for one in layers if isinstance(one, nn.BatchNorm2d)
    ]  # fmt: skip
    distance = LPIPS(
        f"diversity, {name}", layers, learnt, unit_package,
        definition=f"mean squared difference of the maps of {name}, unit length, all pairs of a "
        "source's outputs, mean over sources; no LPIPS",
    )  # fmt: skip
    distance.shift.zero_()
    distance.scale.fill_(1)
    return Metrics(
        extractors=[*metrics.extractors, extractor],
        distances=[*metrics.distances, distance.to(device)],
        missing=metrics.missing,
        preserved=metrics.preserved,
    )


def drawn(samples: Sequence[Sample], count: int, seed: Sequence[int]) -> list[Sample]:
    """Draw samples without repetition; all of them, in their order, if `count` is 0 or too many."""
    if not 0 < count < len(samples):
        return list(samples)
    rows = np.random.default_rng([*seed]).permutation(len(samples))[:count]
    return [samples[row] for row in sorted(rows)]


def latent_seed(seed: int, number: int) -> int:
    """Seed of the code of a number in a run of a seed."""
    return seed * LATENT_STRIDE + number


def _styles(
    task: Task, maker: StyleMaker, stores: Sequence[Store], split: str, gender: str, *,
    seed: int, codes: int,
) -> Tensor:  # fmt: skip
    """Encode every reference of a sex once: (R, S)."""
    if task is Task.Z2I:
        found = (
            maker.style_of_latent(latent_seed(seed, n), gender=gender).vector for n in range(codes)
        )
    elif task is Task.I2I:
        found = (
            maker.style_of_face(one.store.face(one.item, one.face), gender=gender,
                                aligned=True).vector
            for one in held_out.faces_of(stores, split, gender)
        )  # fmt: skip
    else:
        found = (
            maker.style_of_voice(one.store.waveform(one.item), gender=gender).vector
            for one in held_out.voices_of(stores, split, gender)
        )
    vectors = list(found)
    return torch.cat(vectors) if vectors else torch.empty(0, maker.config.model.style_dim)


def _convert(maker: StyleMaker, x: Tensor, style: Tensor) -> Tensor:
    """Convert faces (n, 3, H, W) in [-1, 1] after styles (n, S), a few at once; on the CPU."""
    parts = zip(torch.split(x, AT_ONCE), torch.split(style, AT_ONCE), strict=True)
    made = [maker.nets.G_I(face.to(maker.device), led).cpu() for face, led in parts]
    return torch.cat(made)
