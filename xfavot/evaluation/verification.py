"""Cross-modal verification: do this face and this voice belong to one person?

Any face and voice vectors can be tested, the method's styles or another system's. Every face meets
every voice; the cosine decides. Area under the curve and equal error rate over all pairs, and over
those of one sex, where telling women from men does not help; then retrieval among everybody's mean
voice (or face). Intervals draw people anew (`resampled_people.py`). Comparable figures of others:
Vclip reports an AUC of 89.63 % on VoxCeleb. Not in the paper, which asks people instead (Sec. 4.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot.errors import DataError
from xfavot.evaluation.resampled_people import DRAWS, draws_of, quantiles
from xfavot.evaluation.retrieval import hits, means

ALL, ONE_SEX = "all pairs", "pairs of one sex"
RANKS = (1, 5)
CHANCE = 0.5

Array = NDArray[np.float64]
Row = dict[str, Any]


class Curve:
    """The receiver operating characteristic of scored pairs, sorted once, weighed many times.

    Args:
        score: (P,), the larger the more alike.
        same: (P,) bool.

    Raises:
        DataError: no pair of either kind, or a score is not finite.
    """

    def __init__(self, score: Array, same: NDArray[np.bool_]) -> None:
        """Sort the pairs; see the class."""
        if not np.isfinite(score).all() or not same.any() or same.all():
            raise DataError(
                f"verification: {int(same.sum())} pairs of one person and {int((~same).sum())} of "
                f"two, {int((~np.isfinite(score)).sum())} scores not finite; expected both kinds "
                "and finite scores; take more people, and check the vectors"
            )
        self.order = np.argsort(-score, kind="stable")
        falling = score[self.order]
        self.ends = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)  # of ties
        self.same = same[self.order]

    def measure(self, weight: Array | None = None) -> tuple[float, float]:
        """Return area under the curve and equal error rate.

        Args:
            weight: (P,), how much each pair counts; default one each.

        Returns:
            Area (ties count half) and the rate where false acceptance and false rejection meet on
            the curve, straight between its points; both NaN if a kind of pair has no weight.
        """
        one = np.ones(len(self.same)) if weight is None else weight[self.order]
        true = np.cumsum(one * self.same)[self.ends]
        false = np.cumsum(one * ~self.same)[self.ends]
        if true[-1] <= 0 or false[-1] <= 0:
            return float("nan"), float("nan")
        x = np.append(0.0, false / false[-1])  # false acceptance
        y = np.append(0.0, true / true[-1])  # true acceptance
        area = float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)
        gap = x + y - 1  # false acceptance less false rejection; never falls
        after = int(np.argmax(gap >= 0))
        before = after - 1
        share = -gap[before] / (gap[after] - gap[before])
        return area, float(x[before] + share * (x[after] - x[before]))


def pair_rows(
    score: Array,
    first: Sequence[str],
    second: Sequence[str],
    gender: Mapping[str, str] | None,
    *,
    seed: int,
    draws: int = DRAWS,
) -> list[Row]:
    """Measure AUC and EER of scored pairs.

    Args:
        score: (Q, G).
        first, second: the people of rows and columns.
        gender: of people by name; without it, or where a pair's is not known, only all pairs count.
        seed, draws: of the bootstrap over people.

    Returns:
        Rows with metric, value, ci_low, ci_high, n (pairs), people, seed, chance. What cannot be
        measured (no pairs of two people of one sex) has no row.

    Raises:
        DataError: see `Curve`.
    """
    names = sorted({*first, *second})
    number = {name: place for place, name in enumerate(names)}
    a, b = (np.array([number[name] for name in side]) for side in (first, second))
    a, b = (one.ravel() for one in np.meshgrid(a, b, indexing="ij"))
    score, same = np.asarray(score, dtype=np.float64).ravel(), a == b
    sexes = np.array([(gender or {}).get(name, "") for name in names])
    parts = {ALL: np.ones_like(same), ONE_SEX: (sexes[a] == sexes[b]) & (sexes[a] != "")}
    drawn = draws_of(len(names), seed=seed, draws=draws)
    rows: list[Row] = []
    for part, chosen in parts.items():
        kinds = same[chosen]
        if part != ALL and (not kinds.any() or kinds.all()):
            continue
        curve, one, other = Curve(score[chosen], kinds), a[chosen], b[chosen]
        value = curve.measure()
        found = [curve.measure(np.where(kinds, w[one], w[one] * w[other])) for w in drawn]
        for place, metric in enumerate(("AUC", "EER")):
            low, high = quantiles(draw[place] for draw in found)
            rows.append(
                _row(f"verification {metric}, {part}", value[place], low, high, len(kinds),
                     len({*one, *other}), seed, CHANCE)
            )  # fmt: skip
    return rows


def cross_modal_rows(
    faces: Tensor,
    voices: Tensor,
    face_people: Sequence[str],
    voice_people: Sequence[str],
    gender: Mapping[str, str] | None = None,
    *,
    seed: int,
    draws: int = DRAWS,
) -> list[Row]:
    """Measure verification and retrieval between faces and voices.

    Args:
        faces: (n, S) vectors.
        voices: (m, S) vectors.
        face_people, voice_people: whose they are; everybody has both.
        gender: "f" or "m" of people by name, for the figures within one sex.
        seed, draws: of the bootstrap over people.

    Returns:
        Rows as `pair_rows`, and R@1 and R@5 of "face to voice" and "voice to face" (column
        direction), whose n counts queries; the gallery holds everybody's mean vector, and only
        those who ask are drawn anew.

    Raises:
        DataError: unequal numbers, vectors that are not finite, or people without face or voice.
    """
    people = sorted({*face_people, *voice_people})
    odd = sorted({*face_people} ^ {*voice_people})
    sizes = (len(faces), len(voices)) == (len(face_people), len(voice_people))
    if len(people) < 2 or odd or not sizes or not bool(torch.cat([faces, voices]).isfinite().all()):
        raise DataError(
            f"cross-modal verification: {len(faces)} faces of {len(set(face_people))} people, "
            f"{len(voices)} voices of {len(set(voice_people))}, {len(odd)} people with one of them "
            f"alone ({', '.join(odd[:3])}); expected finite vectors of two people at least, each "
            "with face and voice; leave the others out"
        )
    unit = {name: functional.normalize(x.detach().cpu().double(), dim=1)
            for name, x in (("face", faces), ("voice", voices))}  # fmt: skip
    number = {name: place for place, name in enumerate(people)}
    code = {name: torch.tensor([number[one] for one in who])
            for name, who in (("face", face_people), ("voice", voice_people))}  # fmt: skip
    score = (unit["face"] @ unit["voice"].T).numpy()
    rows = pair_rows(score, face_people, voice_people, gender, seed=seed, draws=draws)
    sexes = [(gender or {}).get(name, "") for name in people]
    one_sex = torch.tensor([[a == b and a != "" for b in sexes] for a in sexes])
    drawn = draws_of(len(people), seed=seed, draws=draws)
    rows = [{**row, "direction": ""} for row in rows]
    for query, gallery in (("face", "voice"), ("voice", "face")):
        mean = means(unit[gallery], code[gallery], len(people))  # (K, S)
        found = _retrieval(unit[query], code[query], mean, one_sex, drawn, seed)
        rows += [{**row, "direction": f"{query} to {gallery}"} for row in found]
    return rows


def _retrieval(
    query: Tensor, who: Tensor, gallery: Tensor, one_sex: Tensor, drawn: Array, seed: int
) -> Iterator[Row]:
    similarity, everybody = query @ gallery.T, torch.arange(len(gallery))  # (n, K), (K,)
    for part, allowed in (("", None), (" within one sex", one_sex)):
        asked = torch.ones(len(who), dtype=torch.bool)
        if allowed is not None:
            asked = allowed.sum(1)[who] > 1
        if not bool(asked.any()):
            continue
        chosen, among = who[asked], None if allowed is None else allowed[who[asked]]
        choices = torch.full((len(chosen),), len(gallery)) if among is None else among.sum(1)
        for k in RANKS:
            if among is None and k >= len(gallery):
                continue
            found = hits(similarity[asked], chosen, everybody, among, k=k).double().numpy()
            weight = drawn[:, chosen.numpy()]  # (draws, n)
            total = weight.sum(axis=1)
            low, high = quantiles((weight * found).sum(axis=1)[total > 0] / total[total > 0])
            chance = float((k / choices.double()).clamp(max=1).mean())
            yield _row(f"R@{k}{part}", float(found.mean()), low, high, len(chosen),
                       len(set(chosen.tolist())), seed, chance)  # fmt: skip


def _row(
    metric: str, value: float, low: float | None, high: float | None, n: int, people: int,
    seed: int, chance: float,
) -> Row:  # fmt: skip
    if low is not None and high is not None:  # a bootstrap can miss the value itself
        low, high = min(low, value), max(high, value)
    return {
        "metric": metric, "value": value, "ci_low": low, "ci_high": high, "n": n,
        "people": people, "seed": seed, "chance": chance,
    }  # fmt: skip
