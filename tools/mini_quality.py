"""Is the corpus `mini` good? Its words, its speakers and its hidden factors, on the ground truth.

Judges that know nothing of the corpus: pocketsphinx with GRID's grammar hears the words,
Resemblyzer (GE2E, Wan et al. 2018) tells the speakers apart, plain signals show the factors. Pairs
and words of one speaker are not independent: the honest number of cases is that of the speakers.

    python -m tools.mini_quality data/mini              words and speakers of a prepared store
    python -m tools.mini_quality data/mini --factors    how the factors show; best of 64 speakers
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from xfavot.audio.mel import MEL, band_centres
from xfavot.data.store import Item, Store
from xfavot.errors import DataError
from xfavot.evaluation.voice_networks import PocketsphinxGrid, at_16_khz

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

FRAMES_PER_S = MEL.sample_rate / MEL.hop
QUIET = 1.75  # log10 magnitude below the loudest frames, where speech ends: 35 dB
OCTAVE_ERROR = 0.75  # octaves from the median, where a pitch track is held
TREMBLING_HZ = (4.2, 6.4)  # of a tremor; the melody of a sentence is slower
ENVELOPE_HZ = (400.0, 6500.0)  # where formants are compared
MOST_SHIFT = 14  # steps of the envelope's grid, a third of an octave up or down
FOLDS = 12  # of speakers; there must be as many
BOOTSTRAPS = 2000
QUANTILES = 32  # of the ranks that a probe sees
SHOWN, LEAST_SHOWN = 3, 0.2  # measures named for a factor and modality, and how strong
HIDDEN = ("sex", "age", "size", "liveliness")
NUISANCE = (
    *("yaw", "pitch", "gaze_x", "mouth", "smile", "light", "light_height", "light_strength"),
    "tone",
)
VOICE = ("pitch", "melody", "tremor", "rate", "tilt", "breath", "level")  # of a clip
VOICE_OF_SPEAKER = (*VOICE, "formants")
FACE = (
    *("shoulder width", "face width", "hair greyness", "forehead lines", "folds at the mouth"),
    *("cheek redness", "brow height", "clothes colour", "beard", "hair at the neck"),
    *("mouth opening", "nostrils aside", "nostrils down", "side light", "high light"),
    *("background", "gaze"),
)


def samples(
    store: Store, speakers: Sequence[str]
) -> tuple[Array, Array, NDArray[np.int64], list[int]]:
    """Measure every picture and every clip.

    Returns:
        (n, 17) of every picture, (n, 7) of the clip that it belongs to, (n,) number of the speaker,
        and the rows of the pictures in the store.
    """
    code = {name: number for number, name in enumerate(speakers)}
    pictures, clips, owner, rows = [], [], [], []
    for item in store.items:
        spoken = voice(store, item)
        for number in range(item.face_count):
            row = item.face_start + number
            pictures.append(face(store.face(item, number), store.landmarks[row]))
            clips.append(spoken)
            owner.append(code[item.speaker])
            rows.append(row)
    return np.array(pictures), np.array(clips), np.array(owner), rows


def by_speaker(x: Array, owner: NDArray[np.int64]) -> Array:
    """(K, ...) medians over the samples of each speaker."""
    return np.stack([np.nanmedian(x[owner == code], axis=0) for code in range(owner.max() + 1)])


def voice(store: Store, item: Item) -> Array:
    """Measure one spoken clip.

    Returns:
        One number for each of :data:`VOICE`: log2 of the median pitch in Hz; deviation around it,
        semitones; log10 share of trembling in the track; words a second; slope above 1 kHz, dB an
        octave; level above 5 kHz over that below, dB; level, dB.
    """
    log_mel = store.log_mel(item).numpy().astype(np.float64)  # (80, T)
    f0 = np.nan_to_num(store.f0_hz(item).astype(np.float64))
    frames = log_mel.mean(axis=0)
    spoken = np.flatnonzero(frames > np.percentile(frames, 95) - QUIET)
    voiced = np.flatnonzero(f0 > 0)
    if len(spoken) < 2 or len(voiced) < 20 or not item.transcript.split():
        return np.full(len(VOICE), np.nan)
    octaves = np.log2(f0[voiced])
    middle = float(np.median(octaves))
    melody = np.clip(octaves - middle, -OCTAVE_ERROR, OCTAVE_ERROR)
    seconds = (spoken[-1] - spoken[0] + 1) / FRAMES_PER_S
    hz = band_hz()
    decibel = 10 * np.log10((10 ** (2 * log_mel[:, voiced])).mean(axis=1))  # (80,)
    slope = np.polyfit(np.log2(hz[hz > 1000]), decibel[hz > 1000], 1)[0]
    hiss = decibel[hz > 5000].mean() - decibel[(hz > 300) & (hz <= 5000)].mean()
    level = 20 * np.log10(np.mean(10 ** log_mel[:, spoken]))
    rate = len(item.transcript.split()) / seconds
    tremor = _trembling(voiced, melody)
    return np.array([middle, 12 * melody.std(), tremor, rate, slope, hiss, level])


def band_hz() -> Array:
    """Centre of every mel band, (80,), in Hz."""
    return np.asarray(band_centres()[0].numpy(), dtype=np.float64)


def _trembling(voiced: NDArray[np.int64], melody: Array) -> float:
    """Log10 share of the variance of a pitch track that lies at the rate of a tremor."""
    trembling, total = 1e-7, 1e-6
    for run in np.split(np.arange(len(voiced)), np.flatnonzero(np.diff(voiced) > 1) + 1):
        if len(run) < 24:  # 0.3 s
            continue
        track = melody[run] - np.poly1d(np.polyfit(run - run[0], melody[run], 3))(run - run[0])
        power = np.abs(np.fft.rfft(track * np.hanning(len(run)))) ** 2
        hz = np.fft.rfftfreq(len(run), 1 / FRAMES_PER_S)
        trembling += float(power[(hz > TREMBLING_HZ[0]) & (hz < TREMBLING_HZ[1])].sum())
        total += float(power.sum())
    return float(np.log10(trembling / total))


def spectrum(store: Store, speaker: str) -> Array:
    """Mean log10 mel of the voiced frames of a speaker, (80,)."""
    parts = [
        store.log_mel(item).numpy()[:, np.nan_to_num(store.f0_hz(item)) > 0]
        for item in store.items
        if item.speaker == speaker
    ]
    return np.asarray(np.concatenate(parts, axis=1).mean(axis=1), dtype=np.float64)


def formant_shift(spectra: Array) -> Array:
    """How far the formants of each voice lie above those of all voices together.

    Args:
        spectra: (K, 80), mean log10 mel of the voiced frames of each speaker.

    Returns:
        (K,) octaves: the shift along the logarithm of frequency under which the envelope, without
        its slope, is most like the mean envelope of the others.
    """
    from scipy.fft import dct

    grid = np.linspace(np.log2(ENVELOPE_HZ[0]), np.log2(ENVELOPE_HZ[1]), 120)
    cepstra = dct(spectra, norm="ortho", axis=1)
    cepstra[:, 22:] = 0.0  # the envelope without harmonics
    smooth = dct(cepstra, type=3, norm="ortho", axis=1)
    envelopes = np.stack([np.interp(grid, np.log2(band_hz()), row) for row in smooth])
    envelopes -= np.stack([np.poly1d(np.polyfit(grid, row, 2))(grid) for row in envelopes])
    total = envelopes.sum(axis=0)
    best = [_best_shift(row, total - row) for row in envelopes]
    return np.asarray(np.array(best) * (grid[1] - grid[0]))


def _best_shift(row: Array, others: Array) -> int:
    def likeness(k: int) -> float:
        here, there = row[max(0, k) :], others[max(0, -k) :]
        many = len(row) - abs(k)
        return float(np.corrcoef(here[:many], there[:many])[0, 1])

    return max(range(-MOST_SHIFT, MOST_SHIFT + 1), key=likeness)


class _Picture:
    """One picture with places in units of the face: eyes at (-1, 0) and (1, 0), mouth at (0, 1)."""

    def __init__(self, pixels: NDArray[np.uint8], landmarks: NDArray[Any]) -> None:
        self.rgb = pixels.astype(np.float64)
        self.grey = self.rgb @ np.array([0.299, 0.587, 0.114])
        self.marks = landmarks.astype(np.float64)
        self.eyes = self.marks[:2].mean(axis=0)
        self.down = self.marks[3:5].mean(axis=0) - self.eyes
        self.unit = float(np.linalg.norm(self.down))  # pixels from eyes to mouth
        self.right = np.array([self.down[1], -self.down[0]]) / 2

    def box(self, across: float, below: float, wide: float, high: float) -> Any:
        """Index of the pixels around a place, at least two each way; half sizes in units."""
        middle = self.eyes + across * self.right + below * self.down
        half = np.array([wide, high]) * self.unit
        size = len(self.grey)
        left, top = np.clip(middle - half, 0, size - 2).astype(int)
        right, bottom = np.clip(middle + half + 1, 2, size).astype(int)
        return np.s_[top : max(bottom, top + 2), left : max(right, left + 2)]

    def darkest(self, box: Any) -> Array:
        """Place of the darkest tenth of a box, right of and below the eyes, in units."""
        patch = self.grey[box]
        weight = np.clip(np.percentile(patch, 10) - patch, 0, None) + 1e-6
        x, y = (
            np.average(np.arange(n), weights=weight.sum(axis=axis))
            for n, axis in ((patch.shape[1], 0), (patch.shape[0], 1))
        )
        place = np.array([box[1].start + x, box[0].start + y]) - self.eyes
        return np.array([(place @ axis) / (axis @ axis) for axis in (self.right, self.down)])

    def colour(self, box: Any) -> Array:
        """Median colour of a box, (3,)."""
        return np.asarray(np.median(self.rgb[box].reshape(-1, 3), axis=0))


def face(pixels: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> Array:
    """Measure one picture.

    Args:
        pixels: (128, 128, 3).
        landmarks: (5, 2) pixels: eyes, nose, corners of the mouth.

    Returns:
        One number for each of :data:`FACE`: lengths in units of eyes to mouth, the rest as shares
        or logarithms of brightness.
    """
    picture = _Picture(pixels, landmarks)
    grey, unit = picture.grey, picture.unit
    cheeks = [picture.colour(picture.box(side, 0.55, 0.14, 0.10)) for side in (-1.0, 1.0)]
    skin = (cheeks[0] + cheeks[1]) / 2
    forehead, chin = picture.box(0.0, -0.60, 0.30, 0.10), picture.box(0.0, 1.45, 0.20, 0.06)
    x, y = (picture.eyes + 0.5 * picture.down).astype(int)
    hair = picture.colour(picture.box(0.0, -1.2, 0.5, 0.10))
    brows = grey[picture.box(0.0, -0.32, 0.72, 0.18)]
    dark = np.clip(np.median(brows) - brows, 0, None).sum(axis=1) ** 2 + 1e-6
    cloth = picture.colour(np.s_[-5:, 26:102])
    folds = [_roughness(grey[picture.box(s * 0.85, 0.75, 0.14, 0.20)], 1) for s in (-1, 1)]
    nostrils = picture.darkest(picture.box(0.0, 0.60, 0.42, 0.14))
    corners = np.concatenate([grey[:14, :14].ravel(), grey[:14, -14:].ravel()])
    return np.array(
        [
            _shoulders(picture.rgb) / unit,
            _run(_alike(picture.rgb[y], skin), x) / unit,
            (hair.min() / max(1.0, hair.max())) * hair.mean() / 255,
            _roughness(grey[forehead], 0),
            np.mean(folds),
            _redness(skin) - _redness(picture.colour(forehead)),
            -np.average(np.arange(len(dark)), weights=dark) / unit,
            1 - cloth.min() / max(1.0, cloth.max()),
            np.abs(np.log((picture.colour(chin) + 12) / (skin + 12))).mean(),
            _beside_the_neck(picture),
            grey[picture.box(0.0, 1.05, 0.10, 0.20)].std() / max(1.0, skin.mean()),
            *nostrils,
            np.log((cheeks[1].mean() + 1) / (cheeks[0].mean() + 1)),
            np.log((grey[forehead].mean() + 1) / (picture.colour(chin).mean() + 1)),
            np.median(corners) / 255,
            _gaze(picture),
        ]
    )


def _redness(colour: Array) -> float:
    return float((colour[0] - colour[1]) / max(1.0, colour[0]))


def _roughness(patch: Array, axis: int) -> float:
    """Log of the mean second difference along an axis over the mean brightness."""
    size = np.abs(np.diff(patch, n=2, axis=axis)).mean()
    return float(np.log((size + 0.1) / max(1.0, patch.mean())))


def _alike(row: Array, colour: Array) -> Bools:
    """Which pixels (n, 3) have about the hue of a colour, brighter or darker."""
    ratio = np.log((row + 12) / (colour + 12))
    mean = ratio.mean(axis=1, keepdims=True)
    return np.asarray((np.abs(ratio - mean).max(axis=1) < 0.12) & (np.abs(mean[:, 0]) < 0.7))


def _run(row: Bools, start: int) -> float:
    """Number of true values from a place outwards to both sides; gaps of two are bridged."""
    total = 0
    for side in (row[start:], row[:start][::-1]):
        good = np.flatnonzero(side)
        ends = np.flatnonzero(np.diff(good, prepend=-1) > 3)
        total += int(ends[0]) if len(ends) else len(good)
    return float(total)


def _shoulders(rgb: Array) -> float:
    """Width of what is more like the clothes than like the wall, just above the lower edge."""
    total = 0.0
    for way in (-1, 1):
        half = rgb[120:124, ::way][:, 64:]  # (4, 64, 3), from the middle outwards
        wall = np.median(rgb[88:100, ::way][:, -4:].reshape(-1, 3), axis=0)
        cloth = np.median(rgb[124:, ::way][:, 72:84].reshape(-1, 3), axis=0)
        near = np.linalg.norm(half - cloth, axis=2) < np.linalg.norm(half - wall, axis=2)
        total += float(np.mean([np.flatnonzero(row).max(initial=0) for row in near]))
    return total


def _beside_the_neck(picture: _Picture) -> float:
    """How unlike the wall the picture is at both sides of the neck; hair that hangs covers it."""
    found = []
    for way in (-1, 1):
        place = picture.colour(picture.box(way * 1.55, 1.12, 0.06, 0.06))
        wall = np.median(picture.rgb[88:100, ::way][:, -4:].reshape(-1, 3), axis=0)
        found.append(np.abs(np.log((place + 12) / (wall + 12))).mean())
    return float(np.mean(found))


def _gaze(picture: _Picture) -> float:
    """Place of the dark of the eyes, right of the middle, in units."""
    offsets = []
    for x, y in picture.marks[:2].astype(int):
        patch = picture.grey[max(0, y - 3) : y + 4, max(0, x - 5) : x + 6]
        dark = np.clip(np.percentile(patch, 40) - patch, 0, None).sum(axis=0) + 1e-6
        offsets.append(np.average(np.arange(patch.shape[1]) - 5, weights=dark))
    return float(np.mean(offsets) / picture.unit)


# How the factors show in face and voice, and how well they can be read


def factor_table(store: Store) -> pd.DataFrame:
    """Measure how the factors of a corpus show, and how well they can be read.

    Hidden factors are read of a speaker (the median of the signals of all clips and pictures),
    nuisance of one picture and its clip. Probes are linear in the signals' ranks (Lasso; for sex
    logistic in the signals) and trained on other speakers; they are given the sex where that is
    not the question.

    Args:
        store: a prepared store of `mini`, the more speakers the better: of the default sixteen no
            figure is sure.

    Returns:
        A row a factor: `shows in the voice`, `shows in the face` (the measures that follow it most:
        for sex the rank-biserial correlation, positive where men have more; for the other hidden
        factors Spearman's within the sexes; for nuisance Spearman's within the speakers), `voice`,
        `face` and `both` (R2 of the reading, for sex balanced accuracy), each with `_low` and
        `_high` (95 %, bootstrap over speakers).

    Raises:
        DataError: no hidden factors are known, there are fewer than twelve speakers or one sex.
    """
    people, faces = known_factors(store)
    speakers = sorted(people)
    man = np.array([people[name]["gender"] == "m" for name in speakers])
    if len(speakers) < FOLDS or man.all() or not man.any():
        raise DataError(
            f"factor table of {store.path}: {len(speakers)} speakers, {int(man.sum())} of them "
            f"men; expected at least {FOLDS}, women and men; make more people"
        )
    pictures, clips, owner, rows = samples(store, speakers)
    spectra = np.stack([spectrum(store, name) for name in speakers])
    seen = {
        "voice": np.column_stack([by_speaker(clips, owner), formant_shift(spectra)]),
        "face": by_speaker(pictures, owner),
    }
    alone = {"voice": np.nan_to_num(clips), "face": np.nan_to_num(pictures)}
    each = np.arange(len(speakers))
    table = []
    for factor in (*HIDDEN, *NUISANCE):
        x, who, sex, group = (seen, each, man, man)
        if factor == "sex":
            y = man.astype(float)
        elif factor in HIDDEN:
            y = np.array([float(people[name][factor]) for name in speakers])
        else:
            x, who, sex, group = alone, owner, man[owner], owner
            y = np.array([float(faces[row][factor]) for row in rows])
        entry: dict[str, Any] = {"factor": factor, "n": len(y)}
        for side, names in (("voice", VOICE_OF_SPEAKER), ("face", FACE)):
            along = [
                _rank_biserial(column, man) if factor == "sex" else _spearman(column, y, group)
                for column in x[side].T
            ]
            entry[f"shows in the {side}"] = _strongest(dict(zip(names, along, strict=False)))
        entry |= _reading(x, y, who, None if factor == "sex" else sex)
        table.append(entry)
    return pd.DataFrame(table).set_index("factor")


def known_factors(store: Store) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read the factors of every speaker and of every picture of a store of `mini`."""
    file = store.path / "factors.json"
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    people, faces = known.get("people", {}), known.get("faces", [])
    if not people or len(faces) != len(store.faces):
        raise DataError(
            f"{store.path}: factors.json knows {len(people)} people and {len(faces)} of "
            f"{len(store.faces)} pictures; expected a prepared store of `mini`; prepare it again"
        )
    return people, faces


