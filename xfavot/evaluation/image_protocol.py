"""The protocol of image metrics: outputs are made, measured and forgotten, block by block.

Paper, App. B, after StarGAN v2: between the two domains (women, men), in both directions, every
source of the validation split gets ten outputs; `image_draws.py` says led by which references.
LPIPS is the diversity of the ten; FID holds all outputs of a direction against the training images
of the target domain. Both directions are shown apart and averaged. What the first of the ten keeps
of its source (`face_preservation.py`) is this project's own.

A block of sources with all its outputs is made by one call of the system, and only sums are kept,
so memory does not grow with the number of images. A system is a function, so any can be scored:
a model, or files that others made.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import face_preservation, fid, lpips_distance
from xfavot.evaluation.face_preservation import Kept
from xfavot.evaluation.feature_moments import FEWEST, Log, Moments
from xfavot.evaluation.fid import Extractor
from xfavot.evaluation.frechet import frechet_distance
from xfavot.evaluation.image_draws import BATCH, OUTPUTS, Direction, plan
from xfavot.evaluation.lpips_distance import LPIPS

BEYOND = 10.0  # a network without a final tanh overshoots 1; images in 0 ... 255 overshoot this
NORMAL_95 = 1.96  # standard errors


Generate = Callable[[Direction, Tensor, Tensor], Tensor]
Sources = Callable[[Direction, Tensor], Tensor]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Metrics:
    """What images are measured by, and what cannot be had.

    ``missing`` tells by metric why, and how to get it; ``preserved`` asks for what outputs keep.
    """

    extractors: Sequence[Extractor] = ()
    distances: Sequence[LPIPS] = ()
    missing: Mapping[str, str]
    preserved: bool = False

    @property
    def any(self) -> bool:
        """Whether anything can be measured."""
        return bool(self.extractors or self.distances or self.preserved)


@dataclass(slots=True, eq=False)
class _Sums:
    """What is kept of one direction."""

    kept: Kept
    moments: dict[str, Moments]
    diversity: dict[str, list[list[float]]]  # by metric, batch and source
    lowest: float = math.inf  # of floats


def available_metrics(
    *,
    image_size: int,
    cache: str | PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    on_log: Log | None = None,
) -> Metrics:
    """Collect the metrics whose weights are here; nothing is fetched or replaced.

    Args:
        image_size: pixels a side of the model.
        cache: the folder of weights; see `weights.root`.
        device: of the networks.
        on_log: told of each metric that is not available, why, and how to get it.
    """
    extractors, distances, missing = [], [], {}
    ways: dict[str, Callable[[], Extractor | LPIPS]] = {
        fid.STARGAN_V2: lambda: fid.stargan_v2(image_size=image_size, cache=cache, device=device),
        fid.PYTORCH_FID: lambda: fid.pytorch_fid(cache=cache, device=device),
        lpips_distance.STARGAN_V2: lambda: lpips_distance.stargan_v2(cache=cache, device=device),
        lpips_distance.ALEX: lambda: lpips_distance.alex(cache=cache, device=device),
    }
    for metric, make in ways.items():
        try:
            made = make()
        except WeightsError as error:
            missing[metric] = str(error)
            if on_log is not None:
                on_log(f"{metric} is not available: {error}")
            continue
        if isinstance(made, LPIPS):
            distances.append(made)
        else:
            extractors.append(made)
    preserved = True
    try:
        face_preservation.require_detector()
    except DataError as error:
        missing |= dict.fromkeys(face_preservation.METRICS, str(error))
        preserved = False
    return Metrics(extractors=extractors, distances=distances, missing=missing, preserved=preserved)


def score(
    generate: Generate,
    directions: Sequence[Direction],
    metrics: Metrics,
    real: Mapping[tuple[str, str], Moments],
    *,
    system: str,
    task: str,
    dataset: str,
    seed: int,
    outputs: int = OUTPUTS,
    batch: int = BATCH,
    sources: Sources | None = None,
) -> list[Row]:
    """Make all outputs of a system and measure them.

    Args:
        generate: takes a direction, numbers of n sources (n,) and of their references (n, K), and
            returns the outputs (n, K, 3, H, W): floats in [-1, 1], which may overshoot, or uint8.
        directions: both, or those that there are.
        metrics: what to measure by.
        real: statistics of real images by (metric, target domain), of `Extractor.real_moments`.
        system, task, dataset: for the rows.
        seed: of the draw of sources and references; the same numbers meet for every system.
        outputs: K, of a source.
        batch: sources at once; the ancestor's LPIPS depends on it.
        sources: takes a direction and numbers (n,) and returns the sources (n, 3, H, W), uint8;
            without it nothing is said of what they keep.

    Returns:
        Tidy rows, per metric one a direction and one for the mean of all. Besides the usual columns
        each has `direction`, `n_real` (real images; None but for FID) and `definition`. `n` counts
        outputs for FID and sources for the others; LPIPS has 1.96 standard errors over sources.

    Raises:
        DataError: too few sources or references, unequal numbers of references, no real
            statistics, or outputs of another shape or type, not finite or out of range.
    """
    found: dict[str, list[Row]] = {}
    _require_real(directions, metrics.extractors, real)
    shown = sources if metrics.preserved else None
    measured = metrics.extractors or metrics.distances or shown
    for direction in directions if measured else ():
        sums = _run(generate, direction, metrics, shown, seed=seed, outputs=outputs, batch=batch)
        for extractor in metrics.extractors:
            name, fakes = extractor.metric, sums.moments[extractor.metric]
            known = real[name, direction.target]
            row = _row(extractor, direction.name, frechet_distance(known, fakes), fakes.count)
            found.setdefault(name, []).append({**row, "n_real": known.count})
        for distance in metrics.distances:
            row = _diversity_row(distance, direction.name, sums.diversity[distance.metric])
            found.setdefault(distance.metric, []).append(row)
        for row in sums.kept.rows(seed=seed):
            row |= {"direction": direction.name, "n_real": None}
            found.setdefault(row["metric"], []).append(row)
    who = {"system": system, "task": task, "dataset": dataset, "seed": seed}
    return [{**who, **row} for rows in found.values() for row in (*rows, *_mean(rows))]


def _require_real(
    directions: Sequence[Direction],
    extractors: Sequence[Extractor],
    real: Mapping[tuple[str, str], Moments],
) -> None:
    """Refuse missing or useless statistics before hours are spent on outputs."""
    for extractor in extractors:
        for direction in directions:
            known = real.get((extractor.metric, direction.target), Moments(0))
            if known.count < FEWEST or len(known.mean) != extractor.dims:
                raise DataError(
                    f"{extractor.metric}, {direction.name}: statistics of {known.count} real "
                    f"{direction.target} images with {len(known.mean)} features; expected those of "
                    f"{FEWEST} at least with {extractor.dims}, of (metric, target) in "
                    f"{sorted(real)}; make them with Extractor.real_moments"
                )


def _run(
    generate: Generate,
    direction: Direction,
    metrics: Metrics,
    shown: Sources | None,
    *,
    seed: int,
    outputs: int,
    batch: int,
) -> _Sums:
    """Make and measure all outputs of a direction."""
    sums = _Sums(
        kept=Kept(),
        moments={one.metric: Moments(one.dims) for one in metrics.extractors},
        diversity={one.metric: [] for one in metrics.distances},
    )
    for sources, references in plan(direction, seed=seed, outputs=outputs, batch=batch):
        with torch.no_grad():
            images = generate(direction, sources, references)
        _require_images(direction.name, images, tuple(references.shape))
        saved = to_bytes(images)
        for extractor in metrics.extractors:
            sums.moments[extractor.metric].add(extractor.features(saved.flatten(0, 1)))
        for distance in metrics.distances:
            x = to_floats(saved) if distance.of_bytes else to_floats(images)
            sums.diversity[distance.metric].append(distance.diversity(x).tolist())
        if shown is not None:
            sums.kept.add(shown(direction, sources), saved[:, 0])
        if images.is_floating_point():
            sums.lowest = min(sums.lowest, float(images.min()))
    if 0 <= sums.lowest < math.inf:
        raise DataError(
            f"{direction.name}: the least value of all outputs is {sums.lowest:g}; expected images "
            "in [-1, 1]; they seem to lie in [0, 1]: return 2 x - 1"
        )
    return sums


def to_bytes(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to 8 bits as torchvision saves them; what overshoots is cut."""
    if images.dtype == torch.uint8:
        return images
    return images.float().add(1).div_(2).clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8)


