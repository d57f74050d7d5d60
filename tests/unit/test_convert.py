"""Conversion for people: every task, any size and length, provenance, errors, grids."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Patch, refuses
from tests.unit.store_factory import face, make_store, provenance_of, tone
from xfavot import convert
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL, Standardiser
from xfavot.audio.vocoder import GriffinLim
from xfavot.config import LossConfig, ModelConfig, RunConfig, TrainConfig
from xfavot.convert import Converter, Task
from xfavot.convert import converter as converter_convert
from xfavot.data import sample
from xfavot.errors import ConfigError, DataError
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT
from xfavot.training.checkpoint import LoadedModel

SIZE = 32
FACE = face((90, 60, 40), 128)
OTHER = face((20, 160, 90), 128)
VOICE = tone(120.0, 1.0, np.random.default_rng(0))
SPEAKERS = ("toy/s1", "toy/s2")


def loaded(sizes: Mapping[str, int] | None = None, **changes: Any) -> LoadedModel:
    torch.manual_seed(0)
    image = {"image_size": SIZE, "image_width": 4, "image_max_width": 8, "image_levels": 2}
    audio = {"mel_frames": 80, "audio_width": 4, "audio_max_width": 8, "speakers": 2}
    frozen = {"f0_width": 4, "f0_channels": 4, "content_width": 8, "content_channels": 4}
    styles = {"style_dim": 8, "latent_dim": 4, "mapping_width": 8}
    model = ModelConfig(**image | audio | frozen | styles | (sizes or {}))
    networks = {"nets": XFaVoT(model), "f0": F0Network.from_config(model)}
    networks["content"] = ContentNetwork.from_config(model, depth=1)
    parts: dict[str, Any] = {
        **{name: network.requires_grad_(False).eval() for name, network in networks.items()},
        "path": Path("toy"),
        "standardiser": Standardiser(torch.full((80,), -2.0), torch.ones(80)),
        "config": RunConfig(name="toy", model=model),
        "speakers": SPEAKERS,
        "step": 7,
    }
    return LoadedModel(**(parts | changes))


@pytest.fixture(scope="module")
def converter() -> Converter:
    return Converter(loaded(), name="toy", vocoder=GriffinLim(iterations=2))


def test_every_task(converter: Converter) -> None:
    guides: dict[str, dict[str, Any]] = {
        "a": {"voice_reference": VOICE, "gender": "m"},
        "i": {"face_reference": OTHER, "gender": "f", "reference_aligned": True},
        "z": {"latent": 3, "gender": "f"},
    }
    for first, guide in guides.items():
        image, again = (converter.convert_face(FACE, aligned=True, **guide) for _ in range(2))
        np.testing.assert_array_equal(image.image, again.image)
        assert image.provenance["task"].startswith(f"{first}2i ")
        assert (image.image.shape, image.image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        voice = converter.convert_voice(VOICE, **guide)
        assert voice.provenance["task"].startswith(f"{first}2a ")
        assert voice.log_mel.shape == (80, 81)
        assert voice.waveform.shape == (24_000,)
        assert voice.f0.shape == (81,)
        assert np.isfinite(voice.waveform).all()
    other = converter.convert_face(FACE, aligned=True, latent=4, gender="f")
    assert not np.array_equal(image.image, other.image)


@pytest.mark.parametrize("samples", [2400, 7200, 7201, 24_299, 314_401])
def test_speech_of_any_length_keeps_its_length(converter: Converter, samples: int) -> None:
    done = converter.convert_voice(np.resize(VOICE, samples), latent=0, gender="m")
    assert done.log_mel.shape[1] == samples // MEL.hop + 1
    assert len(done.waveform) == samples


@pytest.mark.parametrize("pause", ["noise at -60 dBFS", "between"])
def test_a_pause_leaves_the_words_beside_it_as_they_are(converter: Converter, pause: str) -> None:
    style = converter.style_of_latent(0, gender="f")
    words = np.resize(VOICE, 48_000)
    alone = converter.convert_voice(words, style=style).log_mel[:, 4:156]
    silence = np.zeros(72_000, dtype=np.float32)
    noise = np.random.default_rng(0).standard_normal(72_000).astype(np.float32) * 1e-3
    given, first = {
        "noise at -60 dBFS": ([words, noise], 0),
        "between": ([words, silence, words], 400),
    }[pause]
    made = converter.convert_voice(np.concatenate(given), style=style).log_mel
    assert abs(20.0 * float(np.median(made[:, first + 4 : first + 156] - alone))) < 1.5  # dB
    still = converter.analyse_voice(np.concatenate(given))[0]
    quiet = ~converter_convert.speech_frames(torch.from_numpy(still)).numpy()
    assert quiet.mean() > 0.25
    np.testing.assert_array_equal(made[:, quiet], still[:, quiet])  # a pause is not converted


def test_quiet_sounds_between_words_are_speech() -> None:
    loud = torch.zeros(80, 100)
    loud[:, 40:60] = -1.5  # 30 dB down for a quarter of a second
    assert bool(converter_convert.speech_frames(loud).all())
    loud[:, 40:60] = -2.5
    loud[:, 80:88] = -9.0  # a tenth of a second: a stop, not a pause
    speech = converter_convert.speech_frames(loud)
    assert speech.nonzero().flatten().tolist() == [*range(42), *range(58, 100)]
    assert bool(converter_convert.speech_frames(torch.full((80, 30), -10.0)).all())


@pytest.mark.parametrize("frames", [80, 960, 964, 1824, 1828, 4804])
def test_windows_cover_and_join_without_a_change(frames: int) -> None:
    spans = converter_convert.spans(frames)
    assert (spans[0][0], spans[-1][1]) == (0, frames)
    assert all((b - a) % 4 == 0 and b - a <= converter_convert.WINDOW_FRAMES for a, b in spans)
    overlaps = [p[1] - q[0] for p, q in itertools.pairwise(spans)]
    assert all(overlap >= converter_convert.OVERLAP_FRAMES for overlap in overlaps)
    mel = torch.randn(1, 1, 2, frames)
    torch.testing.assert_close(converter_convert.joined(mel, lambda x: x), mel)
    lengths = [b - a for a, b in spans]
    mean = converter_convert.mean(mel, lambda x: torch.full((1, 3), float(x.shape[-1])))
    assert mean[0].tolist() == pytest.approx([sum(n * n for n in lengths) / sum(lengths)] * 3)


def test_gender_of_a_voice_is_estimated_by_the_classifier(converter: Converter) -> None:
    style = converter.style_of_voice(VOICE)
    assert style.gender in ("f", "m")
    assert style.provenance["gender"] == f"{style.gender} (estimated by C_A)"
    assert converter.style_of_voice(VOICE, gender="f").provenance["gender"] == "f (given)"


def test_saved_files_say_how_they_were_made(converter: Converter, tmp_path: Path) -> None:
    done = converter.convert_face(FACE, aligned=True, latent=3, gender="f")
    with Image.open(done.save(tmp_path / "face.png")) as image:
        np.testing.assert_array_equal(np.asarray(image), done.image)
        assert image.info["task"] == "z2i (guidance to output)"
        assert image.info["seed"] == "3"
        assert "synthetic" in image.info
    voice = converter.convert_voice(VOICE, latent=3, speaker="toy/s2")
    path = voice.save(tmp_path / "voice.wav")
    assert provenance_of(path)["speaker"] == "toy/s2"
    assert provenance_of(path)["vocoder"] == "griffin_lim"
    assert len(load_waveform(path)) == len(voice.waveform)
    again = converter.convert_voice(path, voice_reference=path)
    assert again.provenance["source"] == "voice.wav"
    refuses(ConfigError, r"ends in \.wav", voice.save, tmp_path / "voice.mp3")


def test_faces_come_as_paths_pictures_and_arrays(converter: Converter, tmp_path: Path) -> None:
    picture = Image.fromarray(FACE)
    picture.save(tmp_path / "face.png")
    grey = np.full((64, 64), 120, np.uint8)
    for given in (tmp_path / "face.png", str(tmp_path / "face.png"), picture, FACE, grey):
        done = converter.convert_face(given, aligned=True, latent=0, gender="f")
        assert done.image.shape == (SIZE, SIZE, 3)
    means = FACE.reshape(SIZE, 4, SIZE, 4, 3).mean((1, 3)).round().astype(np.uint8)
    np.testing.assert_array_equal(converter_convert.resize_face(FACE, SIZE), means)


def test_a_face_of_any_size_is_found_and_aligned(converter: Converter, monkeypatch: Patch) -> None:
    large = np.zeros((300, 500, 3), np.uint8)
    points = np.array([[230, 120], [270, 120], [250, 145], [235, 165], [265, 165]], np.float32)
    monkeypatch.setattr(converter_convert, "detect", lambda images: [points])
    assert converter.convert_face(large, latent=0, gender="f").image.shape == (SIZE, SIZE, 3)
    monkeypatch.setattr(converter_convert, "detect", lambda images: [None])
    match = "500x300 pixels and no face was found"
    refuses(DataError, match, converter.convert_face, large, **BY_CODE)


BY_CODE: dict[str, Any] = {"latent": 0, "gender": "f"}
BAD: list[tuple[str, Any, dict[str, Any], type[Exception], str]] = [
    ("face", FACE[:20, :20], BY_CODE, DataError, "at least 32"),
    ("face", FACE[:100], BY_CODE, DataError, "square"),
    ("face", FACE.astype(np.float32), BY_CODE, DataError, "uint8"),
    ("face", None, BY_CODE, DataError, "uint8"),
    ("voice", VOICE[:1000], BY_CODE, DataError, r"at least 0\.1 s"),
    ("voice", np.zeros(24_000, np.float32), BY_CODE, DataError, "silent"),
    ("voice", np.full(24_000, np.nan, np.float32), BY_CODE, DataError, "not finite"),
    ("voice", np.zeros((2, 24_000), np.float32), BY_CODE, DataError, "mono"),
    ("voice", "no/such/file.wav", BY_CODE, DataError, "No such file"),
    ("face", FACE, {}, ConfigError, "0 guidances"),
    ("face", FACE, {"latent": 0, "voice_reference": VOICE}, ConfigError, "2 guidances"),
    ("face", FACE, BY_CODE | {"speaker": "toy/s1"}, ConfigError, "exactly one of them"),
    ("face", FACE, {"latent": 0, "speaker": "toy/s9"}, ConfigError, "'toy/s1', 'toy/s2'"),
    ("face", FACE, {"latent": -1, "gender": "f"}, ConfigError, "as seed"),
    ("face", FACE, {"latent": 0, "gender": "x"}, ConfigError, 'expected "f", "m"'),
    ("face", FACE, {"face_reference": FACE}, ConfigError, 'give it, "f" or "m"'),
    ("voice", VOICE, {"voice_reference": VOICE, "speaker": "toy/s1"}, TypeError, "speaker"),
]


def test_bad_input(converter: Converter) -> None:
    aligned = partial(converter.convert_face, aligned=True)
    for kind, given, guide, error, match in BAD:
        convert = aligned if kind == "face" else converter.convert_voice
        refuses(error, match, convert, given, **guide)


def test_vocoders_and_devices() -> None:
    usual = Converter(loaded())
    done = usual.convert_voice(VOICE[:9001], latent=0, gender="f")
    assert done.provenance["vocoder"] == usual.vocoder.name == "source_filter"
    assert (len(done.waveform), bool(np.isfinite(done.waveform).all())) == (9001, True)
    assert Converter(loaded(), vocoder="griffin_lim").vocoder.name == "griffin_lim"
    other = GriffinLim(iterations=1)
    other.contract = dataclasses.replace(MEL, fmin=0.0)
    for given, match in (
        ({"vocoder": other}, r"vocoder griffin_lim.*fmin is 0\.0"),
        ({"vocoder": "wavenet"}, "vocoder is 'wavenet'"),
        ({"device": "nonsense"}, "nonsense"),
    ):
        refuses((ConfigError, DataError), match, Converter, loaded(), **given)


def test_an_image_only_checkpoint_converts_no_voice() -> None:
    alone = {"loss": LossConfig(xm=0.0), "train": TrainConfig(modalities=("image",))}
    config = RunConfig(model=loaded().config.model, **alone)
    images = Converter(loaded(config=config), name="images")
    convert_face, match = partial(images.convert_face, FACE, aligned=True), "trained on voices too"
    convert_face(latent=0, gender="f")
    refuses(ConfigError, match, convert_face, voice_reference=VOICE)
    refuses(ConfigError, match, images.convert_voice, VOICE, latent=0, gender="f")


def test_grids_of_held_out_samples(converter: Converter, tmp_path: Path) -> None:
    store = make_store(tmp_path, genders="ffmm", clips=3)
    grids = convert.sample_grids(converter, [store], count=2)
    assert set(grids) == {task.value for task in Task}
    for name, grid in grids.items():
        assert grid.task.value == name
        assert "split val" in grid.note
        assert len(grid.columns) == len(grid.rows) == len(grid.cells) == 2
        assert {panel.label[-2] for panel in grid.columns} == {"f", "m"}
        if grid.task.guidance != "latent":  # nobody is source and reference
            assert not {p.label for p in grid.columns} & {p.label for p in grid.rows}


def test_samples_of_corpora_apart_alternate_between_the_genders(tmp_path: Path) -> None:
    images = make_store(tmp_path, corpus="pictures", kind="image")
    voices = make_store(tmp_path, corpus="voices", kind="audio", genders="fffm")
    for count in (1, 2, 4, 40):
        drawn = sample.examples([voices], modality="voice", split="val", count=count)
        assert [e.gender for e in drawn] == ["f", "m", "f", "f"][:count]
        assert len({e.speaker for e in drawn}) == len(drawn)
    drawn = convert.samples([images, voices], count=3)
    shown = [(e.face is not None, e.waveform is not None) for e in drawn]
    assert shown == [(True, False)] * 3 + [(False, True)] * 3
    with pytest.raises(DataError, match="no voice of known gender in split 'val'"):
        sample.examples([images], modality="voice", split="val")


def test_only_heads_that_were_trained_are_offered_and_estimated(tmp_path: Path) -> None:
    """Data of one man: no gender but his can be asked for, and C_A cannot say another."""
    heads = {"G_I": [9], "G_A": [9], "E_I": [0, 9], "E_A": [0, 9]}
    heads |= {"M": [0, 9, 0, 4], "C_A": [0, 0, 0, 0]}
    his = Converter(loaded(trained=heads), name="one man", vocoder=GriffinLim(iterations=1))
    assert his.trained_genders("latent") == ("m",)
    assert his.speakers == ("toy/s2",)
    assert his.style_of_voice(VOICE).provenance["gender"] == "m (the only one trained)"
    assert his.style_of_face(FACE, aligned=True).gender == "m"
    only = "'f', but checkpoint one man has learnt only 'm'"
    for guide in ({"latent": 0}, {"voice_reference": VOICE}, {"face_reference": FACE}):
        refuses(ConfigError, only, his.style, **guide, gender="f")
    refuses(ConfigError, r"1 speakers.*\['toy/s2'\]", his.style_of_latent, 0, speaker="toy/s1")
    grids = convert.sample_grids(his, [make_store(tmp_path, genders="fm", clips=3)], count=2)
    assert [row.label for row in grids["z2a"].rows] == ["code 0 (m)", "code 1 (m)"]
    assert all("(m)" in row.label for grid in grids.values() for row in grid.rows)
    young = Converter(loaded(trained=heads | {"E_A": [5, 5], "M": [0] * 4, "G_I": [0]}), name="")
    assert (young.has("face"), young.has("voice")) == (False, True)
    refuses(ConfigError, r"C_A.*has not learnt", young.style_of_voice, VOICE)
    refuses(ConfigError, "has learnt none", young.style_of_latent, 0, gender="m")