def _strongest(along: dict[str, float]) -> str:
    best = sorted(along.items(), key=lambda entry: -abs(entry[1]))[:SHOWN]
    return ", ".join(f"{name} {r:+.2f}" for name, r in best if abs(r) >= LEAST_SHOWN) or "nothing"


def _rank_biserial(x: Array, man: Bools) -> float:
    return float(np.sign(x[man][:, None] - x[~man][None, :]).mean())


def _spearman(x: Array, y: Array, group: NDArray[Any]) -> float:
    """Rank correlation after the mean of each group has been taken off; 0 where nothing varies."""
    from scipy.stats import spearmanr

    frame = pd.DataFrame({"x": x, "y": y.astype(float), "group": group}).dropna()
    within = frame[["x", "y"]] - frame.groupby("group")[["x", "y"]].transform("mean")
    if (np.ptp(within, axis=0) < 1e-12).any():
        return 0.0
    return float(spearmanr(within["x"], within["y"]).statistic)


def _reading(
    x: dict[str, Array], y: Array, owner: NDArray[np.int64], sex: Bools | None
) -> dict[str, float]:
    """Read one factor from either modality and from both; `sex` is None where it is the factor."""
    given = [] if sex is None else [sex.astype(float)[:, None]]
    sides = {"voice": [x["voice"]], "face": [x["face"]], "both": [x["voice"], x["face"]]}
    score = _balanced_accuracy if sex is None else _r2
    read: dict[str, float] = {}
    for side, parts in sides.items():
        guess = _predict(np.hstack([*parts, *given]), y, owner, classes=sex is None)
        read[side] = score(y, guess)
        read[f"{side}_low"], read[f"{side}_high"] = _interval(score, y, guess, owner)
    return read


