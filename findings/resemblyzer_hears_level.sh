#!/usr/bin/env bash
# Resemblyzer 0.1.4: a voice and the same voice 20 dB quieter are not the same speaker
#
# Guessed:  preprocess_wav, whose first step is named normalisation of the volume, makes the speaker
#           embedding of a clip independent of how loud the file is.
# Seen:     it only ever raises a clip to -30 dBFS. A clip above that keeps its level, and the
#           network hears it: the cosine of a synthetic voice at -20 dBFS and at -40 dBFS (raised to
#           -30) is well below 1, while copies at -40 and -50 dBFS agree to rounding.
# Matters:  "speaker similarity" of voice conversion compares recordings at -20 dBFS with outputs at
#           -30 dBFS; part of what it reports is the vocoder's level. Bring both sides to one level
#           of at most -30 dBFS first.
# Fails when the level no longer matters.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q resemblyzer==0.1.4 'setuptools<82'
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from resemblyzer import VoiceEncoder, preprocess_wav

RATE = 16_000  # Hz


def voice(pitch: float, seed: int) -> np.ndarray:
    """4 s of a gliding, voiced sound with moving formants."""
    rng = np.random.default_rng(seed)
    time = np.arange(4 * RATE) / RATE
    hz = pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * time))
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    formants = [f * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(1, 3) * time)) for f in (600, 1200, 2500)]
    wave = sum(
        (0.02 + sum(np.exp(-(((k * hz - f) / 150) ** 2)) for f in formants)) * np.sin(k * phase)
        for k in range(1, int(4000 / pitch))
    )
    return wave / np.sqrt(np.mean(wave**2))


def at(wave: np.ndarray, dbfs: float) -> np.ndarray:
    return (wave * 10 ** (dbfs / 20)).astype(np.float32)


encoder = VoiceEncoder("cpu", verbose=False)
cosines = {}
for pitch in (100, 140, 200):
    wave = voice(pitch, pitch)
    loud, quiet, faint = (
        encoder.embed_utterance(preprocess_wav(at(wave, level), source_sr=RATE))
        for level in (-20, -40, -50)
    )
    cosines[pitch] = float(loud @ quiet), float(quiet @ faint)
    print(f"{pitch} Hz: cosine of -20 and -40 dBFS {loud @ quiet:.3f}, of -40 and -50 {quiet @ faint:.5f}")
assert min(a for a, _ in cosines.values()) < 0.97, "the level above -30 dBFS no longer matters"
assert min(b for _, b in cosines.values()) > 0.999, "clips below -30 dBFS are no longer alike"
PY
