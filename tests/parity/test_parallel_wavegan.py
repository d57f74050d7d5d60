"""The trained vocoders against the `parallel_wavegan` package's own loader and inference."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.vocoder_factory import (
    GENERATORS,
    KINDS,
    make_weights,
    speech_like,
    vocoder_package,
    write_stats,
)
from xfavot.audio.parallel_wavegan import PARALLEL_WAVEGAN, TrainedVocoder, untrained

TOLERANCE = 1e-5
FRAMES = 16  # 0.2 s


def by_package(folder: Path, log_mel: torch.Tensor, *, seed: int) -> torch.Tensor:
    """(T * 300,) by the package alone, its way of standardising included."""
    (file,) = folder.glob("*.pkl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = vocoder_package().utils.load_model(str(file))
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


@pytest.mark.parametrize(
    ("kind", "context", "size"),
    [*zip(KINDS, (15, 17, 22), (1_334_311, 2_138_068, 12_979_841), strict=True)],
)
def test_published_sizes(tmp_path: Path, kind: str, context: int, size: int) -> None:
    own = GENERATORS[kind]
    full = untrained(own.get("generator_type", PARALLEL_WAVEGAN), own["generator_params"])
    assert sum(weight.numel() for weight in full._network.parameters()) == size
    thin = require_equal(make_weights(tmp_path / kind, kind, thin=True))
    # half the kernels' widths in frames, added up along the network, rounded up: at most
    assert context - 4 <= thin._context <= context


def test_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xfavot.audio.parallel_wavegan.CHUNK_FRAMES", 30)
    for kind in KINDS:
        require_equal(make_weights(tmp_path / kind, kind, thin=True), frames=62)


@pytest.mark.parametrize("version", ["0.4.2", "0.4.3", None])
def test_bands_are_joined_as_the_version_did(tmp_path: Path, version: str | None) -> None:
    folder = make_weights(tmp_path / "w", "multi_band_melgan", thin=True, version=version or "x")
    config = folder / "config.yml"
    config.write_text(config.read_text().replace("version: x\n", ""))
    require_equal(folder)


def test_bands_joined_by_other_settings_differ(tmp_path: Path) -> None:
    own = {"pqmf_params": {"taps": 48, "cutoff_ratio": 0.16, "beta": 8.0}}
    sounds = []
    for name, settings in (("a", {"version": "0.4.2"}), ("b", {"version": "0.4.3"}), ("c", own)):
        folder = make_weights(tmp_path / name, "multi_band_melgan", thin=True, **settings)
        sounds.append(torch.from_numpy(TrainedVocoder.load(folder)(speech_like(FRAMES))))
    require_equal(folder)
    assert min(float((sounds[0] - other).abs().max()) for other in sounds[1:]) > 1e-3


def test_statistics_as_an_array_and_torchs_older_format(tmp_path: Path) -> None:
    folder = make_weights(tmp_path / "w", "hifigan", thin=True, zip_file=False, format="npy")
    (folder / "stats.h5").unlink()
    mean, scale = torch.linspace(-3, -1, 80).numpy(), torch.linspace(0.2, 0.9, 80).numpy()
    write_stats(folder / "stats.npy", mean, scale)
    require_equal(folder)
