"""Cross-modal verification: do this face and this voice belong to one person?

Any face and voice vectors can be tested, the method's styles or another system's. Every face meets
every voice; the cosine decides. Area under the curve and equal error rate over all pairs, and over
those of one sex, where telling women from men does not help; then retrieval among everybody's mean
voice (or face). Intervals draw people anew (`rows.py`). Comparable figures of others:
Vclip reports an AUC of 89.63 % on VoxCeleb. Not in the paper, which asks people instead (Sec. 4.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot.convert import Converter
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.evaluation.classifiers import clips_of, speakers_of
from xfavot.evaluation.rows import Array, Row, draws_of, interval, ratio, row

KINDS = ("face", "voice")
GOAL = 0.95
RETRIEVAL_DRAWS = 500  # of one query and one gallery sample a speaker
ALL, ONE_SEX = "all pairs", "pairs of one sex"
RANKS = (1, 5)
CHANCE = 0.5


class StyleSpace(NamedTuple):
    """Styles of faces and voices of the same people.

    Args:
        styles: (n, S) unit vectors, by the encoders' heads of the speakers' genders.
        kind: (n,) "face" or "voice".
        speaker: (n,) codes.
        speakers: their names, sorted.
        genders: "f" or "m" of each.
    """

    styles: NDArray[np.floating[Any]]
    kind: NDArray[np.str_]
    speaker: NDArray[np.int64]
    speakers: Sequence[str]
    genders: Sequence[str]

    def of(self, kind: str) -> tuple[Tensor, Tensor]:
        """Styles (n, S) and speaker codes (n,) of the faces or the voices."""
        chosen = self.kind == kind
        return torch.from_numpy(self.styles[chosen]), torch.from_numpy(self.speaker[chosen])

    @property
    def one_sex(self) -> Tensor:
        """(K, K) bool, whose gender is alike."""
        return torch.from_numpy(np.equal.outer(self.genders, self.genders))


def style_space(
    converter: Converter, stores: Sequence[Store], split: str, *, per_speaker: int = 12, seed: int
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
    genders, rng = speakers_of(stores, (split,)), np.random.default_rng(seed)
    every = clips_of(stores, split)
    found: list[tuple[str, int, Tensor]] = []
    for code, (name, gender) in enumerate(genders.items()):
        clips = [clip for clip in every if clip.item.speaker == name]
        faces = [(*clip, number) for clip in clips for number in range(clip.item.face_count)]
        for at in sorted(rng.permutation(len(faces))[:per_speaker]):
            store, *face = faces[at]
            style = converter.style_of_face(store.face(*face), gender=gender, aligned=True)
            found.append(("face", code, style.vector))
        for at in sorted(rng.permutation(len(clips))[:per_speaker]):
            store, item = clips[at]
            style = converter.style_of_voice(store.waveform(item), gender=gender)
            found.append(("voice", code, style.vector))
    kind, speaker, styles = zip(*found, strict=True)
    unit = functional.normalize(torch.cat(styles).cpu().double(), dim=1).numpy()
    return StyleSpace(unit, np.array(kind), np.array(speaker), [*genders], [*genders.values()])


def hits(similarity: Tensor, query: Tensor, allowed: Tensor | None = None, *, k: int = 1) -> Tensor:
    """Whether each query finds its speaker among the k most similar ones; the mean is R@k.

    Args:
        similarity: (..., Q, K).
        query: (Q,) speaker codes.
        allowed: (Q, K) bool, speakers that may be found; default all.
        k: entries that are looked at.

    Returns:
        (..., Q) bool.
    """
    if allowed is not None:
        similarity = similarity.masked_fill(~allowed, -torch.inf)
    nearest = similarity.topk(min(k, similarity.shape[-1]), dim=-1).indices  # (..., Q, k)
    return (nearest == query[:, None]).any(-1)


def means(style: Tensor, speaker: Tensor, count: int) -> Tensor:
    """(K, S) unit mean of the unit styles (n, S) of every speaker."""
    total = style.new_zeros(count, style.shape[1]).index_add_(0, speaker, style)
    return functional.normalize(total, dim=1)


def draw_each(speaker: Tensor, count: int, draws: int, rng: torch.Generator) -> Tensor:
    """(draws, K) rows, one of every speaker, drawn evenly from codes (n,)."""
    own = [(speaker == code).nonzero().squeeze(1) for code in range(count)]
    drawn = [rows[torch.randint(len(rows), (draws,), generator=rng)] for rows in own]
    return torch.stack(drawn, dim=1)


def retrieval(space: StyleSpace, *, seed: int) -> list[Row]:
    """Measure face-to-voice and voice-to-face R@1 by cosine.

    Args:
        space: the styles.
        seed: of the draws.

    Returns:
        Rows for a gallery of speakers' mean styles and for one of single samples, over all speakers
        and within one gender.
    """
    count, rng = len(space.speakers), torch.Generator().manual_seed(seed)
    within = float((1 / space.one_sex.sum(1)).mean())  # by chance
    rows: list[Row] = []
    for query, gallery in (KINDS, KINDS[::-1]):
        (x, who), (y, whose) = space.of(query), space.of(gallery)
        x, y = (functional.normalize(one.float(), dim=1) for one in (x, y))
        q = x[draw_each(who, count, RETRIEVAL_DRAWS, rng)]  # (D, K, S)
        g = y[draw_each(whose, count, RETRIEVAL_DRAWS, rng)]
        for name, similarity, codes, n in (
            ("means", x @ means(y, whose, count).T, who, len(who)),  # (n, K)
            ("single samples", q @ g.mT, torch.arange(count), RETRIEVAL_DRAWS * count),
        ):
            for label, allowed, chance, goal in (
                ("R@1", None, 1 / count, GOAL),
                ("R@1 within one sex", space.one_sex[codes], within, None),
            ):
                value = float(hits(similarity, codes, allowed).float().mean())
                named = f"{query} to {gallery}", "", f"{label}, gallery of {name}"
                rows.append(row(*named, value, n, chance=chance, goal=goal))
    return rows


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
        made.append((float(np.trapezoid(y, x)), float(np.interp(0, gap, x))))
    return made


def pair_rows(
    score: Array,
    first: Sequence[str],
    second: Sequence[str],
    gender: Mapping[str, str],
    seed: int,
    compared: NDArray[np.bool_] | None = None,
) -> list[Row]:
    """Measure AUC and EER of scored pairs.

    Args:
        score: (Q, G).
        first, second: the people of rows and columns.
        gender: of people by name; where a pair's is not known, it counts among all pairs alone.
        seed: of the bootstrap over people.
        compared: (Q, G), which pairs count; default all.

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
    sexes = np.array([gender.get(name, "") for name in names])
    counted = np.ones_like(same) if compared is None else compared.ravel()
    parts = {ALL: counted, ONE_SEX: counted & (sexes[a] == sexes[b]) & (sexes[a] != "")}
    drawn = draws_of(len(names), seed=seed)
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
            known = {**interval(value, others), **count}
            rows.append({"metric": f"verification {metric}, {part}", **known})
    return rows


