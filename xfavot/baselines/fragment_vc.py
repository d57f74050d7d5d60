"""Fragment-VC: a voice put together from fragments of the target's speech, found by attention.

Source: Lin, Chien, Lin, Lee, Lee, "FragmentVC: Any-to-any voice conversion by end-to-end extracting
and fusing fine-grained voice fragments with attention", ICASSP 2021, and the configuration that its
authors published; in the paper a compared system of Table 3 (App. F). What is said comes from
wav2vec 2.0 and asks, in three steps from coarse to fine, a spectrogram of the target; three layers
smooth what came back. Layers carry the names of the published checkpoints (:func:`published`).

Sizes: 48,008,256 parameters. Preset `mini` is ours: narrower layers, and in the place of wav2vec
2.0, whose weights are not here, the content network that listens in the method's own training. The
authors' WaveRNN is not read; published features become sound by Griffin-Lim's algorithm (A87).
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from xfavot.audio.io import Wave
from xfavot.audio.mel import MEL, mel_filterbank
from xfavot.baselines.adain_vc import EMPHASIS, deemphasised, phases, segment
from xfavot.baselines.system import System, Waveform
from xfavot.config import RunConfig, Section, TrainConfig
from xfavot.convert.converter import Converter, Task
from xfavot.data.batches import Batch, Batches, Samples
from xfavot.models.content import STRIDE, ContentNetwork
from xfavot.models.pretrained import pretrained
from xfavot.strict import option
from xfavot.training.pretrain import ensure_network
from xfavot.training.speech import generator_of
from xfavot.weights import external

# The published features: wav2vec 2.0, and a mel-spectrogram of pre-emphasised speech at 16 kHz


RATE, N_FFT, HOP = 16_000, 1304, 326  # window as long as the transform
HEARD_HOP = 320  # samples between two vectors of wav2vec 2.0
WAV2VEC, FEATURES = "wav2vec2_base", 768  # its folder among the fetched weights; values a vector
BANDS, FMIN_HZ, FMAX_HZ = 80, 80.0, 8_000.0
FLOOR = 1e-9  # magnitude


@cache
def listening() -> nn.Module:
    """Open wav2vec 2.0, frozen."""
    return pretrained("Wav2Vec2Model", WAV2VEC)


def resampled(wave: Tensor, old: int, new: int) -> Tensor:
    """Bring (N,) to another rate by its spectrum."""
    count = round(wave.shape[0] * new / old)
    spectrum = torch.fft.rfft(wave)[: count // 2 + 1]
    made: Tensor = torch.fft.irfft(spectrum, count)
    return made * (count / wave.shape[0])


class PublishedFeatures(nn.Module):
    """What the published networks hear: (768 + 80, T), wav2vec 2.0 at the times of a log mel.

    The authors pair both by number, 20 ms with 20.4 ms; here they are paired by time.
    """

    bank: Tensor

    def __init__(self) -> None:
        """Make the filters."""
        super().__init__()
        bank = mel_filterbank(n_fft=N_FFT, rate=RATE, bands=BANDS, fmin=FMIN_HZ, fmax=FMAX_HZ)
        self.register_buffer("bank", bank, persistent=False)

    def trim(self, wave: Wave) -> tuple[int, int]:
        """All of a clip."""
        return 0, len(wave)

    def _stft(self, wave: Tensor) -> Tensor:
        window = torch.hann_window(N_FFT, device=wave.device)
        return torch.stft(wave, N_FFT, HOP, N_FFT, window, return_complex=True)

    def _istft(self, spectrum: Tensor, samples: int) -> Tensor:
        window = torch.hann_window(N_FFT, device=spectrum.device)
        return torch.istft(spectrum, N_FFT, HOP, N_FFT, window, length=samples)

    def levels(self, wave: Tensor) -> Tensor:
        """(80, T) natural logarithms of (N,) at 16 kHz, brought to a peak of 1."""
        y = wave / wave.abs().max().clamp(min=FLOOR)
        y = torch.cat([y[:1], y[1:] - EMPHASIS * y[:-1]])
        return (self.bank @ self._stft(y).abs() + FLOOR).log()

    def forward(self, wave: Wave, *, heard: bool = True) -> Tensor:
        """Turn (N,) at 24 kHz into (848, T), or without what wav2vec 2.0 hears into (80, T)."""
        y = resampled(torch.from_numpy(wave).to(self.bank.device), MEL.sample_rate, RATE)
        mel = self.levels(y)
        if not heard:
            return mel
        with torch.no_grad():
            listener: Any = listening().to(y.device)
            found = listener(y[None]).last_hidden_state[0]  # (T', 768)
        times = torch.arange(mel.shape[1], device=y.device) * HOP / HEARD_HOP
        return torch.cat([found[times.round().long().clamp(max=len(found) - 1)].T, mel])

    def sound(self, x: Tensor, samples: int) -> Wave:
        """Invert (848, T) or (80, T) by Griffin-Lim's algorithm, with a peak of 1 at most."""
        count = round(samples * RATE / MEL.sample_rate)
        x = x[-BANDS:, : count // HOP + 1]
        sums = (self.bank @ self.bank.T).sum(0)
        wanted = self.bank.T @ (x.exp() / sums.where(sums > FLOOR, torch.ones_like(sums))[:, None])
        wave = phases(wanted, (x.shape[1] - 1) * HOP, self._stft, self._istft)
        wave = deemphasised(functional.pad(wave, (0, max(count - len(wave), 0))))[:count]
        wave = resampled(wave / wave.abs().max().clamp(min=1.0), RATE, MEL.sample_rate)
        return functional.pad(wave, (0, max(samples - len(wave), 0)))[:samples].cpu().numpy()


# The network. Everywhere: (B, T, C), two heads, norm after every part


HEADS = 2
KERNEL, POST_KERNEL, POST_WIDTH, POST_LAYERS = 9, 5, 512, 5
LAYERS = 3  # of extraction, and of smoothing
POST_DROPOUT = 0.5


class Layer(nn.Module):
    """Attention to oneself, then, where it reads, to references, then convolutions over time."""

    def __init__(
        self, width: int, hidden: int, dropout: float, *, reads: bool, keeps: bool = True
    ) -> None:
        """Make the layers; one that does not keep goes on with what it read alone."""
        super().__init__()
        self.reads, self.keeps, self.dropout = reads, keeps, nn.Dropout(dropout)
        attention = {"dropout": dropout, "batch_first": True}
        self.self_attn = nn.MultiheadAttention(width, HEADS, **attention)
        if reads:
            self.cross_attn = nn.MultiheadAttention(width, HEADS, **attention)
        self.conv1 = nn.Conv1d(width, hidden, KERNEL, padding=KERNEL // 2)
        self.conv2 = nn.Conv1d(hidden, width, 1)
        for number in range(2 + reads):
            self.add_module(f"norm{number + 1}", nn.LayerNorm(width))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """Map (B, T, C); `memory` (B, R, C) is read from."""
        norms = iter([part for name, part in self.named_children() if name.startswith("norm")])
        x = next(norms)(x + self.dropout(self.self_attn(x, x, x, need_weights=False)[0]))
        if memory is not None:
            y = self.dropout(self.cross_attn(x, memory, memory, need_weights=False)[0])
            x = next(norms)(x + y if self.keeps else y)
        y = self.conv2(self.conv1(x.transpose(1, 2)).relu()).transpose(1, 2)
        out: Tensor = next(norms)(x + self.dropout(y))
        return out


class Extraction(nn.Module):
    """What is said asks the target's speech: its deepest features first."""

    def __init__(self, features: int, width: int, hidden: int, dropout: float) -> None:
        """Make the layers."""
        super().__init__()
        how: dict[str, Any] = {"padding": 1, "padding_mode": "replicate"}
        for number in range(LAYERS):
            inputs = width if number else BANDS
            self.add_module(f"conv{number + 1}", nn.Conv1d(inputs, width, 3, **how))
        layers = nn.Linear(features, features), nn.ReLU(), nn.Linear(features, width)
        self.prenet = nn.Sequential(*layers)
        for number in range(LAYERS):
            layer = Layer(width, hidden, dropout, reads=True, keeps=number > 0)
            self.add_module(f"extractor{number + 1}", layer)

    def forward(self, heard: Tensor, mel: Tensor) -> Tensor:
        """Map (B, T, F) and a spectrogram (B, 80, R) to (B, T, C)."""
        parts, maps = dict(self.named_children()), list[Tensor]()
        for number in range(LAYERS):
            mel = parts[f"conv{number + 1}"](mel.relu() if number else mel)
            maps.append(mel.transpose(1, 2))
        x: Tensor = self.prenet(heard)
        for number, memory in enumerate(reversed(maps)):
            x = parts[f"extractor{number + 1}"](x, memory)
        return x


class FragmentNet(nn.Module):
    """All trained layers."""

    def __init__(self, features: int, width: int, hidden: int, dropout: float) -> None:
        """Make the layers."""
        super().__init__()
        self.unet = Extraction(features, width, hidden, dropout)
        smooth = [Layer(width, hidden, dropout, reads=False) for _ in range(LAYERS)]
        self.smoothers = nn.ModuleDict({"layers": nn.ModuleList(smooth)})
        self.mel_linear = nn.Linear(width, BANDS)
        widths, layers = [BANDS, *[POST_WIDTH] * (POST_LAYERS - 1), BANDS], list[nn.Module]()
        for number, (a, b) in enumerate(pairwise(widths), 1):
            layers += [nn.Conv1d(a, b, POST_KERNEL, padding=POST_KERNEL // 2), nn.BatchNorm1d(b)]
            layers += [nn.Tanh()] * (number < POST_LAYERS) + [nn.Dropout(POST_DROPOUT)]
        self.post_net = nn.Sequential(*layers)

    def forward(self, heard: Tensor, mel: Tensor) -> Tensor:
        """Map what is said (B, T, F) and the target's speech (B, 80, R) to (B, 80, T)."""
        x = self.unet(heard, mel)
        for layer in self.smoothers["layers"].children():
            x = layer(x)
        made: Tensor = self.mel_linear(x).transpose(1, 2)
        refined: Tensor = made + self.post_net(made)
        return refined


# The system: its loss and its conversion


class SystemConfig(Section):
    """Sizes and schedule; the defaults are the published ones."""

    source: str = option("wav2vec2", choices=("wav2vec2", "content"))  # what hears what is said
    width: int = option(512, least=2)
    hidden: int = option(1024, least=1)  # channels between two convolutions
    dropout: float = option(0.1, least=0, below=1)
    utterances: int = option(10, least=1)  # further ones that stand for the target
    alone_steps: int = option(50_000, least=0)  # in which a clip is its own reference
    ramp_steps: int = option(100_000, least=1)  # over which it leaves the others alone
    warmup_steps: int = option(500, least=1)  # of the rate, in each of the two stages
    extraction_rate: float = option(0.01, above=0)  # of it in the second stage, of the rate


class FragmentVC(System):
    """Fragment-VC as it is trained: a clip is made again from speech of the same person."""

    title, tasks, settings_of = "Fragment-VC", (Task.A2A,), SystemConfig
    gradient_norm = math.inf

    def __init__(self, settings: SystemConfig, cfg: RunConfig) -> None:
        """Make the networks."""
        super().__init__(settings, cfg)
        published, self.frames = settings.source == "wav2vec2", cfg.model.mel_frames
        self.features = PublishedFeatures() if published else None
        self.content = None if published else ContentNetwork.from_config(cfg.model)
        features = FEATURES if published else cfg.model.content_channels
        sizes = features, settings.width, settings.hidden, settings.dropout
        self.net = FragmentNet(*sizes)

    def begin(self, batches: Batches, conversion: Converter | None, *, new: bool) -> None:
        """Find everybody's clips; in a new run, also the network that listens."""
        self.batches, self.clips = batches, dict[str, list[int]]()
        for row in batches.drawn(self.seed):
            self.clips.setdefault(batches.items[row].speaker or f"clip {row}", []).append(row)
        if self.content is not None and new:
            known = self.cfg, batches.stores, batches.standardiser
            self.content.load_state_dict(ensure_network("content", *known).network.state_dict())
        if self.content is not None:
            self.content.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FragmentVC:
        """Set the mode of all but the network that listens."""
        super().train(mode)
        if self.content is not None:
            self.content.eval()
        return self

    def optimizer(self, train: TrainConfig) -> Optimizer:
        """Make AdamW, the extraction apart."""
        extraction = [*self.net.unet.parameters()]
        others = [p for name, p in self.net.named_parameters() if not name.startswith("unet.")]
        how: dict[str, Any] = {"betas": (train.beta1, train.beta2), "lr": train.lr}
        return AdamW(
            [{"params": extraction}, {"params": others}], **how, weight_decay=train.weight_decay
        )

    def schedule(self, optimizer: Optimizer, number: int) -> None:
        """Set the rates of a step: two stages, each warmed up and let down along a cosine."""
        train, alone = self.cfg.train, self.settings.alone_steps
        second = number > alone
        if number == alone + 1:
            optimizer.state.clear()  # the authors make a new one
        done, steps = number - 1 - alone * second, train.schedule_steps or train.steps
        rest = max(steps - alone * second - self.settings.warmup_steps, 1)
        down = min(max(done - self.settings.warmup_steps, 0) / rest, 1.0)
        share = min((done + 1) / self.settings.warmup_steps, 0.5 + 0.5 * math.cos(math.pi * down))
        for group, own in zip(optimizer.param_groups, (0, 1), strict=True):
            slower = self.settings.extraction_rate if second and own == 0 else 1.0
            group["lr"] = train.lr * share * slower

    def losses(self, batch: Batch, number: int, waveform: Waveform) -> dict[str, Tensor]:
        """L1 between a clip and what is put together from its own or other clips of the person."""
        role, rng = batch.roles()["source_audio"], generator_of(self.seed, number)
        if self.training:  # what is dropped is that of the step, also when a run goes on
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
        x = role.x if self.features is None else self._published(role, waveform, rng)
        heard, mel = self._heard(x), x[:, 0, -BANDS:]
        later = number - self.settings.alone_steps
        if later > 0:
            ramp = min(later / self.settings.ramp_steps, 1.0)
            own = bool(torch.rand((), generator=rng) >= ramp)
            reference = torch.cat([*[mel] * own, self._others(role, waveform, rng)], dim=2)
        else:
            reference = mel
        rec = (self.net(heard, reference) - mel).abs().mean()
        return {"loss": rec, "rec": rec}

    def _published(self, role: Samples, waveform: Waveform, rng: torch.Generator) -> Tensor:
        """(B, 1, 848, T) of the published features."""
        whole = (self.features(waveform(row)) for row in role.row.tolist())
        parts = [segment(one, self.frames, rng) for one in whole]
        return torch.stack(parts)[:, None]

    def _others(self, role: Samples, waveform: Waveform, rng: torch.Generator) -> Tensor:
        """(B, 80, U T), spectrograms of other clips of the same people, as far as there are any."""
        rows = list[int]()
        for row in role.row.tolist():
            others = [n for n in self.clips.get(self.batches.items[row].speaker, ()) if n != row]
            count = self.settings.utterances
            rows += [
                others[n] if others else row
                for n in torch.randint(max(len(others), 1), (count,), generator=rng).tolist()
            ]
        if self.features is None:
            x = self.batches.crops(rows).to(role.x.device)[:, 0]
        else:
            parts = (self.features(waveform(row), heard=False) for row in rows)
            x = torch.stack([segment(one, self.frames, rng) for one in parts])
        return torch.cat([part.transpose(0, 1).flatten(1)[None] for part in x.chunk(len(role.row))])

    def _heard(self, x: Tensor) -> Tensor:
        """What is said in (B, 1, M, T): (B, T, F)."""
        if self.content is None:
            return x[:, 0, :FEATURES].transpose(1, 2)
        heard = self.content.features(x).repeat_interleave(STRIDE, dim=2)
        return heard[..., : x.shape[3]].transpose(1, 2)

    def embed(self, x: Tensor) -> Tensor:
        """Take a reference (1, 1, M, T) as it is: its spectrogram (1, 80, T)."""
        return x[:, 0, -BANDS:]

    def whole(self, x: Tensor) -> Tensor:
        """Take a reference of any length as it is."""
        return self.embed(x)

    def convert(self, x: Tensor, style: Tensor) -> Tensor:
        """Convert (1, 1, M, T) by fragments of a spectrogram (1, 80, R)."""
        made = self.net(self._heard(x), style)[:, None]
        return made if self.features is None else torch.cat([x[:, :, :FEATURES], made], dim=2)


def published(cfg: RunConfig, weights: Path) -> FragmentVC:
    """Open the state dictionary of the network that the authors published.

    Args:
        cfg: a run, which it is to be part of.
        weights: the dictionary, in a file of `torch.save`. They publish a program (TorchScript),
            which is never opened here.

    Raises:
        WeightsError: the file is missing, damaged, a program, or of another network; keys that are
            missing or too many are named.
    """
    advice = (
        "expected the tensors of the published network by name; theirs is a program: where you "
        "trust it, turn it into tensors once: "
        "torch.save(torch.jit.load('fragmentvc.pt', 'cpu').state_dict(), 'fragmentvc_state.pt')"
    )
    system = FragmentVC(SystemConfig(), cfg)
    expected = system.net.state_dict()
    system.net.load_state_dict(external.read_state(weights, expected=expected, advice=advice))
    return system
