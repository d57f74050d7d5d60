"""Griffin-Lim: length, determinism, closeness to the spectrogram it was given, errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from xfavot.audio import vocoder as module
from xfavot.audio.mel import MEL, log_mel, mel_filterbank
from xfavot.audio.vocoder import GriffinLim, Vocoder, linear_magnitude, vocoder
from xfavot.errors import ConfigError, DataError, ShapeError, WeightsError


def vowel(seconds: float = 0.6) -> Tensor:
    time = torch.arange(int(seconds * MEL.sample_rate)) / MEL.sample_rate
    glide = 2 * torch.pi * (140 * time + 30 * time**2)
    wave = sum(torch.sin(glide * h) / h for h in range(1, 12))
    return 0.1 * torch.as_tensor(wave) * torch.hann_window(len(time)).sqrt()


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 41])
def test_any_length_gives_exactly_its_samples(frames: int) -> None:
    out = GriffinLim(iterations=2)(torch.full((80, frames), -2.0))
    assert out.shape == ((frames - 1) * MEL.hop,)
    assert out.dtype == np.float32


def test_the_sound_has_the_spectrogram_asked_for() -> None:
    wanted = log_mel(vowel())
    close = GriffinLim(iterations=32)(wanted)
    far = GriffinLim(iterations=1)(wanted)

    def error(wave: np.ndarray) -> float:
        got = log_mel(torch.from_numpy(wave))
        wide = wanted[:, 4:-4]
        return float((10 ** got[:, 4:-4] - 10**wide).norm() / (10**wide).norm())

    assert error(close) < 0.12  # measured 0.05; one iteration 0.4
    assert error(close) < 0.5 * error(far)


def test_seed_fixes_the_sound() -> None:
    mel = log_mel(vowel(0.3))
    one, two = GriffinLim(iterations=3), GriffinLim(iterations=3, seed=1)
    np.testing.assert_array_equal(one(mel), one(mel))
    assert not np.array_equal(one(mel), two(mel))


def test_chunks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = log_mel(vowel(2.0))  # 161 frames
    monkeypatch.setattr(module, "CHUNK_FRAMES", 70)
    out = GriffinLim(iterations=32)(wanted)
    assert len(out) == (wanted.shape[1] - 1) * MEL.hop
    off = (10 ** log_mel(torch.from_numpy(out)) - 10**wanted).norm(dim=0)
    loud = (10**wanted).norm(dim=0)
    seam = slice(70 - module.OVERLAP_FRAMES - 3, 70 + 3)
    assert float((off / loud)[seam].max()) < 0.3
    steps = np.abs(np.diff(out))
    assert steps[(70 - 24) * 300 : 70 * 300].max() < 1.5 * steps.max() + 1e-6


def test_inversion_of_the_filterbank() -> None:
    mel = log_mel(vowel(0.3))
    linear = linear_magnitude(mel)
    assert linear.shape == (1025, mel.shape[1])
    assert bool((linear >= 0).all())
    back = mel_filterbank() @ linear
    assert float((back - 10**mel).norm() / (10**mel).norm()) < 0.05
    assert bool((linear[: int(80 / MEL.sample_rate * MEL.n_fft)] < 1e-6).all())


@pytest.mark.parametrize("mel", [torch.zeros(81, 5), torch.zeros(1, 80, 5)])
def test_other_shapes_are_refused(mel: Tensor) -> None:
    with pytest.raises(ShapeError, match="expected"):
        GriffinLim()(mel)


@pytest.mark.parametrize("mel", [torch.zeros(80, 0), torch.full((80, 9), torch.nan)])
def test_nothing_and_not_finite_are_refused(mel: Tensor) -> None:
    with pytest.raises(DataError, match="finite"):
        GriffinLim()(mel)


@pytest.mark.parametrize("iterations", [0, -1, 2.0, True])
def test_iterations_are_a_positive_whole_number(iterations: int) -> None:
    with pytest.raises(ConfigError, match="iterations"):
        GriffinLim(iterations=iterations)


def test_another_contract_is_refused_with_both_values() -> None:
    other = dataclasses.replace(MEL, fmax=8000.0)
    with pytest.raises(DataError, match=r"fmax is 8000\.0, expected 7600\.0"):
        GriffinLim(contract=other)


def test_registry() -> None:
    made = vocoder("griffin_lim")
    assert isinstance(made, Vocoder)
    assert made.name == "griffin_lim"
    assert made.contract == MEL
    with pytest.raises(WeightsError, match="available: griffin_lim"):
        vocoder("parallel_wavegan")
    with pytest.raises(ConfigError, match="expected one of: griffin_lim"):
        vocoder("wavenet")
