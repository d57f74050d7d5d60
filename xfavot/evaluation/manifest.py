"""An evaluation is a manifest, scored: rows of outputs, and the groups in which they are scored.

A manifest has one row an output: `task` (named guidance to output, as everywhere), `source`,
`reference` (empty for a latent code), `output`, `model`, and where known `transcript` (of the
source), `speaker` and `gender` (f or m) of the person whom the reference shows. It comes from a CSV
file, whoever made the outputs (:func:`read`), or from a checkpoint's conversions (`protocol.py`).
What one model made of one task is a group; every metric is a function from a group to rows. A file
that cannot be used, for whatever reason, is left out with that reason, and the others are scored.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xfavot.convert import Task
from xfavot.convert.converter import read_voice
from xfavot.errors import DataError, XFaVoTError
from xfavot.evaluation.rows import DEFINITIONS, Row, ratio
from xfavot.image.io import load_image, resize_image
from xfavot.strict import nearest

REQUIRED = ("task", "source", "reference", "output", "model")
OPTIONAL = ("transcript", "speaker", "gender")
GENDER_WORDS = {"f": "f", "female": "f", "m": "m", "male": "m", "": ""}
SHOWN = 5  # faults that a message lists
GROUND_TRUTH = "ground truth"
SEXES = {"f": "female", "m": "male"}
PARTS = (  # of a group: direction, sex of the reference, and sexes of source and reference
    ("", "", ()),
    *((f"{SEXES[a]} to {SEXES[b]}", SEXES[b], (a + b,)) for b in SEXES for a in SEXES),
    *(("", SEXES[b], ("f" + b, "m" + b)) for b in SEXES),
)
AT_ONCE = 32  # images
OF_SOURCES = ("nisqa", "nisqa_tts", "distill_mos", "word_error", "content_character_error")
MOST_UTTERANCES = 10  # of a person
EVERYTHING = "all"  # a metric: none of them could be measured
UNUSABLE = "unusable_outputs"  # metric: share of a group's outputs that cannot be used


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One row.

    Args:
        task: of the conversion.
        source, output: files.
        reference: file, or ``None`` for a latent code, or a face that is no file.
        model: what made the output, where one list holds those of several.
        transcript: what the source says, "" if not known.
        speaker: whom the reference shows, "" if not known.
        gender: of that person, "f", "m" or "".
        source_gender: of the source, "f", "m" or "", for figures by direction.
        failure: why there is no output, "" where there is one.
    """

    task: Task
    source: Path
    reference: Path | None
    output: Path
    model: str = ""
    transcript: str = ""
    speaker: str = ""
    gender: str = ""
    source_gender: str = ""
    failure: str = ""

    @property
    def who(self) -> str:
        """Whose sample it is, for intervals: the reference's person, else the source file."""
        return self.speaker or str(self.source)

    @property
    def voices(self) -> list[Path]:
        """The reference, if it is a voice."""
        return [self.reference] if self.reference and self.task.guidance == "voice" else []


Sample = tuple[float, float]  # above and below of a ratio of sums; of a mean, the value and 1
Measure = Callable[[Output], Mapping[str, Sample]]  # samples of an output by metric


def reason_of(error: Exception) -> str:
    """What stands in a row in place of a score; an error of other packages is called by its type.

    One file's failure, of whatever kind, is that row's alone.
    """
    return str(error) if isinstance(error, XFaVoTError) else f"{type(error).__name__}: {error}"


def attempt(make: Callable[..., Any], *given: Any) -> Any:
    """Return what a call gives, or else its error, whose reason then stands in a row."""
    try:
        return make(*given)
    except Exception as error:
        return error