def cross_modal_rows(
    space: StyleSpace, *, seed: int, groups: Sequence[int] | None = None
) -> list[Row]:
    """Measure verification and retrieval between faces and voices.

    Args:
        space: the styles.
        seed: of the bootstrap over people.
        groups: (K,) of everybody; only people of one group are compared. Default: all with all.

    Returns:
        Rows as `pair_rows`, and R@1 and R@5 of "face to voice" and "voice to face" (column
        direction), whose n counts queries; the gallery holds everybody's mean vector, and only
        those who ask are drawn anew.

    Raises:
        DataError: styles that are not finite.
    """
    (face, of_face), (voice, of_voice) = map(space.of, KINDS)
    names = np.array(space.speakers)
    sexes = dict(zip(space.speakers, space.genders, strict=True))
    met = torch.ones_like(space.one_sex)
    if groups is not None:
        met = torch.from_numpy(np.equal.outer(groups, groups))
    pairs = (face @ voice.T).numpy(), names[of_face].tolist(), names[of_voice].tolist()
    measured = pair_rows(*pairs, sexes, seed=seed, compared=met[of_face][:, of_voice].numpy())
    rows = [{**one, "direction": ""} for one in measured]
    for query, gallery in (KINDS, KINDS[::-1]):
        (x, who), (y, whose) = space.of(query), space.of(gallery)
        similarity = x @ means(y, whose, len(names)).T  # (n, K)
        for part, allowed in (("", met), (" within one sex", met & space.one_sex)):
            choices = allowed.sum(1)[who]
            asked = choices > 1
            people = names[who[asked]].tolist()
            for k in RANKS if people else ():
                if not part and k >= int(choices.max()):
                    continue
                found = hits(similarity[asked], who[asked], allowed[who[asked]], k=k)
                samples = [(float(hit), 1.0, name) for hit, name in zip(found, people, strict=True)]
                named = {"metric": f"R@{k}{part}", "direction": f"{query} to {gallery}"}
                chance = float((k / choices[asked].double()).clamp(max=1).mean())
                known = {"people": len({*people}), "chance": chance}
                rows.append({**named, **known, **ratio(samples, seed=seed)})
    return rows
