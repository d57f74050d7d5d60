"""The source-filter vocoder: its signals, network, sound, loss, batches, training, weights."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import Patch, refuses
from tests.unit.store_factory import make_store
from xfavot.audio import source_filter
from xfavot.audio.mel import MEL, Standardiser, log_mel
from xfavot.audio.source_filter import SourceFilterNetwork, SourceFilterVocoder
from xfavot.audio.vocoder import vocoder
from xfavot.config import PretrainConfig, RunConfig, TrainConfig
from xfavot.data.store import Store, mel_statistics
from xfavot.errors import CheckpointError, DataError, TrainingError, WeightsError
from xfavot.parameters import Pretrain
from xfavot.training import pretrain, speech
from xfavot.training import vocoder as vocoder_training
from xfavot.weights import recorded

SMALL = {"width": 8, "depth": 1, "pitch_width": 8, "pitch_depth": 1}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def network() -> SourceFilterNetwork:
    torch.manual_seed(0)
    bands = torch.full((MEL.n_mels,), -2.0)
    known = Standardiser(bands, -bands)
    return SourceFilterNetwork(standardiser=known, **SMALL).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("data")
    return make_store(root, corpus="grid", kind="audio", genders="fm", seconds=[1.1, 0.3, 0.9])


# Signals


def test_pitch_is_filled_in_by_ratios_and_held_at_the_ends() -> None:
    f0 = torch.tensor([[0.0, 100.0, 0.0, 400.0, 0.0], [0.0] * 5])
    filled, voiced = source_filter.melody(f0)
    assert voiced.tolist() == (f0 > 0).tolist()
    assert filled[0].tolist() == pytest.approx([100, 100, 200, 400, 400])
    assert filled[1].tolist() == pytest.approx([source_filter.PITCH_DEFAULT_HZ] * 5)


def test_pulses_are_the_sum_of_their_partials() -> None:
    pitch = 250.0
    wave = source_filter.pulses(torch.full((1, 9), pitch), torch.tensor([0.125]))[0]
    time = torch.arange(8 * MEL.hop + 1, dtype=torch.float64) / MEL.sample_rate
    partials = torch.arange(1, int(11_800 / pitch) + 1, dtype=torch.float64)[:, None]
    wanted = torch.cos(2 * math.pi * partials * (0.125 + pitch * time)).sum(0)
    share = 11_800 / pitch - len(partials)  # of the partial that is fading
    wanted += share * torch.cos(2 * math.pi * (len(partials) + 1) * (0.125 + pitch * time))
    assert wave.shape == wanted.shape
    assert torch.allclose(wave.double(), wanted * pitch / 1024, atol=1e-4)


def test_pulses_and_noise_have_the_level_that_the_filters_count_on() -> None:
    noise = source_filter.NOISE_LEVEL * torch.randn(24_000, generator=generator())
    for wave in (source_filter.pulses(torch.full((1, 81), 90.0), torch.zeros(1)), noise):
        assert float(log_mel(wave).mean()) == pytest.approx(0.0, abs=0.1)


def test_pulses_stay_exact_over_a_minute_and_go_on_from_any_frame() -> None:
    wave = source_filter.pulses(torch.full((1, 4801), 100.0), torch.zeros(1))[0]
    assert torch.allclose(wave[:240], wave[-241:-1], atol=1e-3)
    pitch = 60.0 * 10 ** torch.rand(1, 40, generator=generator())
    whole = source_filter.pulses(pitch, torch.tensor([0.3]))
    cycles = 0.3 + source_filter.cycles_at_frames(pitch)
    rest = source_filter.pulses(pitch[:, 17:], cycles[:, 17])
    assert torch.allclose(whole[:, 17 * MEL.hop :], rest, atol=1e-4)


def test_minimum_phase_of_a_one_pole_filter() -> None:
    turns = torch.linspace(0.0, math.pi, 641, dtype=torch.float64)
    response = 1 / (1 - 0.6 * torch.exp(-1j * turns))
    phase = source_filter.minimum_phase(response.abs().log())
    assert torch.allclose(phase, response.angle(), atol=2e-3)


# Network


def test_given_pitch_is_heard(network: SourceFilterNetwork) -> None:
    f0 = torch.full((1, 81), 200.0)
    filters = network.filters(torch.full((1, 80, 81), -2.0), source_filter.melody(f0))
    silent = torch.full_like(filters[1], -30.0)
    wave = network.render((filters[0], silent), f0, generator())[0]
    spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave))).abs()
    assert int(spectrum[150:250].argmax()) + 150 == 200  # bins of 1 Hz
    assert float(spectrum[200]) > 100 * float(spectrum[300])


# Loss


def noises(*seeds: int, size: tuple[int, ...] = (2, 4800)) -> list[torch.Tensor]:
    return [0.1 * torch.randn(size, generator=generator(seed)) for seed in seeds]


def test_distance_of_two_sounds() -> None:
    waves = noises(0, 1)
    a, b = map(vocoder_training.views, waves)
    assert torch.allclose(a.log_mel, log_mel(waves[0]), atol=1e-4)  # the contract's
    top = torch.full((2,), 12_000.0)
    apart = vocoder_training.distance(a, b, top)
    assert float(vocoder_training.distance(a, a, top).abs().max()) == 0.0
    assert torch.allclose(apart, vocoder_training.distance(b, a, top))
    assert float(apart.min()) > 0.5
    hiss = 0.1 * torch.cos(2 * math.pi * 11_000 / MEL.sample_rate * torch.arange(4800))
    c = vocoder_training.views(waves[0] + hiss)
    narrow, wide = (vocoder_training.distance(a, c, top.clamp(max=hz)) for hz in (7600, 12_000))
    assert float(wide.min()) > 5 * float(narrow.max())


def test_the_score_wants_noise_of_the_right_level_and_two_outputs_that_differ() -> None:
    first, second, truth = noises(0, 1, 2, size=(8, 9600))

    def score(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(vocoder_training.energy_score(a, b, truth, torch.full((8,), 12_000.0)))

    best = score(first, second)
    assert all(best < score(gain * first, gain * second) for gain in (0.0, 0.6, 1.6))
    assert best < score(first, first) - 0.5


# Batches


def test_crops_are_aligned_at_one_level_and_a_function_of_seed_and_step(store: Store) -> None:
    clips = speech.clips_of([store], "train", needs="f0")
    clips = [c for c in clips if c.item.frame_count >= vocoder_training.CROP_FRAMES]
    assert {clip.item.frame_count for clip in clips} == {89}
    (mel, *rest, _), again, other = (
        vocoder_training.crops(clips, batch_size=3, seed=0, step=step) for step in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip((mel, *rest), again[:-1], strict=True))
    waveform = rest[-1]
    assert not torch.equal(waveform, other[3])
    assert waveform.shape == (3, (vocoder_training.CROP_FRAMES - 1) * MEL.hop)
    inside = slice(4, -4)  # the mel of the crop alone is reflected at its ends
    difference = log_mel(waveform)[..., inside] - mel[..., inside]
    assert float(difference.abs().max()) < 0.02  # float16 and 16 bits on disk


def test_errors_of_pitch_are_small_and_rare() -> None:
    f0 = torch.full((4, 200), 100.0)
    f0[:, 150:] = 0
    wrong = vocoder_training.with_errors(f0, generator())
    flipped = (wrong > 0) != (f0 > 0)
    assert 0 < float(flipped.float().mean()) < 0.1
    voiced = wrong[wrong > 0]
    assert float((voiced / 100).log().abs().max()) < 0.02


def test_band_is_narrow_where_nothing_lies_above_8_khz() -> None:
    wide = 0.01 * torch.randn(1, 24_000, generator=generator())
    spectrum = torch.fft.rfft(wide)
    spectrum[:, 8000:] = 0
    narrow = (torch.fft.irfft(spectrum) * 32768).round() / 32768
    assert vocoder_training.top_of_band(torch.cat((wide, narrow))).tolist() == [12_000.0, 7_600.0]


# Training


def train(store: Store, steps: int = 3, lr: float = 3e-2, device: str = "cpu", **more: Any) -> Any:
    known = mel_statistics([store], split="train")
    given = PretrainConfig(vocoder_steps=steps, vocoder_lr=lr, vocoder_batch_size=2)
    cfg = RunConfig(pretrain=given, train=TrainConfig(device=device))
    return pretrain.train("vocoder", cfg, [store], known, **more)


@pytest.fixture(autouse=True)
def small(monkeypatch: Patch) -> None:
    """A network that is quick to train."""
    monkeypatch.setattr(pretrain, "SourceFilterNetwork", partial(SourceFilterNetwork, **SMALL))


def test_training_learns_and_resumes(store: Store, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(pretrain, "SAVE_EVERY", 1)
    refuses(TrainingError, r"at step 2;.*vocoder_lr", train, store, lr=1e30)
    (_, before), (network, whole) = train(store, steps=1, lr=1e-9), train(store)
    losses, measures = whole["training"]["losses"], whole["measures"]
    assert before["measures"]["val/clips"] == measures["val/clips"] == 2
    assert measures["val/distance"] < before["measures"]["val/distance"]
    assert [record["step"] for record in losses] == [1, 2, 3]

    def stop(record: Mapping[str, Any]) -> None:
        if record["step"] == 2:
            raise KeyboardInterrupt("killed")

    file = tmp_path / "state.pt"
    refuses(KeyboardInterrupt, "killed", train, store, resume=file, on_log=stop)
    again, resumed = train(store, resume=file)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert (resumed["training"]["losses"], resumed["measures"]) == (losses, measures)
    refuses(CheckpointError, "another training", train, store, resume=file, lr=2e-3)
    file.write_bytes(b"PK\x03\x04 truncated")
    refuses(CheckpointError, "cannot be read", train, store, resume=file)


@pytest.mark.gpu
def test_training_on_a_gpu_sees_the_same_batches(store: Store) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    here, there = (train(store, steps=2, lr=1e-3, device=device)[1] for device in ("cpu", "cuda"))
    for a, b in zip(here["training"]["losses"], there["training"]["losses"], strict=True):
        assert a == pytest.approx(b, rel=1e-3)


# Where it is kept


def test_a_trained_vocoder_is_kept_and_found(store: Store, tmp_path: Path) -> None:
    given = {"network": "vocoder", "dataset": "grid", "preset": "smoke", "device": "cpu"}
    cfg = Pretrain.resolve(**given, run_root=str(tmp_path / "runs")).run
    log: list[Mapping[str, Any]] = []
    standardiser = mel_statistics([store], split="train")
    kept = pretrain.ensure_network("vocoder", cfg, [store], standardiser, log.append)
    assert [path.name for path in kept.path.parent.iterdir()] == ["source_filter.safetensors"]
    said = kept.record["training"]
    assert said["schedule"] == {"steps": 2, "lr": 2e-3, "batch_size": 2, "seed": 0}
    assert said["data"]["grid"]["minutes"] == pytest.approx(2 * 1.1 / 60, abs=0.01)
    fresh = SourceFilterVocoder.load(kept.path)
    assert kept.record["measures"] == vocoder_training.vocoder_measures(fresh, [store])
    assert str(cfg.run_root) not in json.dumps(kept.record)
    assert any(record.get("step") == 2 for record in log)
    log.clear()
    again = pretrain.ensure_network("vocoder", cfg, [store], standardiser, log.append)
    assert again.path == kept.path
    assert [set(record) for record in log] == [{"message"}]


# Weights


def keep(network: SourceFilterNetwork, path: Path, **more: Any) -> None:
    record = {"network": "source_filter", "contract": MEL.as_dict(), "arguments": network.sizes}
    recorded.write(path, network, record | more, half=True)


def test_kept_weights_sound_the_same(network: SourceFilterNetwork, tmp_path: Path) -> None:
    path = tmp_path / "voice.safetensors"
    keep(network, path, training={"steps": 0})
    assert recorded.read(path, ("source_filter",))["training"] == {"steps": 0}
    made = vocoder(path, seed=3)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    assert made.name == f"source_filter (sha256 {digest})"
    mel = torch.randn(80, 25, generator=generator()) * 0.3 - 2
    wave, wanted = made(mel), SourceFilterVocoder(network, seed=3)(mel)
    assert np.abs(wave - wanted).max() < 0.02 * np.abs(wanted).max()  # half precision


def test_other_weights_are_refused(network: SourceFilterNetwork, tmp_path: Path) -> None:
    path = tmp_path / "voice.safetensors"
    for damage in (b"", b"not weights"):
        path.write_bytes(damage)
        refuses(WeightsError, "source_filter", vocoder, path)
    good = {"network": "source_filter", "contract": MEL.as_dict(), "arguments": SMALL}
    for said, error, words in (
        (good, WeightsError, "Missing key"),
        (good | {"network": "f0"}, WeightsError, "network is 'f0'"),
        (good | {"contract": MEL.as_dict() | {"hop": 256}}, DataError, "hop is 256"),
        (good | {"arguments": {"size": 3}}, WeightsError, "unexpected keyword"),
    ):
        save_file({"a": torch.zeros(1)}, path, metadata={"record": json.dumps(said)})
        refuses(error, words, vocoder, path)
    broken = copy.deepcopy(network)
    broken.mean[3] = torch.nan
    keep(broken, path)
    refuses(WeightsError, "not finite", vocoder, path)
    file = tmp_path / "file"
    file.write_text("")
    refuses(TrainingError, "cannot be written", keep, network, file / "voice.safetensors")
