"""The eight modules and the two frozen networks."""

from __future__ import annotations

import torch

from xfavot.errors import ConfigError


def device_of(name: str) -> torch.device:
    """Return the device of a name: auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.

    Raises:
        ConfigError: no such device here; nothing else is taken in its place.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device is {name!r}, which cannot be used here ({str(error).splitlines()[0]}); "
            "use auto, cpu, or a device that torch sees"
        ) from error
