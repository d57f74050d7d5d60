"""How the hidden factors of `mini` show in face and voice, and how well they can be read.

Sex, age, size and liveliness drive both modalities. Signals (:mod:`.mini_measures`) are correlated
with them, and linear probes on the signals read them, always for speakers that the probe has not
seen. Age, size and liveliness are independent of sex by construction, so what is read of them is
correspondence beyond gender.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.data.manifest import Store
from xfavot.errors import DataError
from xfavot.evaluation.mini_measures import (
    FACE,
    VOICE,
    VOICE_OF_SPEAKER,
    Array,
    by_speaker,
    formant_shift,
    samples,
    spectrum,
)

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
Row = dict[str, Any]


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

    correlations: list[Row]
    readings: list[Row]
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
            read = [f"{_two(one[kind])} ({_two(one[f'{kind}_low'])} to {_two(one[f'{kind}_high'])})"
                    for kind in ("voice", "face", "both")]  # fmt: skip
            name = NUISANCE.get(one["factor"], f"**{one['factor']}**")
            unit = "" if one["measure"] == "R2" else f" ({one['measure']})"
            agree = "" if one["agreement"] is None else _two(one["agreement"])
            lines.append("| " + " | ".join([name + unit, *best, *read, agree]) + " |")
        return "\n".join(lines) + "\n"

    def _best(self, factor: str, modality: str) -> str:
        found = [c for c in self.correlations if (c["factor"], c["modality"]) == (factor, modality)]
        found.sort(key=lambda c: -abs(c["value"]))
        return ", ".join(f"{c['measure']} {c['value']:+.2f}" for c in found[:SHOWN]
                         if abs(c["value"]) >= LEAST_SHOWN) or "nothing"  # fmt: skip


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
            figure is sure; :func:`xfavot.evaluation.mini_quality.many_people` makes 64.

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
            correlations += [_cell(name, kind, measure, _spearman(column, y, man), len(man))
                             for name, y in hidden.items()]  # fmt: skip
    for kind, names, x in (("voice", VOICE, clips), ("face", FACE, pictures)):
        for column, measure in zip(x.T, names, strict=True):
            correlations += [_cell(name, kind, measure, _spearman(column, y, owner), len(owner))
                             for name, y in nuisance.items()]  # fmt: skip
    each = np.arange(len(speakers))
    readings = [_reading("sex", seen, man.astype(float), each, man)]
    readings += [_reading(name, seen, y, each, man) for name, y in hidden.items()]
    alone = {"voice": np.nan_to_num(clips), "face": np.nan_to_num(pictures)}
    readings += [_reading(name, alone, y, owner, man[owner], hidden=False)
                 for name, y in nuisance.items()]  # fmt: skip
    conditions = {
        "corpus": store.corpus, "seed": store.seed, "manifest": store.manifest_hash,
        "speakers": len(speakers), "women": int((~man).sum()), "clips": len(store.items),
        "pictures": len(rows), "probes": f"Lasso on ranks, {FOLDS} folds of speakers",
    }  # fmt: skip
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


def _cell(factor: str, modality: str, measure: str, value: float, n: int) -> Row:
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
) -> Row:
    """Read one factor from either modality and from both."""
    is_sex = factor == "sex"
    told = [] if is_sex else [man.astype(float)[:, None]]
    sides = {"voice": [x["voice"]], "face": [x["face"]], "both": [x["voice"], x["face"]]}
    read = {side: _predict(np.hstack([*parts, *told]), y, owner, classes=is_sex)
            for side, parts in sides.items()}  # fmt: skip
    score = _balanced_accuracy if is_sex else _r2
    row: Row = {"factor": factor, "hidden": hidden, "n": len(y),
                "measure": "balanced accuracy" if is_sex else "R2",
                "chance": 0.5 if is_sex else 0.0, "agreement": None}  # fmt: skip
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
