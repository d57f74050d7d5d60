"""The F0 and the content network: what they learn from, their training, where they are found."""

from __future__ import annotations

import dataclasses
import itertools
import math
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import FULL_DISK, Patch, refuses
from tests.unit.store_factory import PITCH_HZ, make_store
from tests.unit.training_factory import shared_store
from xfavot import config, weights
from xfavot.audio.f0 import world_f0
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL, Standardiser, log_mel
from xfavot.config import ModelConfig, RunConfig
from xfavot.data.store import Store, mel_statistics
from xfavot.errors import ConfigError, DataError, ShapeError, TrainingError, WeightsError
from xfavot.losses.terms import speech_consistency
from xfavot.mini import generate
from xfavot.mini.people import numbers, person
from xfavot.mini.speak import code, sentences
from xfavot.models.content import CEPSTRA, SYMBOLS, ContentNetwork, cosine_transform
from xfavot.models.f0 import PITCH_CLASSES, F0Network, F0Output, class_of, pitch_of, track
from xfavot.training import pretrain, speech
from xfavot.training.speech import character_error, decode, pitch_measures
from xfavot.weights import recorded

OWN = Standardiser(torch.linspace(-3.0, -1.0, 80), torch.linspace(0.5, 1.5, 80))
RUNS = Standardiser(torch.linspace(-2.0, -2.5, 80), torch.linspace(1.2, 0.4, 80))


store = shared_store(corpus="grid", kind="audio", genders="fm", seconds=[0.6, 0.7, 1.0])


@pytest.fixture
def cfg(store: Store, tmp_path: Path) -> RunConfig:
    places = {"data_root": str(store.path.parent), "run_root": str(tmp_path / "runs")}
    return config.resolve(dataset="grid", preset="smoke", device="cpu", **places)


def changed(cfg: RunConfig, section: str, **values: Any) -> RunConfig:
    new: Any = dataclasses.replace(getattr(cfg, section), **values)
    return dataclasses.replace(cfg, **{section: new})


def ensure(
    name: str, cfg: RunConfig, store: Store, on: Standardiser | None = None, **more: Any
) -> pretrain.Trained:
    known = on or mel_statistics([store], split="train")
    return pretrain.ensure_network(name, cfg, [store], known, **more)


# Labels and batches


@pytest.mark.parametrize(
    ("transcript", "spelt", "foreign"),
    [
        ("  \u00c9lan, it\u2019s 2-fold! ", "elan it's fold", ""),
        ("Stra\u00dfe, \u0153uvre, Sm\u00f8rrebr\u00f8d", "strasse oeuvre smorrebrod", ""),
        ("\u041f\u0440\u0438\u0432\u0435\u0442 OK", "ok", "\u043f\u0440\u0438\u0432\u0435\u0442"),
    ],
)
def test_text_is_spelt_in_known_letters(transcript: str, spelt: str, foreign: str) -> None:
    assert speech.spell(speech.encode(transcript)) == spelt
    assert speech.not_covered(transcript) == foreign
    # decoding merges repeats and drops blanks
    path = [SYMBOLS.index(s) for s in ("a", "a", "", "a", "b", " ", " ", "c", "")]
    scores = torch.nn.functional.one_hot(torch.tensor(path), len(SYMBOLS))
    assert speech.decode(scores.float()) == "aab c"


def test_gain_is_exact(monkeypatch: Patch) -> None:
    mel, rng = torch.randn(4, 80, 9), torch.Generator().manual_seed(0)
    monkeypatch.setattr(speech, "NOISE_SHARE", 0.0)
    gain = (speech.augment(mel, rng) - mel).flatten(1)
    torch.testing.assert_close(gain, gain[:, :1].expand_as(gain), rtol=0, atol=1e-5)
    low, high = (bound / speech.DB_PER_LOG10 for bound in speech.GAIN_DB)
    assert ((gain >= low - 1e-5) & (gain <= high + 1e-5)).all()
    assert (speech.augment(torch.full((1, 80, 3), -10.0), rng) >= speech.FLOOR_LOG10).all()


