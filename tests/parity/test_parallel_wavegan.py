"""The trained vocoders against the `parallel_wavegan` package's own loader and inference."""

from __future__ import annotations

import inspect
import math
import warnings
from pathlib import Path
from typing import Any

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
from xfavot.audio.parallel_wavegan import GENERATORS as CLASSES
from xfavot.audio.parallel_wavegan import TrainedVocoder, context_frames

TOLERANCE = 1e-5
FRAMES = 16  # 0.2 s, so that the full networks stay quick


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


def require_equal(folder: Path, *, frames: int = FRAMES) -> None:
    log_mel = speech_like(frames)
    expected = by_package(folder, log_mel, seed=3)
    assert len(expected) == frames * 300
    assert 0.02 < float(expected.std()) < 0.95  # else equality would say little
    got = TrainedVocoder.load(folder, seed=3)(log_mel, length=frames * 300 - 1)
    torch.testing.assert_close(torch.from_numpy(got), expected[:-1], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_published_sizes(tmp_path: Path, kind: str) -> None:
    require_equal(make_weights(tmp_path / kind, kind))


def test_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xfavot.audio.parallel_wavegan.CHUNK_FRAMES", 30)
    for kind in KINDS:
        require_equal(make_weights(tmp_path / kind, kind, thin=True), frames=75)


@pytest.mark.parametrize("version", ["0.4.2", "0.4.3", None])
def test_bands_are_joined_as_the_version_did(tmp_path: Path, version: str | None) -> None:
    settings = {"version": version} if version else {}
    folder = make_weights(tmp_path / "w", "multi_band_melgan", thin=True, **settings)
    if version is None:
        text = (folder / "config.yml").read_text()
        (folder / "config.yml").write_text(text.replace("version: 0.5.1\n", ""))
    require_equal(folder)


def test_the_two_versions_differ(tmp_path: Path) -> None:
    sounds = []
    for version in ("0.4.2", "0.4.3"):
        folder = make_weights(tmp_path / version, "multi_band_melgan", thin=True, version=version)
        sounds.append(torch.from_numpy(TrainedVocoder.load(folder)(speech_like(FRAMES))))
    assert float((sounds[0] - sounds[1]).abs().max()) > 1e-3


def test_bands_joined_by_own_settings(tmp_path: Path) -> None:
    own = {"taps": 48, "cutoff_ratio": 0.16, "beta": 8.0}
    require_equal(make_weights(tmp_path / "w", "multi_band_melgan", thin=True, pqmf_params=own))


def test_statistics_as_an_array_and_torchs_older_format(tmp_path: Path) -> None:
    folder = make_weights(tmp_path / "w", "hifigan", thin=True, zip_file=False, format="npy")
    (folder / "stats.h5").unlink()
    mean, scale = torch.linspace(-3, -1, 80).numpy(), torch.linspace(0.2, 0.9, 80).numpy()
    write_stats(folder / "stats.npy", mean, scale)
    require_equal(folder)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_context_covers_all_that_the_network_sees(tmp_path: Path, kind: str, causal: bool) -> None:
    made = {"use_causal_conv": causal}
    folder = make_weights(tmp_path / kind, kind, thin=True, generator=made)
    made = TrainedVocoder.load(folder)
    frames, marked = 83, 41
    x = torch.randn(frames, 80)
    x[marked] = torch.nan  # spreads to every sample that depends on this frame
    drawn = {"x": torch.randn(frames * 300, 1)} if kind == "parallel_wavegan" else {}
    wave = made._network.inference(x, **drawn)[:, 0]
    hit = wave.isnan().nonzero().flatten()
    before = marked - int(hit[0]) / 300
    after = int(hit[-1]) / 300 - marked
    assert max(before, after) <= made._context
    assert made._context <= 1.5 * math.ceil(max(before, after)) + 2  # and wastes little


def test_context_of_the_published_sizes() -> None:
    package = vocoder_package()
    found = {}
    for kind, given in GENERATORS.items():
        name = given.get("generator_type", "ParallelWaveGANGenerator")
        params = {k.replace("kernal", "kernel"): v for k, v in given["generator_params"].items()}
        bound = inspect.signature(getattr(package.models, name)).bind(**params)
        bound.apply_defaults()
        found[kind] = context_frames(CLASSES[name], dict(bound.arguments))
    assert found == {"parallel_wavegan": 15, "multi_band_melgan": 17, "hifigan": 22}