def _predict(x: Array, y: Array, owner: NDArray[np.int64], *, classes: bool) -> Array:
    """Out-of-speaker predictions (n,)."""
    from sklearn.linear_model import LassoCV, LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer, StandardScaler

    least = len(y) - 2 * len(y) // FOLDS  # samples that a probe is trained on, or more
    ranks = QuantileTransformer(n_quantiles=min(QUANTILES, least))
    steps = (StandardScaler(), LogisticRegression())
    probe = make_pipeline(*steps) if classes else make_pipeline(ranks, LassoCV(cv=5, eps=0.01))
    return np.asarray(cross_val_predict(probe, x, y, groups=owner, cv=GroupKFold(FOLDS)))


def _r2(y: Array, guess: Array) -> float:
    return float(1 - np.square(y - guess).sum() / np.square(y - y.mean()).sum())


def _balanced_accuracy(y: Array, guess: Array) -> float:
    return float(np.mean([(guess[y == code] == code).mean() for code in np.unique(y)]))


def _interval(
    score: Callable[[Array, Array], float], y: Array, guess: Array, owner: NDArray[np.int64]
) -> tuple[float, float]:
    """95 % of the score over bootstraps of the speakers."""
    draw = np.random.default_rng(0)
    rows = [np.flatnonzero(owner == code) for code in np.unique(owner)]
    scores = []
    for _ in range(BOOTSTRAPS):
        picked = np.concatenate([rows[i] for i in draw.integers(len(rows), size=len(rows))])
        scores.append(score(y[picked], guess[picked]))
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


