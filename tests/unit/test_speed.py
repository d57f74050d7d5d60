"""The benchmark: turns, medians, the loader beside files, steps, operation counts."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.store_factory import make_store
from tests.unit.vocoder_factory import GENERATORS, vocoder_package
from xfavot import config, presets
from xfavot.audio.mel import Standardiser, log_mel
from xfavot.audio.vocoder import Vocoder
from xfavot.evaluation import speed

soundfile = pytest.importorskip("soundfile")
Image = pytest.importorskip("PIL.Image")


def test_calls_take_turns_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    log, clock, threads = [], itertools.count(), torch.get_num_threads()
    calls = {(name, ""): lambda n=name: log.append((n, torch.get_num_threads())) for name in "ab"}
    monkeypatch.setattr("time.process_time", lambda: float(next(clock)) ** 2)
    found = speed.take_turns(calls, rounds=2)
    assert torch.get_num_threads() == threads
    assert log == [("a", 1), ("b", 1)] * 3
    # each call reads the clock twice; the first round (0, 1, 4, 9) does not count
    assert found == {("a", ""): [25.0 - 16.0, 81.0 - 64.0], ("b", ""): [49.0 - 36.0, 121.0 - 100.0]}


@pytest.mark.parametrize("kind", ["av", "image", "audio"])
def test_the_loader_is_timed(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(speed, "JPEG_PIXELS", (64, 32))
    monkeypatch.setattr(speed, "BATCHES_A_ROUND", 2)
    store = make_store(tmp_path, kind=kind, image_size=32, clips=1, seconds=0.5, splits=("train",))
    cfg = config.resolve(dataset="grid", preset="smoke", batch_size=2, seed=3)
    found = speed.loader([store], cfg, rounds=2)
    plain, changed = "32 px, 80 frames", "32 px, 80 frames, augmented"
    both = " and WAV" if kind == "av" else ""
    files = ["WAV"] if kind == "audio" else [f"JPEG {size} px{both}" for size in (64, 32)]
    ours = [speed.STORE, speed.FLOATS]
    assert list(found) == [(way, plain) for way in (*ours, *files)] + [(o, changed) for o in ours]
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in found.values())
    assert not list(temporary.iterdir())


def test_files_hold_the_same_faces_and_voices(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    face = np.stack([np.tile(ramp, (64, 1))] * 3, axis=-1)  # dark on the left
    Image.fromarray(face).resize((256, 256)).save(tmp_path / "x.jpg", quality=95)
    x = speed.load_faces([tmp_path / "x.jpg"] * 2, size=64)
    assert x.shape == (2, 3, 64, 64)
    expected = torch.from_numpy(face).permute(2, 0, 1) / 127.5 - 1.0
    assert float((x - expected).abs().mean()) < 0.02
    rng, files = np.random.default_rng(0), [tmp_path / "a.wav", tmp_path / "b.wav"]
    voices = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (9000, 3000)]
    for file, voice in zip(files, voices, strict=True):
        soundfile.write(file, voice, 24_000)
    plain = Standardiser(torch.zeros(80), torch.full((80,), 2.0))
    x = speed.load_voices(files, frames=31, standardiser=plain, rng=np.random.default_rng(0))
    assert x.shape == (2, 1, 80, 31)
    long, short = (log_mel(torch.from_numpy(voice)) / 2.0 for voice in voices)
    forth = [*range(11), *range(9, -1, -1), *range(1, 11)]  # 11 frames: forth and back
    torch.testing.assert_close(x[:, 0], torch.stack([long, short[:, forth]]), atol=2e-3, rtol=0.0)


def test_sizes_are_the_published_ones() -> None:
    for name in presets.names("vocoders"):
        size, wanted = presets.load("vocoders", name), GENERATORS[name.partition(".")[0]]
        assert size["generator_type"] == wanted.get("generator_type", "ParallelWaveGANGenerator")
        given = wanted["generator_params"].items()
        published = {key.replace("kernal", "kernel"): value for key, value in given}
        assert size["generator_params"].items() <= published.items()


def test_untrained_networks_sound_without_touching_the_callers_randomness() -> None:
    vocoder_package()
    before = torch.get_rng_state()
    found = speed.vocoders(lambda text: pytest.fail(text))
    assert torch.equal(torch.get_rng_state(), before)
    names = ["source_filter", "griffin_lim", *presets.names("vocoders")]
    assert [name for name, _ in found] == names
    assert all(isinstance(made, Vocoder) for made in found.values())
    quick = found["multi_band_melgan.v2", speed.RANDOM]
    assert "random weights" in quick.name
    wave = quick(torch.full((80, 5), -2.0), length=1234)
    assert wave.shape == (1234,)
    assert np.isfinite(wave).all()