def test_batches_are_functions_of_seed_and_step(store: Store) -> None:
    clips = speech.clips_of([store], "train", needs="f0")
    settings: dict[str, Any] = {"batch_size": 3, "frames": 80, "seed": 4}
    (mel, f0), (again, _), (other, _) = (
        speech.f0_batch(speech.Versions(clips, seed=0), step=step, **settings) for step in (1, 1, 2)
    )
    assert mel.shape == (3, 80, 80)  # longer than a clip: continued by its mirror image
    assert torch.equal(mel, again)
    assert not torch.equal(mel, other)
    assert f0.shape == (3, 80)
    assert ((f0 > 50) & (f0 < 600)).all()
    whole, frames, said, _ = speech.content_batch(clips, batch_size=3, seed=0, step=1)
    assert whole.shape == (3, 80, int(frames.max()))  # whole clips
    assert said.tolist() == speech.encode("bin blue at f two now") * 3


def test_clips_without_a_label_are_left_out(tmp_path: Path) -> None:
    said = {"silent": "?!", "long": "much too long " * 9, "russian": "\u0434\u0430 yes"}
    known: dict[str, Any] = {"kind": "audio", "genders": "f"}
    stores = [make_store(tmp_path, corpus=c, transcript=t, **known) for c, t in said.items()]
    stores.append(make_store(tmp_path, corpus="faces", kind="image", genders="f"))
    assert speech.clips_of(stores, "train", needs="transcript") == []
    assert len(speech.clips_of(stores, "train", needs="f0")) == 6
    assert speech.left_out(stores, "train").startswith("2 of 6 train clips have transcripts with")
    assert "(\u0434\u0430)" in speech.left_out(stores, "train")
    assert speech.left_out(stores[:2], "train") == ""
    unknown = dataclasses.replace(stores[0], f0=np.full_like(stores[0].f0, np.nan))
    assert speech.clips_of([unknown], "train", needs="f0") == []


@pytest.mark.parametrize("change", [speech.resampled, speech.synthesised])
def test_a_changed_voice_has_the_pitch_of_its_label(store: Store, change: Any) -> None:
    clip = speech.clips_of([store], "train", needs="f0")[0]
    wave, f0 = clip.store.waveform(clip.item), clip.f0().numpy()
    f0[20:24] = 0.0  # a voiceless stretch
    at = np.fft.rfftfreq(1 << 16, 1 / MEL.sample_rate)
    for seed in range(3):
        new, label = change(wave, f0, np.random.default_rng(seed))
        assert 0 <= len(label) * MEL.hop - len(new) <= MEL.hop
        assert (label == 0).sum() >= 2
        place = int(np.flatnonzero(label)[0]) + 5
        piece = new[place * MEL.hop :][: 8 * MEL.hop] * np.hanning(8 * MEL.hop)
        spectrum = np.abs(np.fft.rfft(piece, 1 << 16))
        spectrum[(at < 0.7 * label[place]) | (at > 1.5 * label[place])] = 0.0
        assert at[spectrum.argmax()] == pytest.approx(label[place], rel=0.03)
        assert abs(label[place] / f0[0] - 1) > 0.005


