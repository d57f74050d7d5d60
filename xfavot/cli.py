"""The command line: `python -m xfavot.cli fetch-weights [NAME ...|all] [--cache DIR] [--list]`.

Thin: every command is one call into the package. Progress goes to the standard output, errors to
the standard error; the status is 0, or 1 if something could not be done, or 2 for a wrong call.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

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
    fetch = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "fetch-weights",
        help="fetch weights of vocoders and metrics that the package does not ship",
        description="Without a name it lists what there is. Each licence is shown first.",
    )
    fetch.add_argument("names", nargs="*", metavar="NAME", help=f"sets of weights, or {ALL!r}")
    fetch.add_argument("--cache", metavar="DIR", help=f"folder; usually {fetched.CACHE}")
    fetch.add_argument("--list", action="store_true", help="list them and fetch nothing")
    given = parser.parse_args(arguments)
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


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
