"""Packages and checkpoints of other projects: named when absent, read without executing anything.

What a file is shows in its bytes, not in its name: safetensors, PyTorch's zip or its older pickle
(NISQA's `.tar` is such a zip). A pickle that names anything beyond tensors and plain containers is
refused, and so are PyTorch's tar of before 2017 and TorchScript, which cannot be read this way.
"""

from __future__ import annotations

import importlib
import re
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from xfavot.errors import WeightsError, refusing
from xfavot.fetch import looks_like_page

SHOWN = 3  # tensors that a message names
ADVICE = (
    "expected tensors by name in safetensors or PyTorch's format, and the file that belongs to "
    "this network; remove it and fetch it again, or name another"
)
_GLOBAL = re.compile(r"(?:GLOBAL|global:?|Unsupported class)\s+(?:GLOBAL\s+)?([\w.]+\.[\w.]+)")


def package(name: str, *, extra: str = "metrics") -> Any:
    """Import a module of an optional package.

    Args:
        name: of the module, such as "torchvision.models".
        extra: of this project, with which the package is installed.

    Raises:
        WeightsError: it is not installed.
    """
    advice = f'run: pip install "xfavot[{extra}]", in the versions of constraints.txt'
    with refusing(ImportError, WeightsError, f"{name} is not installed", advice):
        return importlib.import_module(name)


def read(path: str | PathLike[str], *, advice: str = ADVICE) -> Any:
    """Read a checkpoint onto the CPU.

    Args:
        path: a file of safetensors or PyTorch, whatever its ending.
        advice: what was expected and what to do, the end of messages.

    Returns:
        What it holds: tensors by name, or containers and plain values around them.

    Raises:
        WeightsError: it is missing or damaged, or holds more than tensors and plain containers;
            the message says which name was refused, and nothing of it is run.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            head = stream.read(200)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size:
            return load_file(file)
        if looks_like_page(head):
            raise ValueError("it is a web page")
        with warnings.catch_warnings(action="ignore"):  # of the older formats
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything
        if refused := _GLOBAL.search(str(error)):
            reason = f"names {refused[1]!r}, which loading would run; it was not run"
        else:
            line = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
            reason = f"is damaged, or of a kind that may run code ({line:.150}); nothing was run"
        raise _refusal(file, reason, advice) from error


def read_state(
    path: str | PathLike[str],
    *,
    at: Sequence[str] = (),
    expected: Mapping[str, Tensor | Sequence[int]] | None = None,
    ignored: tuple[str, ...] = (),
    advice: str = ADVICE,
) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by name; a leading "module." is no part of a name.

    Args:
        path, advice: see `read`.
        at: the names that lead to them, or to one, from the outside; NISQA:
            ``("model_state_dict",)``.
        expected: tensors or shapes by name, such as a network's own `state_dict()`; all of them
            and no others must be there.
        ignored: how the names of tensors end that may be there or not, and are left out.

    Returns:
        Tensors by name, on the CPU; those of floating point are finite.

    Raises:
        WeightsError: see `read`; or nothing lies there, something else than tensors does, or they
            are others than expected: the first that are missing, too many or of another shape are
            named.
    """
    held, file = read(path, advice=advice), Path(path)
    for key in at:
        held = held.get(key) if isinstance(held, Mapping) else None
    held = {at[-1]: held} if isinstance(held, Tensor) else held
    if not isinstance(held, Mapping) or not held:
        raise _refusal(file, f"holds no tensors by name{' at ' * bool(at)}{'/'.join(at)}", advice)
    named = {str(name).removeprefix("module."): value for name, value in held.items()}
    state = {name: value for name, value in named.items() if not name.endswith(ignored)}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise _refusal(file, f"{name} is {reprlib.repr(value)}, no tensor", advice)
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise _refusal(file, f"{name} has values that are not finite", advice)
    if expected is not None:
        shapes = {name: tuple(getattr(one, "shape", one)) for name, one in expected.items()}
        wanted = {name: one for name, one in shapes.items() if not name.endswith(ignored)}
        found = {name: tuple(value.shape) for name, value in state.items()}
        odd = [
            f"{name} is {found.get(name, 'missing')}, expected {wanted.get(name, 'none')}"
            for name in {**wanted, **found}
            if wanted.get(name) != found.get(name)
        ]
        if odd:
            what = f"{len(odd)} of {len(wanted)} expected tensors do not fit"
            raise _refusal(file, f"{what}: {'; '.join(odd[:SHOWN])}", advice)
    return state


def _refusal(file: Path, reason: str, advice: str) -> WeightsError:
    return WeightsError(f"weights {file}: {reason}; {advice}")
