"""SGSIM: a face is moved in the latent space of a StyleGAN2 until it agrees with a sound.

Source: Lee et al., "Sound-guided semantic image manipulation", CVPR 2022, and the configuration
that its authors published; in the paper the compared system of audio-guided faces (Table 2, Figs. 3
and 5). An encoder places sounds in a space where pictures have their places too. The source is
inverted into a latent code for every layer of the generator; from there Adam lessens one minus the
scaled cosine between picture and sound, the squared way that the code has gone, and one minus the
cosine of the identities before and after.

Preset `paper` opens what is published and trains nothing (:func:`published`): StyleGAN2 of faces at
1024 pixels (30,370,060 parameters), the encoder of sounds (a ResNet-18, 11,439,198), ArcFace
(IR-SE50, 43,797,696), and CLIP's ViT-B/32 through transformers. Not here: the training of that
encoder on sounds with captions, CLIP's text encoder, random faces (the mapping network is read and
not used), and the encoders that others invert real faces with; a face is inverted by optimisation
(A88).

Preset `mini` is ours: a narrow generator of the same layers, of 64 pixels, which learns to draw
faces again from the codes that an encoder gives them, without a discriminator; and, in the place of
CLIP and ArcFace, dlib's network of faces, with a space in which voices meet what it sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.io import Wave
from xfavot.audio.mel import MEL, mel_filterbank
from xfavot.baselines.adain_cvc import audio_visual
from xfavot.baselines.adain_vc import SpeakerEncoder
from xfavot.baselines.fragment_vc import resampled
from xfavot.baselines.system import BaselineConverter, System, Trained, Waveform
from xfavot.baselines.vclip import CLIP_SIDE, SEEN_BY, association, seeing
from xfavot.config import RunConfig, Section
from xfavot.convert.converter import Converter, Task
from xfavot.data.batches import Batch, Batches
from xfavot.errors import import_optional
from xfavot.models.blocks import LEAK, Resample, encoder, he_init, widths
from xfavot.strict import option, require
from xfavot.training.speech import generator_of
from xfavot.weights import external

# StyleGAN2's generator, in the layout of its port to PyTorch by which it is published


FIRST = 4  # pixels of a side of the learnt constant
MAPPED = 8  # layers of the published mapping network
KERNEL = (1.0, 3.0, 3.0, 1.0)  # of the low-pass filter, both ways
LEAST = 1e-8  # of what is divided by


def bent(x: Tensor) -> Tensor:
    """LeakyReLU that keeps the variance."""
    return functional.leaky_relu(x, LEAK) * math.sqrt(2)


class Equalised(nn.Linear):
    """A linear layer whose weights have unit variance and are scaled when they are used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make the layer; biases start at 1."""
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight)
        nn.init.ones_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        return functional.linear(x, self.weight / math.sqrt(self.in_features), self.bias)


class LowPass(nn.Module):
    """The low-pass filter: of a map, or of one that it doubles."""

    kernel: Tensor

    def __init__(self) -> None:
        """Make the filter; after zeros were put in, it keeps the mean."""
        super().__init__()
        line = torch.tensor(KERNEL) * 2 / sum(KERNEL)
        self.register_buffer("kernel", line[:, None] * line)

    def forward(self, x: Tensor, *, doubled: bool = False) -> Tensor:
        """Map (B, C, H, W) to a pixel less a side, or to (B, C, 2 H, 2 W)."""
        count = x.shape[1]
        how: dict[str, Any] = {"padding": 1, "groups": count}
        kernel = self.kernel.expand(count, 1, -1, -1)
        if doubled:
            return functional.conv_transpose2d(x, kernel, stride=2, **how)
        return functional.conv2d(x, kernel, **how)


class Modulated(nn.Module):
    """A convolution whose inputs are scaled by a latent code; demodulated, outputs keep variance 1.

    Doubling, it is transposed, and the low-pass filter follows.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, latent: int, *, doubles: bool = False
    ) -> None:
        """Make the kernel and the layer that reads the code; a 1 x 1 kernel is not demodulated."""
        super().__init__()
        self.scale, self.doubles = 1 / math.sqrt(inputs * size**2), doubles
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, size, size))
        self.modulation = Equalised(latent, inputs)
        if doubles:
            self.blur = LowPass()

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map (B, inputs, H, W) by codes (B, S)."""
        scales, kernel = self.modulation(w), self.weight[0] * self.scale
        x = x * scales[:, :, None, None]
        if self.doubles:
            x = self.blur(functional.conv_transpose2d(x, kernel.transpose(0, 1), stride=2))
        else:
            x = functional.conv2d(x, kernel, padding=kernel.shape[2] // 2)
        if kernel.shape[2] == 1:
            return x
        power = scales.square() @ kernel.square().sum((2, 3)).T  # (B, outputs)
        out: Tensor = x * (power + LEAST).rsqrt()[:, :, None, None]
        return out


class StyledConv(nn.Module):
    """A modulated convolution, noise, bias, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, latent: int, *, doubles: bool = False) -> None:
        """Make the layers."""
        super().__init__()
        self.conv = Modulated(inputs, outputs, 3, latent, doubles=doubles)
        self.noise = nn.ParameterDict({"weight": torch.zeros(1)})  # the same every time
        self.activate = nn.ParameterDict({"bias": torch.zeros(outputs)})

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Map (B, inputs, H, W) by codes (B, S) and noise (1, 1, H', W')."""
        x = self.conv(x, w) + self.noise["weight"] * noise
        return bent(x + self.activate["bias"][:, None, None])


class Colours(nn.Module):
    """What a resolution adds to the picture."""

    def __init__(self, inputs: int, latent: int, *, first: bool = False) -> None:
        """Make the layers; the first one has no picture before it."""
        super().__init__()
        if not first:
            self.upsample = LowPass()
        self.conv = Modulated(inputs, 3, 1, latent)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, w: Tensor, picture: Tensor | None = None) -> Tensor:
        """Map (B, inputs, H, W) by codes (B, S), and add the picture (B, 3, H / 2, W / 2)."""
        out: Tensor = self.conv(x, w) + self.bias
        return out if picture is None else out + self.upsample(picture, doubled=True)


class Generator(nn.Module):
    """StyleGAN2's generator (configuration f), with skips to the picture.

    Args:
        pixels: of a side, a power of two from 8.
        latent: S, values of a code.
        width: most channels of a layer.
        finest: channels at the last resolution; each one before has twice as many, up to `width`.
        mapped: layers of the mapping network, which are held as published.
    """

    def __init__(self, pixels: int, latent: int, width: int, finest: int, mapped: int) -> None:
        """Make the layers; see the class."""
        super().__init__()
        sides = [FIRST << n for n in range(int(math.log2(pixels / FIRST)) + 1)]
        channels = [min(width, finest * pixels // side) for side in sides]
        self.latents = 2 * len(sides)  # codes of a picture
        self.style = nn.Sequential(
            nn.Identity(), *(nn.Linear(latent, latent) for _ in range(mapped))
        )
        constant = torch.randn(1, channels[0], FIRST, FIRST)
        self.input = nn.ParameterDict({"input": constant})
        self.conv1 = StyledConv(channels[0], channels[0], latent)
        self.to_rgb1 = Colours(channels[0], latent, first=True)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for inputs, outputs in pairwise(channels):
            self.convs.append(StyledConv(inputs, outputs, latent, doubles=True))
            self.convs.append(StyledConv(outputs, outputs, latent))
            self.to_rgbs.append(Colours(outputs, latent))
        for n, side in enumerate([FIRST, *(side for side in sides[1:] for _ in range(2))]):
            self.noises.register_buffer(f"noise_{n}", torch.randn(1, 1, side, side))

    def forward(self, w: Tensor) -> Tensor:
        """Draw codes (B, L, S): (B, 3, H, W), unbounded (trained towards [-1, 1])."""
        noise = [*self.noises.buffers()]
        x = self.conv1(self.input["input"].expand(len(w), -1, -1, -1), w[:, 0], noise[0])
        picture: Tensor = self.to_rgb1(x, w[:, 1])
        for n, colours in enumerate(self.to_rgbs):
            for layer in (2 * n, 2 * n + 1):
                x = self.convs[layer](x, w[:, layer + 1], noise[layer + 1])
            picture = colours(x, w[:, 2 * n + 3], picture)
        return picture


# The other published networks: who is in a face, what is heard


ARC_SIDE, ARC_SEEN = 112, (slice(35, 223), slice(32, 220))  # of 256 pixels a side
ARC_WIDTHS, ARC_UNITS = (64, 128, 256, 512), (3, 4, 14, 3)
REDUCTION = 16  # of the channels, where they are weighed


class Weighed(nn.Module):
    """Squeeze and excitation: each channel is weighed by the means of all."""

    def __init__(self, channels: int) -> None:
        """Make both layers."""
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W)."""
        weights: Tensor = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu())
        return x * weights.sigmoid()