def test_the_envelope_of_the_lowest_voices_is_kept() -> None:
    hertz, middle = 64.0, Mock()  # draws that change nothing
    middle.uniform = lambda low, high: (low + high) / 2
    time = np.arange(MEL.sample_rate) / MEL.sample_rate
    partials = hertz * np.arange(1, int(3000 / hertz))[:, None]
    formants = sum(1 / (1 + ((partials - at) / 90) ** 2) for at in (500, 1500, 2500))
    wave = (0.02 * (formants * np.cos(2 * np.pi * partials * time)).sum(0)).astype(np.float32)
    f0 = np.full(len(wave) // MEL.hop + 1, hertz, np.float32)
    new, _ = speech.synthesised(wave, f0, middle)
    before, after = (log_mel(torch.from_numpy(x[: len(wave)]))[:, 10:70] for x in (wave, new))
    loud = before > before.max() - 1.5
    assert 20 * float((after - before)[loud].abs().mean()) < 2.0  # dB; 7 without the floor


def test_versions_are_drawn_evenly_over_corpora_and_made_once(store: Store, tmp_path: Path) -> None:
    other = make_store(tmp_path, corpus="vctk", kind="audio", genders="f", seconds=0.6)
    clips = speech.clips_of([store, store, other], "train", needs="f0")
    versions = speech.Versions(clips, seed=0)
    assert [len(rows) for rows, _ in versions.corpora] == [8, 2]
    assert torch.equal(versions.version(0, 0)[0], clips[0].log_mel())
    drawn = versions.draw(200, torch.Generator().manual_seed(0))
    pitches = [round(float(f0[3])) for _, f0 in drawn]
    own = sum(abs(pitch - PITCH_HZ["f"]) < 1 for pitch in pitches)
    assert 20 < own < 80  # 0.4 of those of a woman's corpus, and of half of the others


# Measures


def test_pitch_measures_by_hand() -> None:
    f0 = torch.tensor([0.0, 0.0, 100.0, 100.0, 200.0])
    found = speech.pitch_measures([(f0, torch.tensor([0.0, 90.0, 0.0, 125.0, 210.0]))])
    assert found["voicing_error"] == pytest.approx(2 / 5)
    assert found["gross_pitch_error"] == pytest.approx(1 / 2)
    assert found["f0_correlation"] == pytest.approx(1.0)
    assert speech.pitch_measures([(f0, torch.zeros(5))]) == {"voicing_error": pytest.approx(3 / 5)}


def test_character_error_counts_against_the_transcript(store: Store, tmp_path: Path) -> None:
    bed = make_store(tmp_path, corpus="vctk", kind="audio", genders="f", transcript="bed")
    network = ContentNetwork(content_width=8, content_channels=4, depth=1).eval()
    torch.nn.init.zeros_(network.head[-1].weight)
    torch.nn.init.zeros_(network.head[-1].bias)
    network.head[-1].bias.data[SYMBOLS.index("b")] = 9.0  # always hears one "b"
    known, text = mel_statistics([store], split="train"), "bin blue at f two now"
    error = pytest.approx((len(text) - 1) / len(text))
    found = speech.measures("content", network, [store], known)
    assert found == {"val/clips": 2, "val/character_error": error}
    both = speech.measures("content", network, [store, bed], known)
    assert both["val/vctk/clips"] == 1
    assert both["val/grid/character_error"] == error
    assert both["val/vctk/character_error"] == pytest.approx(2 / 3)


# Training


def test_rate_rises_and_falls() -> None:
    rates = [pretrain.rate(step, steps=100, lr=1.0) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] == pytest.approx(pretrain.FINAL_SHARE)
    assert pretrain.rate(1, steps=1, lr=1.0) == 1.0


@pytest.mark.parametrize("name", ["f0", "content"])
def test_networks_learn(name: str, store: Store, cfg: RunConfig, monkeypatch: Patch) -> None:
    monkeypatch.setattr(speech, "AS_IT_IS", 1.0)  # other tones would take longer to learn
    cfg = changed(cfg, "model", f0_width=8, mel_frames=80, content_width=16, content_channels=8)
    cfg = changed(cfg, "pretrain", **{f"{name}_steps": 80, f"{name}_lr": 1.0e-2, "batch_size": 4})
    said: list[Any] = []
    state, known = torch.get_rng_state(), mel_statistics([store], split="train")
    _, record = pretrain.train(name, cfg, [store], known, on_log=said.append)
    assert torch.equal(torch.get_rng_state(), state)
    steps = [(name, step) for step in range(4, 81, 4)]
    assert [(line["network"], line["step"]) for line in said] == steps
    losses = [line["loss"] for line in record["training"]["losses"]]
    assert losses == [line["loss"] for line in said]
    assert losses[-1] < 0.9 * losses[0]
    if name == "f0":
        measures = record["measures"]
        assert measures["val/voicing_error"] == 0.0
        assert measures["val/gross_pitch_error"] < 0.1
        assert measures["val/f0_correlation"] > 0.9


def test_frames_where_f0_leaps_do_not_teach_the_pitch() -> None:
    f0 = torch.full((1, 20), 200.0)
    f0[0, 9:12], f0[0, 15:] = 400.0, 0.0
    classes = torch.zeros(1, 20, PITCH_CLASSES, requires_grad=True)
    voicing = torch.zeros(1, 20, requires_grad=True)
    network: Any = Mock(return_value=F0Output(voicing, voicing, voicing, voicing, classes))
    network.parameters = lambda: iter([voicing])
    speech.f0_loss(network, OWN, torch.zeros(1, 80, 20), f0)["loss"].backward()
    taught, heard = (x.grad for x in (classes, voicing))
    silent = (taught[0].abs().sum(1) == 0).nonzero().flatten().tolist()
    assert silent == [8, 9, 11, 12, 15, 16, 17, 18, 19]
    assert (heard != 0).all()


# Keeping and finding


@pytest.mark.parametrize("name", ["f0", "content"])
def test_networks_are_kept_and_found(name: str, store: Store, cfg: RunConfig) -> None:
    said: list[Any] = []
    first, second = (ensure(name, cfg, store, on_log=said.append) for _ in range(2))
    assert first.path.parents[1] == Path(cfg.run_root, "auxiliary")
    steps = [record["step"] for record in said if "step" in record]
    assert steps == sorted(set(steps))  # trained once
    found = second.network.state_dict()
    assert all(torch.equal(v, found[k]) for k, v in first.network.state_dict().items())
    assert first.record["contract"] == MEL.as_dict()
    assert first.record["manifests"] == {"grid": store.manifest_hash}
    data = first.record["training"]["data"]["grid"]
    assert (data["clips"], data["held_out_speakers"]) == (4, [])
    known = mel_statistics([store], split="train")
    np.testing.assert_allclose(first.record["standardiser"]["mean"], known.mean)


def test_another_training_is_kept_elsewhere(store: Store, cfg: RunConfig) -> None:
    known = mel_statistics([store], split="train")
    f0 = ensure("f0", cfg, store)
    assert f0.record["arguments"] == {"f0_width": cfg.model.f0_width, "mel_bins": 80}
    others = (
        ensure("f0", dataclasses.replace(cfg, seed=cfg.seed + 1), store),
        ensure("f0", changed(cfg, "pretrain", f0_steps=3), store),
        ensure("f0", changed(cfg, "model", f0_width=8), store),
        ensure("f0", cfg, store, Standardiser(known.mean + 0.1, known.std)),
    )
    assert len({f0.path, *(other.path for other in others)}) == 5


def test_damaged_weights_are_refused(store: Store, cfg: RunConfig) -> None:
    kept = ensure("content", cfg, store)
    whole = kept.path.read_bytes()
    kept.path.write_bytes(whole[:-40])
    refuses(WeightsError, "delete it", ensure, "content", cfg, store)
    kept.path.write_bytes(whole.replace(b'fmin\\": 80.0', b'fmin\\": 70.0'))
    refuses(DataError, r"fmin is 70\.0", pretrain.load_network, kept.path)


def test_a_full_disk(store: Store, cfg: RunConfig, monkeypatch: Patch) -> None:
    monkeypatch.setattr(recorded, "save_file", Mock(side_effect=FULL_DISK))
    refuses(TrainingError, "No space left", ensure, "f0", cfg, store)
    assert not [*Path(cfg.run_root, "auxiliary").rglob("*.*")]


def test_mini_stands_in(store: Store, cfg: RunConfig, tmp_path: Path, monkeypatch: Patch) -> None:
    mute = make_store(tmp_path / "data", corpus="voxceleb", kind="av", transcript="\u0434\u0430")
    cfg = dataclasses.replace(cfg, data_root=str(tmp_path / "data"))
    make_mini = Mock(return_value=[store])
    monkeypatch.setattr(pretrain, "open_or_make_mini", make_mini)
    said: list[Any] = []
    kept = ensure("content", cfg, mute, on_log=said.append)
    assert make_mini.call_args.args[1] == ("mini",)
    assert set(kept.record["manifests"]) == {"voxceleb", "grid"}
    messages = " ".join(record.get("message", "") for record in said)
    assert "mini joins in" in messages
    assert "letters other than a to z (\u0434\u0430)" in messages
    ensure("content", cfg, make_store(tmp_path / "data", corpus="grid", kind="av"))
    assert make_mini.call_count == 1  # few transcripts do; mini is not made for more
    make_mini.return_value = []
    with pytest.raises(DataError, match=r"no training clip with a transcript.*-p dataset mini"):
        ensure("content", dataclasses.replace(cfg, seed=1), mute)
    faces = make_store(tmp_path / "data", corpus="celeba_hq", kind="image")
    for name in ("f0", "vocoder"):
        refuses(DataError, "no training clip with speech", ensure, name, cfg, faces, OWN)


# Networks that come with the package


@pytest.fixture
def shipped(cfg: RunConfig, tmp_path: Path, monkeypatch: Patch) -> Path:
    """A folder with an F0 and a content network of the smoke preset's widths."""
    for name in ("f0", "content"):
        torch.manual_seed(1)
        network_class: Any = pretrain.NETWORKS[name]
        network = network_class.from_config(cfg.model)
        record: dict[str, Any] = {"network": name, "contract": MEL.as_dict()}
        record |= {"arguments": network.sizes}
        record |= {"standardiser": {"mean": OWN.mean.tolist(), "std": OWN.std.tolist()}}
        record |= {"measures": {"val/clips": 3.0, "val/voicing_error": 0.25, "val/f/clips": 1.0}}
        recorded.write(tmp_path / "shipped" / f"{name}.safetensors", network, record)
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "shipped")
    return tmp_path / "shipped"


