"""Errors of the package and the shape checks that raise them.

Every message says what was wrong, what came, what was expected and what to do next
(style guide, section 8). All errors derive from :class:`XFaVoTError`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class XFaVoTError(Exception):
    """Base of every error that the package raises on purpose."""


class ConfigError(XFaVoTError, ValueError):
    """A parameter, a preset or a configuration file is wrong."""


class DataError(XFaVoTError):
    """A file, a corpus or a prepared store cannot be used."""


class ShapeError(XFaVoTError, ValueError):
    """A tensor has another shape than the function needs."""


class CheckpointError(XFaVoTError):
    """A checkpoint or a run directory cannot be used."""


class WeightsError(XFaVoTError):
    """Weights of a network that is not trained here are missing or do not fit."""


class TrainingError(XFaVoTError):
    """Training cannot go on (a term is not finite, the disk is full)."""


Faults = type[Exception] | tuple[type[Exception], ...]
Error = Callable[[str], XFaVoTError]  # made of its message


@contextmanager
def refusing(faults: Faults, error: Error, what: str, advice: str) -> Iterator[None]:
    """Raise what goes wrong inside a block as an error that people can act upon.

    Args:
        faults: what the block may raise.
        error: what is raised in its place, with its reason.
        what: what was wrong, the start of the message.
        advice: what was expected and what to do next, its end.

    Raises:
        XFaVoTError: an `error`: the block has raised one of the faults.
    """
    try:
        yield
    except faults as fault:
        kind = "" if isinstance(fault, OSError | ImportError) else f"{type(fault).__name__}: "
        reason = f"{kind}{fault}"[:500].replace("\n", " ")
        raise error(f"{what} ({reason}); {advice}") from fault


def require_shape(name: str, tensor: Tensor, pattern: Sequence[int | None]) -> None:
    """Refuse a tensor whose shape does not fit a pattern, such as another tensor's shape.

    Broadcasting would hide the difference.

    Args:
        name: what the tensor is, for the message.
        tensor: the tensor.
        pattern: one entry an axis; ``None`` fits any length.

    Raises:
        ShapeError: the number of axes or a fixed length differs.
    """
    fits = tensor.dim() == len(pattern) and all(
        want in (None, got) for want, got in zip(pattern, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if p is None else str(p) for p in pattern)
        raise ShapeError(
            f"{name}: got a tensor of shape {tuple(tensor.shape)}; expected ({wanted}); "
            "check the preset's sizes and the order of the axes"
        )


def import_optional(module: str, *, extra: str, purpose: str) -> Any:
    """Import a library that only an extra installs.

    Args:
        module: its name in Python.
        extra: the extra of this package that installs it.
        purpose: what needs it, the subject of the message.

    Raises:
        DataError: it is not installed; the message says how to install it.
    """
    missing = f"{purpose} needs {module.partition('.')[0]}, which is not installed"
    with refusing(ImportError, DataError, missing, f'run: pip install "xfavot[{extra}]"'):
        return importlib.import_module(module)
