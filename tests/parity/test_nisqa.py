"""NISQA against torchmetrics' own function and against what NISQA's own code gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Patch, refuses
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import voice_networks as networks

library: Any = pytest.importorskip("torchmetrics.functional.audio.nisqa")
pytest.importorskip("librosa")

MEL = dict(ms_sr=None, ms_n_fft=4096, ms_hop_length=0.01, ms_win_length=0.02, ms_n_mels=48)
MEL |= dict(ms_seg_length=15)
V2 = MEL | dict(model="NISQA_DIM", ms_fmax=20000, ms_seg_hop_length=4, ms_max_segments=1300)
V2 |= dict(cnn_c_out_1=16, cnn_c_out_2=32, cnn_c_out_3=64, cnn_kernel_size=(3, 3), cnn_dropout=0.2)
V2 |= dict(
    cnn_pool_1=[24, 7], cnn_pool_2=[12, 5], cnn_pool_3=[6, 3], td_sa_d_model=64, td_sa_nhead=1
)
V2 |= dict(td_sa_num_layers=2, td_sa_h=64, td_sa_dropout=0.1, pool_att_h=128, pool_att_dropout=0)
TTS = MEL | dict(model="NISQA", ms_fmax=8000, ms_seg_hop_length=1, ms_max_segments=6000)
NATURALNESS_P237_001 = 4.099590  # at 48 kHz, by revision fe84f0f


def voice(seconds: float, rate: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * 150 * t) * (1 + np.sin(2 * np.pi * 3 * t)) / 8
    return (tone + 0.01 * rng.normal(size=t.size)).astype(np.float32)


def kept(network: torch.nn.Module, args: dict[str, Any], file: Path) -> Path:
    torch.save({"args": args, "model_state_dict": network.state_dict()}, file)
    return file


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights."""
    torch.manual_seed(0)
    return kept(library._NISQADIM(V2), V2, tmp_path_factory.mktemp("nisqa") / "nisqa.tar")


@pytest.fixture(scope="module")
def tts(v2: Path) -> Path:
    torch.manual_seed(1)
    return kept(networks.Naturalness(TTS), TTS, v2.with_name("nisqa_tts.tar"))


@pytest.mark.parametrize("rate", [24_000, 48_000, 22_050])
def test_scores_of_torchmetrics(v2: Path, rate: int, monkeypatch: Patch) -> None:
    monkeypatch.setattr(library, "NISQA_DIR", str(v2.parent))
    library._load_nisqa_model.cache_clear()
    x = voice(1.3, rate)
    wanted = library.non_intrusive_speech_quality_assessment(torch.from_numpy(x), rate)
    library._load_nisqa_model.cache_clear()
    found = networks.Nisqa(networks.NISQA, v2)(x, rate)
    assert list(found)[:2] == ["nisqa", "nisqa_noisiness"]
    assert list(found.values()) == pytest.approx(wanted.tolist(), abs=1e-5)


def test_weights_stay_apart(v2: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    held = torch.load(v2, weights_only=True)
    held["model_state_dict"] = {key: 0.5 * x for key, x in held["model_state_dict"].items()}
    torch.save(held, tmp_path / "nisqa.tar")
    monkeypatch.setattr(library, "NISQA_DIR", str(tmp_path / "nowhere"))
    one, other = (networks.Nisqa(networks.NISQA, path) for path in (v2, tmp_path / "nisqa.tar"))
    x = voice(1, 24_000)
    first = one(x)
    assert len(first) == 5
    assert other(x) != first == one(x)
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path / "empty"))
    refuses(WeightsError, "fetch-weights nisqa", networks.Nisqa, networks.NISQA)


def test_naturalness_reads_every_segment(tts: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(networks, "AT_ONCE", 8)
    rate = networks.Nisqa(networks.NISQA_TTS, tts)
    alone, _, again = (rate(voice(seconds, 24_000)) for seconds in (0.3, 0.5, 0.3))
    assert again == alone
    assert list(alone) == ["nisqa_tts"]
    segments = torch.randn(15, 48, 15)
    changed = torch.cat([segments[:-1], torch.zeros(1, 48, 15)])
    for other in (segments[:-1], changed):  # the last one counts
        assert not torch.allclose(rate.network(segments), rate.network(other))


def test_naturalness_is_that_of_nisqa(real_corpus: Path) -> None:
    """What NISQA's own code gave; over 12 files the largest difference was 1.5e-6."""
    file = real_corpus / "weights" / "NISQA" / "weights" / "nisqa_tts.tar"
    soundfile = pytest.importorskip("soundfile")
    rate = networks.Nisqa(networks.NISQA_TTS, file)
    sounds = sorted((real_corpus / "vctk" / "wav48").glob("p237/*_001.wav"))
    x, hz = soundfile.read(sounds[0], dtype="float32")
    assert rate(x, int(hz))["nisqa_tts"] == pytest.approx(NATURALNESS_P237_001, abs=1e-5)


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (voice(0.1, 24_000), "0.10 s.*expected .* of 0.15 to 52 s"),
        (voice(60, 24_000), "60.00 s"),
        (np.full(24_000, np.nan, np.float32), "24000 of them not finite"),
        (np.zeros((2, 24_000), np.float32), r"shape \(2, 24000\)"),
    ],
)
def test_bad_sound_is_refused(v2: Path, x: np.ndarray, told: str) -> None:
    refuses(DataError, told, networks.Nisqa(networks.NISQA, v2), x)


def test_weights_of_the_other_network_are_refused(v2: Path, tts: Path, tmp_path: Path) -> None:
    held, cut = torch.load(tts, weights_only=True), tmp_path / "cut.tar"
    held["model_state_dict"].pop("pool.model.linear.bias")
    torch.save(held, cut)
    for metric, file, told in (
        (networks.NISQA, tts, "expected those of NISQA_DIM"),
        (networks.NISQA_TTS, v2, "expected those of NISQA;"),
        (networks.NISQA_TTS, cut, r"linear\.bias"),
    ):
        refuses(WeightsError, told, networks.Nisqa, metric, file)
