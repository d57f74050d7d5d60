"""Is the corpus `mini` good? Its words, its speakers and its hidden factors, on the ground truth.

Judges that know nothing of the corpus: pocketsphinx with GRID's grammar hears the words,
Resemblyzer (GE2E, Wan et al. 2018) tells the speakers apart, plain signals show the factors. Goals
are this project's. Pairs and words of one speaker are not independent: the honest number of cases
is that of the speakers, and stands in every row.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xfavot.audio.mel import MEL, hz_to_mel, mel_to_hz
from xfavot.data.store import Item, Store
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import voices as voices_evaluation
from xfavot.evaluation.matching import Curve
from xfavot.evaluation.rows import AT_MOST, Row, row

# What can be measured in a voice and in a picture of `mini` without being told who it is


Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

FRAMES_PER_S = MEL.sample_rate / MEL.hop
QUIET = 1.75  # log10 magnitude below the loudest frames, where speech ends: 35 dB
OCTAVE_ERROR = 0.75  # octaves from the median, where a pitch track is held
TREMBLING_HZ = (4.2, 6.4)  # of a tremor; the melody of a sentence is slower
ENVELOPE_HZ = (400.0, 6500.0)  # where formants are compared
MOST_SHIFT = 14  # steps of the envelope's grid, a third of an octave up or down
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
    return np.array(
        [
            middle,
            12 * melody.std(),
            _trembling(voiced, melody),
            len(item.transcript.split()) / seconds,
            slope,
            hiss,
            level,
        ]
    )


def band_hz() -> Array:
    """Centre of every mel band, (80,), in Hz."""
    low, high = hz_to_mel(torch.tensor([MEL.fmin, MEL.fmax], dtype=torch.float64)).tolist()
    mels = torch.linspace(low, high, MEL.n_mels + 2, dtype=torch.float64)
    return np.asarray(mel_to_hz(mels)[1:-1].numpy(), dtype=np.float64)


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
    likeness = {
        k: np.corrcoef(
            row[max(0, k) : len(row) + min(0, k)], others[max(0, -k) : len(row) + min(0, -k)]
        )[0, 1]
        for k in range(-MOST_SHIFT, MOST_SHIFT + 1)
    }
    return max(likeness, key=lambda k: float(likeness[k]))


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


# How the hidden factors of `mini` show in face and voice, and how well they can be read


HIDDEN = ("sex", "age", "size", "liveliness")
NUISANCE = {  # of one picture, and how the Markdown calls it
    "yaw": "head turned",
    "pitch": "head raised",
    "gaze_x": "gaze aside",
    "mouth": "mouth open",
    "smile": "smile",
    "light": "side of the light",
    "light_height": "height of the light",
    "light_strength": "strength of the light",
    "tone": "brightness of the wall",
}
FOLDS = 12  # of speakers; there must be as many
BOOTSTRAPS = 2000
QUANTILES = 32  # of the ranks that a probe sees
SHOWN, LEAST_SHOWN = 3, 0.2  # measures a factor and modality in the Markdown, and how strong
FactorRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FactorTable:
    """Correlations and readings, both as plain rows.

    Args:
        correlations: factor, modality, measure, value (-1 to 1), n (speakers or pictures). For sex
            the rank-biserial correlation, positive where men have more; for age, size and
            liveliness Spearman's, within the sexes; for nuisance Spearman's, within the speakers.
        readings: factor, hidden, measure ("balanced accuracy" or "R2"), chance, face, voice, both,
            each with `_low` and `_high` (95 %, bootstrap over speakers), and agreement: Spearman's
            correlation, within the sexes, of what is read from the face with what is read from the
            voice (the share of equal readings for sex; None for nuisance).
        conditions: where the figures come from.
    """

    correlations: list[FactorRow]
    readings: list[FactorRow]
    conditions: dict[str, Any]

    def markdown(self) -> str:
        """Both as one table: readings, and beside them the measures that show the factor best."""
        lines = [
            ", ".join(f"{name} {value}" for name, value in self.conditions.items()),
            "Read: R2 with 95 % of bootstraps over speakers; bold: hidden factors, of a speaker; "
            "the others, of one picture.",
            "",
            "| factor | shows in the voice | shows in the face | read from voice | from face | "
            "from both | the two readings agree |",
            "|---|---|---|---:|---:|---:|---:|",
        ]
        for one in self.readings:
            best = [self._best(one["factor"], kind) for kind in ("voice", "face")]
            read = [
                f"{_two(one[kind])} ({_two(one[f'{kind}_low'])} to {_two(one[f'{kind}_high'])})"
                for kind in ("voice", "face", "both")
            ]
            name = NUISANCE.get(one["factor"], f"**{one['factor']}**")
            unit = "" if one["measure"] == "R2" else f" ({one['measure']})"
            agree = "" if one["agreement"] is None else _two(one["agreement"])
            lines.append("| " + " | ".join([name + unit, *best, *read, agree]) + " |")
        return "\n".join(lines) + "\n"

    def _best(self, factor: str, modality: str) -> str:
        found = [c for c in self.correlations if (c["factor"], c["modality"]) == (factor, modality)]
        found.sort(key=lambda c: -abs(c["value"]))
        return (
            ", ".join(
                f"{c['measure']} {c['value']:+.2f}"
                for c in found[:SHOWN]
                if abs(c["value"]) >= LEAST_SHOWN
            )
            or "nothing"
        )


def _two(value: float) -> str:
    """Two decimals, never a negative zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def factor_table(store: Store) -> FactorTable:
    """Measure how the factors of a corpus show, and how well they can be read.

    Hidden factors are read of a speaker (the median of the signals of all clips and pictures),
    nuisance of one picture and its clip. Probes are linear in the signals' ranks (Lasso; for sex
    logistic in the signals) and trained on other speakers; they are told the sex where that is not
    the question.

    Args:
        store: a prepared store of `mini`, the more speakers the better: of the default sixteen no
            figure is sure; :func:`tools.mini_quality.many_people` makes 64.

    Raises:
        DataError: no hidden factors are known, there are fewer than twelve speakers or one sex, or
            a measure cannot be taken of somebody.
    """
    people, faces = _known(store)
    speakers = sorted(people)
    man = np.array([people[name]["gender"] == "m" for name in speakers])
    if len(speakers) < FOLDS or man.all() or not man.any():
        raise DataError(
            f"factor table of {store.path}: {len(speakers)} speakers, {int(man.sum())} of them "
            f"men; expected at least {FOLDS}, women and men; make more people"
        )
    pictures, clips, owner, rows = samples(store, speakers)
    seen = {"voice": by_speaker(clips, owner), "face": by_speaker(pictures, owner)}
    spectra = np.stack([spectrum(store, name) for name in speakers])
    seen["voice"] = np.column_stack([seen["voice"], formant_shift(spectra)])
    measures: dict[str, tuple[str, ...]] = {"voice": VOICE_OF_SPEAKER, "face": FACE}
    for kind, names in measures.items():
        _require_whole(seen[kind], names, speakers, store)
    hidden = {name: np.array([float(people[s][name]) for s in speakers]) for name in HIDDEN[1:]}
    nuisance = {name: np.array([float(faces[row][name]) for row in rows]) for name in NUISANCE}
    correlations = []
    for kind, names in measures.items():
        for column, measure in zip(seen[kind].T, names, strict=True):
            correlations.append(_cell("sex", kind, measure, _rank_biserial(column, man), len(man)))
            correlations += [
                _cell(name, kind, measure, _spearman(column, y, man), len(man))
                for name, y in hidden.items()
            ]
    for kind, names, x in (("voice", VOICE, clips), ("face", FACE, pictures)):
        for column, measure in zip(x.T, names, strict=True):
            correlations += [
                _cell(name, kind, measure, _spearman(column, y, owner), len(owner))
                for name, y in nuisance.items()
            ]
    each = np.arange(len(speakers))
    readings = [_reading("sex", seen, man.astype(float), each, man)]
    readings += [_reading(name, seen, y, each, man) for name, y in hidden.items()]
    alone = {"voice": np.nan_to_num(clips), "face": np.nan_to_num(pictures)}
    readings += [
        _reading(name, alone, y, owner, man[owner], hidden=False) for name, y in nuisance.items()
    ]
    conditions = {
        "corpus": store.corpus,
        "seed": store.seed,
        "manifest": store.manifest_hash,
        "speakers": len(speakers),
        "women": int((~man).sum()),
        "clips": len(store.items),
        "pictures": len(rows),
        "probes": f"Lasso on ranks, {FOLDS} folds of speakers",
    }
    return FactorTable(correlations, readings, conditions)


