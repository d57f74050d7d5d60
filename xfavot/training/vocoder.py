"""What the source-filter vocoder learns from: crops, scores, judges, measures.

The filters learn by :func:`energy_score` and, where asked for, from :class:`Judges`, the pitch by
cross-entropy with WORLD's F0; the two stacks share nothing. The loop is in `pretrain.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from xfavot.audio.mel import MEL, log_mel, mel_filterbank
from xfavot.audio.source_filter import (
    PITCH_CLASSES,
    PITCH_LOW_HZ,
    PITCH_OCTAVES,
    SourceFilterNetwork,
    SourceFilterVocoder,
    melody,
)
from xfavot.data.store import Store
from xfavot.errors import require_shape
from xfavot.training import speech
from xfavot.training.speech import Clip
from xfavot.training.step import frozen

# Batches for training the vocoder: crops of waveforms with their mel-spectrogram and WORLD's F0


CROP_FRAMES = 65  # 0.8 s
PITCH_SHIFT = 0.001  # standard deviation in natural-log F0, one draw a crop
PITCH_JITTER = 0.002  # the same, drawn every eighth frame
JITTER_FRAMES = 8
VOICING_FLIPS = 0.03  # share of the frames whose voicing is wrong
GAIN_DB = (-12.0, 6.0)
WIDE_BAND_HZ = 8_500.0  # a recording of 16 kHz has nothing above
NARROW_TOP_HZ = 7_600.0  # the mel-spectrogram ends here
SILENT_BAND = 2e-5  # RMS; rounding to 16 bits leaves 0.5e-5 there


def crops(
    clips: Sequence[Clip], *, batch_size: int, seed: int, step: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw crops, every second of speech with the same probability.

    Args:
        clips: clips of at least :data:`CROP_FRAMES` frames.
        batch_size: crops.
        seed, step: of the draw.

    Returns:
        Log10 mel (B, 80, T); F0 (B, T) Hz, 0 where unvoiced; the same with errors; waveform
        (B, (T - 1) * 300); the end (B,) Hz of each recording's band.
    """
    generator = speech.generator_of(seed, step)
    starts = torch.tensor([clip.item.frame_count - CROP_FRAMES + 1 for clip in clips])
    ends = starts.cumsum(0)
    places = (torch.rand(batch_size, generator=generator) * ends[-1]).long()
    rows = torch.searchsorted(ends, places, right=True)
    mels, pitches, waves = [], [], []
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        clip = clips[row]
        first = place - int(ends[row] - starts[row])
        last = first + CROP_FRAMES
        mels.append(clip.log_mel()[:, first:last])
        pitches.append(clip.f0()[first:last])
        samples = clip.store.waveform(clip.item)[first * MEL.hop : (last - 1) * MEL.hop]
        waves.append(torch.from_numpy(samples))
    wave = torch.stack(waves)
    gain = torch.empty(batch_size, 1).uniform_(*GAIN_DB, generator=generator) / speech.DB_PER_LOG10
    mel = (torch.stack(mels) + gain[:, :, None]).clamp(min=speech.FLOOR_LOG10)
    f0 = torch.stack(pitches)
    return mel, f0, with_errors(f0, generator), wave * 10.0**gain, top_of_band(wave)