# Words and speakers, judged by programs that were trained on real voices


def recognition(store: Store) -> dict[str, float]:
    """Word error of an independent recogniser on a corpus in GRID's grammar.

    pocketsphinx (its US English model and dictionary, all settings as they come) is given the
    grammar alone. `chance` is what its hypotheses reach against the transcripts of other clips; a
    clip without a hypothesis counts as six errors.
    """
    import jiwer

    spoken = [item for item in store.items if item.sample_count]
    said, heard = [item.transcript for item in spoken], _hear(store, spoken)
    others = np.random.default_rng(0).permutation(len(said))
    return {
        "word error": float(jiwer.wer(said, heard)),
        "chance": float(jiwer.wer([said[i] for i in others], heard)),
        "nothing heard": float(np.mean([not text for text in heard])),
    }


def verification(store: Store) -> dict[str, float]:
    """Can a judge of real voices tell the speakers apart? Resemblyzer, every pair of clips.

    Returns:
        The area under the curve over all pairs and over the pairs of one sex.
    """
    from sklearn.metrics import roc_auc_score

    spoken = [item for item in store.items if item.sample_count and item.speaker and item.gender]
    voices = _embed(store, spoken)  # (n, 256), unit length
    first, second = np.triu_indices(len(spoken), k=1)
    score = (voices @ voices.T)[first, second]
    who = np.array([item.speaker for item in spoken])
    sex = np.array([item.gender for item in spoken])
    same, within = who[first] == who[second], sex[first] == sex[second]
    return {
        "AUC, all pairs": float(roc_auc_score(same, score)),
        "AUC, pairs of one sex": float(roc_auc_score(same[within], score[within])),
    }


def _hear(store: Store, items: Sequence[Item]) -> list[str]:
    """What pocketsphinx hears in each clip, "" for nothing."""
    recogniser = PocketsphinxGrid()
    return [recogniser.hear(store.waveform(item)) for item in items]


def _embed(store: Store, items: Sequence[Item]) -> Array:
    import resemblyzer

    encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)
    voices = []
    for item in items:
        wave = at_16_khz(store.waveform(item))
        voices.append(encoder.embed_utterance(resemblyzer.preprocess_wav(wave, source_sr=16_000)))
    matrix = np.stack(voices).astype(np.float64)
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))


def main() -> None:
    """Print the numbers of a prepared store of `mini`."""
    parser = argparse.ArgumentParser(description="Is the corpus `mini` good?")
    parser.add_argument("store", type=Path)
    parser.add_argument("--factors", action="store_true")
    given = parser.parse_args()
    store = Store.open(given.store)
    if given.factors:
        print(factor_table(store).round(2).to_markdown())  # noqa: T201
    else:
        print(pd.Series({**recognition(store), **verification(store)}).to_markdown())  # noqa: T201


if __name__ == "__main__":
    main()
