"""A file of weights with a record of them: safetensors, whose header says all that is known.

The record holds network, contract of the mel-spectrogram, arguments of the constructor, and as a
rule how the network was trained and how good it is. Nothing in such a file is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from os import PathLike
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from xfavot.errors import TrainingError, WeightsError, refusing
from xfavot.files import whole

RECORD = "record"  # entry of the header; JSON


def write(
    path: str | PathLike[str], network: nn.Module, record: Mapping[str, Any], *, half: bool = False
) -> None:
    """Write a network whole or not at all.

    Args:
        path: file `*.safetensors`; its folder is made.
        network: trained.
        record: at least network, contract and arguments.
        half: in half precision.

    Raises:
        TrainingError: the file cannot be written.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    if half:
        tensors = {k: v.half() for k, v in tensors.items()}
    faults, advice = (OSError, SafetensorError), "free a few megabytes or give another run_root"
    with (
        refusing(faults, TrainingError, f"{path}: cannot be written", advice),
        whole(path) as draft,
    ):
        save_file(tensors, draft, metadata={RECORD: json.dumps(record, allow_nan=False)})
        draft.chmod(0o644)  # safetensors keeps it from others


def read(path: str | PathLike[str], networks: Collection[str]) -> dict[str, Any]:
    """Return the record of a file of one of these networks.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """
    with _reading(path, networks), safe_open(path, framework="pt") as file:
        said: dict[str, Any] = json.loads((file.metadata() or {})[RECORD])
        if said["network"] not in networks or "contract" not in said:
            raise ValueError(f"network is {said['network']!r}")
        return said


def load(
    path: str | PathLike[str], networks: Mapping[str, Callable[..., nn.Module]]
) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network of a file with its weights; return it, frozen, and the record.

    Args:
        path: what :func:`write` wrote.
        networks: by the name in the record, what builds them of the record's arguments.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """
    said = read(path, networks)
    with _reading(path, networks):
        network = networks[said["network"]](**said["arguments"])
        state = {key: value.float() for key, value in load_file(path).items()}
        if not all(bool(value.isfinite().all()) for value in state.values()):
            raise ValueError("a weight is not finite")
        network.load_state_dict(state)
    return network.requires_grad_(False).eval(), said


def _reading(path: str | PathLike[str], networks: Collection[str]) -> AbstractContextManager[None]:
    """Refuse a file of something else, whatever its bytes lead to."""
    advice = (
        "expected a safetensors file that this package wrote; delete it, so that it is trained "
        "again, or install the package again if it came with it"
    )
    what = f"{path}: not the weights of {' or '.join(networks)}"
    return refusing(Exception, WeightsError, what, advice)
