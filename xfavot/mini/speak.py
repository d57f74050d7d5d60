"""Voices of the corpus `mini`: Kokoro-82M or espeak-ng speaks, WORLD makes it a person.

A base voice is analysed with WORLD (Morise et al. 2016); F0 is moved to the speaker's mean and
range, the spectral envelope is stretched along frequency (a shorter vocal tract has higher
formants), breath is mixed in, and the result is synthesised at 24 kHz. The envelope's stretch also
carries a change of rate, so nothing is resampled.

Kokoro-82M (hexgrad) reads phonemes: `words.csv` holds GRID's grammar and spells its words in those
symbols, for American and for British voices. Both synthesisers keep a state between sentences: the
same order of sentences in a fresh process gives the same samples, so `generate` speaks each person
in a process of its own. The clips of the default people, made by Kokoro on one machine, come with
the package as `voices.zip` (`tools/mini_pack.py` wrote it), so nobody needs a synthesiser for them.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from xfavot.errors import DataError, import_optional
from xfavot.mini.people import Person, stream, table
from xfavot.weights import FOLDER, fetched

SAMPLE_RATE_HZ = 24_000
PERIOD_MS = 5.0  # WORLD's frame period
LEVEL_DB = -24.0  # RMS of the spoken part, relative to full scale
NOISE_DB = -68.0  # RMS of the room's noise
WORDS = {row["word"]: row for row in table("words.csv")}
# GRID's grammar, without w; and what stands for a word in the name of a sentence
SLOTS = tuple(tuple(w for w, row in WORDS.items() if row["slot"] == slot) for slot in "123456")
SIGNS = {word: row["sign"] for word, row in WORDS.items()}
MOST_SENTENCES = 10_000  # a speaker, of the 64,000 of the grammar
KOKORO, ESPEAK = "kokoro", "espeak"  # synthesisers
BASES = table("bases.csv")  # the synthesisers' voices by sex, the best first
ACCENTS = ("en-us", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland", "en", "en-us", "en-us", "en")
LEAST_SYMBOLS = 22  # in a sentence
_AUDIO_SYNCHRONOUS, _CHARS_UTF8, _PHONEMES, _RATE = 2, 1, 0x100, 1  # of speak_lib.h
Wave = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """What makes a voice; derived from a person's hidden factors."""

    base: str  # voice of the synthesiser
    words_per_minute: int
    f0_hz: float  # mean (of the logarithm)
    f0_range: float  # factor on the excursions of log F0
    formants: float  # factor on the frequencies of the envelope
    breath: float  # 0 clear .. 1 breathy
    tremor: float  # relative depth of a slow trembling of F0
    tilt_db: float  # per octave above 1 kHz


def voice_of(person: Person, index: int, synthesiser: str = KOKORO) -> Voice:
    """The voice that belongs to a person.

    Sex sets the ranges; size lowers formants and F0; age slows, trembles and adds breath;
    liveliness widens the melody and quickens the rate.

    Args:
        person: the speaker.
        index: rank among the speakers of the same sex; chooses base voice and accent.
        synthesiser: whose base voice.
    """
    woman = person.gender == "f"
    made = (synthesiser, person.gender)
    names = [row["voice"] for row in BASES if (row["synthesiser"], row["sex"]) == made]
    accent = f"{ACCENTS[index % len(ACCENTS)]}+" if synthesiser == ESPEAK else ""
    low = 0.72 * person.size + 0.28 * person.age
    bottom, top = (178.0, 262.0) if woman else (84.0, 152.0)
    return Voice(
        base=accent + names[index % len(names)],
        words_per_minute=round(132 + 38 * person.liveliness - 26 * person.age),
        f0_hz=float(top * (bottom / top) ** low),
        f0_range=0.55 + 1.25 * person.liveliness,
        formants=float((1.13 if woman else 1.06) * 0.80**person.size * (1.02 if woman else 1.0)),
        breath=0.08 + 0.45 * max(0.0, person.age - 0.35) + 0.25 * person.lips * woman,
        tremor=0.035 * max(0.0, person.age - 0.4) / 0.6,
        tilt_db=-2.5 * person.age + 1.5 * person.liveliness,
    )


