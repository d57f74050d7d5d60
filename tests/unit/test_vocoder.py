"""Vocoders: length, batches, determinism, seams, closeness to the spectrogram, names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import Patch, refuses
from tests.unit.vocoder_factory import KINDS, make_weights, speech_like
from xfavot.audio import parallel_wavegan
from xfavot.audio.mel import MEL, log_mel
from xfavot.audio.parallel_wavegan import TrainedVocoder
from xfavot.audio.source_filter import SourceFilterVocoder
from xfavot.audio.vocoder import DEFAULT, GriffinLim, Vocoder, vocoder
from xfavot.errors import ConfigError, DataError, ShapeError


def vowel(seconds: float = 0.6) -> Tensor:
    time = torch.arange(int(seconds * MEL.sample_rate)) / MEL.sample_rate
    glide = 2 * torch.pi * (140 * time + 30 * time**2)
    wave = sum(torch.sin(glide * h) / h for h in range(1, 12))
    return 0.1 * torch.as_tensor(wave) * torch.hann_window(len(time)).sqrt()


def distance_db(wanted: Tensor, wave: np.ndarray) -> float:
    """Mean distance of the log mel within 60 dB of the loudest value."""
    got = log_mel(torch.from_numpy(wave))
    return float(20 * (got - wanted)[wanted > wanted.max() - 3].abs().mean())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, few = tmp_path_factory.mktemp("weights"), {"parallel_wavegan": {"layers": 6}}
    return {k: make_weights(root / k, k, thin=True, generator=few.get(k)) for k in KINDS}


@pytest.fixture(scope="module")
def every_vocoder(weights: dict[str, Path]) -> list[Vocoder]:
    trained = [TrainedVocoder.load(path) for path in weights.values()]
    return [vocoder(DEFAULT), GriffinLim(iterations=2), *trained]


def test_any_number_of_frames_gives_exactly_its_samples(every_vocoder: list[Vocoder]) -> None:
    for made in every_vocoder:
        for frames in (1, 2, 7, 8, 15, 25):
            out = made(torch.full((80, frames), -2.0))
            assert (out.shape, out.dtype) == (((frames - 1) * made.hop,), np.float32)
            assert np.isfinite(out).all()
        for samples in (7200, 7499):  # of an analysed waveform, 0.3 s, and an odd number
            mel = log_mel(vowel(0.5)[:samples])
            whole, usual = made(mel, length=samples), made(mel)
            assert whole.shape == (samples,)
            np.testing.assert_array_equal(whole[: len(usual)], usual)


def test_rows_of_a_batch_are_what_they_are_alone(every_vocoder: list[Vocoder]) -> None:
    rows = torch.stack([speech_like(20, seed=1), speech_like(20, seed=2)])
    before = torch.get_rng_state()
    for made in every_vocoder:
        both = made(rows, length=5800)
        assert both.shape == (2, 5800)
        assert not np.array_equal(both[0], both[1])
        for row, wave in zip(rows, both, strict=True):
            np.testing.assert_array_equal(made(row, length=5800), wave)
    assert torch.equal(torch.get_rng_state(), before)  # nothing else is drawn


def test_seed_fixes_the_sound(every_vocoder: list[Vocoder], weights: dict[str, Path]) -> None:
    mel = speech_like(20)
    others: list[Vocoder] = [vocoder(DEFAULT, seed=1), GriffinLim(iterations=2, seed=1)]
    others += [TrainedVocoder.load(path, seed=1) for path in weights.values()]
    for one, other in zip(every_vocoder, others, strict=True):
        draws = one.name.startswith((DEFAULT, "griffin_lim", "parallel_wavegan"))
        np.testing.assert_array_equal(one(mel), one(mel))
        assert np.array_equal(one(mel), other(mel)) is not draws


@pytest.mark.parametrize(("kind", "causal"), [*((k, False) for k in KINDS), (KINDS[1], True)])
def test_chunks_change_nothing(tmp_path: Path, kind: str, causal: bool, monkeypatch: Patch) -> None:
    changes = {"use_causal_conv": causal}
    made = TrainedVocoder.load(make_weights(tmp_path / "w", kind, thin=True, generator=changes))
    mel = speech_like(90)
    whole = made(mel)
    monkeypatch.setattr(parallel_wavegan, "CHUNK_FRAMES", 45)
    np.testing.assert_allclose(made(mel), whole, atol=1e-5)
    assert 5 < made._context < 45
    made._context = 1  # the test sees seams where there are any
    assert np.abs(made(mel) - whole).max() > 1e-4


def test_the_sound_has_the_spectrogram_asked_for() -> None:
    wanted = log_mel(vowel())
    close, far = GriffinLim()(wanted), GriffinLim(iterations=1)(wanted)
    assert distance_db(wanted, close) < 1.1  # measured 0.85; fixed magnitudes give 2.8
    assert distance_db(wanted, close) < 0.3 * distance_db(wanted, far)


def test_griffin_lim_on_recordings(real_corpus: Path) -> None:
    io = pytest.importorskip("xfavot.audio.io")
    files = sorted((real_corpus / "vctk" / "wav48").glob("*/*.wav"))[:3]
    assert files
    for file in files:
        wanted = log_mel(torch.from_numpy(io.load_waveform(file)[24_000:60_000]))
        assert distance_db(wanted, GriffinLim()(wanted)) < 0.6  # measured 0.4 on 12 recordings


def test_griffin_lim_adds_nothing_outside_the_bands() -> None:
    spectrum = np.abs(np.fft.rfft(GriffinLim(iterations=4)(speech_like(80))))
    hertz = np.fft.rfftfreq((80 - 1) * MEL.hop, 1 / MEL.sample_rate)
    assert spectrum[hertz > 7800].max() < 1e-2 * spectrum.max()


def test_unfit_spectrograms_and_lengths_are_refused() -> None:
    made, between = GriffinLim(iterations=1), "for 11 frames; expected 3000 to 3299"
    for shape in ((81, 5), (2, 1, 80, 5), (80,)):
        refuses(ShapeError, "expected", made, torch.zeros(shape))
    for shape in ((80, 0), (0, 80, 3)):
        refuses(DataError, "expected", made, torch.zeros(shape))
    for length in (0, 3300):
        refuses(ConfigError, between, made, torch.zeros(80, 11), length=length)
    refuses(DataError, "finite", made, torch.full((80, 9), torch.nan))


def test_names(weights: dict[str, Path], tmp_path: Path) -> None:
    for name, cls in (("griffin_lim", GriffinLim), (DEFAULT, SourceFilterVocoder)):
        made = vocoder(name, seed=4)
        assert isinstance(made, cls)
        assert (made.name, made.seed, made.contract, made.hop) == (name, 4, MEL, 300)
    for kind, path in weights.items():
        for given in (path, str(path), path / "checkpoint-400000steps.pkl"):
            made = vocoder(given, seed=5)
            assert made.name.startswith(f"{kind} ({kind}/checkpoint-400000steps.pkl sha256 ")
    make_weights(tmp_path / "vctk_hifigan.v1", "hifigan", thin=True)
    assert vocoder("vctk_hifigan.v1", cache=tmp_path).name.startswith("hifigan (vctk_hifigan.v1/")
    refuses(ConfigError, "iterations is 0; expected 1 or more", GriffinLim, iterations=0)
    for name in ("parallel_wavegan", "wavenet", "", "no/such/folder"):
        refuses(ConfigError, "griffin_lim, libritts_hifigan", vocoder, name)
    refuses(ConfigError, r"did you mean 'vctk_hifigan\.v1'", vocoder, "vctk_hifi_gan.v1")
