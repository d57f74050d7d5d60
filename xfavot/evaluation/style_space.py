"""The style space: where the faces and the voices of each speaker lie, as a map and in numbers.

Paper: appendix E and Fig. 10 (t-SNE of the style vectors of GRID's faces and voices). The map is a
picture; how far speakers and modalities are apart is measured in the space itself, on unit vectors,
since L_xm compares styles by their cosine. Settings of the t-SNE (A75): UNKNOWN, those here are
scikit-learn's with a PCA start and cosine distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xfavot.convert import Converter
from xfavot.data.items import GENDERS
from xfavot.data.manifest import Item, Store
from xfavot.errors import DataError
from xfavot.evaluation.people import speakers_of
from xfavot.evaluation.retrieval import retrieval

try:
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
except ImportError as error:
    raise DataError(
        'the style space needs scikit-learn, which is not installed; run: pip install "xfavot'
        '[metrics]"'
    ) from error

KINDS = ("face", "voice")
PERPLEXITY = 30.0
PER_SPEAKER = 12  # faces, and as many voices
FEWEST = 6  # points that a map is made of

Array = NDArray[np.float64]


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
            styles.append(converter.style_of_voice(_voice(store, item), gender=gender).vector)
            kinds.append(1)
        codes += [code] * (len(styles) - len(codes))
    vectors = torch.nn.functional.normalize(torch.cat(styles).cpu().double(), dim=1)
    return StyleSpace(
        styles=vectors.numpy(), kind=np.array(kinds), speaker=np.array(codes), speakers=speakers,
        genders=tuple(genders), split=split,
    )  # fmt: skip


def _voice(store: Store, item: Item) -> NDArray[np.float32]:
    return np.asarray(store.waveform(item))


def _draw(pool: Sequence[Any], count: int, rng: np.random.Generator) -> list[Any]:
    chosen = rng.permutation(len(pool))[:count]
    return [pool[i] for i in sorted(chosen)]


def embed(space: StyleSpace, *, seed: int = 0) -> Array:
    """Lay the styles out on a plane by t-SNE, (n, 2); the same seed gives the same map.

    Raises:
        DataError: scikit-learn is missing, or there are too few points for a map.
    """
    count = len(space.styles)
    if count < FEWEST:
        raise DataError(
            f"t-SNE: got {count} styles; expected {FEWEST} or more; prepare more clips of more "
            "people, or take another split"
        )
    tsne = TSNE(
        metric="precomputed", init=_principal(space.styles), random_state=seed,
        perplexity=min(PERPLEXITY, (count - 1) / 3),
    )  # fmt: skip
    return np.asarray(tsne.fit_transform(_distances(space)), dtype=np.float64)


def _distances(space: StyleSpace) -> Array:
    """(n, n) one less the cosine."""
    distance: Array = np.clip(1.0 - space.styles @ space.styles.T, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    return distance


def _silhouette(space: StyleSpace, label: NDArray[np.int64]) -> float:
    """Mean silhouette (Rousseeuw 1987); a point alone in its group counts 0."""
    return float(silhouette_score(_distances(space), label, metric="precomputed"))


def _principal(styles: Array) -> Array:
    """(n, 2) the two main directions, scaled as t-SNE starts from."""
    centred = styles - styles.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    start = left[:, :2] * values[:2]
    return np.asarray(start / (start[:, 0].std() + 1e-12) * 1e-4)


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
    rows = [{"task": "styles", "metric": m, "value": v, "n": n, "chance": None, **shared}
            for m, v, n in found]  # fmt: skip
    styles = {k: torch.from_numpy(s).float() for k, s in zip(KINDS, (face, voice), strict=True)}
    codes = dict(zip(KINDS, map(torch.from_numpy, (of_face, of_voice)), strict=True))
    for one in retrieval(styles, codes, torch.from_numpy(gender), seed=seed):
        kept = {name: one[name] for name in ("task", "metric", "value", "n", "chance")}
        rows.append({**kept, **shared})
    return rows
