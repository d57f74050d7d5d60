#!/usr/bin/env bash
# pocketsphinx 5.1.1: what a clip is heard as depends on the clips heard before it
#
# Guessed:  a decoder that is handed a whole utterance (process_raw(..., full_utt=True), between
#           start_utt and end_utt) hears the same words in the same samples every time.
# Seen:     its front end carries its cepstral mean from one utterance into the next, also for whole
#           utterances. One decoder, the same samples twice: "believe it or", then "of the tiger".
#           Four clips forwards and backwards: other texts and scores for most of them.
#           decoder.reinit_feat() before every utterance makes each one equal to a new decoder's.
# Matters:  a word error rate measured with one decoder depends on the order and the choice of the
#           clips, so that two systems judged on lists of another order are not comparable, and a
#           cached score is not a property of its file.
# Fails when the second hearing equals the first, or reinit_feat() no longer helps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pocketsphinx==5.1.1 numpy
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from pocketsphinx import Decoder

RATE = 16_000  # Hz


def syllables(pitch: float, seed: int) -> bytes:
    """1.5 s of voiced sounds with random formants, nine syllables, over faint noise."""
    rng = np.random.default_rng(seed)
    samples = RATE * 3 // 2
    time, wave = np.arange(samples) / RATE, np.zeros(samples)
    for start in range(0, samples, RATE // 6):
        stop = min(samples, start + RATE // 8)
        hz, formants = pitch * (1 + 0.1 * rng.standard_normal()), rng.uniform(300, 2500, 3)
        for k in range(1, int(4000 / hz)):
            loud = 0.02 + np.exp(-(((k * hz - formants) / 200) ** 2)).sum()
            wave[start:stop] += loud * np.sin(2 * np.pi * k * hz * time[start:stop])
        wave[start:stop] *= np.hanning(stop - start)
    wave = 0.3 * wave / np.abs(wave).max() + 0.003 * rng.standard_normal(samples)
    return (wave * 32_767).astype(np.int16).tobytes()


def hear(decoder: Decoder, clip: bytes) -> tuple[str, float]:
    decoder.start_utt()
    decoder.process_raw(clip, no_search=False, full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return (heard.hypstr, round(heard.best_score, 4)) if heard else ("", 0.0)


def decoder() -> Decoder:
    return Decoder(loglevel="FATAL")


clips = [syllables(100 + 40 * i, i) for i in range(4)]
alone = [hear(decoder(), clip) for clip in clips]
one = decoder()
twice = [hear(one, clips[0]) for _ in range(2)]
one = decoder()
forwards = [hear(one, clip) for clip in clips]
one, reset = decoder(), []
for clip in clips:
    one.reinit_feat()
    reset.append(hear(one, clip))
for name, heard in (("alone", alone), ("twice", twice), ("forwards", forwards), ("reset", reset)):
    print(f"{name:9}", *heard)
assert twice[0] != twice[1], "the same clip is heard the same way now"
assert forwards[1:] != alone[1:], "the clips before no longer matter"
assert reset == alone, "reinit_feat() is not enough any more"
PY
