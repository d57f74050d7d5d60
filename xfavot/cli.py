"""The command line.

    xfavot fetch-weights [NAME ...|all] [--cache DIR] [--list]
    xfavot train [-p NAME VALUE] ...

`train` takes the parameters of `notebooks/train.ipynb` as papermill does, also under a launcher:
`torchrun --nproc-per-node 2 -m xfavot.cli train -p NAME VALUE ...`.

Thin: every command is one call into the package. Progress goes to the standard output, errors to
the standard error; the status is 0, or 1 if something could not be done, or 2 for a wrong call.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from xfavot.errors import XFaVoTError
from xfavot.weights import fetched

ALL = "all"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line; ``None`` takes those of the process.

    Returns:
        The status of the process.
    """
    parser = argparse.ArgumentParser(prog="xfavot", description="XFaVoT's commands")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    fetch = commands.add_parser(
        "fetch-weights",
        help="fetch weights of vocoders and metrics that the package does not ship",
        description="Without a name it lists what there is. Each licence is shown first.",
    )
    fetch.add_argument("names", nargs="*", metavar="NAME", help=f"sets of weights, or {ALL!r}")
    fetch.add_argument("--cache", metavar="DIR", help=f"folder; usually {fetched.CACHE}")
    fetch.add_argument("--list", action="store_true", help="list them and fetch nothing")
    train = commands.add_parser("train", help="train a model, as notebooks/train.ipynb does")
    train.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    given = parser.parse_args(arguments)
    if given.command == "train":
        return _train({name: _value(text) for name, text in given.p})
    names = fetched.names() if ALL in given.names else tuple(dict.fromkeys(given.names))
    failed = []
    for name in ["--list"] if given.list or not names else names:
        try:
            if name == "--list":
                _write(fetched.listing(given.cache))
            else:
                fetched.path(name, given.cache, download=True, on_log=_write)
        except XFaVoTError as error:  # told without a traceback
            sys.stderr.write(f"error: {error}\n")
            failed.append(name)
    if failed and len(names) > 1:
        sys.stderr.write(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}\n")
    return 1 if failed else 0


def _train(given: dict[str, Any]) -> int:
    """Train with parameters by name; return the status."""
    from xfavot import training  # here, because it loads PyTorch
    from xfavot.parameters import Train
    from xfavot.viz import progress

    try:
        parameters = Train.resolve(**given)
        if parameters.processes > 1:
            training.launch(parameters, progress.line)
        else:
            training.fit(parameters.run, resume=parameters.resume, on_log=progress.line)
    except XFaVoTError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _value(text: str) -> Any:
    """Read a value as papermill does: a word of Python, a number, or else the text itself."""
    for read in ({"True": True, "False": False, "None": None}.__getitem__, int, float):
        with suppress(KeyError, ValueError):
            return read(text)
    return text


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