def to_floats(images: Tensor) -> Tensor:
    """Bring 8 bits to [-1, 1]; floats stay what they are."""
    return images.float().div_(127.5).sub_(1) if images.dtype == torch.uint8 else images


def _require_images(name: str, images: Tensor, wanted: tuple[int, ...]) -> None:
    """Refuse outputs that cannot be what was asked for."""
    kind = images.dtype == torch.uint8 or images.is_floating_point()
    if images.dim() != 5 or images.shape[:3] != (*wanted, 3) or not kind:
        raise DataError(
            f"{name}: the system returned {images.dtype} of shape {tuple(images.shape)}; expected "
            f"{(*wanted, 3)} and H, W, one output for each source and reference, as floats in "
            "[-1, 1] or uint8"
        )
    if images.is_floating_point() and not bool((images.abs() <= BEYOND).all()):  # NaN fails, too
        bad = ~(images.abs() <= BEYOND)
        raise DataError(
            f"{name}: {int(bad.any(-1).any(-1).any(-1).sum())} of {wanted[0] * wanted[1]} outputs "
            f"hold {float(images[bad][0]):g}; expected finite numbers in [-1, 1]; return uint8 if "
            "they are bytes, or look at the checkpoint"
        )


def _row(metric: Extractor | LPIPS, direction: str, value: float, n: int) -> Row:
    return {
        "metric": metric.metric, "direction": direction, "value": value, "ci_low": None,
        "ci_high": None, "n": n, "n_real": None, "definition": metric.definition,
    }  # fmt: skip


def _diversity_row(distance: LPIPS, direction: str, batches: Sequence[Sequence[float]]) -> Row:
    every = [value for batch in batches for value in batch]
    means = [statistics.fmean(batch) for batch in batches]
    value = statistics.fmean(means if distance.over_batches else every)
    row = _row(distance, direction, value, len(every))
    if len(every) > 1:
        wide = NORMAL_95 * statistics.stdev(every) / len(every) ** 0.5
        row.update(ci_low=value - wide, ci_high=value + wide)
    return row


def _mean(rows: Sequence[Row]) -> list[Row]:
    """Average the directions, if there are several; half-widths of intervals add as squares."""
    if len(rows) < 2:
        return []
    value = statistics.fmean(row["value"] for row in rows)
    total: Row = {**rows[0], "direction": "mean", "value": value}
    total["n"] = sum(row["n"] for row in rows)
    if rows[0]["n_real"] is not None:
        total["n_real"] = sum(row["n_real"] for row in rows)
    if all(row.get("chance") is not None for row in rows):
        total["chance"] = statistics.fmean(row["chance"] for row in rows)
    if all(row["ci_high"] is not None for row in rows):
        wide = sum((row["ci_high"] - row["value"]) ** 2 for row in rows) ** 0.5 / len(rows)
        total.update(ci_low=value - wide, ci_high=value + wide)
    return [total]
