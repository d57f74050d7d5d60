"""The command line.

    xfavot convert --source FILE (--reference FILE | --latent SEED) [--output FILE] ...
    xfavot train [--NAME VALUE] [-p NAME VALUE] ...
    xfavot fetch-weights [NAME ...|all] [--cache DIR] [--list]

`convert` finds out by their content whether files are faces or voices. `train` takes the parameters
of `notebooks/train.ipynb`, also as papermill does (`-p NAME VALUE`) and under a launcher:
`torchrun --nproc-per-node 2 -m xfavot.cli train -p NAME VALUE ...`. A shell completes all of it
after `eval "$(register-python-argcomplete xfavot)"`.

Thin: every command is one call into the package. Progress goes to the standard output, errors to
the standard error; the status is 0, or 1 if something could not be done, or 2 for a wrong call.
"""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import argcomplete
from argcomplete.completers import ChoicesCompleter

from xfavot import presets
from xfavot.errors import ConfigError, DataError, XFaVoTError
from xfavot.files import unused
from xfavot.media import kind_of, open_media
from xfavot.parameters import SHIPPED, Train
from xfavot.weights import fetched

ALL = "all"
PRESETS = {"dataset": "datasets", "configuration": "configurations", "preset": "sizes"}
SUFFIX = {"face": ".png", "voice": ".wav"}
HELP = """A face (a picture) or a voice (a sound, or that of a film) takes the identity of a
reference, which is a face or a voice too, or of a latent code. Convert only people who have agreed
to it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line; ``None`` takes those of the process.

    Returns:
        The status of the process.
    """
    parser = argparse.ArgumentParser(prog="xfavot", description="XFaVoT's commands")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_convert(commands.add_parser("convert", help="convert a face or a voice", description=HELP))
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
    for one in dataclasses.fields(Train):
        words: Any = one.metadata["choices"] or presets.names(PRESETS.get(one.name, ""))
        option: Any = train.add_argument(f"--{one.name}", help=one.metadata["help"])
        if words:  # others are completed as files
            option.completer = ChoicesCompleter(words)
    argcomplete.autocomplete(parser)
    given = parser.parse_args(arguments)
    try:
        if given.command == "convert":
            return _convert(given)
        if given.command == "train":
            own = [(one.name, getattr(given, one.name)) for one in dataclasses.fields(Train)]
            texts = [*given.p, *(pair for pair in own if pair[1] is not None)]
            return _train({name: _value(text) for name, text in texts})
    except XFaVoTError as error:  # told without a traceback
        sys.stderr.write(f"error: {error}\n")
        return 1
    names = fetched.names() if ALL in given.names else tuple(dict.fromkeys(given.names))
    failed = []
    for name in ["--list"] if given.list or not names else names:
        try:
            if name == "--list":
                _write(fetched.listing(given.cache))
            else:
                fetched.path(name, given.cache, download=True, on_log=_write)
        except XFaVoTError as error:
            sys.stderr.write(f"error: {error}\n")
            failed.append(name)
    if failed and len(names) > 1:
        sys.stderr.write(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}\n")
    return 1 if failed else 0


def _add_convert(command: argparse.ArgumentParser) -> None:
    """Say what `convert` takes."""
    command.add_argument("--source", required=True, metavar="FILE", help="what is converted")
    guide = command.add_mutually_exclusive_group(required=True)
    guide.add_argument("--reference", metavar="FILE", help="face or voice that it shall match")
    guide.add_argument("--latent", type=int, metavar="SEED", help="or a made-up person, by number")
    command.add_argument("--gender", help="of the reference: f or m; may be left out for a voice")
    command.add_argument("--output", metavar="PATH", help="new .png or .wav file, or a folder")
    where = f"{SHIPPED}, a run's folder, or owner/name on the Hugging Face hub; usually {SHIPPED}"
    command.add_argument("--checkpoint", default=SHIPPED, metavar="MODEL", help=where)
    aligned = "faces are square crops as in CelebA-HQ already; none is looked for"
    command.add_argument("--aligned", action="store_true", help=aligned)
    command.add_argument("--vocoder", default="source_filter", help="its name, or its weights")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")


def _convert(given: argparse.Namespace) -> int:
    """Convert a file after another or after a latent code; return the status.

    Raises:
        XFaVoTError: a file, the model or the gender cannot be used, or the output is there already.
    """
    kind = _kind("--source", given.source)
    guidance, name = {"latent": given.latent}, f"latent_{given.latent}"
    if given.reference:
        guide, name = _kind("--reference", given.reference), Path(given.reference).stem
        guidance = {f"{guide}_reference": given.reference}
        guidance |= {"reference_aligned": True} if given.aligned and guide == "face" else {}
    target = _target(given.output, f"{Path(given.source).stem}_after_{name}", SUFFIX[kind])
    from xfavot.convert import Converter  # here, because it loads PyTorch

    how = {"device": given.device, "vocoder": given.vocoder}
    converter = Converter.from_pretrained(given.checkpoint, **how)
    started = time.perf_counter()
    guidance["gender"] = given.gender
    if kind == "face":
        made: Any = converter.convert_face(given.source, aligned=given.aligned, **guidance)
    else:
        made = converter.convert_voice(given.source, **guidance)
    made.save(target)
    for label, text in made.provenance.items():
        _write(f"{label}: {text}")
    _write(f"wrote {target}, in {time.perf_counter() - started:.1f} s on {converter.device}")
    return 0


def _kind(option: str, file: str) -> str:
    """Say whether a file holds a face or a voice, by its content; a film counts as a voice."""
    kind = kind_of(file)
    if kind is None:
        open_media(file).close()  # says what is missing, empty or a text
        raise DataError(
            f"{option} {file} is neither picture, sound nor film, or damaged; expected a frontal "
            "face or a clip of speech; open it in another program, and save or fetch it again"
        )
    return "face" if kind == "picture" else "voice"


def _target(output: str | None, stem: str, suffix: str) -> Path:
    """Choose a file that is not there yet: `output`, or in that folder, or here, a numbered one."""
    target = Path(output or ".")
    if target.is_dir():
        return unused(target, stem, suffix)
    if target.exists() or target.suffix.lower() != suffix:
        fault = "is there already" if target.exists() else f"does not end in {suffix}"
        raise ConfigError(
            f"--output {target} {fault}; expected a new {suffix} file, since nothing is ever "
            "overwritten, or a folder; give another name"
        )
    return target


def _train(given: dict[str, Any]) -> int:
    """Train with parameters by name; return the status."""
    from xfavot import training  # here, because it loads PyTorch
    from xfavot.viz import progress

    parameters = Train.resolve(**given)
    if parameters.processes > 1:
        training.launch(parameters, progress.line)
    else:
        training.fit(parameters.run, resume=parameters.resume, on_log=progress.line)
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
