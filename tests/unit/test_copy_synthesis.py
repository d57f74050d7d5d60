"""Copy synthesis: which clips, what the measures say of known changes, how they are shown."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.store_factory import make_store
from xfavot import report
from xfavot.audio.mel import MEL
from xfavot.audio.vocoder import Vocoder, vocoder
from xfavot.data.store import Store
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import copy_synthesis

pytest.importorskip("pyworld")
WITHOUT = {"splits": ("train", "val"), "clips": 4}


class Played(Vocoder):
    """A vocoder that plays a tone of the store's kind, whatever it is asked for."""

    def __init__(self, name: str, hertz: float, gain: float = 1.0) -> None:
        super().__init__(name=name)
        self.hertz, self.gain = hertz, gain

    def _decode(self, log_mel: Tensor, samples: int) -> Tensor:
        time = torch.arange(samples) / MEL.sample_rate
        turns = 2 * torch.pi * self.hertz * time
        return self.gain * sum((0.2 * torch.sin(turns * h) / h for h in range(1, 6)), turns * 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("data")
    return make_store(root, corpus="grid", kind="audio", genders="fmfm", seconds=0.8, **WITHOUT)


@pytest.fixture
def no_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Mock(side_effect=WeightsError("Resemblyzer is not installed"))
    monkeypatch.setattr(copy_synthesis, "SpeakerEncoder", absent)


def test_clips_are_held_out_and_of_women_and_men_in_turn(store: Store, tmp_path: Path) -> None:
    made = copy_synthesis.copies([Played("a", 100.0)], [store], clips=4)
    assert [copy.clip.item.gender for copy in made] == ["f", "m", "f", "m"]
    assert {copy.clip.item.split for copy in made} == {"val"}
    assert len({copy.clip.item.id for copy in made}) == 4
    assert made[0].label == "grid s1 (f)"
    for copy in made:
        assert list(copy.sounds) == ["recording", "a"]
        assert len(copy.sounds["a"]) == len(copy.sounds["recording"]) == copy.clip.item.sample_count
    short = make_store(tmp_path, corpus="short", kind="audio", genders="f", seconds=0.2)
    with pytest.raises(DataError, match=r"without a clip of 0\.4 to 15 s"):
        copy_synthesis.copies([Played("a", 100.0)], [short])
    assert copy_synthesis.copies([], [store]) == ()
    assert copy_synthesis.measure([]) == []


def test_measures_of_known_changes(tmp_path: Path, no_embedding: None) -> None:
    store = make_store(tmp_path, corpus="grid", kind="audio", genders="f", seconds=0.8, **WITHOUT)
    pitch = 210.0  # the factory's
    pitches = {"same": pitch, "sharp": pitch * 2 ** (1 / 24), "octave": 2 * pitch}
    played = [Played(name, hertz) for name, hertz in pitches.items()]
    played.append(Played("silent", pitch, 0.0))
    said: list[str] = []
    made = copy_synthesis.copies(played, [store], clips=2)
    rows = copy_synthesis.measure(made, on_log=said.append)
    assert said == ["speaker similarity is not available: Resemblyzer is not installed"]
    found = {(row["system"], row["metric"]): row["value"] for row in rows}
    assert {row["n"] for row in rows} == {2}
    assert found["same", "f0_cents"] < 2
    assert found["same", "voicing_error"] < 0.1
    assert found["sharp", "f0_cents"] == pytest.approx(50.0, abs=2.0)
    assert found["sharp", "gross_pitch_error"] < 0.05
    assert found["octave", "gross_pitch_error"] > 0.95
    assert found["silent", "voicing_error"] > 0.9
    metrics = {metric for system, metric in found if system == "silent"}
    assert metrics == {"log_mel_db", "voicing_error"}  # without pitch, no error of it
    assert np.isfinite([*found.values()]).all()
    for row in report.plain_rows("x", rows):
        report.require_columns("x", row)


def test_distance_of_mels_by_hand() -> None:
    wave = 0.1 * torch.randn(12_000, generator=torch.Generator().manual_seed(0))
    assert copy_synthesis.mel_distance_db(wave, wave) == 0.0
    assert copy_synthesis.mel_distance_db(wave, 0.5 * wave) == pytest.approx(6.02, abs=0.01)
    faint = wave + 1e-6 * torch.sin(2 * torch.pi * 3000 / MEL.sample_rate * torch.arange(12_000))
    assert copy_synthesis.mel_distance_db(wave, faint) < 0.01


def test_speakers_are_compared_by_resemblyzer(store: Store) -> None:
    pytest.importorskip("resemblyzer")
    made = copy_synthesis.copies([Played("a", 100.0)], [store], clips=1)
    (copy,) = made
    same = copy_synthesis.Copy(copy.clip, copy.sounds | {"b": copy.sounds["recording"]})
    rows = copy_synthesis.measure([same])
    found = {r["system"]: r["value"] for r in rows if r["metric"] == "speaker_similarity"}
    assert found["b"] == pytest.approx(1.0, abs=1e-5)
    assert found["a"] < 0.999


def test_measures_are_laid_out_a_line_a_vocoder(store: Store, no_embedding: None) -> None:
    widgets = pytest.importorskip("xfavot.viz.widgets")
    made = copy_synthesis.copies([vocoder("source_filter"), Played("a", 99.0)], [store], clips=2)
    table = widgets.table(copy_synthesis.measure(made))
    assert table.loc[("grid", "val", "a"), "clips"] == 2
    assert table.shape[0] == 2
    assert {"log mel db", "speaker similarity"} & set(table)