def with_errors(f0: Tensor, generator: torch.Generator) -> Tensor:
    """Shift and jitter F0 a little and get the voicing of some frames wrong.

    Args:
        f0: (B, T) Hz, 0 where unvoiced.
        generator: source of randomness.

    Returns:
        (B, T) Hz, 0 where said to be unvoiced.
    """
    batch, frames = f0.shape
    knots = torch.randn(batch, 1, frames // JITTER_FRAMES + 2, generator=generator)
    jitter = functional.interpolate(knots, size=frames, mode="linear")[:, 0]
    shift = torch.randn(batch, 1, generator=generator)
    pitch = melody(f0).pitch * (PITCH_JITTER * jitter + PITCH_SHIFT * shift).exp()
    flipped = torch.rand(batch, frames, generator=generator) < VOICING_FLIPS
    return pitch * ((f0 > 0) ^ flipped)


def top_of_band(waveform: Tensor) -> Tensor:
    """Tell how far the band of each recording (B, N) reaches: 12,000 or 7,600 Hz, (B,)."""
    spectrum = torch.fft.rfft(waveform)
    first = int(WIDE_BAND_HZ / MEL.sample_rate * waveform.shape[1])
    power = spectrum[:, first:].abs().square().sum(1) * 2 / waveform.shape[1] ** 2
    wide = power.sqrt() > SILENT_BAND
    return torch.where(wide, MEL.sample_rate / 2, NARROW_TOP_HZ)


# How far two waveforms are apart to the ear, and a score that averaging cannot cheat


RESOLUTIONS = (  # samples: transform, window (Hann), hop
    (MEL.n_fft, 2048, 512),
    (MEL.n_fft, MEL.win, MEL.hop),  # the mel contract's
    (512, 512, 128),
    (256, 240, 60),
    (128, 96, 24),
)
MEL_RESOLUTION = 1  # which of them makes the mel-spectrogram
FLOOR = 1e-4  # under the logarithm: white noise of this standard deviation (-80 dB)
LINEAR_WEIGHT = 1.0  # on the linear magnitudes beside the logarithmic
MEL_WEIGHT = 4.0  # on the log10 mel beside the magnitudes


class Views(NamedTuple):
    """A batch of waveforms as the distance sees it.

    Attributes:
        magnitudes: (B, F, T) for each of :data:`RESOLUTIONS`; white noise has those of its
            standard deviation.
        log_mel: (B, 80, T) log10.
    """

    magnitudes: tuple[Tensor, ...]
    log_mel: Tensor


def magnitudes(waveform: Tensor, transform: int, length: int, hop: int) -> Tensor:
    """Transform (B, N) samples by a Hann window of unit energy: (B, F, T), positive."""
    window = torch.hann_window(length, device=waveform.device)
    window = window / window.square().sum().sqrt()
    spectrum = torch.stft(waveform, transform, hop, length, window, return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    return (power + (0.1 * FLOOR) ** 2).sqrt()


def within(bins: int, top_hz: Tensor) -> Tensor:
    """Whether each of the bins of a transform lies in the band of each recording (B,): (B, F)."""
    hz = torch.linspace(0.0, MEL.sample_rate / 2, bins, device=top_hz.device)
    return hz <= top_hz[:, None]


def views(waveform: Tensor) -> Views:
    """Transform (B, N) samples at 24 kHz, N of at least 1025, for :func:`distance`."""
    found = [magnitudes(waveform, *resolution) for resolution in RESOLUTIONS]
    energy = torch.hann_window(MEL.win).square().sum().sqrt()
    bank = (mel_filterbank() * energy).to(waveform.device)  # (80, 1025), undoes the window's scale
    mel = (bank @ found[MEL_RESOLUTION] + MEL.floor).log10()  # (B, 80, T)
    return Views(tuple(found), mel)


def distance(a: Views, b: Views, top_hz: Tensor) -> Tensor:
    """Compare two batches of waveforms.

    Args:
        a, b: the waveforms' views.
        top_hz: (B,) Hz; magnitudes above are not compared.

    Returns:
        (B,): mean absolute difference of the natural logarithms of the magnitudes, that of the
        magnitudes relative to their mean (both averaged over the resolutions), and that of the
        log10 mels, weighted.

    Raises:
        ShapeError: the shapes differ.
    """
    require_shape("log mels", b.log_mel, a.log_mel.shape)
    total = a.log_mel.new_zeros(a.log_mel.shape[0])
    for x, y in zip(a.magnitudes, b.magnitudes, strict=True):
        share = within(x.shape[1], top_hz).to(x.dtype)
        share = share / share.sum(1, keepdim=True)  # (B, F), sums to one
        log = ((x + FLOOR).log() - (y + FLOOR).log()).abs().mean(2)  # (B, F)
        linear = (x - y).abs().mean(2)
        level = (share * (x + y).mean(2)).sum(1, keepdim=True).detach() / 2 + FLOOR
        total = total + (share * (log + LINEAR_WEIGHT * linear / level)).sum(1)
    mel = (a.log_mel - b.log_mel).abs().mean((1, 2))
    return total / len(RESOLUTIONS) + MEL_WEIGHT * mel


def energy_score(first: Tensor, second: Tensor, truth: Tensor, top_hz: Tensor) -> Tensor:
    """Generalised energy distance from two independent outputs for one input.

    Args:
        first, second: (B, N), made with different randomness.
        truth: (B, N).
        top_hz: as in :func:`distance`.

    Returns:
        Scalar; lowest on average where the outputs are distributed as the truth is.

    Raises:
        ShapeError: the shapes differ.
    """
    a, b, x = views(first), views(second), views(truth)
    near = distance(a, x, top_hz) + distance(b, x, top_hz)
    return (near - distance(a, b, top_hz)).mean()


# Judges, which are to tell recordings from what the network makes


JUDGED = ((1024, 256), (384, 96), (128, 32))  # samples: transform and Hann window, hop
JUDGED_MIDDLE, JUDGED_SPREAD = -6.0, 2.5  # of natural-log magnitudes
JUDGE_WIDTH = 16
JUDGES_ALONE = 250  # steps before the network hears them
FEATURE_WEIGHT = 2.0  # of the differences between their maps, beside their verdicts


class Judges(nn.Module):
    """Networks of convolutions on spectrograms of three resolutions (Jang et al. 2021, UnivNet)."""

    def __init__(self) -> None:
        """Build the layers."""
        super().__init__()
        narrow, wide = JUDGE_WIDTH, 2 * JUDGE_WIDTH
        layers = [  # channels in and out, kernel and stride over frequency
            *((1, narrow, 9, 2), (narrow, narrow, 9, 2), (narrow, wide, 9, 2)),
            *((wide, wide, 5, 2), (wide, wide, 3, 1), (wide, 1, 3, 1)),
        ]
        self.stacks = nn.ModuleList(
            nn.ModuleList(
                weight_norm(nn.Conv2d(a, b, (k, 3), stride=(s, 1), padding=(k // 2, 1)))
                for a, b, k, s in layers
            )
            for _ in JUDGED
        )

    def forward(self, waveform: Tensor, top_hz: Tensor) -> list[list[Tensor]]:
        """Return the maps of every layer, the verdict last, at every resolution.

        Args:
            waveform: (B, N).
            top_hz: (B,) Hz; magnitudes above are not seen.
        """
        found = []
        for (size, hop), stack in zip(JUDGED, self.stacks, strict=True):
            x = (magnitudes(waveform, size, size, hop) + FLOOR).log()
            x = (x - JUDGED_MIDDLE) / JUDGED_SPREAD * within(x.shape[1], top_hz).unsqueeze(2)
            x, maps = x.unsqueeze(1), list[Tensor]()
            *inner, verdict = cast(nn.ModuleList, stack)
            for layer in inner:
                x = functional.leaky_relu(layer(x), 0.1)
                maps.append(x)
            found.append([*maps, verdict(x)])
        return found


def verdicts(judges: Judges, made: Tensor, truth: Tensor, top_hz: Tensor) -> tuple[Tensor, Tensor]:
    """What the judges have to learn, and what the network has to learn from them.

    Args:
        judges: on the device of the sounds.
        made: (B, N), with gradients; those of the judges come from a copy without.
        truth: (B, N) recordings.
        top_hz: (B,) as in :class:`Judges`.

    Returns:
        Squared errors of the judges (Mao et al. 2017), and the network's: how far verdicts on what
        it makes are from "recorded", and :data:`FEATURE_WEIGHT` times how far maps are apart.
    """
    real, fake = judges(truth, top_hz), judges(made.detach(), top_hz)
    pairs = list(zip(real, fake, strict=True))
    learnt = [(r[-1] - 1).square().mean() + f[-1].square().mean() for r, f in pairs]
    with frozen(judges):
        seen = judges(made, top_hz)
    heard = []
    for known, maps in zip(real, seen, strict=True):
        apart = [(a.detach() - b).abs().mean() for a, b in zip(known[:-1], maps[:-1], strict=True)]
        heard.append((maps[-1] - 1).square().mean() + FEATURE_WEIGHT * torch.stack(apart).mean())
    return torch.stack(learnt).mean(), torch.stack(heard).mean()


MEASURED_CLIPS = 24  # of a held-out split


def losses(
    network: SourceFilterNetwork,
    clips: Sequence[Clip],
    *,
    batch_size: int,
    seed: int,
    step: int,
    judges: Judges | None = None,
    weight: float = 0.0,
) -> dict[str, Tensor]:
    """Return the energy score of two renderings, and the losses of pitch on disturbed mels.

    Args:
        network: on the device where to train.
        clips, batch_size, seed, step: as in :func:`crops`; what is drawn is the same everywhere.
        judges, weight: networks that learn beside it, and how much it heeds them after
            :data:`JUDGES_ALONE` steps.

    Returns:
        loss, score, pitch, voicing: scalars; with judges also judges and heard (:func:`verdicts`).
    """
    batch = crops(clips, batch_size=batch_size, seed=seed, step=step)
    generator = speech.generator_of(seed + 1, step)
    log_mel, f0, wrong_f0, waveform, top_hz = (x.to(network.mean.device) for x in batch)
    tune = melody(wrong_f0)
    filters = network.filters(log_mel, tune)
    first, second = (network.render(filters, tune.pitch, generator) for _ in range(2))
    score = energy_score(first, second, waveform, top_hz)
    heard = speech.augment(batch[0], generator).to(network.mean.device)
    octaves = (f0.clamp(min=PITCH_LOW_HZ) / PITCH_LOW_HZ).log2()
    place = octaves * ((PITCH_CLASSES - 1) / PITCH_OCTAVES)
    pitch = speech.pitch_losses(*network.pitch_logits(heard), place, f0, f0 > 0)
    found = {"loss": score + pitch.pop("loss"), "score": score, **pitch}
    if judges is not None:
        made = first if step > JUDGES_ALONE else first.detach()
        found["judges"], found["heard"] = verdicts(judges, made, waveform, top_hz)
        found["loss"] = found["loss"] + found["judges"] + weight * found["heard"]
    return found


def vocoder_measures(vocoder: SourceFilterVocoder, stores: Sequence[Store]) -> dict[str, float]:
    """Measure copy synthesis on clips not trained on, whole clips one by one.

    Returns:
        For each held-out split with clips: `val/mel_l1` (log10 units), `val/distance`
        (:func:`distance`), `val/clips`.
    """
    found: dict[str, float] = {}
    for split in speech.HELD_OUT:
        clips = speech.held_out(stores, split, needs="f0")
        clips = [clip for clip in clips if clip.item.frame_count >= CROP_FRAMES]
        mels, apart = [], []
        for clip in clips[:: -(-len(clips) // MEASURED_CLIPS) or 1]:
            wave = torch.from_numpy(clip.store.waveform(clip.item))
            out = torch.from_numpy(vocoder(clip.log_mel(), length=len(wave)))
            mels.append(float((log_mel(out) - log_mel(wave)).abs().mean()))
            pair = views(out[None]), views(wave[None])
            apart.append(float(distance(*pair, top_of_band(wave[None]))))
        if mels:
            found |= {f"{split}/mel_l1": fmean(mels), f"{split}/distance": fmean(apart)}
            found[f"{split}/clips"] = float(len(mels))
    return found