@dataclass(eq=False, kw_only=True)
class Group:
    """What one system made of one task.

    Args:
        names: the first cells of its rows of results, see :func:`names_of`.
        make: gives the rows, when they are first needed; raises a `DataError` where there can be
            none.
        metrics: those that apply to the ground truth, which is taken as it is; empty for all.
        folder: of files that are removed later, whose name reasons leave out.
        absent: why directions of it cannot be measured.
        skipped: why samples were left out while a family of metrics was measured.
        score: measures what has no outputs, by the family "verification".
    """

    names: Row
    make: Callable[[], Sequence[Output]] = tuple
    metrics: tuple[str, ...] = ()
    folder: Path | None = None
    absent: Sequence[str] = ()
    skipped: Counter[str] = field(default_factory=Counter)
    score: Callable[[], list[Row]] | None = None

    @cached_property
    def outputs(self) -> Sequence[Output]:
        """All rows."""
        return self.make()

    @cached_property
    def failures(self) -> dict[Path, str]:
        """Outputs that cannot be used, and why."""

        def check(one: Output) -> None:
            if one.failure:
                raise DataError(one.failure)
            if one.task.output == "voice":
                read_voice(one.output, name=str(one.output))
            else:
                load_image(one.output)

        tried = {one.output: attempt(check, one) for one in (() if self.metrics else self.outputs)}
        return {file: self.plain(error) for file, error in tried.items() if error}

    @property
    def usable(self) -> list[Output]:
        """Rows whose outputs can be used."""
        return [one for one in self.outputs if one.output not in self.failures]

    def plain(self, error: Exception) -> str:
        """A reason without the temporary folder's name, so that it is the same in every run."""
        return reason_of(error).replace(f"{self.folder}/", "")

    def missing(self, metric: str, reason: str | Exception, samples: int | None = None) -> Row:
        """Make the row of a metric that could not be measured, by default for any row."""
        why = self.plain(reason) if isinstance(reason, Exception) else reason
        count = len(self.outputs) if samples is None else samples
        return {**self.names, "metric": metric, "reason": why, "samples": count}

    def usability(self, *, seed: int) -> list[Row]:
        """Say how many outputs cannot be used, and why; nothing of real ones."""
        if self.metrics or not self.outputs:
            return []
        shares = {one: (float(one.output in self.failures), 1.0) for one in self.outputs}
        text = DEFINITIONS[UNUSABLE][self.outputs[0].task.output]
        rows = self.average(shares, seed=seed, metric=UNUSABLE, definition=text)
        reasons = Counter(self.failures.values())
        return rows + [self.missing(EVERYTHING, reason, n) for reason, n in reasons.items()]

    def measured(
        self, metric: str, measure: Measure | Exception, define: Callable[[str], str], *, seed: int
    ) -> list[Row]:
        """Measure all usable outputs and average them: together, by direction and by sex.

        Args:
            metric: what is missing where an output cannot be measured.
            measure: takes an output; or why there is no such thing.
            define: says of a metric's name what it is.
            seed: of the bootstrap over people.
        """
        samples: dict[str, dict[Output, Sample]] = defaultdict(dict)
        reasons: Counter[str] = Counter()
        for one in self.usable:
            try:
                if isinstance(measure, Exception):
                    raise measure
                for name, sample in measure(one).items():
                    samples[name][one] = sample
            except Exception as error:  # of one file: its reason, and the next one
                reasons[self.plain(error)] += 1
        rows: list[Row] = []
        for name, own in samples.items():
            rows += self.average(own, seed=seed, metric=name, definition=define(name))
        return rows + [self.missing(metric, reason, count) for reason, count in reasons.items()]

    def average(self, samples: Mapping[Output, Sample], *, seed: int, **row: object) -> list[Row]:
        """Average samples: together, by direction and by sex.

        Args:
            samples: of each output that could be measured, above and below of a ratio of sums.
            seed: of the bootstrap over people.
            row: further cells.
        """
        rows = []
        for direction, sex, pairs in PARTS:
            part = [
                (*sample, one.who)
                for one, sample in samples.items()
                if not sex or f"{one.source_gender}{one.gender}" in pairs
            ]
            if any(below for _, below, _ in part):
                cells = {"direction": direction, "sex": sex, **row}
                rows.append({**self.names, **cells, **ratio(part, seed=seed)})
        return rows


@dataclass(eq=False, kw_only=True)
class Faces(Group):
    """Converted faces, in memory or in files.

    Args:
        directions: their names, such as "female to male", with the sex of their outputs; one
            without a name where no directions are told apart.
        blocks: takes a direction and yields outputs (n, K, 3, H, W) of n sources, floats in
            [-1, 1], which may overshoot, or uint8.
        pairs: takes a direction and yields sources, an output of each and, of a checkpoint that is
            guided by faces, the references', (n, 3, H, W) uint8; ``None`` where outputs have no
            source.
        real: takes a sex and yields real faces (n, 3, H, W) uint8.
        real_key: what these are, for statistics that are kept.
        note: words to add to the definition of "fid" and "lpips".
    """

    directions: Mapping[str, str]
    blocks: Callable[[str], Iterator[Tensor]]
    real: Callable[[str], Iterator[Tensor]]
    pairs: Callable[[str], Iterator[tuple[Tensor, ...]]] | None = None
    real_key: str = ""
    note: Callable[[str], str] = lambda family: ""