def _known(store: Store) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    file = store.path / "factors.json"
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    people, faces = known.get("people", {}), known.get("faces", [])
    if not people or len(faces) != len(store.faces):
        raise DataError(
            f"factor table of {store.path}: factors.json knows {len(people)} people and "
            f"{len(faces)} of {len(store.faces)} pictures; expected a store of `mini`; prepare it"
        )
    return people, faces


def _require_whole(x: Array, names: Sequence[str], speakers: Sequence[str], store: Store) -> None:
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        who, what = bad[0]
        raise DataError(
            f"factor table of {store.path}: no {names[what]} could be measured of {speakers[who]} "
            f"({len(bad)} such cases); expected a number; look at and listen to this speaker"
        )


def _cell(factor: str, modality: str, measure: str, value: float, n: int) -> FactorRow:
    return {"factor": factor, "modality": modality, "measure": measure, "value": value, "n": n}


def _rank_biserial(x: Array, man: NDArray[np.bool_]) -> float:
    difference = np.sign(x[man][:, None] - x[~man][None, :])
    return float(difference.mean())


def _spearman(x: Array, y: Array, group: NDArray[Any]) -> float:
    """Rank correlation after the mean of each group has been taken off; 0 where nothing varies."""
    from scipy.stats import spearmanr

    good = np.isfinite(x)
    a, b = x[good].copy(), y[good].astype(float)
    for code in np.unique(group[good]):
        inside = group[good] == code
        a[inside] -= a[inside].mean()
        b[inside] -= b[inside].mean()
    if np.ptp(a) < 1e-12 or np.ptp(b) < 1e-12:
        return 0.0
    return float(spearmanr(a, b).statistic)


