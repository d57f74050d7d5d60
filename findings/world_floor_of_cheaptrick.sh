#!/usr/bin/env bash
# pyworld 0.3.5: Harvest's floor is not CheapTrick's, and low voices lose their envelope in silence
#
# Guessed:  the F0 that harvest(f0_floor=60) finds can be handed to cheaptrick(f0, times, rate), as
#           the library's own examples do, and voiced frames are analysed as voiced.
# Seen:     cheaptrick's FFT is sized for a floor of its own, 71 Hz. At 24 kHz every frame below
#           70.5 Hz is analysed as if it were unvoiced, with a window for 500 Hz: a pulse train of
#           65 Hz gives an envelope that is 5.8 dB off in the median, 75 Hz one that is within 0.1.
#           No warning. cheaptrick(..., f0_floor=60) mends it, and wants d4c and synthesize with the
#           same, larger fft_size (2048 in place of 1024).
# Matters:  men's voices reach 60 to 70 Hz at the ends of sentences; augmentation and vocoding by
#           WORLD turn those frames into a buzz.
# Fails when the default follows the F0 that is handed over.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyworld==0.3.5 numpy 'setuptools<82'
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import pyworld
from numpy.fft import irfft, rfft, rfftfreq

RATE = 24_000  # Hz


def envelope(hz: np.ndarray) -> np.ndarray:
    """Two formants on a falling spectrum, as amplitude."""
    peaks = sum(g * np.exp(-(((hz - f) / 200) ** 2)) for f, g in ((700, 3.0), (1800, 2.0)))
    return (0.2 + peaks) / (1 + hz / 1000)


def error(f0: float, **floor: float) -> float:
    """Median error of the envelope in dB, 100 to 4000 Hz, of a steady voice of this pitch."""
    pulses = np.zeros(2 * RATE)
    pulses[(np.arange(0, 2 * RATE - 1, RATE / f0)).astype(int)] = 1.0
    wave = irfft(rfft(pulses) * envelope(rfftfreq(len(pulses), 1 / RATE)))
    times = np.arange(0, 1.9, 0.005)
    power = pyworld.cheaptrick(wave, np.full(len(times), f0), times, RATE, **floor)
    hz = np.linspace(0, RATE / 2, power.shape[1])
    band = (hz > 100) & (hz < 4000)
    got = 10 * np.log10(power[50:-50, band])
    off = got - 20 * np.log10(envelope(hz[band]))
    return float(np.median(np.abs(off - np.median(off, axis=1, keepdims=True))))


above, below, mended = error(75.0), error(65.0), error(65.0, f0_floor=60.0)
print(f"error of the envelope: 75 Hz {above:.2f} dB, 65 Hz {below:.2f}, with f0_floor=60 {mended:.2f}")
limit = pyworld.get_cheaptrick_f0_floor(RATE, pyworld.get_cheaptrick_fft_size(RATE))
print(f"floor of the default FFT: {limit:.2f} Hz")
assert 70 < limit < 71
assert above < 0.5 and below > 3, "a voice of 65 Hz is analysed as well as one of 75 Hz now"
assert mended < 0.5, "f0_floor no longer mends it"
PY