class ArcUnit(nn.Module):
    """A residual unit of ArcFace."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Make the layers."""
        super().__init__()
        shortcut: list[nn.Module] = [nn.MaxPool2d(1, stride)]
        if inputs != outputs:
            shortcut = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut_layer = nn.Sequential(*shortcut)
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            Weighed(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W)."""
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


class ArcFace(nn.Module):
    """ArcFace's IR-SE50: who is in a face."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        first, last = ARC_WIDTHS[0], ARC_WIDTHS[-1]
        stem = nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        self.input_layer = nn.Sequential(*stem)
        units, inputs = [], first
        for width, count in zip(ARC_WIDTHS, ARC_UNITS, strict=True):
            units += [ArcUnit(inputs, width, 2)]
            units += [ArcUnit(width, width, 1) for _ in range(count - 1)]
            inputs = width
        self.body = nn.Sequential(*units)
        side = ARC_SIDE // 2 ** len(ARC_WIDTHS)
        head = nn.BatchNorm2d(last), nn.Dropout(), nn.Flatten(), nn.Linear(last * side**2, last)
        self.output_layer = nn.Sequential(*head, nn.BatchNorm1d(last))

    def forward(self, faces: Tensor) -> Tensor:
        """Encode faces (B, 3, H, W) in [-1, 1]: (B, 512), of length 1."""
        x = functional.adaptive_avg_pool2d(faces, 256)[:, :, *ARC_SEEN]
        x = self.input_layer(functional.adaptive_avg_pool2d(x, ARC_SIDE))
        return functional.normalize(self.output_layer(self.body(x)), dim=1)


