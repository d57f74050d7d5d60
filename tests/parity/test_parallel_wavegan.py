"""The trained vocoders against the `parallel_wavegan` package's own loader and inference."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Patch
from tests.unit import vocoder_factory as factory
from tests.unit.vocoder_factory import GENERATORS, KINDS, make_weights, speech_like
from xfavot.audio.parallel_wavegan import PARALLEL_WAVEGAN, TrainedVocoder, untrained

TOLERANCE = 1e-5
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
    np.testing.assert_allclose(got, expected[:-1].numpy(), atol=TOLERANCE, rtol=0)
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
    assert float(np.abs(sounds[0] - sounds[3]).max()) < TOLERANCE


def test_statistics_as_an_array_and_torchs_older_format(tmp_path: Path) -> None:
    folder = make_weights(tmp_path / "w", "hifigan", thin=True, zip_file=False, format="npy")
    (folder / "stats.h5").unlink()
    mean, scale = torch.linspace(-3, -1, 80).numpy(), torch.linspace(0.2, 0.9, 80).numpy()
    factory.write_stats(folder / "stats.npy", mean, scale)
    require_equal(folder)
