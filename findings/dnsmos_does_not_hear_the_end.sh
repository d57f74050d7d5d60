#!/usr/bin/env bash
# speechmos 0.0.1.1: DNSMOS does not hear the last one to two seconds of a clip
#
# Guessed:  DNSMOS of a clip longer than its window (9.01 s) is the mean over windows, one a second,
#           that together hear all of the clip but a remainder of less than a second.
# Seen:     the number of windows is counted from the whole seconds less 9.01, rounded down once
#           more. Of 10.00 s the last 0.99 s are not heard, of 10.98 s the last 1.97 s, of 11.98 s
#           as much: with white noise near full scale in their place all four scores (overall,
#           signal, background, P.808) stay the same to the last bit. Begun 0.1 s earlier, the noise
#           changes them, begun a second earlier it takes 0.8 to 1.5 from the background.
# Matters:  converted sentences fail at their ends: a vocoder that rings out, a decoder that does
#           not stop. Up to 18 % of a clip is exempt from its rating, but nothing of one under 9 s,
#           so that systems judged on clips of other lengths are not comparable. Two seconds of the
#           clip's beginning, appended, let its end be heard. torchmetrics 1.9.0 counts windows by
#           the same formula (read there, not run).
# Fails when noise at the end changes a score, more is left out than said, or the remedy is none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q speechmos==0.0.1.1 librosa==0.11.0 onnxruntime==1.32.0 requests tqdm
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from speechmos import dnsmos

RATE = 16_000  # Hz


def voice(seconds: float, pitch: float = 130.0) -> np.ndarray:
    """Syllables of a gliding, voiced sound with moving formants at -20 dBFS."""
    time = np.arange(int(seconds * RATE)) / RATE
    hz = pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * time))
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    formants = [f * (1 + 0.2 * np.sin(2 * np.pi * r * time)) for f, r in ((600, 2.3), (1500, 1.7))]
    wave = sum(
        (0.02 + sum(np.exp(-(((k * hz - f) / 150) ** 2)) for f in formants)) * np.sin(k * phase)
        for k in range(1, int(4000 / pitch))
    )
    wave *= np.clip(np.sin(4 * np.pi * time), 0, 1) ** 0.5
    return np.clip(0.1 * wave / np.sqrt(np.mean(wave**2)), -1, 1)


def scores(wave: np.ndarray, noisy: float = 0.0) -> dict[str, float]:
    """DNSMOS with white noise in the place of the last seconds."""
    samples = int(noisy * RATE)
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, samples)
    return dnsmos.run(np.concatenate([wave[: len(wave) - samples], noise]), RATE)


for seconds, unheard in ((10.0, 0.99), (10.98, 1.97), (11.98, 1.97)):
    clip = voice(seconds)
    heard = {noisy: scores(clip, noisy) for noisy in (0.0, unheard, unheard + 0.1, unheard + 1)}
    for noisy, score in heard.items():
        numbers = (f"{name} {value:.4f}" for name, value in score.items())
        print(f"{seconds:5.2f} s, noise in the last {noisy:.2f} s:", *numbers)
    clean, late, early, earlier = heard.values()
    assert late == clean, "the end is heard now"
    assert early != clean, "more than that is left out"
    assert earlier["bak_mos"] < clean["bak_mos"] - 0.1, "the noise does not matter"
    start = clip[: 2 * RATE]
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, int(unheard * RATE))
    noisy = np.concatenate([clip[: len(clip) - len(noise)], noise, start])
    mended = dnsmos.run(np.concatenate([clip, start]), RATE), dnsmos.run(noisy, RATE)
    print("with its first 2 s appended, background", *(f"{m['bak_mos']:.4f}" for m in mended))
    assert mended[1]["bak_mos"] < mended[0]["bak_mos"] - 0.1, "two seconds more do not mend it"
PY
