"""Metrics of converted voices: quality, speaker, words, melody, content; and of vocoders alone.

Every metric is a function from a group of rows (:class:`xfavot.evaluation.manifest.Voices`) to rows
of results: a measure reads the files of one output and gives a fraction, or just a value, for each
of its names; averaged over all outputs, by direction and by sex they are the rows. Files are read
as mono at 24 kHz (A70).
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot.audio.f0 import world_f0
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL, log_mel
from xfavot.audio.vocoder import Vocoder
from xfavot.data.store import GENDERS, Store
from xfavot.errors import DataError
from xfavot.evaluation import voice_networks as networks
from xfavot.evaluation.manifest import Output, Voices, attempt, reason_of
from xfavot.evaluation.rows import DEFINITIONS, Row
from xfavot.evaluation.voice_networks import ESPNET, NISQA, NISQA_TTS, SPHINX_GRID, Vector, Wave
from xfavot.training import speech

Found = dict[str, tuple[float, float]]  # above and below of a ratio of sums, by metric
People = Callable[[str], Sequence[Path]]  # gives the voices of a person
Measure = Callable[[People, Output], Found]

SIMILARITY, WER, CER = "speaker_similarity", "word_error", "character_error"
CORRELATION, VOICING, GENDER = "f0_correlation", "voicing_agreement", "gender_agreement_f0"
DISTANCE = "f0_distance"
SWIFT = f"_{networks.SWIFT}"  # ends the names of melody's metrics by another tracker
CHARACTERS, LIKENESS = "content_character_error", "content_likeness"
MEAN, SPREAD = "_over_shifts", "_spread_of_shifts"  # end names of NISQA's metrics
SHIFTS_MS = (0, 10, 20, 30)  # left out at the beginning, since NISQA's score depends on it


def definition(metric: str, recogniser: str) -> str:
    """Say what a metric of voices is."""
    text = DEFINITIONS["voices"].get(metric, DEFINITIONS["voices"][NISQA])  # NISQA's dimensions
    return f"{text}; heard by {recogniser}" if metric in (WER, CER) else text


# Does a converted voice keep the melody of its source, and does it have the sex of its reference?


GENDER_HZ = 165.0
LEAST_VOICED = 10  # frames
LEAST_MOVEMENT = 1e-6  # of log F0; less is rounding
MOST_DIFFERENCE = 0.05  # of the lengths, share of the longer
SLACK_FRAMES = 4  # 50 ms, of very short clips

Track = NDArray[np.float32]


def shared_length(what: str, source: int, output: int, frame: str, slack: int) -> int:
    """Return the shorter length of a source and an output of the same rhythm.

    Raises:
        DataError: one is empty, or they differ too much to be the same utterance.
    """
    longer, shorter = max(source, output), min(source, output)
    if not shorter or longer - shorter > max(slack, MOST_DIFFERENCE * longer):
        raise DataError(
            f"{what}: source and output have {source} and {output} frames of {frame}; expected "
            f"lengths that differ by {MOST_DIFFERENCE:.0%} at most; a system that changes the "
            "rhythm cannot be compared frame by frame"
        )
    return shorter


def agreement(source: Track, output: Track) -> tuple[float, float | None]:
    """Compare two tracks.

    Args:
        source, output: F0 in Hz, (T,) and (T',), 0 where unvoiced.

    Returns:
        The share of frames that are voiced in both or in neither, and the correlation of log F0
        over the frames voiced in both; ``None`` where there are fewer than ten, or one of the two
        does not move.

    Raises:
        DataError: one is empty, or their lengths differ too much to be the same utterance.
    """
    shorter = shared_length("F0", len(source), len(output), "12.5 ms", SLACK_FRAMES)
    a, b = source[:shorter], output[:shorter]
    both = (a > 0) & (b > 0)
    correlation = None
    if int(both.sum()) >= LEAST_VOICED:
        pair = np.log(np.stack([a[both], b[both]]).astype(np.float64))
        if (pair.std(axis=1) > LEAST_MOVEMENT).all():
            correlation = float(np.corrcoef(pair)[0, 1])
    return float(np.mean((a > 0) == (b > 0))), correlation


def gender_by_pitch(f0: Track) -> str:
    """Guess the sex of a voice from its median F0.

    Args:
        f0: (T,) Hz, 0 where unvoiced.

    Returns:
        "f" or "m", or "" with fewer than ten voiced frames.
    """
    height = median_hz(f0)
    return "" if height is None else "f" if height > GENDER_HZ else "m"


def median_hz(f0: Track) -> float | None:
    """Median of a track (T,) in Hz where it is voiced; ``None`` with fewer than ten such frames."""
    voiced = f0[f0 > 0]
    return float(np.median(voiced)) if len(voiced) >= LEAST_VOICED else None


# Does a converted voice still say what its source says? Read by the content network that ships


SLACK_STEPS = 2  # of 25 ms, of very short clips


def character_errors(said: str, heard: str) -> tuple[int, int]:
    """Count errors and characters of a transcript, spelt as the network spells.

    Raises:
        DataError: no character is left of the transcript.
    """
    truth = speech.spell(speech.encode(said))
    if not truth:
        raise DataError(f"content: transcript {said!r} has no letter; expected what is said")
    return speech.edit_distance(truth, heard), len(truth)


def likeness(source: Tensor, output: Tensor) -> float:
    """Mean cosine of features (C, T) and (C, T') over the frames that both have.

    Raises:
        DataError: the lengths differ too much to be the same utterance.
    """
    shorter = shared_length("content", source.shape[1], output.shape[1], "25 ms", SLACK_STEPS)
    return float(
        functional.cosine_similarity(source[:, :shorter], output[:, :shorter], dim=0).mean()
    )


# Word and character error rate of what a recogniser hears in converted voices


APOSTROPHES = dict.fromkeys(map(ord, "‘’ʼ`´"), "'")  # noqa: RUF001 - they are what is replaced
_OTHER = re.compile(r"[^\w']|_")
_LOOSE = re.compile(r"(?<!\w)'+|'+(?!\w)")


def normalise(text: str) -> str:
    """Bring a transcript or a hypothesis to plain lower-case words; see the module.

    >>> normalise("It's Well-known -- 'Please', call Stella.")
    "it's well known please call stella"
    """
    plain = unicodedata.normalize("NFKC", text.translate(APOSTROPHES)).translate(APOSTROPHES)
    words = _OTHER.sub(" ", plain.lower())
    return " ".join(_LOOSE.sub(" ", words).split())


def count_errors(said: str, heard: str) -> Found:
    """Count the errors of one clip, as jiwer counts them.

    Args:
        said: the transcript, as it was written.
        heard: the hypothesis, "" for nothing.

    Returns:
        Insertions, deletions and substitutions, and how many there are in the transcript: of words
        (`WER`) and of characters (`CER`).

    Raises:
        DataError: no word is left of the transcript.
    """
    truth, guess = normalise(said), normalise(heard)
    if not truth:
        raise DataError(
            f"word error: the transcript {said!r} has no word; expected what is said; leave it "
            "empty only where it is not known"
        )
    words = truth.split()
    return {
        WER: (speech.edit_distance(words, guess.split()), len(words)),
        CER: (speech.edit_distance(truth, guess), len(truth)),
    }


# Measures: what a network says of one output, and the rows of a group


NO_TRANSCRIPT = "no transcript; expected what the source says; fill the column transcript"
NO_GENDER = (
    "the sex of the reference is not known; expected a voice with pitch as reference, or the "
    "column gender; fill it"
)
NO_PITCH = (
    "fewer than ten voiced frames in the output or the reference; expected a voice with pitch"
)
NOBODY = (
    "no voice of the reference's person is known; expected a voice as reference, or the same "
    "speaker as the reference of an a2a or a2i row; add such rows"
)
LATENT = "a latent code is nobody's: there is no voice to compare with"
NOT_GRID = f"{SPHINX_GRID} hears GRID's sentences alone; the transcript is another; take {ESPNET}"


def measures(family: str, *, recogniser: str = ESPNET) -> dict[str, Measure | Exception]:
    """Load the measures of a family; nothing is fetched or replaced.

    Args:
        family: "nisqa", "distill_mos", "speaker_similarity", "word_error", "f0" or "content".
        recogniser: of words, one of `RECOGNISERS`.

    Returns:
        By the first metric of each the measure, or the error that says why it cannot be had.
    """
    track, read = partial(by_file, world_f0), lambda: by_file(networks.content_reader())
    second = lambda: by_file(networks.SwiftF0()), partial(_melody, ending=SWIFT)
    ways: dict[str, dict[str, tuple[Callable[[], Any], Callable[..., Found]]]] = {
        "nisqa": {name: (partial(networks.Nisqa, name), _quality) for name in (NISQA, NISQA_TTS)},
        "distill_mos": {networks.DISTILL_MOS: (networks.DistillMos, _rating)},
        "speaker_similarity": {SIMILARITY: (embedder, _likeness)},
        "word_error": {WER: (networks.RECOGNISERS[recogniser], _words)},
        "f0": {
            **{VOICING: (track, _melody), VOICING + SWIFT: second},
            **{GENDER: (track, _gender), DISTANCE: (track, _distance)},
        },
        "content": {CHARACTERS: (read, _characters), LIKENESS: (read, _content)},
    }
    load = cache(lambda loader: loader())  # each network once

    def ready(loader: Callable[[], Any], measure: Callable[..., Found]) -> Measure:
        return partial(measure, load(loader))

    return {metric: attempt(ready, *way) for metric, way in ways[family].items()}


def by_file(listen: Callable[[Wave], Any]) -> Callable[[Path], Any]:
    """Return what says of the voice in a file what `listen` says of it, each file once."""
    return cache(lambda file: listen(load_waveform(file)))


def embedder() -> Callable[[Path], Vector]:
    """Load Resemblyzer."""
    return by_file(networks.SpeakerEncoder().embed)


def _quality(network: networks.Nisqa, people: People, one: Output) -> Found:
    wave, metric = load_waveform(one.output), network.metric
    scores = network(wave)
    with suppress(DataError):  # too short once its beginning is left out: the plain score alone
        later = (network(wave[ms * MEL.sample_rate // 1000 :]) for ms in SHIFTS_MS[1:])
        over = [scores[metric], *(each[metric] for each in later)]
        scores |= {metric + MEAN: float(np.mean(over)), metric + SPREAD: float(np.std(over))}
    return {name: (value, 1.0) for name, value in scores.items()}


def _rating(rate: Callable[[Wave], dict[str, float]], people: People, one: Output) -> Found:
    return {name: (value, 1.0) for name, value in rate(load_waveform(one.output)).items()}


def _of_reference(one: Output, people: People) -> Sequence[Path]:
    """Find voices of the person whom the reference shows."""
    files = one.voices or people(one.speaker)
    if not files:
        raise DataError(LATENT if one.task.guidance == "latent" else NOBODY)
    return files


def _likeness(embed: Callable[[Path], Vector], people: People, one: Output) -> Found:
    files = _of_reference(one, people)
    cosines = np.stack([*map(embed, files)]) @ embed(one.output)  # of unit vectors (256,)
    return {SIMILARITY: (float(cosines.mean()), 1.0)}


def _words(recogniser: Any, people: People, one: Output) -> Found:
    if not one.transcript:
        raise DataError(NO_TRANSCRIPT)
    if recogniser.name == SPHINX_GRID and not networks.in_grid_grammar(one.transcript):
        raise DataError(NOT_GRID)
    return count_errors(one.transcript, recogniser.hear(load_waveform(one.output)))


def _melody(track: Callable[[Path], Track], people: People, one: Output, ending: str = "") -> Found:
    voicing, correlation = agreement(track(one.source), track(one.output))
    found = {VOICING + ending: (voicing, 1.0)}
    return found if correlation is None else found | {CORRELATION + ending: (correlation, 1.0)}


def _gender(track: Callable[[Path], Track], people: People, one: Output) -> Found:
    wanted = gender_by_pitch(track(one.voices[0])) if one.voices else one.gender
    if not wanted:
        raise DataError(NO_GENDER)
    return {GENDER: (float(gender_by_pitch(track(one.output)) == wanted), 1.0)}


def _distance(track: Callable[[Path], Track], people: People, one: Output) -> Found:
    made, *true = (median_hz(track(file)) for file in (one.output, *_of_reference(one, people)))
    known = [height for height in true if height is not None]
    if made is None or not known:
        raise DataError(NO_PITCH)
    return {DISTANCE: (abs(float(np.log2(made) - np.log2(known).mean())), 1.0)}


def _characters(read: Callable[[Path], tuple[str, Tensor]], people: People, one: Output) -> Found:
    if not one.transcript:
        raise DataError(NO_TRANSCRIPT)
    return {CHARACTERS: character_errors(one.transcript, read(one.output)[0])}


def _content(read: Callable[[Path], tuple[str, Tensor]], people: People, one: Output) -> Found:
    return {LIKENESS: (likeness(read(one.source)[1], read(one.output)[1]), 1.0)}


def score(
    group: Voices, loaded: Mapping[str, Measure | Exception], *, recogniser: str, seed: int
) -> list[Row]:
    """Measure every output of a group and average: together, by direction and by sex.

    Args:
        group: of voices.
        loaded: of :func:`measures`.
        recogniser: its name, for the definitions.
        seed: of the bootstrap over people.
    """
    more = ", two utterances of a person" * (group.names["task"] == "references")
    rows: list[Row] = []
    for metric, measure in loaded.items():
        if not group.metrics or metric in group.metrics:
            known = measure if isinstance(measure, Exception) else partial(measure, group.people)
            rows += group.measured(
                metric, known, lambda name: definition(name, recogniser) + more, seed=seed
            )
    return rows


# Copy synthesis: how much a vocoder changes a voice when nothing else does. The spectrogram of a
# recording goes through the vocoder, and what comes out is held against the recording: its mel, its
# pitch by WORLD, its speaker by Resemblyzer's embedding. Converted speech cannot sound better


UNSEEN_FIRST = ("unseen", "val", "train")  # the order in which a split is looked for
HEARD_DECADES = 3.0  # 60 dB: fainter values of a mel do not count
CENTS_AN_OCTAVE = 1200.0
SHORTEST_FRAMES = 33  # 0.4 s
LONGEST_FRAMES = 1200  # 15 s
ORIGINAL = "recording"


class Copy(NamedTuple):
    """One clip and its copies.

    Args:
        clip: the clip with its store.
        sounds: (N,) at 24 kHz by name: the recording first, then each vocoder's.
    """

    clip: speech.Clip
    sounds: dict[str, Wave]

    @property
    def label(self) -> str:
        """Corpus, speaker and gender."""
        item = self.clip.item
        return f"{item.corpus} {item.speaker.rpartition('/')[2]} ({item.gender or '?'})"


def copies(
    vocoders: Sequence[Vocoder], stores: Sequence[Store], *, clips: int = 6
) -> tuple[Copy, ...]:
    """Send some clips of every corpus through every vocoder.

    Args:
        vocoders: each under a name of its own.
        stores: prepared stores; those without speech do not count.
        clips: of a corpus at most; of speakers left out of training if there are any, else of
            sentences left out; women and men in turn, evenly spread, 0.4 to 15 s long.

    Raises:
        DataError: no store has such a clip.
    """
    if not vocoders:
        return ()
    chosen = [clip for store in stores for clip in _copied(store, clips)]
    if not chosen:
        raise DataError(
            f"copy synthesis: {len(stores)} stores without a clip of 0.4 to 15 s with F0; expected "
            "one at least; prepare a corpus with speech"
        )
    made = [Copy(clip, {ORIGINAL: clip.store.waveform(clip.item)}) for clip in chosen]
    for clip, sounds in made:
        length = len(sounds[ORIGINAL])
        sounds |= {each.name: each(clip.log_mel(), length=length) for each in vocoders}
    return tuple(made)


def _copied(store: Store, count: int) -> list[speech.Clip]:
    """Clips of the first split that has any, women and men in turn."""
    for split in UNSEEN_FIRST:
        found = [
            clip
            for clip in speech.clips_of([store], split, needs="f0")
            if SHORTEST_FRAMES <= clip.item.frame_count <= LONGEST_FRAMES
        ]
        groups = [[c for c in found if c.item.gender == gender] for gender in (*GENDERS, "")]
        each = -(-count // max(sum(map(bool, groups)), 1))
        spread = [group[:: max(1, len(group) // each)][:each] for group in groups]
        turns = [clip for clip in chain(*zip_longest(*spread)) if clip is not None]
        if turns:
            return turns[:count]
    return []


def copy_table(
    made: Iterable[Copy], *, on_log: Callable[[str], None] = lambda line: None
) -> pd.DataFrame:
    """Hold copies against their recordings.

    Args:
        made: what :func:`copies` returned, at least one.
        on_log: receives what cannot be measured.

    Returns:
        A line a corpus, split and vocoder: `clips`, how many; `log_mel_db` (mean absolute distance
        of the mels within 60 dB of the clip's loudest value), `voicing_error` (share of frames),
        `gross_pitch_error` (share of the frames voiced in both that are more than 20 % off),
        `f0_cents` (median absolute error of the frames voiced in both), `speaker_similarity`
        (cosine, mean). F0 is WORLD's of both sounds. What has no value (no frame voiced in both) is
        NaN.
    """
    groups: dict[tuple[str, str, str], list[tuple[Copy, Wave]]] = defaultdict(list)
    for copy in made:
        for name, sound in list(copy.sounds.items())[1:]:
            groups[copy.clip.item.corpus, copy.clip.item.split, name].append((copy, sound))
    encoder = attempt(networks.SpeakerEncoder)
    if isinstance(encoder, Exception):
        on_log(f"speaker similarity is not available: {reason_of(encoder)}")
        encoder = None
    index = pd.MultiIndex.from_tuples(groups, names=["corpus", "split", "vocoder"])
    lines = [{"clips": len(own), **_changes(own, encoder)} for own in groups.values()]
    return pd.DataFrame(lines, index=index).sort_index()


def _changes(
    members: Sequence[tuple[Copy, Wave]], encoder: networks.SpeakerEncoder | None
) -> dict[str, float]:
    tracks, distances, likeness = [], [], []
    for copy, sound in members:
        wave = copy.sounds[ORIGINAL]
        distances.append(mel_distance_db(torch.from_numpy(wave), torch.from_numpy(sound)))
        tracks.append((copy.clip.f0(), torch.from_numpy(world_f0(sound))))
        with suppress(DataError):  # no voice is left in one of them
            if encoder is not None:
                one, other = (encoder.embed(x) for x in (wave, sound))
                likeness.append(float(one @ other))
    values = {"log_mel_db": float(np.mean(distances)), **speech.pitch_measures(tracks)}
    values.pop("f0_correlation", None)
    octaves = torch.cat([(hz / f0).log2().abs()[(f0 > 0) & (hz > 0)] for f0, hz in tracks])
    if len(octaves):
        values["f0_cents"] = CENTS_AN_OCTAVE * float(octaves.median())
    if likeness:
        values["speaker_similarity"] = float(np.mean(likeness))
    return values


def mel_distance_db(wave: Tensor, sound: Tensor) -> float:
    """Return the mean distance of two sounds' mels, (N,) each, where the first one's is heard."""
    wanted, got = log_mel(wave), log_mel(sound)
    heard = wanted > wanted.max() - HEARD_DECADES
    return speech.DB_PER_LOG10 * float((got - wanted)[heard].abs().mean())
