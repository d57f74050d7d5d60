"""Training, keeping and finding the F0 and the content network, on small synthetic stores."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.store_factory import PITCH_HZ, make_store
from xfavot import config
from xfavot.audio.mel import MEL, Standardiser, log_mel
from xfavot.config import RunConfig
from xfavot.data.store import Store, mel_statistics
from xfavot.errors import DataError, TrainingError, WeightsError
from xfavot.models.content import SYMBOLS, ContentNetwork
from xfavot.models.f0 import PITCH_CLASSES, F0Output
from xfavot.parameters import Pretrain
from xfavot.training import keeping, pretrain
from xfavot.training import speech as speech_training


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("data")
    return make_store(root, corpus="grid", kind="audio", genders="fm", seconds=[0.6, 0.7, 1.0])


@pytest.fixture
def cfg(store: Store, tmp_path: Path) -> RunConfig:
    return config.resolve(
        dataset="grid",
        preset="smoke",
        device="cpu",
        data_root=str(store.path.parent),
        run_root=str(tmp_path / "runs"),
    )


def statistics(store: Store) -> Standardiser:
    return mel_statistics([store], split="train")


# Labels and batches


def test_text_is_spelt_in_known_symbols() -> None:
    spelt = speech_training.encode(
        "  \N{LATIN CAPITAL LETTER E WITH ACUTE}lan, it\N{RIGHT SINGLE QUOTATION MARK}s 2-fold! "
    )
    assert speech_training.spell(spelt) == "elan it's fold"
    assert 0 not in spelt
    assert speech_training.encode("  ?") == []


def test_decoding_merges_repeats_and_drops_blanks() -> None:
    path = [SYMBOLS.index(s) for s in ("a", "a", "", "a", "b", " ", " ", "c", "")]
    scores = torch.full((len(path), len(SYMBOLS)), -9.0)
    scores[torch.arange(len(path)), path] = 0.0
    assert speech_training.decode(scores) == "aab c"


@pytest.mark.parametrize(
    ("said", "heard", "edits"),
    [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("place", "lake", 2)],
)
def test_edit_distance(said: str, heard: str, edits: int) -> None:
    assert speech_training.edit_distance(said, heard) == edits


def test_gain_is_exact_and_noise_only_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    mel = torch.randn(4, 80, 9)
    monkeypatch.setattr(speech_training, "NOISE_SHARE", 0.0)
    louder = speech_training.augment(mel, torch.Generator().manual_seed(0))
    gain = (louder - mel).flatten(1)
    torch.testing.assert_close(gain, gain[:, :1].expand_as(gain), rtol=0, atol=1e-5)
    low, high = (bound / speech_training.DB_PER_LOG10 for bound in speech_training.GAIN_DB)
    assert ((gain >= low - 1e-5) & (gain <= high + 1e-5)).all()
    monkeypatch.setattr(speech_training, "NOISE_SHARE", 1.0)
    monkeypatch.setattr(speech_training, "GAIN_DB", (0.0, 0.0))
    noisy = speech_training.augment(mel, torch.Generator().manual_seed(0))
    assert (noisy >= mel - 1e-5).all()
    assert torch.isfinite(noisy).all()
    silence = torch.full((1, 80, 3), -10.0)
    assert (
        speech_training.augment(silence, torch.Generator()) >= speech_training.FLOOR_LOG10
    ).all()


def test_batches_are_functions_of_seed_and_step(store: Store) -> None:
    clips = speech_training.clips_of([store], "train", needs="f0")
    speech = speech_training.Versions(clips, seed=0)
    settings: dict[str, Any] = {"batch_size": 3, "frames": 80, "seed": 4}
    mel, f0 = speech_training.f0_batch(speech, step=1, **settings)
    other, _ = speech_training.f0_batch(speech, step=2, **settings)
    again, _ = speech_training.f0_batch(speech_training.Versions(clips, seed=0), step=1, **settings)
    assert mel.shape == (3, 80, 80)  # longer than a clip: continued by its mirror image
    assert torch.equal(mel, again)
    assert not torch.equal(mel, other)
    assert f0.shape == (3, 80)
    assert ((f0 > 50) & (f0 < 600)).all()


def test_content_batches_hold_whole_clips_and_their_text(store: Store) -> None:
    clips = speech_training.clips_of([store], "train", needs="transcript")
    batch = speech_training.content_batch(clips, batch_size=3, seed=0, step=1)
    assert batch.log_mel.shape == (3, 80, int(batch.frames.max()))
    text = speech_training.encode("bin blue at f two now")
    assert batch.targets.tolist() == text * 3
    assert batch.lengths.tolist() == [len(text)] * 3


def test_stretching_reads_between_frames() -> None:
    x = torch.tensor([[0.0, 2.0, 4.0]])
    places = torch.tensor([0.0, 0.5, 1.5, 2.0, 3.0])
    assert speech_training._stretch(x, places).tolist() == [[0.0, 1.0, 3.0, 4.0, 4.0]]


def test_clips_without_a_label_are_left_out(tmp_path: Path) -> None:
    silent = make_store(tmp_path, corpus="silent", kind="audio", genders="f", transcript="?!")
    long = make_store(
        tmp_path, corpus="long", kind="audio", genders="f", transcript="much too long " * 9
    )
    faces = make_store(tmp_path, corpus="faces", kind="image", genders="f")
    stores = [silent, long, faces]
    assert speech_training.clips_of(stores, "train", needs="transcript") == []
    assert len(speech_training.clips_of(stores, "train", needs="f0")) == 4
    unknown = dataclasses.replace(silent, f0=np.full_like(silent.f0, np.nan))
    assert speech_training.clips_of([unknown], "train", needs="f0") == []


@pytest.mark.parametrize("change", [speech_training.resampled, speech_training.synthesised])
def test_a_changed_voice_has_the_pitch_of_its_label(store: Store, change: Any) -> None:
    clip = speech_training.clips_of([store], "train", needs="f0")[0]
    wave, f0 = clip.store.waveform(clip.item), clip.f0().numpy()
    f0[20:24] = 0.0  # a voiceless stretch
    for seed in range(3):
        new, label = change(wave, f0, np.random.default_rng(seed))
        assert 0 <= len(label) * MEL.hop - len(new) <= MEL.hop
        assert (label == 0).sum() >= 2
        place = int(np.flatnonzero(label)[0]) + 5
        piece = new[place * MEL.hop :][: 8 * MEL.hop] * np.hanning(8 * MEL.hop)
        spectrum = np.abs(np.fft.rfft(piece, 1 << 16)) * (MEL.sample_rate / (1 << 16) > 0)
        at = np.arange(len(spectrum)) * MEL.sample_rate / (1 << 16)
        spectrum[(at < 0.7 * label[place]) | (at > 1.5 * label[place])] = 0.0
        assert at[spectrum.argmax()] == pytest.approx(label[place], rel=0.03)
        assert abs(label[place] / f0[0] - 1) > 0.005


@pytest.mark.parametrize("hertz", [64.0, 68.0])
def test_the_envelope_of_the_lowest_voices_is_kept(hertz: float) -> None:
    class Middle:  # draws that change nothing
        def uniform(self, low: float, high: float) -> float:
            return (low + high) / 2

    time = np.arange(MEL.sample_rate) / MEL.sample_rate
    partials = hertz * np.arange(1, int(3000 / hertz))[:, None]
    formants = sum(1 / (1 + ((partials - at) / 90) ** 2) for at in (500, 1500, 2500))
    wave = (0.02 * (formants * np.cos(2 * np.pi * partials * time)).sum(0)).astype(np.float32)
    f0 = np.full(len(wave) // MEL.hop + 1, hertz, np.float32)
    new, _ = speech_training.synthesised(wave, f0, Middle())  # type: ignore[arg-type]
    before, after = (log_mel(torch.from_numpy(x[: len(wave)]))[:, 10:70] for x in (wave, new))
    loud = before > before.max() - 1.5
    assert 20 * float((after - before)[loud].abs().mean()) < 2.0  # dB; 7 without the floor


def test_versions_are_drawn_evenly_over_corpora_and_made_once(store: Store, tmp_path: Path) -> None:
    other = make_store(tmp_path, corpus="vctk", kind="audio", genders="f", seconds=0.6)
    clips = speech_training.clips_of([store, store, other], "train", needs="f0")
    speech = speech_training.Versions(clips, seed=0)
    assert [len(rows) for rows in speech.corpora] == [8, 2]
    assert torch.equal(speech.version(0, 0)[0], clips[0].log_mel())
    mel, f0 = speech.version(0, 1)
    assert mel.shape == (80, len(f0))
    assert speech.version(0, 1)[1] is f0
    assert not torch.equal(speech.version(0, 3)[1][:10], f0[:10])
    drawn = speech.draw(200, torch.Generator().manual_seed(0))
    pitches = [round(float(f0[3])) for _, f0 in drawn]
    own = sum(abs(pitch - PITCH_HZ["f"]) < 1 for pitch in pitches)
    assert 20 < own < 80  # 0.4 of those of a woman's corpus, and of half of the others


def test_another_recording_is_a_filter_where_nothing_reverberates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mel, generator = torch.randn(3, 80, 50), torch.Generator().manual_seed(0)
    monkeypatch.setattr(speech_training, "BAND_SHARE", 0.0)
    change = speech_training.another_recording(mel, generator, rooms=0.0) - mel
    torch.testing.assert_close(change, change[..., :1].expand_as(change), rtol=0, atol=1e-4)
    assert (change[0, :, 0] - change[1, :, 0]).abs().max() > 0.05
    monkeypatch.setattr(speech_training, "CURVE_LOG10", 0.0)
    click = torch.full((2, 80, 50), -5.0)
    click[..., 10] = 0.0
    heard = speech_training.another_recording(click, generator, rooms=1.0)
    assert (heard >= click - 1e-4).all()
    assert (heard[..., 11] > -2.0).all()  # an echo, which decays
    assert (heard[..., 11:20].diff(dim=-1) <= 1e-4).all()


# Measures


def test_pitch_score_by_hand() -> None:
    score = speech_training.PitchScore()
    f0 = torch.tensor([0.0, 0.0, 100.0, 100.0, 200.0])
    score.add(f0, torch.tensor([0.0, 90.0, 0.0, 125.0, 210.0]))
    found = score.measures()
    assert found["voicing_error"] == pytest.approx(2 / 5)
    assert found["gross_pitch_error"] == pytest.approx(1 / 2)
    assert found["f0_correlation"] == pytest.approx(1.0)
    assert speech_training.PitchScore().measures() == {"voicing_error": 0.0}


def test_character_error_counts_against_the_transcript(store: Store, tmp_path: Path) -> None:
    store_of_one = make_store(tmp_path, corpus="vctk", kind="audio", genders="f", transcript="bed")
    network = ContentNetwork(content_width=8, content_channels=4, depth=1).eval()
    torch.nn.init.constant_(network.head[-1].weight, 0.0)
    torch.nn.init.constant_(network.head[-1].bias, 0.0)
    network.head[-1].bias.data[SYMBOLS.index("b")] = 9.0  # always hears one "b"
    found = speech_training.content_measures(network, [store], statistics(store))
    assert found["val/clips"] == 2
    text = "bin blue at f two now"
    assert set(found) == {"val/clips", "val/character_error"}
    both = speech_training.content_measures(network, [store, store_of_one], statistics(store))
    assert both["val/vctk/clips"] == 1
    assert both["val/grid/character_error"] == found["val/character_error"]
    assert both["val/vctk/character_error"] == pytest.approx(2 / 3)
    assert found["val/character_error"] == pytest.approx((len(text) - 1) / len(text))


# Training


def test_rate_rises_and_falls() -> None:
    rates = [speech_training.rate(step, steps=100, lr=1.0) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] == pytest.approx(speech_training.FINAL_SHARE)
    assert speech_training.rate(1, steps=1, lr=1.0) == 1.0


def test_f0_network_learns_two_tones(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_training, "AS_IT_IS", 1.0)  # other tones would take longer to learn
    said: list[dict[str, Any]] = []
    model = config.ModelConfig(f0_width=8, mel_frames=80)
    state = torch.get_rng_state()
    network, found = speech_training.train_f0(
        [store],
        model=model,
        standardiser=statistics(store),
        steps=60,
        batch_size=4,
        lr=5.0e-3,
        seed=0,
        device="cpu",
        on_log=said.append,
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert [record["step"] for record in said] == list(range(3, 61, 3))
    assert said[-1]["network"] == "f0"
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert found["val/voicing_error"] == 0.0
    assert found["val/gross_pitch_error"] < 0.1
    assert found["val/f0_correlation"] > 0.9
    assert {"val/f/voicing_error", "val/m/voicing_error"} <= set(found)


def test_content_network_learns(store: Store) -> None:
    said: list[dict[str, Any]] = []
    model = config.ModelConfig(content_width=16, content_channels=8)
    speech_training.train_content(
        [store],
        model=model,
        standardiser=statistics(store),
        steps=60,
        batch_size=4,
        lr=1.0e-2,
        seed=0,
        device="cpu",
        on_log=said.append,
    )
    assert all(math.isfinite(record["loss"]) for record in said)
    assert said[-1]["loss"] < 0.9 * said[0]["loss"]


def test_frames_where_f0_leaps_do_not_teach_the_pitch() -> None:
    f0 = torch.full((1, 20), 200.0)
    f0[0, 9:12] = 400.0
    f0[0, 15:] = 0.0
    classes = torch.randn(1, 20, PITCH_CLASSES, requires_grad=True)
    voicing = torch.zeros(1, 20, requires_grad=True)
    out = F0Output(voicing, voicing, voicing, voicing, classes)
    speech_training.f0_loss(out, f0)["loss"].backward()
    assert classes.grad is not None
    assert voicing.grad is not None
    silent = (classes.grad[0].abs().sum(1) == 0).nonzero().flatten().tolist()
    assert silent == [8, 9, 11, 12, 15, 16, 17, 18, 19]
    assert (voicing.grad != 0).all()


def test_a_loss_that_is_not_finite_stops_training(store: Store) -> None:
    broken = Standardiser(torch.full((80,), 1e38), torch.full((80,), 1e-6))
    with pytest.raises(TrainingError, match=r"step 1;.*f0_lr"):
        speech_training.train_f0(
            [store],
            model=config.ModelConfig(f0_width=4, mel_frames=80),
            standardiser=broken,
            steps=1,
            batch_size=2,
            lr=1e-3,
            seed=0,
            device="cpu",
        )


# Keeping and finding


def test_networks_are_kept_and_found(store: Store, cfg: RunConfig) -> None:
    said: list[Any] = []
    for name in ("f0", "content"):
        first = pretrain.ensure_network(name, cfg, [store], statistics(store), said.append)
        assert first.path.parent == Path(cfg.run_root, "auxiliary")
        assert first.path.name.startswith(f"{name}_")
        steps = len([record for record in said if "step" in record])
        second = pretrain.ensure_network(name, cfg, [store], statistics(store), said.append)
        assert len([record for record in said if "step" in record]) == steps
        found = second.network.state_dict()
        assert all(torch.equal(v, found[k]) for k, v in first.network.state_dict().items())
        assert not second.network.training
        assert first.metrics == second.metrics


def test_record_says_what_the_weights_follow_from(store: Store, cfg: RunConfig) -> None:
    kept = pretrain.ensure_network("f0", cfg, [store], statistics(store))
    record = keeping.read_record(kept.path)
    assert record["contract"] == MEL.as_dict()
    assert record["manifests"] == {"grid": store.manifest_hash}
    assert record["arguments"] == {"f0_width": cfg.model.f0_width, "mel_bins": 80}
    assert record["measures"] == kept.metrics
    assert record["training"]["data"]["grid"]["clips"] == 4
    assert record["training"]["data"]["grid"]["held_out"] == []
    np.testing.assert_allclose(record["standardiser"]["mean"], statistics(store).mean)


@pytest.mark.parametrize("change", ["seed", "steps", "width", "standardiser"])
def test_another_recipe_is_another_network(store: Store, cfg: RunConfig, change: str) -> None:
    standardiser = statistics(store)
    first = pretrain.ensure_network("f0", cfg, [store], standardiser)
    if change == "seed":
        cfg = dataclasses.replace(cfg, seed=cfg.seed + 1)
    elif change == "steps":
        cfg = dataclasses.replace(cfg, pretrain=dataclasses.replace(cfg.pretrain, f0_steps=3))
    elif change == "width":
        cfg = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, f0_width=8))
    else:
        standardiser = Standardiser(standardiser.mean + 0.1, standardiser.std)
    assert pretrain.ensure_network("f0", cfg, [store], standardiser).path != first.path


def test_damaged_weights_are_refused(store: Store, cfg: RunConfig) -> None:
    kept = pretrain.ensure_network("content", cfg, [store], statistics(store))
    weights = kept.path / keeping.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-40])
    with pytest.raises(WeightsError, match="delete that folder"):
        pretrain.ensure_network("content", cfg, [store], statistics(store))
    weights.write_bytes(whole.replace(b'fmin\\": 80.0', b'fmin\\": 70.0'))
    with pytest.raises(DataError, match=r"fmin is 70\.0"):
        pretrain.load_network(kept.path)


def test_a_full_disk_leaves_nothing(
    store: Store, cfg: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "save_file", full)
    with pytest.raises(TrainingError, match="No space left"):
        pretrain.ensure_network("f0", cfg, [store], statistics(store))
    assert list(Path(cfg.run_root, "auxiliary").iterdir()) == []


def test_no_transcripts(store: Store, cfg: RunConfig, tmp_path: Path) -> None:
    mute = make_store(tmp_path / "data", corpus="voxceleb", kind="av", transcript="")
    arguments = (cfg, [mute], statistics(mute))
    with pytest.raises(WeightsError, match=r"no training clip with a transcript.*-p dataset mini"):
        pretrain.ensure_network("content", *arguments, fallback_stores=())
    said: list[Any] = []
    kept = pretrain.ensure_network("content", *arguments, said.append, fallback_stores=[store])
    record = keeping.read_record(kept.path)
    assert set(record["manifests"]) == {"voxceleb", "grid"}
    assert any("grid joins in" in record.get("message", "") for record in said)


def test_mini_stands_in_where_nothing_has_a_transcript(
    store: Store, cfg: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = make_store(tmp_path / "data", corpus="voxceleb", kind="av", transcript="")
    cfg = dataclasses.replace(cfg, data_root=str(tmp_path / "data"))
    asked: list[str] = []

    def open_or_make_mini(data_root: Any, corpora: Any, say: Any) -> list[Store]:
        asked.extend(corpora)
        return [store]

    monkeypatch.setattr("xfavot.data.prepare.open_or_make_mini", open_or_make_mini)
    pretrain.ensure_network("content", cfg, [mute], statistics(mute))
    assert asked == ["mini"]
    few = make_store(tmp_path / "data", corpus="grid", kind="av")
    pretrain.ensure_network("content", cfg, [few], statistics(few))
    assert asked == ["mini"]  # few transcripts do; mini is not made for more


def test_no_speech_at_all(cfg: RunConfig, store: Store, tmp_path: Path) -> None:
    faces = make_store(tmp_path / "data", corpus="celeba_hq", kind="image")
    with pytest.raises(DataError, match="no training clip with speech"):
        pretrain.ensure_network("f0", cfg, [faces], statistics(store))


def test_what_the_notebook_calls(store: Store, cfg: RunConfig) -> None:
    task = Pretrain.resolve(
        network="f0",
        dataset="grid",
        preset="smoke",
        steps=2,
        device="cpu",
        data_root=cfg.data_root,
        run_root=cfg.run_root,
    )
    pretrained = pretrain.pretrain(task.run, task.networks)
    assert set(pretrained.networks) == {"f0"}
    assert "val/voicing_error" in pretrained.summary()
    tracks = pretrained.tracks()
    assert set(tracks) == {"WORLD", "network"}
    assert tracks["WORLD"].shape == tracks["network"].shape
    lines = pretrained.transcripts().splitlines()
    assert lines[0].endswith(": bin blue at f two now")
