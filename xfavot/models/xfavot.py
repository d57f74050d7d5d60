"""The eight trained modules under the paper's names, and the tables that describe them.

Paper: Sec. 3, appendix G (Tables 6 to 9). The frozen networks (F0, content) are not in here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from xfavot.config import MODALITIES, ModelConfig, RunConfig
from xfavot.models import encoders
from xfavot.models.blocks import FACTORS, AdaINResBlk, InstanceNormLReLU, ResBlk
from xfavot.models.generators import AudioGenerator, F0Path, ImageGenerator
from xfavot.models.mapping import MappingNetwork, StackedLinear

OF_ONE = {"image": ("G_I", "E_I", "D_I"), "audio": ("G_A", "E_A", "D_A", "C_A")}


class XFaVoT(nn.Module):
    """G_I, G_A, E_I, E_A, D_I, D_A, C_A and M of one model. Status: STATED.

    Where one modality is trained, the modules of the other are not there.
    """

    def __init__(self, cfg: ModelConfig, modalities: Collection[str] = MODALITIES) -> None:
        """Make the modules of modalities; the weights of each are drawn as if all were made."""
        super().__init__()
        self.genders = cfg.genders
        self.G_I, self.G_A = ImageGenerator(cfg), AudioGenerator(cfg)
        style = {"style_dim": cfg.style_dim, "genders": cfg.genders}
        self.E_I = encoders.StyleEncoder(encoders.face_trunk(cfg), **style)
        self.E_A = encoders.StyleEncoder(encoders.voice_trunk(cfg, pool_first=True), **style)
        self.D_I = encoders.Discriminator(encoders.face_trunk(cfg), domains=cfg.genders)
        domains = cfg.genders + cfg.speakers
        self.D_A = encoders.Discriminator(encoders.voice_trunk(cfg), domains=domains)
        groups = {"genders": cfg.genders, "speakers": cfg.speakers}
        self.C_A = encoders.AudioClassifier(encoders.voice_trunk(cfg), **groups)
        self.M = MappingNetwork(cfg)
        for modality in set(MODALITIES) - set(modalities):
            for name in OF_ONE[modality]:
                delattr(self, name)

    @classmethod
    def of_run(cls, run: RunConfig) -> XFaVoT:
        """Make what a run trains: its modalities, and M with heads of speakers in dual domains."""
        nets = cls(run.model, run.train.modalities)
        if not run.train.dual_domain:  # a third of all parameters
            whole, nets.M = nets.M, MappingNetwork(replace(run.model, speakers=0))
            nets.M.load_state_dict(part_of(whole.state_dict(), nets.M))
        return nets

    def parameter_table(self) -> list[tuple[str, int]]:
        """List the modules and their parameter counts, the last row being the total."""
        named = [*self.named_children(), ("total", self)]
        return [(name, sum(p.numel() for p in module.parameters())) for name, module in named]


def part_of(weights: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The weights for a module out of those of one that may have more modules and more heads."""
    own = module.state_dict()
    return {
        name: value[: len(own[name])] if "heads." in name and name in own else value
        for name, value in weights.items()
        if hasattr(module, name.partition(".")[0])
    }


@dataclass(frozen=True, slots=True)
class ShapeRow:
    """One row of Tables 6 to 9: a layer, what comes out of it, and its trained numbers."""

    layer: str
    resample: str
    norm: str
    shape: tuple[int, ...]  # without the batch axis
    parameters: int = field(default=0, compare=False)


LAYERS: dict[type[nn.Module], str] = {  # what a row is called; others by their type's name
    ResBlk: "ResBlk",
    AdaINResBlk: "ResBlk",
    InstanceNormLReLU: "IN, LReLU",
    nn.LeakyReLU: "LReLU",
    nn.AdaptiveAvgPool2d: "AvgPool",
    StackedLinear: "Linear (of the domain)",
    F0Path: "Concat F0",
}


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers and blocks that have a row, F0Path after its own."""
    if isinstance(module, ResBlk | AdaINResBlk) or not list(module.children()):
        yield module
    else:
        for child in module.children():
            yield from _layers(child)
        if isinstance(module, F0Path):
            yield module


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
        name, resample, norm = LAYERS.get(type(layer), type(layer).__name__), "-", "-"
        # what joins the F0 features has no numbers but its layers', which have their own rows
        count = 0 if isinstance(layer, F0Path) else sum(p.numel() for p in layer.parameters())
        if isinstance(layer, nn.Conv2d):
            name = "Conv {}x{}".format(*layer.kernel_size)
        elif isinstance(layer, ResBlk | AdaINResBlk):
            norm = layer.norm
            if layer.resample != "none":
                way = "down" if isinstance(layer, ResBlk) else "up"
                resample = way + " {}x{}".format(*FACTORS[layer.resample])
        rows.append(ShapeRow(name, resample, norm, tuple(output.shape[1:]), count))

    hooks = [layer.register_forward_hook(note) for layer in _layers(module)]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return rows
