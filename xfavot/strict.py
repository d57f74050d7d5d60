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
from typing import Any, TypeVar

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


def describe_value(value: object) -> str:
    """Write a value with its type, as error messages show it."""
    return f"{value!r} ({type(value).__name__})"


def typed(value: object, hint: Any, where: str) -> Any:
    """Check one value against a type hint.

    Args:
        value: what was given.
        hint: `bool`, `int`, `float`, `str`, `dict`, `list` or `tuple[str, ...]`.
        where: the dotted name, for the message.

    Returns:
        The value; an int becomes the equal float where a float is expected, a list a tuple.

    Raises:
        ConfigError: another type, or a float that is not finite.
    """
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(
                f"{where} is {describe_value(value)}; expected a list; write [a, b] in YAML"
            )
        inner = typing.get_args(hint)[0]
        return tuple(typed(entry, inner, f"{where}[{i}]") for i, entry in enumerate(value))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(
            f"{where} is {describe_value(value)}; expected {hint.__name__}; {_advice(value, hint)}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is {value!r}; expected a finite number; correct it")
    return value


def _advice(value: object, hint: Any) -> str:
    """Next step for a value of the wrong type."""
    if hint is float and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return "give a number such as 0.5"
        mantissa, exponent = f"{number:e}".split("e")
        plain = f"{float(mantissa)}e{int(exponent)}"
        return f"in YAML write {plain}" if "e" in value.lower() else "remove the quotes"
    if hint is bool:
        return "write true or false without quotes in YAML, True or False after -p"
    if hint is int:
        return "give a whole number without quotes, such as 100"
    if hint is str:
        return (
            "give text; where it looks like a number, quote it in YAML, and hand it to a notebook "
            "with -r in place of -p"
        )
    return f"give a {hint.__name__}"


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
    if not isinstance(mapping, Mapping):
        raise ConfigError(
            f"{where or cls.__name__} is {describe_value(mapping)}; expected a mapping; "
            "write one 'name: value' a line"
        )
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in hints:
            raise ConfigError(f"{name} is not a setting; {nearest(str(key), hints)}")
        if dataclasses.is_dataclass(hints[key]):
            values[key] = build(typing.cast("type[Any]", hints[key]), value, name)
        else:
            values[key] = typed(value, hints[key], name)
    try:
        return cls(**values)
    except TypeError as error:  # names what is missing
        raise ConfigError(f"{where or cls.__name__}: {error}; add it") from error


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested mapping over another; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(typing.cast("Mapping[str, Any]", below), value) if both else value
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


def option(
    default: Any,
    help: str = "",
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    neutral: object = None,
) -> Any:
    """Declare a field of a configuration: its default, its help and what it may be.

    Args:
        default: value of a field that is left out.
        help: one line for people.
        choices: the words that exist.
        least, above, below: bounds of a number; `least` is allowed itself.
        neutral: a value outside the bounds that is allowed too, such as -1 for "the preset's".

    Returns:
        A dataclass field; :func:`check_options` reads its bounds.
    """
    bounds = {"choices": choices, "least": least, "above": above, "below": below}
    given: dict[str, Any] = {"metadata": {"help": help, "neutral": neutral, **bounds}}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), **given)
    return dataclasses.field(default=default, **given)


def check_options(instance: Any, section: str = "") -> None:
    """Hold every field of a dataclass against the bounds that :func:`option` declared.

    Args:
        instance: of a dataclass.
        section: its dotted name, for messages.

    Raises:
        ConfigError: the first value that is out of bounds.
    """
    for entry in dataclasses.fields(instance):
        value, may = getattr(instance, entry.name), entry.metadata
        name = f"{section}.{entry.name}" if section else entry.name
        neutral = may.get("neutral")
        if not may or (neutral is not None and value == neutral):
            continue
        also = "" if neutral is None else f", or {neutral} for the preset's"
        if may["choices"] and value not in may["choices"]:
            raise ConfigError(f"{name} is {value!r}; {nearest(str(value), may['choices'])}")
        for bound, words, holds in (
            ("least", "{} or more", operator.ge),
            ("above", "more than {}", operator.gt),
            ("below", "less than {}", operator.lt),
        ):
            limit = may[bound]
            fits = limit is None or holds(value, limit)
            require(fits, name, value, words.format(limit) + also, "correct it")
