"""Cross-modal verification: do this face and this voice belong to one person?

Any face and voice vectors can be tested, the method's styles or another system's. Every face meets
every voice; the cosine decides. Area under the curve and equal error rate over all pairs, and over
those of one sex, where telling women from men does not help; then retrieval among everybody's mean
voice (or face). Intervals draw people anew (`rows.py`). Comparable figures of others:
Vclip reports an AUC of 89.63 % on VoxCeleb. Not in the paper, which asks people instead (Sec. 4.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
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


def hits(
    similarity: Tensor, query: Tensor, gallery: Tensor, allowed: Tensor | None = None, *, k: int = 1
) -> Tensor:
    """Whether each query finds its speaker among the k most similar entries; the mean is R@k.

    Args:
        similarity: (..., Q, G).
        query: (Q,) speaker codes.
        gallery: (G,) speaker codes.
        allowed: (Q, G) bool, entries that may be found; default all.
        k: entries that are looked at.

    Returns:
        (..., Q) bool.
    """
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
    chance_within = float((1 / one_sex.sum(1)).mean())
    rng = torch.Generator().manual_seed(seed)
    rows: list[Row] = []
    for query, gallery in (KINDS, KINDS[::-1]):
        who = speakers[query]
        to_means = unit[query] @ means(unit[gallery], speakers[gallery], count).T  # (n, K)
        q = unit[query][draw_each(who, count, RETRIEVAL_DRAWS, rng)]  # (D, K, S)
        g = unit[gallery][draw_each(speakers[gallery], count, RETRIEVAL_DRAWS, rng)]
        to_single = q @ g.transpose(1, 2)  # (D, K, K)
        task = f"{query} to {gallery}"
        for name, similarity, codes, n in (
            ("gallery of means", to_means, who, len(who)),
            ("gallery of single samples", to_single, everyone, RETRIEVAL_DRAWS * count),
        ):
            for label, allowed, (chance, goal) in (
                ("R@1", None, (1 / count, GOAL)),
                ("R@1 within one sex", one_sex[codes], (chance_within, None)),
            ):
                value = float(hits(similarity, codes, everyone, allowed).float().mean())
                rows.append(row(task, "", f"{label}, {name}", value, n, chance=chance, goal=goal))
    return rows


ALL, ONE_SEX = "all pairs", "pairs of one sex"
RANKS = (1, 5)
CHANCE = 0.5

Array = NDArray[np.float64]


def roc_measures(
    score: Array, same: NDArray[np.bool_], weights: Iterable[Array] = ()
) -> list[tuple[float, float]]:
    """Area under the curve (AUC) and equal error rate (EER) of scored pairs.

    The pairs are sorted once and weighed many times, which a bootstrap over people needs;
    scikit-learn sorts them anew for each weight.

    Args:
        score: (P,), the larger the more alike.
        same: (P,) bool.
        weights: (P,) each, how much each pair counts.

    Returns:
        Of all pairs alike, then with every weight: the area (ties count half) and the rate where
        false acceptance and false rejection meet on the curve, straight between its points; both
        NaN if a kind of pair has no weight.

    Raises:
        DataError: no pair of either kind, or a score is not finite.
    """
    if not np.isfinite(score).all() or not same.any() or same.all():
        raise DataError(
            f"verification: {int(same.sum())} pairs of one person and {int((~same).sum())} of "
            f"two, {int((~np.isfinite(score)).sum())} scores not finite; expected both kinds "
            "and finite scores; take more people, and check the vectors"
        )
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # of ties
    made = []
    for weight in chain([np.ones(len(order))], weights):
        true, false = (np.cumsum(weight[order] * kind[order])[ends] for kind in (same, ~same))
        if true[-1] <= 0 or false[-1] <= 0:
            made.append((float("nan"), float("nan")))
            continue
        x, y = (np.append(0.0, sums / sums[-1]) for sums in (false, true))  # acceptance
        gap = x + y - 1  # false acceptance less false rejection; never falls
        after = int(np.argmax(gap >= 0))
        share = -gap[after - 1] / (gap[after] - gap[after - 1])
        equal = x[after - 1] + share * (x[after] - x[after - 1])
        made.append((float(np.trapezoid(y, x)), float(equal)))
    return made


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
        DataError: see `roc_measures`.
    """
    names = sorted({*first, *second})
    codes = (np.searchsorted(names, side) for side in (first, second))
    a, b = (one.ravel() for one in np.meshgrid(*codes, indexing="ij"))
    score, same = np.asarray(score, dtype=np.float64).ravel(), a == b
    sexes = np.array([(gender or {}).get(name, "") for name in names])
    parts = {ALL: np.ones_like(same), ONE_SEX: (sexes[a] == sexes[b]) & (sexes[a] != "")}
    drawn = draws_of(len(names), seed=seed, draws=draws)
    rows: list[Row] = []
    for part, chosen in parts.items():
        kinds = same[chosen]
        if part != ALL and (not kinds.any() or kinds.all()):
            continue
        one, other = a[chosen], b[chosen]
        weights = (np.where(kinds, w[one], w[one] * w[other]) for w in drawn)
        found = zip(*roc_measures(score[chosen], kinds, weights), strict=True)
        count = {"n": len(kinds), "people": len({*one, *other}), "seed": seed, "chance": CHANCE}
        for metric, (value, *others) in zip(("AUC", "EER"), found, strict=True):
            rows.append(_row(f"verification {metric}, {part}", value, quantiles(others), **count))
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
    unit = {
        name: functional.normalize(x.detach().cpu().double(), dim=1)
        for name, x in zip(KINDS, (faces, voices), strict=True)
    }
    code = {
        name: torch.tensor([people.index(one) for one in who])
        for name, who in zip(KINDS, (face_people, voice_people), strict=True)
    }
    score = (unit["face"] @ unit["voice"].T).numpy()
    rows = pair_rows(score, face_people, voice_people, gender, seed=seed, draws=draws)
    sexes = [(gender or {}).get(name, "") for name in people]
    one_sex = torch.tensor([[a == b and a != "" for b in sexes] for a in sexes])
    drawn = draws_of(len(people), seed=seed, draws=draws)
    rows = [{**row, "direction": ""} for row in rows]
    for query, gallery in (KINDS, KINDS[::-1]):
        mean = means(unit[gallery], code[gallery], len(people))  # (K, S)
        found = _retrieval(unit[query], code[query], mean, one_sex, drawn, seed)
        rows += [{**row, "direction": f"{query} to {gallery}"} for row in found]
    return rows


