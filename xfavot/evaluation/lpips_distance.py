"""LPIPS (Zhang et al. 2018): how different two faces look, how diverse a source's outputs.

The distance of two images is the squared difference of their AlexNet features, of unit length at
every place, weighed by a learnt layer and averaged over places. `lpips_stargan_v2` is the
ancestor's, comparable with the paper's tables (App. B); `lpips_alex` is the community's, version
0.1 of the package lpips. Their learnt layers hold the same numbers (measured: not one differs);
they differ in where the small constant of the unit length stands, in the images (the ancestor
measures what the generator gives, the community what was saved with 8 bits) and in the averaging.

The diversity of K outputs is the mean distance over all K (K - 1) / 2 pairs, which is linear in
squared differences of features: the mean of (f_i - f_j)^2 over all pairs is twice the variance of f
over the K outputs. So K passes of AlexNet are enough instead of K (K - 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike

import torch
from torch import Tensor, nn

from xfavot.errors import DataError, ShapeError, WeightsError, require_same_shape
from xfavot.evaluation import foreign
from xfavot.weights import fetched

STARGAN_V2, ALEX = "lpips_stargan_v2", "lpips_alex"
DEFINITIONS = {
    STARGAN_V2: "LPIPS as StarGAN v2 computes it: AlexNet, all pairs of a source's outputs, "
    "mean over batches",
    ALEX: "LPIPS v0.1 with AlexNet, 8 bits, all pairs of a source's outputs, mean over sources",
}
CHANNELS = (64, 192, 384, 256, 256)  # of AlexNet's five maps
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in [-1, 1]
SMALL = 1e-10
FEWEST_PIXELS = 31  # a side; with fewer AlexNet's last maps are empty
FEWEST_OUTPUTS = 2
AT_ONCE = 40  # images

Unit = Callable[[Tensor], Tensor]


class LPIPS(nn.Module):
    """LPIPS over given networks.

    Args:
        metric: its name, as rows show it.
        layers: AlexNet's convolutions; every ReLU gives a map.
        learnt: five tensors (1, C, 1, 1).
        unit: brings maps (n, C, h, w) to unit length over C.
        definition: in a sentence; default, that of `metric`.
        of_bytes: it measures what was saved with 8 bits.
        over_batches: the mean over sources is that of the batches' means.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        metric: str,
        layers: nn.Sequential,
        learnt: Sequence[Tensor],
        unit: Unit,
        *,
        definition: str = "",
        of_bytes: bool = False,
        over_batches: bool = False,
    ) -> None:
        """Freeze the networks; see the class."""
        super().__init__()
        self.metric, self.unit = metric, unit
        self.definition = definition or DEFINITIONS[metric]
        self.of_bytes, self.over_batches = of_bytes, over_batches
        self.layers = layers
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.depth = len(learnt)
        for number, weight in enumerate(learnt):
            self.register_buffer(f"learnt{number}", weight.detach().flatten())
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Measure pairs of images.

        Args:
            a, b: (n, 3, H, W), floating point in [-1, 1].

        Returns:
            (n,) distances.

        Raises:
            ShapeError: shapes that differ or are no images.
        """
        require_same_shape("LPIPS", a, b)
        both = self._maps(torch.cat([a, b]))
        squares = [(one[: len(a)] - one[len(a) :]).square_().mean((2, 3)) for one in both]
        return self._weigh(squares)

    @torch.no_grad()
    def diversity(self, images: Tensor) -> Tensor:
        """Measure the outputs of each source, all pairs.

        Args:
            images: (n, K, 3, H, W), K outputs of n sources, floating point in [-1, 1].

        Returns:
            (n,) mean distances, on the CPU.

        Raises:
            ShapeError: no images, or fewer than two outputs a source.
        """
        if images.dim() != 5 or images.shape[1] < FEWEST_OUTPUTS:
            raise ShapeError(
                f"diversity: got {tuple(images.shape)}; expected (sources, {FEWEST_OUTPUTS} or "
                "more outputs, 3, H, W); give each source more references"
            )
        if not len(images):
            return torch.empty(0)
        portion = max(1, AT_ONCE // images.shape[1])
        return torch.cat([self._diversity(part) for part in torch.split(images, portion)])

    def _diversity(self, images: Tensor) -> Tensor:
        outputs = images.shape[1]
        squares = []
        for one in self._maps(images.to(self.shift.device).flatten(0, 1)):
            each = one.view(-1, outputs, *one.shape[1:])  # (n, K, C, h, w)
            apart = each - each.mean(1, keepdim=True)  # `var` is far slower
            squares.append(apart.square_().mean((1, 3, 4)) * (2 * outputs / (outputs - 1)))
        return self._weigh(squares).cpu()

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Return AlexNet's maps (n, C, h, w) of images (n, 3, H, W), of unit length over C."""
        if images.dim() != 4 or images.shape[1] != 3 or min(images.shape[2:]) < FEWEST_PIXELS:
            raise ShapeError(
                f"LPIPS: got images of shape {tuple(images.shape)}; expected (n, 3, H, W) of "
                f"{FEWEST_PIXELS} pixels a side at least; check the model's size"
            )
        if not images.is_floating_point():
            raise DataError(f"LPIPS: images are {images.dtype}; expected floats in [-1, 1]")
        x, maps = (images.float() - self.shift) / self.scale, []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maps.append(self.unit(x))
            if len(maps) == self.depth:
                break  # the last pooling leads to no map
        return maps

    def _weigh(self, squares: Sequence[Tensor]) -> Tensor:
        """Weigh the channels (n, C) of every map and add them up: (n,)."""
        learnt = (getattr(self, f"learnt{number}") for number in range(self.depth))
        return torch.stack([one @ w for one, w in zip(squares, learnt, strict=True)]).sum(0)