RATE, N_FFT, HOP, BANDS = 44_100, 2048, 512, 128
FRAMES, HEARD = 864, 512  # of a sound, 10 s, and what they are brought to
RANGE_DB, LEAST_POWER = 80.0, 1e-10


class PublishedSound(nn.Module):
    """What the published encoder hears: decibels below the loudest, 0 to 1, as a picture."""

    bank: Tensor

    def __init__(self) -> None:
        """Make the filters."""
        super().__init__()
        how: dict[str, Any] = {"n_fft": N_FFT, "rate": RATE, "fmin": 0.0, "fmax": RATE / 2}
        bank = mel_filterbank(torch.get_default_device(), bands=BANDS, **how)
        self.register_buffer("bank", bank, persistent=False)

    def trim(self, wave: Wave) -> tuple[int, int]:
        """All of a clip."""
        return 0, len(wave)

    def forward(self, wave: Wave) -> Tensor:
        """Turn the first 10 s of (N,) at 24 kHz into (128, 512).

        The authors stretch the bands to 512 and press the frames into 128, and then read the rows
        of that as rows of 512.
        """
        y = resampled(torch.from_numpy(wave).to(self.bank.device), MEL.sample_rate, RATE)
        how: dict[str, Any] = {"pad_mode": "constant", "return_complex": True}
        window = torch.hann_window(N_FFT, device=y.device)
        power = self.bank @ torch.stft(y, N_FFT, HOP, window=window, **how).abs().square()
        db = 10 * power.clamp(min=LEAST_POWER).log10()
        x = ((db - db.max()).clamp(min=-RANGE_DB) / RANGE_DB + 1)[:, :FRAMES]
        x = functional.pad(x, (0, FRAMES - x.shape[1]))[None, None]
        return functional.interpolate(x, (HEARD, BANDS), mode="bilinear").reshape(BANDS, HEARD)