def _retrieval(
    query: Tensor, who: Tensor, gallery: Tensor, one_sex: Tensor, drawn: Array, seed: int
) -> Iterator[Row]:
    similarity, everybody = query @ gallery.T, torch.arange(len(gallery))  # (n, K), (K,)
    for part, allowed in (("", torch.ones_like(one_sex)), (" within one sex", one_sex)):
        choices = allowed.sum(1)[who]
        asked = choices > 1
        chosen = who[asked]
        if not len(chosen):
            continue
        for k in RANKS:
            if not part and k >= len(gallery):
                continue
            found = hits(similarity[asked], chosen, everybody, allowed[chosen], k=k).double()
            weight = drawn[:, chosen.numpy()]  # (draws, n)
            total = weight.sum(axis=1)
            interval = quantiles((weight * found.numpy()).sum(axis=1)[total > 0] / total[total > 0])
            chance = float((k / choices[asked].double()).clamp(max=1).mean())
            count = {"n": len(chosen), "people": len(set(chosen.tolist())), "seed": seed}
            yield _row(f"R@{k}{part}", float(found.mean()), interval, **count, chance=chance)


def _row(
    metric: str, value: float, interval: tuple[float | None, float | None], **rest: Any
) -> Row:
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
    styles: list[Tensor] = []
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
        made = [
            converter.style_of_face(store.face(item, number), gender=gender, aligned=True)
            for store, item, number in _draw(faces, per_speaker, rng)
        ]
        kinds += [0] * len(made)
        made += [
            converter.style_of_voice(store.waveform(item), gender=gender)
            for store, item in _draw(clips, per_speaker, rng)
        ]
        kinds += [1] * (len(codes) + len(made) - len(kinds))
        codes += [code] * len(made)
        styles += [one.vector for one in made]
    return StyleSpace(
        styles=functional.normalize(torch.cat(styles).cpu().double(), dim=1).numpy(),
        kind=np.array(kinds),
        speaker=np.array(codes),
        speakers=speakers,
        genders=tuple(genders),
        split=split,
    )


def _draw(pool: Sequence[Any], count: int, rng: np.random.Generator) -> list[Any]:
    chosen = rng.permutation(len(pool))[:count]
    return [pool[i] for i in sorted(chosen)]


def measures(space: StyleSpace, *, system: str = "", dataset: str = "", seed: int = 0) -> list[Row]:
    """Say how far apart speakers and modalities are.

    Args:
        space: of :func:`style_space`.
        system, dataset: for the rows.
        seed: of the draws of the retrieval.

    Returns:
        Tidy rows. A silhouette (Rousseeuw 1987) is from -1 to 1: by speaker 1 is best, by modality
        0 (faces and voices mixed). The modality gap is the distance between the means of all faces
        and of all voices, from 0 to 2. Cosines are means over pairs of a face and a voice.
    """
    from sklearn.metrics import silhouette_score

    face, voice = (space.styles[space.kind == kind] for kind in range(2))
    of_face, of_voice = (space.speaker[space.kind == kind] for kind in range(2))
    gender = np.array([GENDERS.index(g) for g in space.genders])
    cosine = face @ voice.T
    same = of_face[:, None] == of_voice[None]
    one_sex = (gender[of_face][:, None] == gender[of_voice][None]) & ~same
    count = len(space.kind)
    found = [
        (f"silhouette by {name}", silhouette_score(space.styles, label, metric="cosine"), count)
        for name, label in (("speaker", space.speaker), ("modality", space.kind))
    ]
    found.append(("modality gap", np.linalg.norm(face.mean(0) - voice.mean(0)), count))
    for name, pairs in (
        ("face and voice of one person", same),
        ("of two people", ~same),
        ("of two people of one sex", one_sex),
    ):
        if pairs.any():
            found.append((f"cosine, {name}", cosine[pairs].mean(), int(pairs.sum())))
    shared = {"system": system, "dataset": dataset, "ci_low": None, "ci_high": None, "seed": seed}
    rows: list[Row] = [
        {"task": "styles", "metric": m, "value": float(v), "n": n, "chance": None, **shared}
        for m, v, n in found
    ]
    styles = {k: torch.from_numpy(s).float() for k, s in zip(KINDS, (face, voice), strict=True)}
    codes = dict(zip(KINDS, map(torch.from_numpy, (of_face, of_voice)), strict=True))
    columns = ("task", "metric", "value", "n", "chance")
    for one in retrieval(styles, codes, torch.from_numpy(gender), seed=seed):
        rows.append({name: one[name] for name in columns} | shared)
    return rows
