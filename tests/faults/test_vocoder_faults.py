"""Weights of a vocoder that are foreign, damaged, dangerous, or not there."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.faults.loopback import Loopback, Malicious
from tests.faults.loopback import file as served
from tests.unit.vocoder_factory import make_weights, speech_like, write_stats
from xfavot import presets
from xfavot.audio import parallel_wavegan
from xfavot.audio.vocoder import vocoder
from xfavot.errors import DataError, WeightsError

CHECKPOINT = "checkpoint-400000steps.pkl"
NAME = "vctk_multi_band_melgan.v2"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("sound") / "w", "multi_band_melgan", thin=True)


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "w"))


def change_config(folder: Path, **settings: Any) -> None:
    file = folder / "config.yml"
    config = yaml.safe_load(file.read_text())
    config.update(settings)
    file.write_text(yaml.safe_dump({k: v for k, v in config.items() if v != "(absent)"}))


OTHER_MEL = {  # given, expected
    **{"sampling_rate": (22050, 24000), "fft_size": (1024, 2048), "hop_size": (256, 300)},
    **{"win_length": (None, 1200), "window": ("hamming", "hann"), "num_mels": (40, 80)},
    **{"fmin": (None, 80.0), "fmax": ("(absent)", 7600.0), "log_base": (None, 10)},
    **{"eps": (1e-5, 1e-10), "global_gain_scale": (0.5, 1.0)},
    "sampling_rate_for_feats": (16000, 24000),
}


def test_each_setting_of_another_mel_is_named(folder: Path) -> None:
    change_config(folder, **{name: given for name, (given, _) in OTHER_MEL.items()})
    with pytest.raises(DataError) as caught:
        vocoder(folder)
    for name, (given, expected) in OTHER_MEL.items():
        assert f"{name} is {given!r}, expected {expected!r}" in str(caught.value)
    assert str(caught.value).count(", expected") == len(OTHER_MEL)


@pytest.mark.parametrize("missing", [CHECKPOINT, "config.yml", "stats.h5"])
def test_missing_file(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(WeightsError, match=r"no (such )?file|No such file"):
        vocoder(folder)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"a: [", "cannot be used"),
        (b"just words", "no settings by name"),
        (b"a: !!python/object/apply:os.system ['touch ran']", "cannot be used"),
        (b"\xff\xfe\x00", "cannot be used"),
    ],
)
def test_config_that_is_none(folder: Path, text: bytes, shown: str) -> None:
    (folder / "config.yml").write_bytes(text)
    with pytest.raises(WeightsError, match=shown):
        vocoder(folder)
    assert not Path("ran").exists()


@pytest.mark.parametrize(("kept", "zip_file"), [(0.0, True), (0.5, True), (0.99, False)])
def test_truncated_checkpoint(tmp_path: Path, kept: float, zip_file: bool) -> None:
    folder = make_weights(tmp_path / "w", "multi_band_melgan", thin=True, zip_file=zip_file)
    size = (folder / CHECKPOINT).stat().st_size
    os.truncate(folder / CHECKPOINT, int(kept * size))
    with pytest.raises(WeightsError, match="damaged"):
        vocoder(folder)


def test_nothing_in_a_checkpoint_is_executed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    pickle.loads(pickle.dumps(Malicious(target)))
    assert target.exists()  # so the trap works
    target.unlink()
    torch.save({"model": {"generator": {}}, "more": Malicious(target)}, folder / CHECKPOINT)
    with pytest.raises(WeightsError, match="more than tensors, which is not run"):
        vocoder(folder)
    assert not target.exists()


def test_no_generator_in_a_checkpoint(folder: Path) -> None:
    for wrong in ({}, {"model": {}}, {"model": {"generator": {}}}, [1]):
        torch.save(wrong, folder / CHECKPOINT)
        with pytest.raises(WeightsError, match=r"cannot be used|Missing key"):
            vocoder(folder)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, r"Missing key.*melgan\.1\.weight_v"),
        (torch.ones(4, 4), r"size mismatch for melgan\.1\.weight_v: .*\[4, 4\]"),
        (torch.ones(80, 80, 7, dtype=torch.int64), "not hold finite numbers"),
        ("text", "not hold finite numbers"),
        (float("nan"), r"melgan\.1\.weight_v does not hold finite numbers"),
        (float("inf"), "not hold finite numbers"),
    ],
)
def test_weights_that_do_not_fit(folder: Path, value: object, shown: str) -> None:
    whole = torch.load(folder / CHECKPOINT, weights_only=True)
    state = whole["model"]["generator"]
    name = next(name for name in state if name.endswith("weight_v"))
    if isinstance(value, float):
        state[name].view(-1)[3] = value
    else:
        state[name] = value
    if value is None:
        del state[name]
    torch.save(whole, folder / CHECKPOINT)
    with pytest.raises(WeightsError, match=shown):
        vocoder(folder)


ODD_PARAMS: list[dict[str, Any]] = [
    {"nonlinear_activation": "NoSuchThing"},
    {"channels": 8},
    {"kernel_size": 4},
    {"upsample_scales": ["a"]},
    {"in_channels": 40},
]


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        (
            {"generator_type": "StyleMelGANGenerator"},
            "is 'StyleMelGANGenerator'; expected one of Parallel",
        ),
        ({"generator_type": "__doc__"}, "generator_type is '__doc__'"),
        ({"generator_params": None}, "no settings by name with generator_params"),
        ({"generator_params": {"odd": 1}}, "'odd'"),
        *(({"pqmf_params": change}, "cannot be used") for change in ({"taps": 61}, {"odd": 1})),
        *(({"generator_params": change}, "cannot be used") for change in ODD_PARAMS),
    ],
)
def test_generators_that_are_none(folder: Path, settings: dict[str, Any], shown: str) -> None:
    if isinstance(params := settings.get("generator_params"), dict):
        usual = yaml.safe_load((folder / "config.yml").read_text())["generator_params"]
        settings = {"generator_params": usual | params}
    change_config(folder, **settings)
    with pytest.raises(WeightsError, match=shown):
        vocoder(folder)


def test_a_generator_of_another_rate(tmp_path: Path) -> None:
    other = {"upsample_scales": [5, 5, 2]}
    folder = make_weights(tmp_path / "w", "multi_band_melgan", thin=True, generator=other)
    with pytest.raises(WeightsError, match=r"it makes \(3200, 1\) .*; expected \(4800, 1\)"):
        vocoder(folder)


def test_other_statistics(folder: Path) -> None:
    file = folder / "stats.h5"
    good = np.ones(80)
    few = np.ones(64)
    for mean, scale in ((few, few), (good * np.nan, good), (good, good * 0.0), (good, -good)):
        file.unlink()
        write_stats(file, mean, scale)
        with pytest.raises(WeightsError, match="standardiser"):
            vocoder(folder)
    file.write_bytes(b"no HDF5")
    with pytest.raises(WeightsError, match=r"stats\.h5: cannot be used"):
        vocoder(folder)
    file.unlink()
    np.save(folder / "stats.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(WeightsError, match=r"stats\.npy: cannot be used"):
        vocoder(folder)


def test_the_checkpoint_with_the_most_steps_is_taken(folder: Path) -> None:
    (folder / "checkpoint-5000steps.pkl").write_bytes(b"damaged")
    assert "checkpoint-400000steps.pkl" in vocoder(folder).name
    with pytest.raises(WeightsError, match="damaged"):
        vocoder(folder / "checkpoint-5000steps.pkl")


def test_the_package_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parallel_wavegan._package.cache_clear()
    monkeypatch.setitem(sys.modules, "parallel_wavegan", None)
    with pytest.raises(WeightsError, match=r"parallel-wavegan 0\.6\.1.*xfavot\[vocoder\]"):
        vocoder(folder)
    monkeypatch.undo()
    parallel_wavegan._package.cache_clear()
    assert vocoder(folder).contract.n_mels == 80
    assert not hasattr(sys.modules["scipy.signal"], "kaiser")  # the alias does not stay


@pytest.fixture
def store(web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """The project's store of weights, for one name, on this machine."""
    known = presets.load("weights", NAME)
    known.update(url=f"{web.root}/a", mirrors=[f"{web.root}/b"])
    monkeypatch.setattr(presets, "load", lambda kind, name: known)
    return web


def test_published_weights_are_fetched_only_when_asked(
    folder: Path, tmp_path: Path, store: Loopback
) -> None:
    cache, packed = tmp_path / "cache", io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(folder, arcname=f"train_nodev/{NAME}")
    store.serve("/a", served(packed.getvalue()))
    with pytest.raises(WeightsError, match=r"nothing is fetched unasked.*fetch-weights") as no:
        vocoder(NAME, cache=cache)
    assert str(cache / NAME) in str(no.value)
    assert not store.requests
    made = vocoder(NAME, cache=cache, download=True)
    assert f"({NAME}/{CHECKPOINT} " in made.name
    np.testing.assert_array_equal(made(speech_like(20)), vocoder(folder)(speech_like(20)))
    vocoder(NAME, cache=cache, download=True)
    vocoder(NAME, cache=cache)
    assert len(store.requests) == 1