def code(words: tuple[str, ...]) -> str:
    """GRID's name of a sentence, e.g. `bbaf2n` for "bin blue at f two now" (zero is `z`)."""
    return "".join(map(SIGNS.__getitem__, words))


def sentences(seed: int, number: int, count: int) -> list[tuple[str, ...]]:
    """Different sentences for one speaker, in the order in which they are spoken."""
    draw = stream(seed, "sentences", number)
    chosen: dict[str, tuple[str, ...]] = {}
    while len(chosen) < count:
        words = tuple(slot[int(draw.integers(len(slot)))] for slot in SLOTS)
        chosen.setdefault(code(words), words)
    return list(chosen.values())


class Espeak:
    """espeak-ng of this process, called through ctypes; not re-entrant.

    Raises:
        DataError: the library does not start.
    """

    def __init__(self) -> None:
        """Start the library with the data of its wheel."""
        import espeakng_loader

        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate_hz = int(self._library.espeak_Initialize(_AUDIO_SYNCHRONOUS, 0, data, 0))
        if self.rate_hz <= 0:
            raise DataError(
                f"espeak-ng did not start with the data of {data.decode()}; got {self.rate_hz}, "
                "expected a sample rate; reinstall espeakng-loader"
            )
        self._pieces: list[NDArray[np.int16]] = []
        samples = ctypes.POINTER(ctypes.c_short)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, samples, ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._receive)  # kept alive: the library calls it
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def _receive(self, samples: Any, count: int, _events: Any) -> int:
        if count > 0:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, words: tuple[str, ...], voice: Voice) -> Wave:
        """Speak words; returns samples in -1..1 at `rate_hz`."""
        library = self._library
        known = library.espeak_SetVoiceByName(voice.base.encode()) == 0
        library.espeak_SetParameter(_RATE, voice.words_per_minute, 0)
        text = " ".join("[[eI]]" if word == "a" else word for word in words).encode()
        self._pieces.clear()
        flags = _CHARS_UTF8 | _PHONEMES
        library.espeak_Synth(text, len(text) + 1, 0, 1, 0, flags, None, None)
        library.espeak_Synchronize()
        if not known or not self._pieces:
            raise DataError(
                f"espeak-ng said nothing for {text.decode()!r} with voice {voice.base}, "
                f"{'' if known else 'un'}known to it; expected samples; reinstall espeakng-loader"
            )
        return np.concatenate(self._pieces).astype(np.float64) / 32768


class Kokoro:
    """Kokoro-82M of this process, on one thread and so with the same sums in the same order.

    Raises:
        DataError: onnxruntime is missing.
        WeightsError: the network is not here; see `WEIGHTS.md`.
    """

    rate_hz: ClassVar[int] = SAMPLE_RATE_HZ

    def __init__(self) -> None:
        """Read the network, the tables of its voices and the words."""
        runtime = import_optional("onnxruntime", extra="voices", purpose="Kokoro-82M")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        network, cpu = str(fetched.path("kokoro")), ["CPUExecutionProvider"]
        self._session: Any = runtime.InferenceSession(network, options, providers=cpu)
        with np.load(FOLDER / "kokoro_voices.npz") as tables:
            known, symbols = tables["voices"].tolist(), tables["symbols"].tolist()
            self._styles = dict(zip(known, tables["styles"], strict=True))
            self._paces = dict(zip(known, tables["words_per_minute"].tolist(), strict=True))
            self._tokens = dict(zip(symbols, tables["tokens"].tolist(), strict=True))

    def say(self, words: tuple[str, ...], voice: Voice) -> Wave:
        """Speak words; returns samples in -1..1 at `rate_hz`."""
        accent = "british" if voice.base.startswith("b") else "american"
        phonemes = " ".join(WORDS[word][accent] for word in words)
        tokens = [0, *(self._tokens[symbol] for symbol in phonemes), 0]
        styles = self._styles[voice.base]  # (12, 256), of sentences of 22 to 33 symbols
        speed = voice.words_per_minute / self._paces[voice.base]
        given = {
            "tokens": np.array([tokens], np.int64),
            "style": styles[None, min(len(phonemes) - LEAST_SYMBOLS, len(styles) - 1)],
            "speed": np.array([speed], np.float32),
        }
        return np.asarray(self._session.run(None, given)[0], np.float64).ravel()