@dataclass(eq=False, kw_only=True)
class Voices(Group):
    """Converted voices, in files.

    Args:
        people: gives the voices of a person by name.
    """

    people: Callable[[str], Sequence[Path]] = lambda name: ()


def names_of(task: Task | str, *, system: str, dataset: str, speakers: str = "") -> Row:
    """Make the first cells of a row of results; a task may also be none of a converter's."""
    name, guidance = (task, "") if isinstance(task, str) else (task.value, task.guidance)
    names = {"system": system, "task": name, "dataset": dataset}
    return {**names, "speakers": speakers, "guidance": guidance}


# Outputs of any system, listed in a CSV file


def read(path: str | PathLike[str]) -> tuple[Output, ...]:
    """Read and check a manifest; what its files hold shows when they are measured.

    Args:
        path: a CSV file in UTF-8, with or without a byte order mark, separated by commas. Relative
            paths start at its folder.

    Returns:
        The rows in their order, at least one.

    Raises:
        DataError: the file is missing, no text, empty or separated by something else; a column is
            missing or unknown; or rows name unknown tasks or missing files, have cells too many or
            too few, repeat an output, or contradict each other on a person or a transcript. Up to
            five faults are shown.
    """
    file = Path(path)
    try:
        text = io.StringIO(file.read_bytes().decode("utf-8-sig"), newline="")
        reader = csv.DictReader(text, strict=True)
        header = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        lines = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refusal(file, [f"cannot be read ({error}); save it as CSV in UTF-8"]) from error
    known = (*REQUIRED, *OPTIONAL)
    faults = [f"lacks {name}" for name in REQUIRED if name not in header]
    faults += [f"has {name!r} ({nearest(name, known)})" for name in header if name not in known]
    faults += [f"has {name} twice" for name in known if header.count(name) > 1]
    if faults or not lines:
        raise _refusal(file, faults or ["has no row"])
    outputs: list[Output] = []
    seen: dict[object, tuple[str, int]] = {}
    for number, row in lines:
        try:
            one = _output(file.parent, row)
        except (DataError, OSError, RuntimeError) as error:  # of a path, too
            faults.append(f"line {number} {error}")
            continue
        outputs.append(one)
        for key, value, clash in (
            (one.output.resolve(), str(number), f"repeats the output {one.output}"),
            (("said", one.source.resolve()), one.transcript, "has another transcript"),
            (("sex", one.speaker), one.speaker and one.gender, f"calls {one.speaker} both"),
        ):
            first, line = seen.setdefault(key, (value, number)) if value else (value, number)
            if first != value:
                faults.append(f"line {number} {clash} as line {line} has it: {first} and {value}")
    if faults:
        raise _refusal(file, faults)
    return tuple(outputs)


def _output(folder: Path, row: dict[str, Any]) -> Output:
    """Make an output of a row, whose paths start at a folder.

    Raises:
        DataError: it cannot be used; the message says why.
    """
    if None in row or None in row.values():
        raise DataError("has too many or too few cells")
    row.update({name: cell.strip() for name, cell in row.items()})
    tasks = {task.value: task for task in Task}
    task, gender = row["task"].lower(), row.get("gender", "").lower()
    needed = [name for name in REQUIRED[1:] if name != "reference" or task[:1] != "z"]
    paths = {n: folder / Path(row[n]).expanduser() for n in REQUIRED[1:4] if row[n]}
    wrong = [f"names no {name}" for name in needed if not row[name]]
    wrong += [f"has no file at its {n} {path}" for n, path in paths.items() if not path.is_file()]
    if task not in tasks:
        wrong.append(f"has task {task!r} ({nearest(task, tasks)})")
    if gender not in GENDER_WORDS:
        wrong.append(f"has gender {gender!r} instead of f, m or nothing")
    if wrong:
        raise DataError("; ".join(wrong))
    row |= {"reference": None, **paths, "task": tasks[task], "gender": GENDER_WORDS[gender]}
    return Output(**row)


def _refusal(file: Path, faults: Sequence[str]) -> DataError:
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return DataError(
        f"manifest {file}: {'; '.join(faults[:SHOWN])}{more}; expected CSV, separated by commas, "
        f"with the columns {', '.join(REQUIRED)}, and where known {', '.join(OPTIONAL)}, and "
        "outputs listed below"
    )


