"""The eight trained modules under the paper's names, and the tables that describe them.

Paper: Sec. 3, appendix G (Tables 6 to 9). The frozen networks (F0, content) are not in here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from xfavot.config import ModelConfig
from xfavot.models.blocks import FACTORS, AdaINResBlk, InstanceNormLReLU, ResBlk
from xfavot.models.discriminators import AudioClassifier, AudioDiscriminator, ImageDiscriminator
from xfavot.models.generators import AudioGenerator, F0Path, ImageGenerator
from xfavot.models.mapping import MappingNetwork, StackedLinear
from xfavot.models.style_encoders import AudioStyleEncoder, ImageStyleEncoder

F0_FEATURE_FACTOR = 4  # channels of the F0 network's features over its first width, CODE


class XFaVoT(nn.Module):
    """G_I, G_A, E_I, E_A, D_I, D_A, C_A and M of one model. Status: STATED."""

    def __init__(self, cfg: ModelConfig) -> None:
        """Make all modules of a configuration.

        Raises:
            ConfigError: a size cannot be built.
        """
        super().__init__()
        self.genders = cfg.genders
        domains = cfg.genders + cfg.speakers
        style, genders = {"style_dim": cfg.style_dim}, {"genders": cfg.genders}
        image = {"width": cfg.image_width, "max_width": cfg.image_max_width}
        audio = {"width": cfg.audio_width, "max_width": cfg.audio_max_width}
        audio["mel_bins"] = cfg.mel_bins
        sized, norm = {**image, "size": cfg.image_size}, cfg.style_norm
        self.G_I = ImageGenerator(**image, **style, levels=cfg.image_levels)
        self.G_A = AudioGenerator(
            **audio,
            **style,
            f0_inputs=F0_FEATURE_FACTOR * cfg.f0_width,
            f0_channels=cfg.f0_channels,
            decoder=cfg.audio_decoder,
        )
        self.E_I = ImageStyleEncoder(**sized, **style, **genders, norm=norm)
        self.E_A = AudioStyleEncoder(**audio, **style, **genders, norm=norm)
        self.D_I = ImageDiscriminator(**sized, domains=cfg.genders, norm=norm)
        self.D_A = AudioDiscriminator(**audio, domains=domains, norm=norm)
        self.C_A = AudioClassifier(**audio, **genders, speakers=cfg.speakers, norm=norm)
        self.M = MappingNetwork(
            latent_dim=cfg.latent_dim, width=cfg.mapping_width, **style, domains=domains
        )

    def parameter_table(self) -> list[tuple[str, int]]:
        """List the modules and their parameter counts, the last row being the total."""
        rows = [
            (name, sum(p.numel() for p in module.parameters()))
            for name, module in self.named_children()
        ]
        return [*rows, ("total", sum(count for _, count in rows))]


@dataclass(frozen=True, slots=True)
class ShapeRow:
    """One row of Tables 6 to 9: a layer, what comes out of it, and its trained numbers."""

    layer: str
    resample: str
    norm: str
    shape: tuple[int, ...]  # without the batch axis
    parameters: int = field(default=0, compare=False)


def _row(module: nn.Module, output: Tensor) -> ShapeRow:
    shape = tuple(output.shape[-1:] if isinstance(module, StackedLinear) else output.shape[1:])
    if isinstance(module, ResBlk | AdaINResBlk):
        way = "down" if isinstance(module, ResBlk) else "up"
        factors = "{}x{}".format(*FACTORS[module.resample])
        resample = "-" if module.resample == "none" else f"{way} {factors}"
        return ShapeRow("ResBlk", resample, module.norm, shape)
    if isinstance(module, nn.Conv2d):
        return ShapeRow("Conv {}x{}".format(*module.kernel_size), "-", "-", shape)
    names = {
        InstanceNormLReLU: "IN, LReLU",
        nn.LeakyReLU: "LReLU",
        nn.AdaptiveAvgPool2d: "AvgPool",
        StackedLinear: "Linear (of the domain)",
        F0Path: "Concat F0",
    }
    return ShapeRow(names.get(type(module), type(module).__name__), "-", "-", shape)


def _traced(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, ResBlk | AdaINResBlk) or not list(module.children()):
        return [module]
    inner = [row for child in module.children() for row in _traced(child)]
    return [*inner, module] if isinstance(module, F0Path) else inner


def shape_trace(module: nn.Module, *inputs: Tensor) -> list[ShapeRow]:
    """Run a module once and list its layers in the order they ran, as Tables 6 to 9 do.

    Args:
        module: one of the eight, or any module made of the package's blocks.
        inputs: what its ``forward`` takes; module and inputs may be on the "meta" device, where
            nothing is computed.

    Returns:
        One row a layer or residual block; no gradients are kept and the module is unchanged.
    """
    rows: list[ShapeRow] = []

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        # what joins the F0 features has no numbers but its layers', which have their own rows
        owner = nn.Identity() if isinstance(layer, F0Path) else layer
        count = sum(p.numel() for p in owner.parameters())
        rows.append(replace(_row(layer, output), parameters=count))

    hooks = [layer.register_forward_hook(note) for layer in _traced(module)]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return rows
