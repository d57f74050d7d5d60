"""Cross-modal verification: do this face and this voice belong to one person?

Any face and voice vectors can be tested, the method's styles or another system's. Every face meets
every voice; the cosine decides. Area under the curve and equal error rate over all pairs, and over
those of one sex, where telling women from men does not help; then retrieval among everybody's mean
voice (or face). Intervals draw people anew (`rows.py`). Comparable figures of others:
Vclip reports an AUC of 89.63 % on VoxCeleb. Not in the paper, which asks people instead (Sec. 4.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot.convert import Converter
from xfavot.data.store import GENDERS, Store
from xfavot.errors import DataError
from xfavot.evaluation.classifiers import speakers_of
from xfavot.evaluation.rows import DRAWS, Row, draws_of, quantiles, row

KINDS = ("face", "voice")
PER_SPEAKER = 12  # faces, and as many voices
GOAL = 0.95
RETRIEVAL_DRAWS = 500  # of one query and one gallery sample a speaker


def recall(
    similarity: Tensor, query: Tensor, gallery: Tensor, allowed: Tensor | None = None, *, k: int = 1
) -> float:
    """R@k: share of queries with their speaker among the k most similar gallery entries.

    Args:
        similarity: (..., Q, G).
        query: (Q,) speaker codes.
        gallery: (G,) speaker codes.
        allowed: (Q, G) bool, entries that may be found; default all.
        k: entries that are looked at.
    """
    return float(hits(similarity, query, gallery, allowed, k=k).float().mean())


def hits(
    similarity: Tensor, query: Tensor, gallery: Tensor, allowed: Tensor | None = None, *, k: int = 1
) -> Tensor:
    """(..., Q) bool, whether each query finds its speaker; see :func:`recall`."""
    right = gallery == query[:, None]  # (Q, G)
    if allowed is not None:
        similarity, right = similarity.masked_fill(~allowed, -torch.inf), right & allowed
    nearest = similarity.argmax(-1, keepdim=True)  # (..., Q, 1)
    if k > 1:
        nearest = similarity.topk(min(k, len(gallery)), dim=-1).indices  # (..., Q, k)
    return right.expand_as(similarity).gather(-1, nearest).any(-1)


def means(style: Tensor, speaker: Tensor, count: int) -> Tensor:
    """(K, S) unit mean of the unit styles (n, S) of every speaker."""
    total = style.new_zeros(count, style.shape[1]).index_add_(0, speaker, style)
    return functional.normalize(total, dim=1)


def draw_each(speaker: Tensor, count: int, draws: int, rng: torch.Generator) -> Tensor:
    """(draws, K) rows, one of every speaker, drawn evenly from codes (n,)."""
    columns = []
    for code in range(count):
        rows = (speaker == code).nonzero().squeeze(1)
        columns.append(rows[torch.randint(len(rows), (draws,), generator=rng)])
    return torch.stack(columns, dim=1)


def retrieval(
    styles: Mapping[str, Tensor], speakers: Mapping[str, Tensor], gender: Tensor, *, seed: int
) -> list[Row]:
    """Measure face-to-voice and voice-to-face R@1 by cosine.

    Args:
        styles: "face" and "voice", (n, S) each.
        speakers: the codes (n,) of both.
        gender: (K,) of every speaker.
        seed: of the draws.

    Returns:
        Rows for a gallery of speakers' mean styles and for one of single samples, over all speakers
        and within one gender. On the CPU.
    """
    count = len(gender)
    unit = {name: functional.normalize(s.cpu(), dim=1) for name, s in styles.items()}
    everyone = torch.arange(count)
    one_sex = gender[:, None] == gender[None]  # (K, K)
    chance = 1 / count
    chance_within = float((1 / one_sex.sum(1)).mean())
    rng = torch.Generator().manual_seed(seed)
    rows: list[Row] = []
    for query, gallery in (("face", "voice"), ("voice", "face")):
        who = speakers[query]
        to_means = unit[query] @ means(unit[gallery], speakers[gallery], count).T  # (n, K)
        q = unit[query][draw_each(who, count, RETRIEVAL_DRAWS, rng)]  # (D, K, S)
        g = unit[gallery][draw_each(speakers[gallery], count, RETRIEVAL_DRAWS, rng)]
        to_single = q @ g.transpose(1, 2)  # (D, K, K)
        task, within = f"{query} to {gallery}", " within one sex"
        for name, similarity, codes, n in (
            ("gallery of means", to_means, who, len(who)),
            ("gallery of single samples", to_single, everyone, RETRIEVAL_DRAWS * count),
        ):
            found = recall(similarity, codes, everyone)
            rows.append(row(task, "", f"R@1, {name}", found, n, chance=chance, goal=GOAL))
            found = recall(similarity, codes, everyone, one_sex[codes])
            rows.append(row(task, "", f"R@1{within}, {name}", found, n, chance=chance_within))
    return rows


ALL, ONE_SEX = "all pairs", "pairs of one sex"
RANKS = (1, 5)
CHANCE = 0.5

Array = NDArray[np.float64]
VerificationRow = dict[str, Any]


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
) -> list[VerificationRow]:
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
    rows: list[VerificationRow] = []
    for part, chosen in parts.items():
        kinds = same[chosen]
        if part != ALL and (not kinds.any() or kinds.all()):
            continue
        curve, one, other = Curve(score[chosen], kinds), a[chosen], b[chosen]
        value = curve.measure()
        found = [curve.measure(np.where(kinds, w[one], w[one] * w[other])) for w in drawn]
        for place, metric in enumerate(("AUC", "EER")):
            low, high = quantiles(draw[place] for draw in found)
            count = {"n": len(kinds), "people": len({*one, *other}), "seed": seed}
            name = f"verification {metric}, {part}"
            rows.append(_row(name, value[place], (low, high), **count, chance=CHANCE))
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
) -> list[VerificationRow]:
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
    unit = {
        name: functional.normalize(x.detach().cpu().double(), dim=1)
        for name, x in (("face", faces), ("voice", voices))
    }
    number = {name: place for place, name in enumerate(people)}
    code = {
        name: torch.tensor([number[one] for one in who])
        for name, who in (("face", face_people), ("voice", voice_people))
    }
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
) -> Iterator[VerificationRow]:
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
            interval = quantiles((weight * found).sum(axis=1)[total > 0] / total[total > 0])
            chance = float((k / choices.double()).clamp(max=1).mean())
            count = {"n": len(chosen), "people": len(set(chosen.tolist())), "seed": seed}
            yield _row(f"R@{k}{part}", float(found.mean()), interval, **count, chance=chance)


def _row(
    metric: str, value: float, interval: tuple[float | None, float | None], **rest: Any
) -> VerificationRow:
    low, high = interval
    if low is not None and high is not None:  # a bootstrap can miss the value itself
        low, high = min(low, value), max(high, value)
    return {"metric": metric, "value": value, "ci_low": low, "ci_high": high, **rest}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StyleSpace:
    """Styles of faces and voices.

    Args:
        styles: (n, S) unit vectors, by the encoders' heads of the speakers' genders.
        kind: (n,) 0 for a face, 1 for a voice.
        speaker: (n,) codes.
        speakers: their names.
        genders: "f" or "m" of each.
        split: the part of the stores that they come from.
    """

    styles: Array
    kind: NDArray[np.int64]
    speaker: NDArray[np.int64]
    speakers: tuple[str, ...]
    genders: tuple[str, ...]
    split: str


def style_space(
    converter: Converter,
    stores: Sequence[Store],
    *,
    split: str,
    per_speaker: int = PER_SPEAKER,
    seed: int = 0,
) -> StyleSpace:
    """Encode faces by E_I and voices by E_A.

    Args:
        converter: the model.
        stores: prepared stores; clips with a face and a voice of a known speaker are taken.
        split: "train", "val" or "unseen".
        per_speaker: faces, and as many voices, of everybody at most.
        seed: of the draw.

    Raises:
        DataError: not two people, a woman and a man, with both.
        ConfigError: the model has no faces or no voices.
    """
    speakers = speakers_of(stores, (split,))
    rng = np.random.default_rng(seed)
    styles: list[torch.Tensor] = []
    kinds: list[int] = []
    codes: list[int] = []
    genders: list[str] = []
    for code, name in enumerate(speakers):
        clips = [
            (store, item)
            for store in stores
            for item in store.items
            if (item.speaker, item.split) == (name, split) and item.face_count and item.sample_count
        ]
        gender = clips[0][1].gender
        genders.append(gender)
        faces = [(s, i, n) for s, i in clips for n in range(i.face_count)]
        for store, item, number in _draw(faces, per_speaker, rng):
            face = store.face(item, number)
            styles.append(converter.style_of_face(face, gender=gender, aligned=True).vector)
            kinds.append(0)
        for store, item in _draw(clips, per_speaker, rng):
            styles.append(converter.style_of_voice(store.waveform(item), gender=gender).vector)
            kinds.append(1)
        codes += [code] * (len(styles) - len(codes))
    vectors = torch.nn.functional.normalize(torch.cat(styles).cpu().double(), dim=1)
    return StyleSpace(
        styles=vectors.numpy(),
        kind=np.array(kinds),
        speaker=np.array(codes),
        speakers=speakers,
        genders=tuple(genders),
        split=split,
    )


def _draw(pool: Sequence[Any], count: int, rng: np.random.Generator) -> list[Any]:
    chosen = rng.permutation(len(pool))[:count]
    return [pool[i] for i in sorted(chosen)]


def _distances(space: StyleSpace) -> Array:
    """(n, n) one less the cosine."""
    distance: Array = np.clip(1.0 - space.styles @ space.styles.T, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    return distance


def _silhouette(space: StyleSpace, label: NDArray[np.int64]) -> float:
    """Mean silhouette (Rousseeuw 1987); a point alone in its group counts 0."""
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(_distances(space), label, metric="precomputed"))


def measures(
    space: StyleSpace, *, system: str = "", dataset: str = "", seed: int = 0
) -> list[dict[str, Any]]:
    """Say how far apart speakers and modalities are.

    Args:
        space: of :func:`style_space`.
        system, dataset: for the rows.
        seed: of the draws of the retrieval.

    Returns:
        Tidy rows. A silhouette is from -1 to 1: by speaker 1 is best, by modality 0 (faces and
        voices mixed). The modality gap is the distance between the means of all faces and of all
        voices, from 0 to 2. Cosines are means over pairs of a face and a voice.
    """
    face, voice = (space.styles[space.kind == kind] for kind in range(2))
    of_face, of_voice = (space.speaker[space.kind == kind] for kind in range(2))
    gender = np.array([GENDERS.index(g) for g in space.genders])
    cosine = face @ voice.T
    same = of_face[:, None] == of_voice[None]
    one_sex = (gender[of_face][:, None] == gender[of_voice][None]) & ~same
    found = [
        ("silhouette by speaker", _silhouette(space, space.speaker), len(space.kind)),
        ("silhouette by modality", _silhouette(space, space.kind), len(space.kind)),
        ("modality gap", float(np.linalg.norm(face.mean(0) - voice.mean(0))), len(space.kind)),
        ("cosine, face and voice of one person", float(cosine[same].mean()), int(same.sum())),
        ("cosine, of two people", float(cosine[~same].mean()), int((~same).sum())),
    ]
    if one_sex.any():
        found.append(
            ("cosine, of two people of one sex", float(cosine[one_sex].mean()), int(one_sex.sum()))
        )
    shared = {"system": system, "dataset": dataset, "ci_low": None, "ci_high": None, "seed": seed}
    rows = [
        {"task": "styles", "metric": m, "value": v, "n": n, "chance": None, **shared}
        for m, v, n in found
    ]
    styles = {k: torch.from_numpy(s).float() for k, s in zip(KINDS, (face, voice), strict=True)}
    codes = dict(zip(KINDS, map(torch.from_numpy, (of_face, of_voice)), strict=True))
    for one in retrieval(styles, codes, torch.from_numpy(gender), seed=seed):
        kept = {name: one[name] for name in ("task", "metric", "value", "n", "chance")}
        rows.append({**kept, **shared})
    return rows