@pytest.mark.parametrize("name", ["f0", "content"])
def test_a_shipped_network_hears_the_same_under_any_statistics(shipped: Path, name: str) -> None:
    log_mel = -2.0 + torch.randn(1, 1, 80, 30, generator=torch.Generator().manual_seed(0))
    path = shipped / f"{name}.safetensors"
    own: Any = pretrain.load_network(path).network
    moved: Any = pretrain.load_network(path, RUNS).network
    assert torch.equal(own.input_scale, torch.ones(80))
    wanted, other = own.features(OWN.standardise(log_mel)), RUNS.standardise(log_mel)
    torch.testing.assert_close(moved.features(other), wanted, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(own.features(other), wanted, atol=1e-2)
    assert not moved.training
    assert not any(parameter.requires_grad for parameter in moved.parameters())


def test_shipped_are_found(shipped: Path, cfg: RunConfig, store: Store, tmp_path: Path) -> None:
    said: list[Any] = []
    mute = make_store(tmp_path / "data", corpus="voxceleb", kind="audio", transcript="")
    here = dataclasses.replace(cfg, data_root=str(tmp_path / "data"))  # no transcript is needed
    for name in ("f0", "content"):
        found = ensure(name, here, mute, RUNS, on_log=said.append)
        assert found.path == shipped / f"{name}.safetensors"
    ending = " network that comes with the package: val/clips 3, val/voicing_error 0.250"
    assert [r["message"] for r in said] == [f"f0{ending}", f"content{ending}"]
    assert not Path(cfg.run_root, "auxiliary").exists()
    assert not (tmp_path / "data" / "mini").exists()
    trained = ensure("f0", changed(cfg, "pretrain", source="train"), store, RUNS)
    assert trained.path.parents[1] == Path(cfg.run_root, "auxiliary")
    assert ensure("f0", cfg, store, RUNS).path == trained.path
    asked = ensure("f0", changed(cfg, "pretrain", source="shipped"), store, RUNS)
    assert asked.path == shipped / "f0.safetensors"


def test_shipped_of_other_widths_or_damaged(shipped: Path, cfg: RunConfig, store: Store) -> None:
    wider = changed(cfg, "model", f0_width=6)
    assert ensure("f0", wider, store, RUNS).path.parents[1].name == "auxiliary"
    with pytest.raises(WeightsError, match=r"'shipped'.*'f0_width': 6"):
        ensure("f0", changed(wider, "pretrain", source="shipped"), store, RUNS)
    with pytest.raises(ConfigError, match=r"pretrain.source is 'trian'.*train"):
        changed(cfg, "pretrain", source="trian")
    path = shipped / "f0.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    refuses(WeightsError, "install the package again", ensure, "f0", cfg, store, RUNS)


# The networks: the lineage's sizes, any length, nothing live when frozen


def small_f0() -> F0Network:
    torch.manual_seed(0)
    return F0Network(f0_width=4)


def small_content(**changes: object) -> ContentNetwork:
    torch.manual_seed(0)
    settings = {"content_width": 16, "content_channels": 6, "depth": 2} | changes
    return ContentNetwork(**settings)  # type: ignore[arg-type]


def count(network: nn.Module, *, without: str) -> int:
    named = network.named_parameters()
    return sum(p.numel() for name, p in named if not name.startswith(tuple(without.split())))


def test_the_networks_have_the_lineage_s_sizes_up_to_their_features() -> None:
    pitch, content = (kind.from_config(ModelConfig()) for kind in (F0Network, ContentNetwork))
    assert count(pitch, without="recurrent pitch_head voicing_head") == 1_928_256
    assert count(pitch.recurrent, without="none") == 2 * (4 * 256 * (512 + 256) + 2 * 4 * 256)
    assert count(content, without="head") == 7_204_224
    assert content.depth == 6
    assert F0Network(**pitch.sizes).sizes == pitch.sizes
    assert ContentNetwork(**content.sizes).sizes == content.sizes


@pytest.mark.parametrize("frames", [1, 33])
def test_networks_take_any_length(frames: int) -> None:
    x = torch.randn(2, 1, 80, frames)
    out = small_f0().eval()(x)
    assert out.f0.shape == out.voicing.shape == out.pitch.shape == (2, frames)
    assert out.features.shape == (2, 16, 10, frames)
    assert torch.equal(out.f0, torch.sigmoid(out.voicing) * out.pitch)
    assert out.classes.shape == (2, frames, PITCH_CLASSES)
    content, half = small_content().eval(), math.ceil(frames / 2)  # halves, rounding up
    assert content.features(x).shape == (2, 6, half)
    log_probabilities = content(x)
    assert log_probabilities.shape == (2, half, len(SYMBOLS))
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(2, half))