SYNTHESISERS: dict[str, type[Espeak | Kokoro]] = {ESPEAK: Espeak, KOKORO: Kokoro}


def _silence_cut(wave: Wave, rate_hz: int) -> Wave:
    """Without the silence before and after; 20 ms stay."""
    loud = np.flatnonzero(np.abs(wave) > 0.004)
    keep = rate_hz // 50
    return wave[max(0, loud[0] - keep) : loud[-1] + keep] if len(loud) else wave


def _warp(envelope: Wave, factor: float) -> Wave:
    """Envelopes (T, bins) read at frequencies divided by `factor`; the last bin is held."""
    bins = envelope.shape[1]
    place = np.minimum(np.arange(bins) / factor, bins - 1.001)
    left = place.astype(int)
    share = place - left
    return np.asarray(envelope[:, left] * (1 - share) + envelope[:, left + 1] * share)


def become(wave: Wave, rate_hz: int, voice: Voice, draw: np.random.Generator) -> Wave:
    """Give an utterance another voice.

    Args:
        wave: (N,) samples in -1..1.
        rate_hz: of `wave`.
        voice: the target.
        draw: randomness of this utterance (phase of the tremor, pauses, level, noise).

    Returns:
        (M,) samples at 24 kHz, in -1..1, with a short pause before and after.
    """
    import pyworld

    wave = _silence_cut(wave, rate_hz)
    rough, times = pyworld.dio(wave, rate_hz, f0_floor=60.0, f0_ceil=500.0, frame_period=PERIOD_MS)
    f0 = pyworld.stonemask(wave, rough, times, rate_hz)
    spectrum = pyworld.cheaptrick(wave, f0, times, rate_hz, f0_floor=60.0)
    noise = pyworld.d4c(wave, f0, times, rate_hz, fft_size=2 * (spectrum.shape[1] - 1))
    voiced = f0 > 0
    if voiced.any():
        log_f0 = np.log(f0[voiced])
        centre = float(np.median(log_f0))
        melody = np.clip(log_f0 - centre, -0.45, 0.45) * voice.f0_range
        tremble = voice.tremor * np.sin(2 * np.pi * (5.2 * times[voiced] + draw.uniform()))
        lift = draw.normal() * 0.02
        f0[voiced] = voice.f0_hz * np.exp(melody - melody.mean() + tremble + lift)
    stretch = voice.formants * rate_hz / SAMPLE_RATE_HZ
    spectrum, noise = _warp(spectrum, stretch), _warp(noise, stretch)
    hertz = np.linspace(0, SAMPLE_RATE_HZ / 2, spectrum.shape[1])
    octaves = np.log2(np.maximum(hertz, 1000.0) / 1000.0)
    spectrum = spectrum * 10 ** (voice.tilt_db * octaves / 10)
    floor = voice.breath * np.clip(hertz / 5000.0, 0.05, 1.0)
    noise = np.clip(noise + (1 - noise) * floor, 1e-6, 1 - 1e-6)
    spoken = pyworld.synthesize(
        f0, np.ascontiguousarray(spectrum), np.ascontiguousarray(noise), SAMPLE_RATE_HZ, PERIOD_MS
    )
    level = 10 ** ((LEVEL_DB + draw.normal() * 1.2) / 20)
    spoken = spoken * (level / np.sqrt(np.mean(spoken**2)))
    spoken *= min(1.0, 0.97 / float(np.abs(spoken).max()))
    before, after = (int(s * SAMPLE_RATE_HZ) for s in draw.uniform(0.08, 0.25, size=2))
    whole = np.pad(spoken, (before, after))
    whole += draw.normal(size=len(whole)) * 10 ** (NOISE_DB / 20)
    return np.asarray(np.clip(whole, -1.0, 1.0))
