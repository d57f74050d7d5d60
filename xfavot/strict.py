"""Mappings into frozen dataclasses without guessing.

YAML files, notebook parameters and checkpoints all become configuration through these functions.
A key that does not exist fails naming the nearest one; a value keeps its exact type (`"1e-4"` is no
float, `True` is no int). The one widening allowed is a whole number where a float is expected,
which loses nothing.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar, dataclass_transform

from xfavot.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is meant, or list them all.

    Args:
        name: the name that was not found.
        known: the names that exist.

    Returns:
        The closing half of an error message.
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    listed = f"expected one of: {', '.join(names)}" if names else "none exists"
    return f"did you mean {close[0]!r}? ({listed})" if close else listed


ADVICE = {
    tuple: "give a list: [a, b] in YAML",
    dict: "write one 'name: value' a line",
    bool: "write true or false without quotes in YAML, True or False after -p",
    int: "give a whole number without quotes, such as 100",
    float: "give a number without quotes, such as 0.5; in YAML write 1e-4 as 1.0e-4",
    str: "quote it in YAML where it looks like a number, and hand it to a notebook with -r in "
    "place of -p",
}


def typed(value: object, hint: Any, where: str) -> Any:
    """Check one value against a type hint.

    Args:
        value: what was given.
        hint: `bool`, `int`, `float`, `str`, `dict[str, Any]` or `tuple[str, ...]`.
        where: the dotted name, for the message.

    Returns:
        The value; an int becomes the equal float where a float is expected, a list a tuple.

    Raises:
        ConfigError: another type, or a float that is not finite.
    """
    kind = typing.get_origin(hint) or hint
    if kind is tuple and isinstance(value, list | tuple):
        inner = typing.get_args(hint)[0]
        return tuple(typed(entry, inner, f"{where}[{i}]") for i, entry in enumerate(value))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        shown = f"{where} is {value!r} ({type(value).__name__}); expected {kind.__name__}"
        raise ConfigError(f"{shown}; {ADVICE.get(kind, 'correct it')}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is {value!r}; expected a finite number; correct it")
    return value


def build(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """Make a configuration dataclass of a mapping; missing keys take their defaults.

    Args:
        cls: a dataclass whose fields are plain values or such dataclasses.
        mapping: field name to value, sections as nested mappings.
        where: dotted prefix for messages.

    Returns:
        The instance, its own checks passed.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a value that the class refuses.
    """
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in typed(mapping, dict, where or cls.__name__).items():
        name = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise ConfigError(f"{name} is not a setting; {nearest(str(key), hints)}")
        hint: Any = hints[key]
        nested = dataclasses.is_dataclass(hint)
        values[key] = build(hint, value, name) if nested else typed(value, hint, name)
    try:
        return cls(**values)
    except TypeError as error:  # names what is missing
        raise ConfigError(f"{where or cls.__name__}: {error}; add it") from error


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping over another; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def require(holds: bool, name: str, value: object, expected: str, step: str) -> None:
    """Refuse a value of the right type that makes no sense.

    Args:
        holds: whether the value is fine.
        name: dotted name.
        value: what was given.
        expected: what it should be.
        step: what to do next.

    Raises:
        ConfigError: `holds` is false.
    """
    if not holds:
        raise ConfigError(f"{name} is {value!r}; expected {expected}; {step}")


BOUNDS = {
    "least": ("{} or more", operator.ge),
    "above": ("more than {}", operator.gt),
    "below": ("less than {}", operator.lt),
    "most": ("{} or less", operator.le),
}


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Settings:
    """Subclasses become frozen dataclasses of keywords alone; their fields are :func:`option`s."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        """Make the dataclass."""
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def option(default: Any, help: str = "", *, choices: tuple[Any, ...] = (), **bounds: float) -> Any:
    """Declare a field of a configuration: its default, its help and what it may be.

    Args:
        default: value of a field that is left out; allowed even where it is out of bounds, such as
            -1 for "the preset's".
        help: one line for people.
        choices: the words or numbers that exist.
        bounds: of a number, any of :data:`BOUNDS`; `least` and `most` are allowed themselves.

    Returns:
        A dataclass field; :func:`check_options` reads its bounds.
    """
    usual = {"default_factory": default.copy} if isinstance(default, dict) else {"default": default}
    held = [(*BOUNDS[bound], limit) for bound, limit in bounds.items()]
    return dataclasses.field(metadata={"help": help, "choices": choices, "bounds": held}, **usual)


def check_options(instance: Any, section: str = "") -> None:
    """Hold every field of a dataclass against the bounds that :func:`option` declared.

    A text with a default may not be empty or commas alone, unless the choices say so.

    Args:
        instance: of a dataclass.
        section: its dotted name, for messages.

    Raises:
        ConfigError: the first value that is out of bounds.
    """
    for entry in dataclasses.fields(instance):
        value, may = getattr(instance, entry.name), entry.metadata
        if not may or value == entry.default:
            continue
        name = f"{section}.{entry.name}" if section else entry.name
        if choices := may["choices"]:
            known = dict.fromkeys(str(one) for one in (*choices, entry.default) if one)
            if value not in choices:
                raise ConfigError(f"{name} is {value!r}; {nearest(str(value), known)}")
        elif isinstance(value, str) and entry.default:
            usual = f"leave it out for {entry.default!r}"
            require(bool(value.strip(" ,")), name, value, "a text", usual)
        for words, holds, limit in may["bounds"]:
            require(holds(value, limit), name, value, words.format(limit), "correct it")