class SoundEncoder(nn.Module):
    """The published encoder of sounds.

    Raises:
        DataError: torchvision is not installed.
    """

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        library = import_optional("torchvision.models", extra="metrics", purpose="SGSIM's encoder")
        self.conv = nn.Conv2d(1, 3, 3)
        self.feature_extractor = library.resnet18(weights=None, num_classes=512)

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, 1, 128, 512): (B, 512)."""
        out: Tensor = self.feature_extractor(self.conv(x))
        return out


def for_clip(faces: Tensor) -> Tensor:
    """Bring faces (B, 3, H, H), H a multiple of 32, to CLIP's size as the authors do.

    Each pixel is repeated seven times, then areas are averaged; nothing is standardised.
    """
    side = faces.shape[-1]
    areas = torch.eye(side, device=faces.device).repeat_interleave(7, 1)
    areas = functional.avg_pool1d(areas, 7 * side // CLIP_SIDE)  # (H, 224)
    return areas.T @ faces @ areas


# The system: what is trained of it, and its conversion


SCALE = math.exp(0.07)  # of the cosine, CODE
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # of the steps, CODE
MASK_RATE = 0.1  # CODE
PIXELS_AT_ONCE = 2**17  # that are optimised together
PERCEPTUAL, PRIOR = 0.5, 1e-3  # weights beside L1, of what is seen and of the codes' squares
ENCODER_WIDTHS = 16, 128  # channels after the stem, and most


class SystemConfig(Section):
    """Sizes and numbers; the defaults are the published ones, as far as there are any (A88)."""

    seen_by: str = option("clip", choices=SEEN_BY)  # "clip": the published networks
    pixels: int = option(1024, choices=tuple(8 << n for n in range(8)))  # of what is generated
    latent: int = option(512, least=1)  # values of a code
    width: int = option(512, least=1)  # most channels of the generator
    finest: int = option(32, least=1)  # channels at its last resolution
    size: int = option(512, least=1)  # of the space in which face and voice meet
    voice_width: int = option(64, least=1)  # of our encoder of voices
    jitter: float = option(0.3, least=0)  # deviation of noise on our codes in training
    inversion_steps: int = option(300, least=0)
    inversion_lr: float = option(0.05, above=0)
    steps: int = option(300, least=0)  # of the manipulation, CODE
    lr: float = option(0.05, above=0)  # CODE
    similarity: float = option(0.008, least=0)  # weight of the way that the code goes, CODE
    identity: float = option(0.005, least=0)  # CODE
    masking: bool = False  # of layers, adaptive; CODE has it, off unless asked for


def distance(made: Tensor, wanted: Tensor) -> Tensor:
    """L1 between faces (B, 3, H, W), and between what dlib's network sees in them (B,)."""
    seen = seeing("dlib_face")
    maps: list[Sequence[Tensor]] = [seen.maps(x) for x in (made, wanted)]  # type: ignore[operator]
    apart = [
        (a - b).abs().flatten(1).mean(1) / b.abs().flatten(1).mean(1)
        for a, b in zip(*maps, strict=True)
    ]
    own = (made - wanted).abs().flatten(1).mean(1)
    return own + PERCEPTUAL * torch.stack(apart).mean(0)


def descended(w: Tensor, cost: Callable[[Tensor], Tensor], steps: int, lr: float) -> Tensor:
    """Move codes (B, L, S) by Adam where `cost`, codes to (B,), is less; the rate is ramped."""
    w = w.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr)
    for number in range(steps):
        done = (number + 0.5) / steps
        down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - done) / RAMP_DOWN))
        optimizer.param_groups[0]["lr"] = lr * down * min(1.0, done / RAMP_UP)
        (w.grad,) = torch.autograd.grad(cost(w).sum(), [w])
        optimizer.step()
    return w.detach()


