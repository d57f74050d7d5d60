"""Weights of a vocoder that are foreign, damaged, dangerous, or not there."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.conftest import Patch, refuses
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


Damage = Callable[[Path], object]


def configured(**settings: Any) -> Damage:
    """Change config.yml; settings of the generator one by one."""

    def damage(folder: Path) -> None:
        file = folder / "config.yml"
        config = yaml.safe_load(file.read_text())
        if isinstance(params := settings.get("generator_params"), dict):
            settings["generator_params"] = config["generator_params"] | params
        config |= settings
        file.write_text(yaml.safe_dump({k: v for k, v in config.items() if v != "(absent)"}))

    return damage


def written(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def missing(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def saved(checkpoint: object) -> Damage:
    return lambda folder: torch.save(checkpoint, folder / CHECKPOINT)


def weighed(value: object) -> Damage:
    """Give the first layer other weights, none, or one odd value."""

    def damage(folder: Path) -> None:
        whole = torch.load(folder / CHECKPOINT, weights_only=True)
        state = whole["model"]["generator"]
        name = next(name for name in state if name.endswith("weight_v"))
        if isinstance(value, float):
            state[name].view(-1)[3] = value
        elif value is None:
            del state[name]
        else:
            state[name] = value
        torch.save(whole, folder / CHECKPOINT)

    return damage


def standardised(mean: np.ndarray, scale: np.ndarray) -> Damage:
    def damage(folder: Path) -> None:
        (folder / "stats.h5").unlink()
        write_stats(folder / "stats.h5", mean, scale)

    return damage


OTHER_MEL = {  # given, expected
    **{"sampling_rate": (22050, 24000), "fft_size": (1024, 2048), "hop_size": (256, 300)},
    **{"win_length": (None, 1200), "window": ("hamming", "hann"), "num_mels": (40, 80)},
    **{"fmin": (None, 80.0), "fmax": ("(absent)", 7600.0), "log_base": (None, 10)},
    **{"eps": (1e-5, 1e-10), "global_gain_scale": (0.5, 1.0)},
    "sampling_rate_for_feats": (16000, 24000),
}


def test_each_setting_of_another_mel_is_named(folder: Path) -> None:
    configured(**{name: given for name, (given, _) in OTHER_MEL.items()})(folder)
    with pytest.raises(DataError) as caught:
        vocoder(folder)
    for name, (given, expected) in OTHER_MEL.items():
        assert f"{name} is {given!r}, expected {expected!r}" in str(caught.value)
    assert str(caught.value).count(", expected") == len(OTHER_MEL)


GOOD = np.ones(80)
INTEGERS = torch.ones(80, 80, 7, dtype=torch.int64)
DANGEROUS = b"a: !!python/object/apply:os.system ['touch ran']"
FAULTS: list[tuple[Damage, str]] = [
    *((missing(name), "no file|No such file") for name in (CHECKPOINT, "config.yml", "stats.h5")),
    (written("config.yml", b"just words"), "no settings by name"),
    *((written("config.yml", c), "cannot be used") for c in (b"a: [", DANGEROUS, b"\xff\xfe\x00")),
    (written("stats.h5", b"no HDF5"), r"stats\.h5: cannot be used"),
    *((saved(other), "cannot be used|Missing key") for other in ({}, {"model": {}}, [1])),
    (saved({"model": {"generator": {}}}), "cannot be used|Missing key"),
    (weighed(None), r"Missing key.*melgan\.1\.weight_v"),
    (weighed(torch.ones(4, 4)), r"size mismatch for melgan\.1\.weight_v: .*\[4, 4\]"),
    (weighed(float("nan")), r"melgan\.1\.weight_v does not hold finite numbers"),
    *((weighed(other), "not hold finite numbers") for other in (INTEGERS, "text", float("inf"))),
    (configured(generator_type="StyleMelGANGenerator"), "'StyleMelGANGenerator'; expected one of"),
    (configured(generator_type="__doc__"), "generator_type is '__doc__'"),
    (configured(generator_params=None), "no settings by name with generator_params"),
    (configured(generator_params={"odd": 1}), "'odd'"),
    (configured(generator_params={"nonlinear_activation": "NoSuchThing"}), "cannot be used"),
    (configured(generator_params={"channels": 8}), "cannot be used"),
    (configured(generator_params={"kernel_size": 4}), "cannot be used"),
    (configured(generator_params={"upsample_scales": ["a"]}), "cannot be used"),
    (configured(generator_params={"in_channels": 40}), "cannot be used"),
    *((configured(pqmf_params=other), "cannot be used") for other in ({"taps": 61}, {"odd": 1})),
    (standardised(np.ones(64), np.ones(64)), "standardiser"),
    (standardised(GOOD * np.nan, GOOD), "standardiser"),
    *((standardised(GOOD, scale), "standardiser") for scale in (GOOD * 0.0, -GOOD)),
]


@pytest.mark.parametrize(("damage", "shown"), FAULTS)
def test_foreign_and_damaged_files_are_refused(folder: Path, damage: Damage, shown: str) -> None:
    damage(folder)
    refuses(WeightsError, shown, vocoder, folder)
    assert not Path("ran").exists()


@pytest.mark.parametrize(("kept", "zip_file"), [(0.0, True), (0.5, True), (0.99, False)])
def test_truncated_checkpoint(tmp_path: Path, kept: float, zip_file: bool) -> None:
    folder = make_weights(tmp_path / "w", "multi_band_melgan", thin=True, zip_file=zip_file)
    size = (folder / CHECKPOINT).stat().st_size
    os.truncate(folder / CHECKPOINT, int(kept * size))
    refuses(WeightsError, "damaged", vocoder, folder)


def test_nothing_in_a_checkpoint_is_executed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    pickle.loads(pickle.dumps(Malicious(target)))
    assert target.exists()  # so the trap works
    target.unlink()
    torch.save({"model": {"generator": {}}, "more": Malicious(target)}, folder / CHECKPOINT)
    refuses(WeightsError, "more than tensors, which is not run", vocoder, folder)
    assert not target.exists()


def test_a_generator_of_another_rate(tmp_path: Path) -> None:
    other = {"upsample_scales": [5, 5, 2]}
    folder = make_weights(tmp_path / "w", "multi_band_melgan", thin=True, generator=other)
    refuses(WeightsError, r"it makes \(3200, 1\) .*; expected \(4800, 1\)", vocoder, folder)


def test_statistics_that_hold_objects(folder: Path) -> None:
    (folder / "stats.h5").unlink()
    np.save(folder / "stats.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refuses(WeightsError, r"stats\.npy: cannot be used", vocoder, folder)


def test_the_checkpoint_with_the_most_steps_is_taken(folder: Path) -> None:
    (folder / "checkpoint-5000steps.pkl").write_bytes(b"damaged")
    assert "checkpoint-400000steps.pkl" in vocoder(folder).name
    refuses(WeightsError, "damaged", vocoder, folder / "checkpoint-5000steps.pkl")


def test_the_package_is_missing(folder: Path, monkeypatch: Patch) -> None:
    parallel_wavegan._package.cache_clear()
    monkeypatch.setitem(sys.modules, "parallel_wavegan", None)
    refuses(WeightsError, r"parallel-wavegan 0\.6\.1.*xfavot\[vocoder\]", vocoder, folder)
    monkeypatch.undo()
    parallel_wavegan._package.cache_clear()
    assert vocoder(folder).contract.n_mels == 80
    assert not hasattr(sys.modules["scipy.signal"], "kaiser")  # the alias does not stay


def test_weights_are_fetched_only_when_asked(
    folder: Path, web: Loopback, monkeypatch: Patch
) -> None:
    known = presets.load("weights", NAME)
    known.update(url=f"{web.root}/a", mirrors=[f"{web.root}/b"])
    monkeypatch.setattr(presets, "load", lambda kind, name: known)
    cache, packed = folder.parent / "cache", io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(folder, arcname=f"train_nodev/{NAME}")
    web.serve("/a", served(packed.getvalue()))
    match = f"nothing is fetched unasked.*{cache / NAME}.*fetch-weights"
    refuses(WeightsError, match, vocoder, NAME, cache=cache)
    assert not web.requests
    made = vocoder(NAME, cache=cache, download=True)
    assert f"({NAME}/{CHECKPOINT} " in made.name
    np.testing.assert_array_equal(made(speech_like(20)), vocoder(folder)(speech_like(20)))
    vocoder(NAME, cache=cache, download=True)
    vocoder(NAME, cache=cache)
    assert len(web.requests) == 1
