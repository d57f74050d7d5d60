"""The F0 and the content network that come with the package, on voices they were not trained on."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from librosa.sequence import dtw
from torch import Tensor
from torch.nn import functional

from xfavot import config, weights
from xfavot.audio.f0 import world_f0
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import Standardiser, log_mel
from xfavot.losses.terms import speech_consistency
from xfavot.mini.people import person, sex_and_rank, stream
from xfavot.mini.speak import ESPEAK, Espeak, become, sentences, voice_of
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network, track
from xfavot.training import pretrain
from xfavot.training.speech import pitch_measures

STATISTICS = Standardiser(torch.full((80,), -2.5), torch.full((80,), 0.9))
SEED = 7  # people of another seed than those trained on


def shipped(name: str) -> pretrain.Trained:
    return pretrain.load_network(weights.shipped(name), STATISTICS)


@pytest.mark.parametrize("name", ["f0", "content"])
def test_weights_fit_preset_mini_and_say_what_they_are(name: str) -> None:
    model = config.resolve(dataset="mini", preset="mini").model
    path = weights.shipped(name)
    said = shipped(name).record
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
    network = shipped("f0").network
    assert isinstance(network, F0Network)
    out = network(STATISTICS.standardise(log_mel(wave))[None, None])
    wanted = hz[::300]
    found, voicing = out.pitch[0, 32:], out.voicing[0]
    inside = slice(4, len(wanted) - 4)
    cents = 1200 * (found[inside].log2() - wanted[inside].log2()).abs()
    assert cents.median() < 50
    assert (voicing[36:-4] > 0).float().mean() > 0.9
    assert (voicing[:26] < 0).float().mean() > 0.9


def test_f0_of_real_speech_agrees_with_world(real_corpus: Path) -> None:
    network = shipped("f0").network
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
    _, path = dtw(C=torch.cdist(a.T[None], b.T[None], p=1.0)[0].numpy())
    first, second = path[::-1].T.copy()
    return a[:, first], b[:, second]


def test_content_tells_words_apart_and_voices_not() -> None:
    pytest.importorskip("espeakng_loader")
    network = shipped("content").network
    assert isinstance(network, ContentNetwork)
    espeak, said = Espeak(), {}
    for number, (k, words) in itertools.product((1, 4, 9), enumerate(sentences(SEED, 0, 3))):
        voice = voice_of(person(number, seed=SEED), sex_and_rank(number)[1], ESPEAK)
        said_by, draw = espeak.say(words, voice), stream(SEED, "voice", number, k)
        wave = become(said_by, espeak.rate_hz, voice, draw)
        mel = log_mel(torch.from_numpy(np.asarray(wave, np.float32)))
        said[number, k] = network.features(STATISTICS.standardise(mel)[None, None])[0]
    loss: dict[bool, list[float]] = {True: [], False: []}
    for (a, words_a), (b, words_b) in itertools.combinations(said, 2):
        if (words_a == words_b) != (a == b):
            pair = same_length(said[a, words_a], said[b, words_b])
            loss[words_a == words_b].append(float(speech_consistency(*pair)))
    same, other = (torch.tensor(loss[key]) for key in (True, False))
    area = functional.relu(torch.sign(other[None] - same[:, None])).mean()
    assert len(same) == len(other) == 9
    assert area >= 0.9