class SGSIMConverter(BaselineConverter):
    """A style is a place in the space of pictures and sounds, towards which a face is moved."""

    meets = True

    def __init__(self, model: Trained, **how: Any) -> None:
        """Open it; see the class above."""
        super().__init__(model, **how)
        nets: Any = SimpleNamespace(G_I=self.guided)
        self.nets = nets

    def guided(self, faces: Tensor, places: Tensor) -> Tensor:
        """Move faces (B, 3, H, W) in [-1, 1] towards places (B, E): (B, 3, H, W)."""
        system: Any = self.system
        count = max(PIXELS_AT_ONCE // system.settings.pixels**2, 1)
        with torch.inference_mode(False), torch.enable_grad():
            own, which = torch.unique(faces.clone(), dim=0, return_inverse=True)
            codes = torch.cat([system.inverted(part) for part in torch.split(own, count)])[which]
            pairs = zip(torch.split(codes, count), torch.split(places.clone(), count), strict=True)
            return torch.cat([system.drawn(system.moved(*pair)).detach() for pair in pairs])


class SGSIM(System):
    """The generator, the space of pictures and sounds, and the descent in between.

    Buffer: `latent_avg` (S,), the mean code of the published generator.
    """

    title, tasks, settings_of = "SGSIM", (Task.A2I,), SystemConfig
    judged_by, converter = "loss", SGSIMConverter
    usable = staticmethod(audio_visual)

    latent_avg: Tensor

    def __init__(self, settings: SystemConfig, cfg: RunConfig) -> None:
        """Make the networks."""
        super().__init__(settings, cfg)
        self.published, given = settings.seen_by == "clip", settings
        sizes = given.pixels, given.latent, given.width, given.finest
        generator = Generator(*sizes, MAPPED if self.published else 0)
        if self.published:
            self.features = PublishedSound()
            parts = {"audio": SoundEncoder(), "identity": ArcFace()}
            self.register_buffer("latent_avg", torch.zeros(given.latent))
        else:
            features = int(seeing("dlib_face")(torch.zeros(1, 3, 32, 32)).shape[1])
            voice = SpeakerEncoder(MEL.n_mels, given.voice_width)
            ends = nn.BatchNorm1d(features, affine=False), nn.Linear(features, given.size)
            parts = {
                "encoder": inverter(cfg.model.image_size, generator.latents * given.latent),
                "face": nn.Sequential(*ends),
                "voice": nn.Sequential(voice, nn.Linear(given.voice_width, given.size)),
            }
            self.log_scale = nn.Parameter(torch.tensor(-math.log(0.07)))
        self.net = nn.ModuleDict({"generator": generator, **parts})

    def begin(self, batches: Batches, conversion: Converter | None, *, new: bool) -> None:
        """Refuse to train what is published.

        Raises:
            ConfigError: the settings are those of the published networks.
        """
        expected = "dlib_face, with networks that are trained here; clip takes published ones"
        step = "take preset mini, or give -p weights <folder of the published networks>"
        require(not self.published, "system.seen_by", "clip", expected, step)

    def losses(self, batch: Batch, number: int, waveform: Waveform) -> dict[str, Tensor]:
        """Draw faces again from their codes, and contrast them with voices of the same people."""
        shown, heard = (batch.roles()[name] for name in ("ref_image", "ref_audio"))
        codes, rng = self.codes(shown.x), generator_of(self.seed, number)
        noise = torch.randn(codes.shape, generator=rng).to(codes.device)
        made = self.drawn(codes + self.settings.jitter * noise)
        rec = distance(made, shown.x).mean()
        cosine = self.embed(shown.x) @ self.embed(heard.x).T
        match = association(self.log_scale.exp() * cosine, heard.person)
        loss = rec + PRIOR * codes.square().mean() + match
        return {"loss": loss, "rec": rec, "match": match}

    def codes(self, faces: Tensor) -> Tensor:
        """Guess the codes (B, L, S) of faces (B, 3, H, W); where nothing guesses, the mean code."""
        if self.published:
            generator: Any = self.net["generator"]
            return self.latent_avg.expand(len(faces), generator.latents, -1)
        found: Tensor = self.net["encoder"](faces).unflatten(1, (-1, self.settings.latent))
        return found

    def drawn(self, codes: Tensor) -> Tensor:
        """Draw codes (B, L, S) at the size of the run's faces."""
        side = self.cfg.model.image_size
        return functional.adaptive_avg_pool2d(self.net["generator"](codes), side)

    def seen(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Look at faces (B, 3, H, W): their places (B, E), and who is in them, both of length 1."""
        if self.published:
            place = seeing("clip").to(faces.device)(pixel_values=for_clip(faces)).image_embeds
            return functional.normalize(place, dim=1), self.net["identity"](faces)
        who = seeing("dlib_face").to(faces.device)(faces)
        return functional.normalize(self.net["face"](who), dim=1), who

    def embed(self, x: Tensor) -> Tensor:
        """Place sounds (B, 1, M, T) or faces (B, 3, H, W): (B, E), of length 1."""
        if x.shape[1] != 1:
            return self.seen(x)[0]
        return functional.normalize(self.net["audio" if self.published else "voice"](x), dim=1)

    def inverted(self, faces: Tensor) -> Tensor:
        """Find codes (B, L, S) by which faces (B, 3, H, W) are drawn."""
        given: SystemConfig = self.settings

        def cost(w: Tensor) -> Tensor:
            return distance(self.drawn(w), faces)

        return descended(self.codes(faces), cost, given.inversion_steps, given.inversion_lr)

    def moved(self, source: Tensor, places: Tensor) -> Tensor:
        """Move codes (B, L, S) until what is drawn lies near places (B, E)."""
        given: SystemConfig = self.settings
        generator = self.net["generator"]
        mask = torch.ones(source.shape[:2], device=source.device)  # (B, L)
        with torch.no_grad():
            who = self.seen(generator(source))[1]

        def cost(w: Tensor) -> Tensor:
            nonlocal mask
            place, now = self.seen(generator(w))
            gone = (w - source).square().sum(2)  # (B, L)
            if given.masking:
                gone = mask.sigmoid() * gone
                mask = mask - MASK_RATE * gone.detach() * (1 - gone.detach())
            near = 1 - SCALE * functional.cosine_similarity(place, places)
            other = 1 - (now * who).sum(1)
            return near + given.similarity * gone.sum(1) + given.identity * other

        return descended(source, cost, given.steps, given.lr)


def inverter(pixels: int, outputs: int) -> nn.Sequential:
    """Faces (B, 3, H, H) to (B, outputs): the blocks of the method's encoders down to 4 pixels."""
    levels = int(math.log2(pixels / FIRST))
    channels, halved = widths(*ENCODER_WIDTHS, levels), list[Resample](["half"] * levels)
    blocks = encoder(channels=channels, resamples=halved, norm=False)
    stem, head = nn.Conv2d(3, channels[0], 3, 1, 1), nn.Linear(channels[-1] * FIRST**2, outputs)
    made = nn.Sequential(stem, *blocks, nn.LeakyReLU(LEAK), nn.Flatten(), head)
    return made.apply(he_init)


FILES = {  # of the published networks
    "generator": "stylegan2-ffhq-config-f.pt",
    "identity": "model_ir_se50.pth",
    "audio": "resnet18.pth",
}


def published(cfg: RunConfig, weights: Path) -> SGSIM:
    """Open the networks that the authors published or took from others.

    Args:
        cfg: a run, which they are to be part of.
        weights: a folder with :data:`FILES`: the generator (its tensors below "g_ema", its mean
            code "latent_avg"), ArcFace, the encoder of sounds. CLIP is opened where it is needed.

    Raises:
        WeightsError: a file is missing, damaged, or of another network; keys that are missing or
            too many are named.
        DataError: torchvision is not installed.
    """
    with torch.device("meta"):  # no numbers are drawn that files replace
        system = SGSIM(SystemConfig(), cfg)
    system.features = PublishedSound()
    advice = f"expected a folder with {', '.join(FILES.values())} as they are published"
    read = partial(external.read_state, advice=advice)
    for part, file in FILES.items():
        own, at = system.net[part], ("g_ema",) if part == "generator" else ()
        state = read(weights / file, at=at, expected=own.state_dict())
        own.load_state_dict(state, assign=True)
    mean = {"latent_avg": system.latent_avg}
    mean = read(weights / FILES["generator"], at=("latent_avg",), expected=mean)
    system.load_state_dict(mean, strict=False, assign=True)
    return system