@pytest.mark.parametrize("network", [small_f0(), small_content()], ids=["f0", "content"])
def test_frozen_networks_treat_samples_alone_and_alike(network: Any) -> None:
    x = torch.randn(3, 1, 80, 20, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    together = network.eval().features(x)
    assert torch.equal(together, network.features(x))
    torch.testing.assert_close(together[1:2], network.features(x[1:2]), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    for shape in ((1, 80, 12), (1, 1, 64, 12), (1, 2, 80, 12)):
        refuses(ShapeError, "80", network.features, torch.zeros(shape))


def test_frozen_f0_network_lets_gradients_through_to_the_mel() -> None:
    network = small_f0().requires_grad_(False).eval()
    assert network.recurrent.training  # cuDNN refuses the backward pass otherwise
    assert not network.dropout.training
    assert not network.norm.training
    x = torch.randn(1, 1, 80, 12, requires_grad=True)
    network(x).f0.sum().backward()
    assert (x.grad.abs().sum(dim=(0, 1, 2)) > 0).all()


def said(hz: torch.Tensor, voicing: torch.Tensor) -> F0Output:
    """What a network says that is sure of a pitch (T,) Hz and as sure of the voice as given."""
    logits = -0.5 * (torch.arange(PITCH_CLASSES) - class_of(hz).unsqueeze(-1)).square()
    nothing = torch.zeros(1)
    return F0Output(nothing, voicing[None], nothing, pitch_of(logits)[None], logits[None])


def test_a_track_does_not_leap_in_single_frames() -> None:
    hz, sure = torch.linspace(180.0, 220.0, 40), torch.full((40,), 6.0)
    torch.testing.assert_close(track(said(hz, sure))[0], hz, rtol=2e-2, atol=0)
    found = said(hz, sure)
    octave_up = said(2 * hz, sure).classes[0, 20]
    found.classes[0, 20] = torch.logaddexp(found.classes[0, 20], octave_up + 0.5)  # one frame
    assert pitch_of(found.classes)[0, 20] > 380
    torch.testing.assert_close(track(found)[0], hz, rtol=2e-2, atol=0)
    for_good = torch.where(torch.arange(40) < 20, hz, 2 * hz)
    torch.testing.assert_close(track(said(for_good, sure))[0], for_good, rtol=2e-2, atol=0)


def test_a_track_is_unvoiced_where_the_voice_stops() -> None:
    hz, voicing = torch.full((60,), 150.0), torch.full((60,), 6.0)
    voicing[20:40] = -6.0
    voicing[10] = -0.5  # a single doubtful frame
    found = track(said(hz, voicing))[0]
    assert (found[20:40] == 0).all()
    assert (found[:20] > 0).all()
    assert (found[40:] > 0).all()
    unsure = said(hz, torch.full((60,), 1.0))
    flat = dataclasses.replace(unsure, classes=torch.zeros_like(unsure.classes))
    assert (track(flat) == 0).all()  # voiced perhaps, but of no pitch
    assert track(said(hz[:1], voicing[:1])).shape == (1, 1)


def test_pitch_lies_between_the_likeliest_classes() -> None:
    hz = torch.tensor([55.0, 61.0, 123.4, 440.0, 600.0, 880.0])
    number = torch.arange(PITCH_CLASSES)
    logits = -0.5 * (number - class_of(hz).unsqueeze(-1)).square()
    torch.testing.assert_close(pitch_of(logits)[1:5], hz[1:5], rtol=2e-3, atol=0)
    assert 55.0 <= pitch_of(logits)[0] < 57.0  # the neighbours lie on one side only
    assert 850.0 < pitch_of(logits)[5] <= 880.001
    logits.requires_grad_(True)
    pitch_of(logits).sum().backward()
    assert logits.grad[2].abs().sum() > 0


def test_cosine_transform_is_orthonormal_and_starts_with_the_mean() -> None:
    matrix = cosine_transform(CEPSTRA, 80)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(CEPSTRA), rtol=0, atol=1e-6)
    torch.testing.assert_close(matrix[0], torch.full((80,), 1 / math.sqrt(80)))
    assert not any("cepstra" in name for name in small_content().state_dict())


# The networks that come with the package, on voices they were not trained on


STATISTICS = Standardiser(torch.full((80,), -2.5), torch.full((80,), 0.9))


def packaged(name: str) -> pretrain.Trained:
    return pretrain.load_network(weights.shipped(name), STATISTICS)


@pytest.mark.parametrize("name", ["f0", "content"])
def test_weights_fit_preset_mini_and_say_what_they_are(name: str) -> None:
    model = config.resolve(dataset="mini", preset="mini").model
    path = weights.shipped(name)
    said = packaged(name).record
    for width in (key for key in said["arguments"] if key not in ("depth", "mel_bins")):
        assert said["arguments"][width] == getattr(model, width)
    assert set(said["training"]["data"]) <= {"mini", "vctk", "librispeech"}
    assert said["training"]["data"]["mini"]["speakers"] == 64
    assert any(key.endswith("clips") for key in said["measures"])
    assert path.stat().st_size < 5_000_000
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card
    assert "papermill notebooks/pretrain.ipynb" in card


def test_f0_follows_a_glide() -> None:
    time = torch.arange(36_000) / 24_000
    hz = 120.0 * 2.0 ** (time / 1.5)  # an octave up
    phase = 2 * torch.pi * torch.cumsum(hz / 24_000, 0)
    wave = sum(torch.sin(phase * h) / h for h in range(1, 25))
    wave = torch.cat((torch.zeros(9_600), 0.1 * torch.as_tensor(wave)))
    wave = wave + 1e-3 * torch.randn(len(wave), generator=torch.Generator().manual_seed(0))
    network = packaged("f0").network
    out = network(STATISTICS.standardise(log_mel(wave))[None, None])
    wanted = hz[::300]
    found, voicing = out.pitch[0, 32:], out.voicing[0]
    inside = slice(4, len(wanted) - 4)
    cents = 1200 * (found[inside].log2() - wanted[inside].log2()).abs()
    assert cents.median() < 50
    assert (voicing[36:-4] > 0).float().mean() > 0.9
    assert (voicing[:26] < 0).float().mean() > 0.9


def test_f0_of_real_speech_agrees_with_world(real_corpus: Path) -> None:
    network = packaged("f0").network
    tracks = []
    for path in sorted((real_corpus / "cmu_arctic").glob("*/wav/*.wav"))[:4]:
        wave = load_waveform(path)[:96_000]
        f0 = torch.from_numpy(world_f0(wave))
        out = network(STATISTICS.standardise(log_mel(torch.from_numpy(wave)))[None, None])
        tracks.append((f0, track(out)[0]))
    found = pitch_measures(tracks)
    assert found["voicing_error"] < 0.2
    assert found["gross_pitch_error"] < 0.08
    assert found["f0_correlation"] > 0.9


def same_length(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two features (C, T) under the warp of time that brings them closest, as pairs of frames."""
    from librosa.sequence import dtw

    _, path = dtw(C=torch.cdist(a.T[None], b.T[None], p=1.0)[0].numpy())
    first, second = path[::-1].T.copy()
    return a[:, first], b[:, second]


def test_content_reads_people_it_never_heard_and_tells_words_apart() -> None:
    network, features, pairs = packaged("content").network, {}, []
    said = [(n, words) for n in numbers(16) for words in sentences(0, n, 24)]
    alike = {(a, b): np.sum(np.array(a[1]) == b[1]) for a, b in itertools.combinations(said, 2)}
    near = [(a, b) for (a, b), n in alike.items() if n == 5 and a[0] != b[0]][:12]
    far = [(a, b) for (a, b), n in alike.items() if n == 0 and a[0] == b[0]][::100]
    assert len(near) == len(far) == 12
    with zipfile.ZipFile(generate.PACK) as pack:  # the people of seed 0
        for number, words in {clip for pair in near + far for clip in pair}:
            clip = pack.read(f"{person(number, seed=0).speaker}/{code(words)}.opus")
            mel = STATISTICS.standardise(log_mel(torch.from_numpy(load_waveform(clip))))
            features[number, words] = network.features(mel[None, None])[0]
            pairs.append((" ".join(words), decode(network(mel[None, None])[0])))
    assert character_error(pairs)["character_error"] < 0.1

    def loss(a: Tensor, b: Tensor) -> float:
        return float(speech_consistency(*same_length(a, b)))

    same, other = ([loss(features[a], features[b]) for a, b in of] for of in (near, far))
    assert np.mean(np.array(other)[None] > np.array(same)[:, None]) > 0.95