def _reading(
    factor: str,
    x: dict[str, Array],
    y: Array,
    owner: NDArray[np.int64],
    man: NDArray[np.bool_],
    *,
    hidden: bool = True,
) -> FactorRow:
    """Read one factor from either modality and from both."""
    is_sex = factor == "sex"
    told = [] if is_sex else [man.astype(float)[:, None]]
    sides = {"voice": [x["voice"]], "face": [x["face"]], "both": [x["voice"], x["face"]]}
    read = {
        side: _predict(np.hstack([*parts, *told]), y, owner, classes=is_sex)
        for side, parts in sides.items()
    }
    score = _balanced_accuracy if is_sex else _r2
    row: FactorRow = {
        "factor": factor,
        "hidden": hidden,
        "n": len(y),
        "measure": "balanced accuracy" if is_sex else "R2",
        "chance": 0.5 if is_sex else 0.0,
        "agreement": None,
    }
    for side, guess in read.items():
        row[side] = score(y, guess)
        row[f"{side}_low"], row[f"{side}_high"] = _interval(score, y, guess, owner)
    if is_sex:
        row["agreement"] = float(np.mean(read["voice"] == read["face"]))
    elif hidden:
        row["agreement"] = _spearman(read["voice"], read["face"], man)
    return row


def _predict(x: Array, y: Array, owner: NDArray[np.int64], *, classes: bool) -> Array:
    """Out-of-speaker predictions (n,)."""
    try:
        from sklearn.linear_model import LassoCV, LogisticRegression
        from sklearn.model_selection import GroupKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import QuantileTransformer, StandardScaler
    except ImportError as error:
        raise DataError(
            f"the factor table needs scikit-learn; got no module {error.name}; "
            'pip install "xfavot[metrics]"'
        ) from error
    least = len(y) - 2 * len(y) // FOLDS  # samples that a probe is trained on, or more
    ranks = QuantileTransformer(n_quantiles=min(QUANTILES, least))
    steps = (
        (StandardScaler(), LogisticRegression()) if classes else (ranks, LassoCV(cv=5, eps=0.01))
    )
    probe = make_pipeline(*steps)
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
    found = []
    for _ in range(BOOTSTRAPS):
        picked = np.concatenate([rows[i] for i in draw.integers(len(rows), size=len(rows))])
        found.append(score(y[picked], guess[picked]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


SLOTS = dict(
    zip(
        ("command", "colour", "preposition", "letter", "digit", "adverb"),
        voices_evaluation.SLOTS,
        strict=True,
    )
)
MOST_WORD_ERROR = 0.25
LEAST_AUC = 0.95
JUDGED = ("all pairs", "pairs of one sex")  # what the goal is asked of
ASR_RATE_HZ = 16_000  # of pocketsphinx's model and of Resemblyzer
MOST_UNHEARD = (
    0.05  # share of clips without any hypothesis, above which the judge is not to be used
)

Log = Callable[[str], None]


def recognition(store: Store, *, clips: int = 0, on_log: Log | None = None) -> list[Row]:
    """Word error of an independent recogniser on the ground truth of a corpus in GRID's grammar.

    pocketsphinx (its US English model and dictionary, all settings as they come) is told the
    grammar alone. Guessing one word a slot errs in 0.81 of the words; as `chance`, the row says
    what the recogniser's own hypotheses reach against the transcripts of other clips.

    Args:
        store: prepared; every clip needs a transcript of six words of the grammar.
        clips: how many, spread over the corpus; 0 for all.
        on_log: receives a line now and then.

    Returns:
        Rows: the word error (goal: at most 0.25), the share of clips without a hypothesis (they
        count as six errors each), and the error of each slot.

    Raises:
        DataError: a package is missing, there is no speech, a transcript is not of the grammar, or
            the recogniser hears nothing in more than 5 % of the clips.
    """
    jiwer = _package("jiwer", "metrics")
    chosen = _spread([item for item in store.items if item.sample_count], clips)
    wrong = [item.id for item in chosen if not voices_evaluation.in_grid_grammar(item.transcript)]
    if len(chosen) < 2 or wrong:
        raise DataError(
            f"recognition on {store.path}: {len(chosen)} clips with sound, {len(wrong)} of them "
            f"with other transcripts than GRID's ({', '.join(wrong[:3])}); expected at least 2 and "
            "none; take mini or grid"
        )
    said = [item.transcript for item in chosen]
    heard = _hear(store, chosen, on_log)
    unheard = sum(not text for text in heard) / len(heard)
    if unheard > MOST_UNHEARD:
        raise DataError(
            f"recognition on {store.path}: no hypothesis for {unheard:.0%} of {len(heard)} clips; "
            f"expected at most {MOST_UNHEARD:.0%}; listen to them, and check pocketsphinx"
        )
    others = np.random.default_rng(0).permutation(len(said))
    blind = float(jiwer.wer([said[i] for i in others], heard))
    rows = [
        row(
            "mini",
            "",
            "word error rate",
            float(jiwer.wer(said, heard)),
            len(said),
            chance=blind,
            goal=MOST_WORD_ERROR,
            sense=AT_MOST,
        ),
        row("mini", "", "clips without a hypothesis", unheard, len(said)),
    ]
    for place, (slot, words) in enumerate(SLOTS.items()):
        pairs = zip_longest(said, heard)
        wrong_words = [a.split()[place] != (b.split() + [""] * 6)[place] for a, b in pairs]
        error = float(np.mean(wrong_words))
        rows.append(row("mini", "", f"error, {slot}", error, len(said), chance=1 - 1 / len(words)))
    return _signed(rows, store, chosen, "pocketsphinx, default settings, GRID's grammar")


def verification(store: Store, *, clips: int = 0, on_log: Log | None = None) -> list[Row]:
    """Can a judge of real voices tell the speakers apart? Resemblyzer, every pair of clips.

    Args:
        store: prepared; at least two clips a speaker, two speakers a sex.
        clips: how many, spread over the corpus; 0 for all.
        on_log: receives a line now and then.

    Returns:
        Rows: area under the curve (goal: at least 0.95) and equal error rate over all pairs, over
        the pairs of one sex, and within each sex; n counts pairs.

    Raises:
        DataError: a package is missing, too few speakers or clips, or an embedding is not finite.
    """
    known = [item for item in store.items if item.sample_count and item.speaker and item.gender]
    chosen = _spread(known, clips)
    speakers = {(item.gender, item.speaker) for item in chosen}
    count = {sex: sum(gender == sex for gender, _ in speakers) for sex in "fm"}
    if min(count.values()) < 2 or len(chosen) < 2 * len(speakers):
        raise DataError(
            f"verification on {store.path}: {len(chosen)} clips of {count['f']} women and "
            f"{count['m']} men; expected two speakers a sex and two clips a speaker; take more"
        )
    voices = _embed(store, chosen, on_log)  # (n, 256), unit length
    first, second = np.triu_indices(len(chosen), k=1)
    score = (voices @ voices.T)[first, second]
    who = np.array([item.speaker for item in chosen])
    sex = np.array([item.gender for item in chosen])
    same = who[first] == who[second]
    within = sex[first] == sex[second]
    parts = {"all pairs": np.ones_like(same), "pairs of one sex": within}
    parts |= {
        name: within & (sex[first] == code)
        for name, code in (("pairs of women", "f"), ("pairs of men", "m"))
    }
    rows = []
    for name, part in parts.items():
        area, equal = Curve(score[part], same[part]).measure()
        rows.append(
            row(
                "mini",
                "",
                f"verification AUC, {name}",
                area,
                int(part.sum()),
                chance=0.5,
                goal=LEAST_AUC if name in JUDGED else None,
            )
        )
        rows.append(
            row("mini", "", f"equal error rate, {name}", equal, int(part.sum()), chance=0.5)
        )
    return _signed(rows, store, chosen, "Resemblyzer, cosine of whole clips")


def many_people(
    data_root: Path | str,
    *,
    speakers: int = 64,
    utterances: int = 3,
    faces_per_clip: int = 4,
    seed: int = 1,
    workers: int = 2,
    on_log: Log | None = None,
) -> Store:
    """Make and prepare a wide, shallow corpus of `mini`, for :func:`factor_table`; or open it.

    Args:
        data_root: it lies below, in a folder of its own.
        speakers, utterances, faces_per_clip, seed, workers, on_log: as in
            :func:`xfavot.mini.generate.generate`.

    Raises:
        DataError: as `generate` and `prepare` do.
    """
    from xfavot.data.prepare import prepare
    from xfavot.mini.generate import generate

    name = f"people_{speakers}x{utterances}x{faces_per_clip}_s{seed}"
    home = Path(data_root) / name
    originals = home / "originals" / "mini"
    if not (originals / "factors.json").is_file():
        generate(
            originals,
            speakers=speakers,
            utterances=utterances,
            faces_per_clip=faces_per_clip,
            seed=seed,
            workers=max(workers, 1),
            on_log=on_log,
        )
    return prepare(
        "mini", source=originals, data_root=home, workers=workers, seed=seed, on_log=on_log
    )


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(
            f"measuring the corpus needs {name.split('.')[0]}; got no module {error.name}; "
            f'pip install "xfavot[{extra}]"'
        ) from error


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """About `count` items at equal distances; all of them for 0."""
    if count <= 0 or count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def _at_16_khz(store: Store, item: Item) -> NDArray[np.float32]:
    signal = _package("scipy.signal", "metrics")
    made = signal.resample_poly(store.waveform(item), ASR_RATE_HZ // 8000, MEL.sample_rate // 8000)
    return np.asarray(np.clip(made, -1.0, 1.0), dtype=np.float32)


def _hear(store: Store, items: Sequence[Item], on_log: Log | None) -> list[str]:
    """What pocketsphinx hears in each clip, "" for nothing."""
    try:
        recogniser = voices_evaluation.PocketsphinxGrid()
    except WeightsError as error:
        raise DataError(f"measuring the corpus needs pocketsphinx: {error}") from error
    heard = []
    for number, item in enumerate(items, 1):
        heard.append(recogniser.hear(store.waveform(item), MEL.sample_rate))
        if on_log is not None and number % 100 == 0:
            on_log(f"recognition: {number} of {len(items)} clips")
    return heard


def _embed(store: Store, items: Sequence[Item], on_log: Log | None) -> NDArray[np.float64]:
    judge = _package("resemblyzer", "metrics")
    encoder = judge.VoiceEncoder("cpu", verbose=False)
    voices = []
    for number, item in enumerate(items, 1):
        wave = judge.preprocess_wav(_at_16_khz(store, item), source_sr=ASR_RATE_HZ)
        heard = encoder.embed_utterance(wave) if len(wave) else np.full(256, np.nan)
        voices.append(np.asarray(heard, dtype=np.float64))
        if on_log is not None and number % 100 == 0:
            on_log(f"verification: {number} of {len(items)} clips")
    matrix = np.stack(voices)
    broken = [i.id for i, v in zip(items, matrix, strict=True) if not np.isfinite(v).all()]
    if broken:
        raise DataError(
            f"verification on {store.path}: embeddings that are not finite for {len(broken)} of "
            f"{len(items)} clips ({', '.join(broken[:3])}); expected none; listen to these clips"
        )
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))


def _signed(rows: list[Row], store: Store, items: Sequence[Item], how: str) -> list[Row]:
    """Add where the figures come from."""
    said = {
        "dataset": store.corpus,
        "manifest": store.manifest_hash,
        "split": "+".join(sorted({item.split for item in items})),
        "seed": store.seed,
        "judges": how,
        "speakers": len({item.speaker for item in items}),
        "clips": len(items),
    }
    return [{**one, **said} for one in rows]
