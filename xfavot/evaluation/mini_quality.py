"""Is the corpus `mini` good? Its words, its speakers and its hidden factors, on the ground truth.

Judges that know nothing of the corpus: pocketsphinx with GRID's grammar hears the words,
Resemblyzer (GE2E, Wan et al. 2018) tells the speakers apart, plain signals show the factors. Goals
are this project's. Pairs and words of one speaker are not independent: the honest number of cases
is that of the speakers, and stands in every row.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.data.items import Item
from xfavot.data.manifest import Store
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import recognisers
from xfavot.evaluation.mini_factors import FactorTable, factor_table
from xfavot.evaluation.rows import AT_MOST, Row, markdown, row
from xfavot.evaluation.verification import Curve

__all__ = ["FactorTable", "factor_table", "many_people", "markdown", "recognition", "verification"]

SLOTS = dict(
    zip(
        ("command", "colour", "preposition", "letter", "digit", "adverb"),
        recognisers.SLOTS,
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
    wrong = [item.id for item in chosen if not recognisers.in_grid_grammar(item.transcript)]
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
        row("mini", "", "word error rate", float(jiwer.wer(said, heard)), len(said), chance=blind,
            goal=MOST_WORD_ERROR, sense=AT_MOST),
        row("mini", "", "clips without a hypothesis", unheard, len(said)),
    ]  # fmt: skip
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
    parts |= {name: within & (sex[first] == code)
              for name, code in (("pairs of women", "f"), ("pairs of men", "m"))}  # fmt: skip
    rows = []
    for name, part in parts.items():
        area, equal = Curve(score[part], same[part]).measure()
        rows.append(row("mini", "", f"verification AUC, {name}", area, int(part.sum()), chance=0.5,
                        goal=LEAST_AUC if name in JUDGED else None))  # fmt: skip
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
            :func:`xfavot.data.mini.generate.generate`.

    Raises:
        DataError: as `generate` and `prepare` do.
    """
    from xfavot.data.mini.generate import generate
    from xfavot.data.prepare import prepare

    name = f"people_{speakers}x{utterances}x{faces_per_clip}_s{seed}"
    home = Path(data_root) / name
    originals = home / "originals" / "mini"
    if not (originals / "factors.json").is_file():
        generate(
            originals, speakers=speakers, utterances=utterances, faces_per_clip=faces_per_clip,
            seed=seed, workers=max(workers, 1), on_log=on_log,
        )  # fmt: skip
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
        recogniser = recognisers.PocketsphinxGrid()
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
