"""The mel-spectrogram against librosa and against the vocoder package's own features."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Patch, refuses
from tests.unit import vocoder_factory as factory
from tests.unit.vocoder_factory import GENERATORS, KINDS, make_weights, speech_like, vocoder_package
from xfavot.audio import mel
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL, Standardiser, log_mel, mel_filterbank, require_contract
from xfavot.audio.parallel_wavegan import PARALLEL_WAVEGAN, TrainedVocoder, untrained
from xfavot.errors import DataError, ShapeError

TOLERANCE = 1e-4  # log10 units


def signals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    time = np.arange(24_000 * 2) / 24_000
    return {
        "noise": 0.1 * rng.standard_normal(len(time)),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * time),
        "sweep": 0.3 * np.sin(2 * np.pi * (100 + 2000 * time) * time),
        "mostly silent": np.where(time < 0.1, 0.1 * rng.standard_normal(len(time)), 0.0),
        "odd length": 0.1 * rng.standard_normal(12_345),
        "shortest": 0.1 * rng.standard_normal(1025),
    }


def by_librosa(wave: np.ndarray) -> np.ndarray:
    librosa = pytest.importorskip("librosa")
    frames = {"n_fft": 2048, "hop_length": 300, "win_length": 1200, "window": "hann"}
    bands = {"sr": 24_000, "n_mels": 80, "fmin": 80.0, "fmax": 7600.0, "norm": "slaney"}
    edges = {"center": True, "pad_mode": "reflect"}
    found = librosa.feature.melspectrogram(y=wave, power=1.0, htk=False, **frames, **bands, **edges)
    return np.log10(np.maximum(found, 1e-10))


def by_vocoder_package(wave: np.ndarray) -> np.ndarray:
    vocoder_package()  # imports it with the SciPy of today
    preprocess = pytest.importorskip("parallel_wavegan.bin.preprocess")
    frames = {"fft_size": 2048, "hop_size": 300, "win_length": 1200, "window": "hann"}
    bands = {"num_mels": 80, "fmin": 80, "fmax": 7600}
    return preprocess.logmelfilterbank(wave, 24_000, **frames, **bands).T


def ours(wave: np.ndarray) -> np.ndarray:
    return log_mel(torch.from_numpy(wave.astype(np.float32))).numpy()


@pytest.mark.parametrize("name", [*signals(), "speech"])
def test_log_mel_is_that_of_librosa_and_of_vocoders(name: str, request: Any) -> None:
    if name == "speech":
        folder = request.getfixturevalue("real_corpus")
        wave = load_waveform(min(folder.glob("vctk/wav48/*/*.wav")))
    else:
        wave = signals()[name].astype(np.float32)
    np.testing.assert_allclose(ours(wave), by_librosa(wave), atol=TOLERANCE)
    np.testing.assert_allclose(ours(wave), by_vocoder_package(wave), atol=TOLERANCE)


def test_long_audio_is_transformed_in_blocks(monkeypatch: Patch) -> None:
    wave = 0.1 * np.random.default_rng(1).standard_normal(60 * 24_000).astype(np.float32)
    transform, frames = mel.stft, []

    def counted(block: torch.Tensor, *, center: bool) -> torch.Tensor:
        frames.append((block.shape[-1] - 2048) // 300 + 1)
        return transform(block, center=center)

    monkeypatch.setattr(mel, "stft", counted)
    got = ours(wave)
    assert frames == [2048, 2048, 705]
    np.testing.assert_allclose(got, by_librosa(wave), atol=TOLERANCE)


def test_slaney_scale_by_hand() -> None:
    hz = torch.tensor([0.0, 200.0, 1000.0, 6400.0])
    torch.testing.assert_close(mel.hz_to_mel(hz), torch.tensor([0.0, 3.0, 15.0, 42.0]))
    torch.testing.assert_close(mel.mel_to_hz(mel.hz_to_mel(hz)), hz)
    wide = mel_filterbank()[-10:]  # many bins each, so that the sum is close to the integral
    areas = wide.sum(dim=1) * (24_000 / 2048)
    torch.testing.assert_close(areas, torch.ones(10), atol=1e-2, rtol=0.0)


def test_silence_gain_and_shapes() -> None:
    assert log_mel(torch.zeros(3000)).eq(-10.0).all()
    wave = 0.05 * torch.randn(2, 3, 3000, generator=torch.Generator().manual_seed(0))
    got = log_mel(wave)
    assert got.shape == (2, 3, 80, 11)
    assert got.dtype == torch.float32
    torch.testing.assert_close(log_mel(10.0 * wave), got + 1.0, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(log_mel(wave[1, 2]), got[1, 2])
    silence = torch.zeros(3000, requires_grad=True)
    (gradient,) = torch.autograd.grad(log_mel(silence).sum(), silence)
    assert gradient.isfinite().all()


def test_unusable_waveforms_are_refused() -> None:
    for wave in (torch.zeros(1024), torch.zeros(3000, dtype=torch.int16)):
        refuses(ShapeError, "at least 1025 samples", log_mel, wave)


def test_contract_is_stable_and_round_trips() -> None:
    assert MEL.hash == "e89ae22b99c3329d"
    assert replace(MEL, hop=256).hash != MEL.hash
    require_contract(MEL, where="here")
    require_contract(MEL.as_dict(), where="here")
    # each difference is named, and nothing that fits
    match = r"^(?!.*hop)at x: .*fmax is 8000\.0, expected 7600\.0; sample_rate is 16000, expected 2"
    other = replace(MEL, sample_rate=16_000, fmax=8000.0)
    refuses(DataError, match, require_contract, other, where="at x")
    rest = {name: value for name, value in MEL.as_dict().items() if name != "hop"}
    refuses(DataError, r"hop is '\(absent\)', expected 300", require_contract, rest, where="x")


def test_standardiser() -> None:
    standardiser = Standardiser(torch.full((80,), -2.0), torch.full((80,), 0.5))
    x = torch.full((2, 80, 3), -1.0)
    assert standardiser.standardise(x).eq(2.0).all()
    assert standardiser.restore(standardiser.standardise(x)).eq(x).all()
    assert standardiser.to("cpu").mean.eq(-2.0).all()
    refuses(ShapeError, "80", Standardiser, torch.zeros(79), torch.ones(80))
    refuses(DataError, "positive", Standardiser, torch.zeros(80), torch.zeros(80))


CLOSE = 1e-5
FRAMES = 16  # 0.2 s


def by_package(folder: Path, log_mel: torch.Tensor, *, seed: int) -> torch.Tensor:
    """(T * 300,) by the package alone, its way of standardising included."""
    (file,) = folder.glob("*.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = factory.vocoder_package().utils.load_model(str(file))
    model.remove_weight_norm()
    model.eval()
    drawn: dict[str, Any] = {}
    if type(model).__name__ == "ParallelWaveGANGenerator":
        noise = torch.Generator().manual_seed(seed)
        drawn["x"] = torch.randn(log_mel.shape[1] * 300, 1, generator=noise)
    with torch.no_grad():
        return model.inference(log_mel.T, normalize_before=True, **drawn)[:, 0]


def require_equal(folder: Path, *, frames: int = FRAMES) -> TrainedVocoder:
    log_mel = speech_like(frames)
    expected = by_package(folder, log_mel, seed=3)
    assert len(expected) == frames * 300
    assert 0.02 < float(expected.std()) < 0.95  # else equality would say little
    made = TrainedVocoder.load(folder, seed=3)
    got = made(log_mel, length=frames * 300 - 1)
    np.testing.assert_allclose(got, expected[:-1].numpy(), atol=CLOSE, rtol=0)
    return made


SIZES = [*zip(KINDS, (15, 17, 22), (1_334_311, 2_138_068, 12_979_841), strict=True)]


@pytest.mark.parametrize(("kind", "context", "size"), SIZES)
def test_published_sizes(tmp_path: Path, kind: str, context: int, size: int) -> None:
    own = GENERATORS[kind]
    full = untrained(own.get("generator_type", PARALLEL_WAVEGAN), own["generator_params"])
    assert sum(weight.numel() for weight in full._network.parameters()) == size
    thin = require_equal(make_weights(tmp_path / kind, kind, thin=True))
    # half the kernels' widths in frames, added up along the network, rounded up: at most
    assert context - 4 <= thin._context <= context


def test_several_chunks(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("xfavot.audio.parallel_wavegan.CHUNK_FRAMES", 30)
    for kind in KINDS:
        require_equal(make_weights(tmp_path / kind, kind, thin=True), frames=62)


def test_bands_are_joined_as_the_version_or_the_settings_say(tmp_path: Path) -> None:
    own = {"pqmf_params": {"taps": 48, "cutoff_ratio": 0.16, "beta": 8.0}}
    sounds = []
    for n, settings in enumerate(({"version": "0.4.2"}, {"version": "0.4.3"}, own, {})):
        folder = make_weights(tmp_path / str(n), "multi_band_melgan", thin=True, **settings)
        if not settings:  # as old as no version at all
            config = folder / "config.yml"
            config.write_text(re.sub("(?m)^version: .*\n", "", config.read_text()))
        sounds.append(require_equal(folder)(speech_like(FRAMES)))
    assert min(float(np.abs(sounds[0] - other).max()) for other in sounds[1:3]) > 1e-3
    assert float(np.abs(sounds[0] - sounds[3]).max()) < CLOSE


def test_statistics_as_an_array_and_torchs_older_format(tmp_path: Path) -> None:
    folder = make_weights(tmp_path / "w", "hifigan", thin=True, zip_file=False, format="npy")
    (folder / "stats.h5").unlink()
    mean, scale = torch.linspace(-3, -1, 80).numpy(), torch.linspace(0.2, 0.9, 80).numpy()
    factory.write_stats(folder / "stats.npy", mean, scale)
    require_equal(folder)
