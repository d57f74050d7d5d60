"""The F0 and the content network that come with the package, on voices they were not trained on."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from librosa.sequence import dtw
from torch import Tensor

from xfavot import config, weights
from xfavot.audio.f0 import world_f0
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import Standardiser, log_mel
from xfavot.losses.terms import speech_consistency
from xfavot.mini import generate
from xfavot.mini.people import numbers, person
from xfavot.mini.speak import code, sentences
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network, track
from xfavot.training import pretrain
from xfavot.training.speech import character_error, decode, pitch_measures

STATISTICS = Standardiser(torch.full((80,), -2.5), torch.full((80,), 0.9))


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


def test_content_reads_people_it_never_heard_and_tells_words_apart() -> None:
    network, features, pairs = shipped("content").network, {}, []
    assert isinstance(network, ContentNetwork)
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