def stargan_v2(
    *,
    cache: str | PathLike[str] | None = None,
    backbone: str = "alexnet",
    device: torch.device | str = "cpu",
) -> LPIPS:
    """Return the ancestor's LPIPS.

    Args:
        cache: the folder of weights; see `fetched.root`.
        backbone: the set of AlexNet's weights, "alexnet" or "alexnet_older".
        device: of the networks.

    Raises:
        WeightsError: weights or torchvision are missing; the message says how to get them.
    """
    learnt = learnt_layers("lpips_stargan_v2", "lpips_weights.{}.main.1.weight", cache)
    layers = _trained_layers(backbone, cache)
    made = LPIPS(STARGAN_V2, layers, learnt, unit_stargan_v2, over_batches=True)
    return made.to(device)


def alex(
    *,
    cache: str | PathLike[str] | None = None,
    backbone: str = "alexnet",
    device: torch.device | str = "cpu",
) -> LPIPS:
    """Return the community's LPIPS; arguments and errors as in `stargan_v2`."""
    learnt = learnt_layers("lpips_alex", "lin{}.model.1.weight", cache)
    layers = _trained_layers(backbone, cache)
    return LPIPS(ALEX, layers, learnt, unit_package, of_bytes=True).to(device)


def unit_stargan_v2(maps: Tensor) -> Tensor:
    """Bring (n, C, h, w) to unit length over C; the small constant stands under the root."""
    return maps * maps.square().sum(1, keepdim=True).add_(SMALL).rsqrt_()


def unit_package(maps: Tensor) -> Tensor:
    """Bring (n, C, h, w) to unit length over C; the small constant is added to the length."""
    return maps / maps.square().sum(1, keepdim=True).sqrt_().add_(SMALL)


def learnt_layers(name: str, key: str, cache: str | PathLike[str] | None) -> list[Tensor]:
    """Read the learnt layers of a set of weights; `key` names them by number.

    Raises:
        WeightsError: they are missing or others than expected.
    """
    shapes = {key.format(n): (1, channels, 1, 1) for n, channels in enumerate(CHANNELS)}
    state = foreign.read_state(fetched.path(name, cache), expected=shapes)
    return [state[one] for one in shapes]


def alexnet_layers() -> nn.Sequential:
    """Build AlexNet's convolutions with random weights.

    Raises:
        WeightsError: torchvision is not installed.
    """
    layers = _convolutions(_alexnet()).to_empty(device="cpu")
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    return layers


def _trained_layers(name: str, cache: str | PathLike[str] | None) -> nn.Sequential:
    path = fetched.path(name, cache)
    network = _alexnet()
    state = foreign.read_state(path, expected=network.state_dict())
    network.load_state_dict(state, assign=True)
    return _convolutions(network)


def _convolutions(network: nn.Module) -> nn.Sequential:
    layers = network.features
    assert isinstance(layers, nn.Sequential)
    return layers


def _alexnet() -> nn.Module:
    """Describe the network without memory for it; its classifier, 235 MB, is not wanted."""
    try:
        from torchvision.models import alexnet
    except ImportError as error:
        raise WeightsError(
            f'torchvision is not installed ({error}); run: pip install "xfavot[metrics]"'
        ) from error
    with torch.device("meta"):
        network: nn.Module = alexnet(weights=None)
    return network
