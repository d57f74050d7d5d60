"""The whole audio path, wave to mel to identity to vocoder, and what may come the vocoder's way."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import Patch
from tests.unit.store_factory import tone
from xfavot.audio import source_filter
from xfavot.audio.mel import MEL, Standardiser, log_mel
from xfavot.audio.source_filter import SourceFilterVocoder
from xfavot.audio.vocoder import DEFAULT, vocoder
from xfavot.weights import recorded, shipped

STANDARDISER = Standardiser(torch.linspace(-1.5, -3.0, 80), torch.linspace(0.6, 0.9, 80))


@pytest.fixture(scope="module")
def made() -> SourceFilterVocoder:
    found = vocoder(DEFAULT)
    assert isinstance(found, SourceFilterVocoder)
    return found


def test_shipped_weights_say_where_they_come_from() -> None:
    path = shipped(DEFAULT)
    said = recorded.read(path, ("source_filter",))
    data = said["training"]["data"]
    assert set(data) == {"mini", "vctk", "librispeech"}  # none that may not be passed on
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    for corpus, part in data.items():
        row = next(x for x in card.splitlines() if x.lower().startswith(f"| {corpus} |"))
        cells = [cell.strip() for cell in row.split("|")]
        assert cells[3:5] == [str(part["clips"]), str(part["speakers"])]
        assert float(cells[5]) == pytest.approx(part["minutes"], abs=0.05)
        for speaker in part["held_out_speakers"]:
            assert speaker.rpartition("/")[2] in cells[6]
    assert f"{said['measures']['unseen/mel_l1']:.3f} on" in card
    assert [record["step"] for record in said["training"]["losses"]][-1] == 4000
    assert path.stat().st_size < 5e6
    assert not re.search(r"/home|/tmp|/root|[.][.]/", json.dumps(said))


def speech(samples: int) -> Tensor:
    """Harmonics whose pitch and level change, with pauses, for as long as wanted."""
    time = torch.arange(samples) / MEL.sample_rate
    phase = 2 * torch.pi * (140 * time + 6 * torch.sin(2 * torch.pi * 0.7 * time))
    wave = sum(torch.sin(phase * h) / h for h in range(1, 15))
    loud = (torch.sin(2 * torch.pi * 1.3 * time) > -0.6).float()
    hiss = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    return 0.1 * loud * torch.as_tensor(wave) + 0.002 * hiss


def through(made: SourceFilterVocoder, wave: Tensor) -> np.ndarray:
    """Send a wave there and back, as a converter whose generator changes nothing would."""
    x = STANDARDISER.standardise(log_mel(wave))
    return made(STANDARDISER.restore(x), length=len(wave))


def level_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64)) + 1e-20))


def distance_db(wave: Tensor, out: np.ndarray) -> float:
    """Mean distance of the log mels within 60 dB of the loudest value."""
    wanted, got = log_mel(wave), log_mel(torch.from_numpy(out))
    return float(20 * (got - wanted)[wanted > wanted.max() - 3].abs().mean())


def test_any_length_comes_back_exactly(made: SourceFilterVocoder) -> None:
    for samples in (7200, 7499, 24_001):
        wave = speech(samples)
        out = through(made, wave)
        assert (out.shape, out.dtype) == ((samples,), np.float32)
        assert level_db(out) == pytest.approx(level_db(wave.numpy()), abs=1.5)
        assert distance_db(wave, out) < 3.0


def test_half_a_minute_in_bounded_memory() -> None:
    """A process of its own, because the highest memory of a process never falls."""
    program = """
import resource, torch
from xfavot.audio.vocoder import vocoder
made = vocoder("source_filter")
mel = torch.randn(80, 2401, generator=torch.Generator().manual_seed(0)) * 0.3 - 2
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
made(mel[:, :901])
eleven = peak()
out = made(mel, length=720_123)
print(peak() - eleven, len(out), float(abs(out[-300:]).max()) > 0)
"""
    growth, samples, sounds = subprocess.check_output(
        [sys.executable, "-c", program], text=True
    ).split()
    assert (samples, sounds) == ("720123", "True")
    assert int(growth) < 40, f"30 s need {growth} MB more than 11 s"


def test_pieces_do_not_change_the_sound(made: SourceFilterVocoder, monkeypatch: Patch) -> None:
    mel = log_mel(speech(72_000))
    whole = made(mel)
    monkeypatch.setattr(source_filter, "PIECE_FRAMES", 90)
    np.testing.assert_allclose(made(mel), whole, atol=1e-4 * np.abs(whole).max())
    monkeypatch.setattr(source_filter, "CONTEXT_FRAMES", 2)  # sees seams where there are
    assert np.abs(made(mel) - whole).max() > 1e-3 * np.abs(whole).max()


@pytest.mark.parametrize("hertz", [62.0, 110.0, 220.0, 440.0, 590.0])
def test_pitch_is_kept_and_nothing_is_a_chipmunk(made: SourceFilterVocoder, hertz: float) -> None:
    wave = torch.from_numpy(tone(hertz, 1.0, np.random.default_rng(0)))
    middle = made.find_f0(log_mel(wave))[10:-10]
    if 100 < hertz < 300:  # what speech has; a tone of five partials is no voice
        assert float((middle > 0).float().mean()) > 0.9
        assert float(middle[middle > 0].median()) == pytest.approx(hertz, rel=0.02)
    out = through(made, wave)
    assert np.isfinite(out).all()
    assert level_db(out) == pytest.approx(level_db(wave.numpy()), abs=3.0)


def test_silence_stays_silent(made: SourceFilterVocoder) -> None:
    assert np.abs(through(made, torch.zeros(9001))).max() < 1e-5
    assert np.abs(made(torch.full((80, 50), -10.0))).max() < 1e-5
    half = torch.cat((speech(12_000), torch.zeros(12_000)))
    assert np.abs(through(made, half)[14_000:]).max() < 1e-4


def test_loud_is_loud_and_finite(made: SourceFilterVocoder) -> None:
    mel = log_mel(speech(12_000))
    quiet, loud = level_db(made(mel)), level_db(made(mel + 2.0))
    assert loud - quiet == pytest.approx(40.0, abs=3.0)
    assert np.isfinite(made(torch.full((80, 30), 12.0))).all()


def test_copies_of_recordings(made: SourceFilterVocoder, real_corpus: Path) -> None:
    io = pytest.importorskip("xfavot.audio.io")
    files = sorted((real_corpus / "vctk" / "wav48").glob("*/*.wav"))[:3]
    assert files
    for file in files:
        wave = torch.from_numpy(io.load_waveform(file)[24_000:60_001])
        out = through(made, wave)
        assert distance_db(wave, out) < 2.5
        assert level_db(out) == pytest.approx(level_db(wave.numpy()), abs=1.0)