def groups_of(outputs: Sequence[Output], *, dataset: str, size: int) -> list[Group]:
    """Sort a manifest's rows into groups, those of the ground truth at the end.

    Args:
        outputs: of :func:`read`.
        dataset: for the rows of results.
        size: pixels a side to which every picture is brought.
    """
    listed = defaultdict(list)
    for one in outputs:
        listed[one.model, one.task].append(one)
    groups: list[Group] = []
    people = utterances(outputs)
    real = [one.source for one in outputs if one.task.output == "face"]
    real += [one.reference for one in outputs if one.reference and one.task.guidance == "face"]
    for (model, task), own in listed.items():
        names = names_of(task, system=model, dataset=dataset)
        if task.output == "face":
            groups.append(_faces(list(dict.fromkeys(real)), size, names, own))
        else:
            groups.append(
                Voices(names=names, make=own.copy, people=lambda who: people.get(who, ()))
            )
    by_transcript = sorted(outputs, key=lambda one: bool(one.transcript))
    said = {one.source: one.transcript for one in by_transcript if one.task.output == "voice"}
    truth = names_of("", system=GROUND_TRUTH, dataset=dataset)
    return groups + (ground_truth(lambda: said, lambda: people, truth) if said else [])


def ground_truth(
    sources: Callable[[], Mapping[Path, str]],
    people: Callable[[], Mapping[str, Sequence[Path]]],
    names: Row,
    folder: Path | None = None,
) -> list[Group]:
    """Make the groups of real voices: the sources, and two utterances of a person.

    What no conversion can be expected to pass.

    Args:
        sources: gives them with what they say.
        people: gives the voices of everybody by name.
        names: see :class:`Group`; those of the task are added.
        folder: see :class:`Group`.
    """

    def real(file: Path, reference: Path | None = None, **more: str) -> Output:
        task, model = Task.A2A, GROUND_TRUTH
        return Output(task=task, source=file, reference=reference, output=file, model=model, **more)

    def pairs() -> list[Output]:
        known = people().items()
        return [real(*two, speaker=who) for who, files in known for two in combinations(files, 2)]

    def alone() -> list[Output]:
        return [real(file, transcript=said) for file, said in sources().items()]

    made = (("sources", alone, OF_SOURCES), ("references", pairs, ("speaker_similarity",)))
    return [
        Voices(names={**names, "task": task}, make=make, metrics=metrics, folder=folder)
        for task, make, metrics in made
    ]


def utterances(outputs: Sequence[Output]) -> dict[str, list[Path]]:
    """Voices of people by name: the references of audio-guided rows, ten at most."""
    people: dict[str, dict[Path, None]] = {}
    for one in outputs:
        for file in one.voices if one.speaker else ():
            people.setdefault(one.speaker, {})[file] = None
    return {name: list(files)[:MOST_UTTERANCES] for name, files in people.items()}


def _faces(real: Sequence[Path], size: int, names: Row, outputs: list[Output]) -> Faces:
    """Make a group of pictures in files, brought to one size, in one direction without a name."""

    def pictures(rows: Sequence[tuple[Path, ...]]) -> Iterator[Any]:
        """Columns of rows of files, a few rows at once: (n, 3, H, W) uint8 each."""
        for start in range(0, len(rows), AT_ONCE):
            good = []
            for row in rows[start : start + AT_ONCE]:
                try:
                    good.append([resize_image(load_image(file), size) for file in row])
                except Exception as error:
                    group.skipped[group.plain(error)] += 1
            if good:  # (n, columns, H, W, 3)
                yield torch.from_numpy(np.array(good)).permute(1, 0, 4, 2, 3)

    def blocks(_: str) -> Iterator[Tensor]:
        by_source = defaultdict(list)
        for one in group.usable:
            by_source[one.source].append((one.output,))
        for files in by_source.values():
            yield torch.cat([x for (x,) in pictures(files)])[None]

    against = f"; against {len(real)} faces of the manifest"
    group = Faces(
        names=names,
        make=outputs.copy,
        directions={"": ""},
        blocks=blocks,
        pairs=lambda _: pictures([(one.source, one.output) for one in group.usable]),
        real=lambda _: (x for (x,) in pictures([(file,) for file in real])),
        note=lambda family: against if family == "fid" else "; from 8-bit files",
    )
    return group
