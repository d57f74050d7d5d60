"""An evaluation is a manifest, scored: rows of outputs, and the groups in which they are scored.

A manifest has one row an output: `task` (named guidance to output, as everywhere), `source`,
`reference` (empty for a latent code), `output`, `model`, and where known `transcript` (of the
source), `speaker` and `gender` (f or m) of the person whom the reference shows. It comes from a CSV
file, whoever made the outputs (:func:`read`), or from a checkpoint's conversions (`protocol.py`).
What one model made of one task is a group; every metric is a function from a group to rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xfavot.convert import Task
from xfavot.convert.inputs import read_voice
from xfavot.errors import DataError, XFaVoTError
from xfavot.evaluation.rows import Row, ratio
from xfavot.image.io import load_image, resize_image
from xfavot.strict import nearest

REQUIRED = ("task", "source", "reference", "output", "model")
OPTIONAL = ("transcript", "speaker", "gender")
GENDER_WORDS = {"f": "f", "female": "f", "m": "m", "male": "m", "": ""}
WITHOUT_REFERENCE = (Task.Z2I, Task.Z2A)
SHOWN = 5  # faults that a message lists
GROUND_TRUTH = "ground truth"
SEXES = {"f": "female", "m": "male"}
AT_ONCE = 32  # images
MOST_UTTERANCES = 10  # of a person
EVERYTHING = "all"  # a metric: none of them could be measured
UNUSABLE = "unusable_outputs"  # metric: share of a group's outputs that cannot be read
UNUSABLE_FACES = "share of outputs that cannot be read as images"
UNUSABLE_VOICES = "share of outputs that cannot be read, are silent or not finite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One row.

    Args:
        task: of the conversion.
        source, output: files.
        reference: file, or ``None`` for a latent code, or a face that is no file.
        model: what made the output.
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
    model: str
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
        known = self.reference is not None and self.task.guidance == "voice"
        return [self.reference] if known and self.reference is not None else []


def reason_of(error: Exception) -> str:
    """What stands in a row in place of a score; an error of other packages is called by its type.

    One file's failure, of whatever kind, is that row's alone.
    """
    return str(error) if isinstance(error, XFaVoTError) else f"{type(error).__name__}: {error}"


@dataclass(eq=False, kw_only=True)
class Group:
    """What one system made of one task.

    Args:
        system, task, dataset, speakers, guidance: for the rows of results.
        size: outputs, for the count of what is missing; 0 where they are not made yet.
        check: raises a `DataError` where the group cannot be made.
    """

    system: str
    task: str
    dataset: str
    speakers: str = ""
    guidance: str = ""
    size: int = 0
    check: Callable[[], object] = lambda: None

    @property
    def names(self) -> Row:
        """The first cells of every row of results."""
        return {
            "system": self.system,
            "task": self.task,
            "dataset": self.dataset,
            "speakers": self.speakers,
            "guidance": self.guidance,
        }

    def missing(self, metric: str, reason: object, samples: int | None = None) -> Row:
        """Make the row of a metric that could not be measured."""
        count = self.size if samples is None else samples
        why = reason_of(reason) if isinstance(reason, Exception) else str(reason)
        return {**self.names, "metric": metric, "reason": why, "samples": count}

    def usability(self, *, seed: int) -> list[Row]:
        """Say how many outputs cannot be read, and why; none of real ones."""
        return []


@dataclass(eq=False, kw_only=True)
class Faces(Group):
    """Converted faces, in memory or in files.

    Args:
        directions: their names, such as "female to male", with the sex of their outputs; one
            without a name where no directions are told apart.
        blocks: takes a direction and yields outputs (n, K, 3, H, W) of n sources, floats in
            [-1, 1], which may overshoot, or uint8.
        pairs: takes a direction and yields sources and an output of each, (n, 3, H, W) uint8;
            ``None`` where outputs have no source.
        real: takes a sex and yields real faces (n, 3, H, W) uint8.
        real_key: what these are, for statistics that are kept.
        notes: words to add to the definition of "fid" and "lpips".
        outputs: rows, where the faces are files, and why some cannot be read.
    """

    directions: Mapping[str, str]
    blocks: Callable[[str], Iterator[Tensor]]
    real: Callable[[str], Iterator[Tensor]]
    pairs: Callable[[str], Iterator[tuple[Tensor, Tensor]]] | None = None
    real_key: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[Output] = ()
    failures: Mapping[Path, str] = field(default_factory=dict)

    def usability(self, *, seed: int) -> list[Row]:
        """See :meth:`Group.usability`."""
        return _usability(self, self.outputs, self.failures, UNUSABLE_FACES, seed)


@dataclass(eq=False, kw_only=True)
class Voices(Group):
    """Converted voices, in files.

    Args:
        make: gives the rows; called when they are first needed.
        people: gives the voices of a person by name.
        metrics: those that apply to the ground truth; empty for all.
        folder: of files that are removed later, whose name reasons leave out.
    """

    make: Callable[[], Sequence[Output]]
    people: Callable[[str], Sequence[Path]] = lambda name: ()
    metrics: tuple[str, ...] = ()
    folder: Path | None = None

    @cached_property
    def outputs(self) -> Sequence[Output]:
        """All rows."""
        return self.make()

    @cached_property
    def failures(self) -> dict[Path, str]:
        """Outputs that cannot be heard, and why; real ones are not looked at beforehand."""
        found = {}
        for one in () if self.metrics else self.outputs:
            try:
                if one.failure:
                    raise DataError(one.failure)
                read_voice(one.output, name=str(one.output))
            except Exception as error:
                found[one.output] = self.plain(error)
        return found

    @property
    def usable(self) -> list[Output]:
        """Rows whose outputs can be heard."""
        return [one for one in self.outputs if one.output not in self.failures]

    def plain(self, error: Exception) -> str:
        """A reason without the temporary folder's name, so that it is the same in every run."""
        return reason_of(error).replace(f"{self.folder}/", "")

    def usability(self, *, seed: int) -> list[Row]:
        """See :meth:`Group.usability`."""
        outputs = () if self.metrics else self.outputs
        return _usability(self, outputs, self.failures, UNUSABLE_VOICES, seed)

    def parts(self, outputs: Sequence[Output]) -> Iterator[tuple[str, str, set[Output]]]:
        """Direction, sex of the reference and rows: all, then every direction, then every sex."""
        yield "", "", set(outputs)
        for target in SEXES:
            for source in SEXES:
                own = {o for o in outputs if (o.source_gender, o.gender) == (source, target)}
                if own:
                    yield f"{SEXES[source]} to {SEXES[target]}", SEXES[target], own
        for target in SEXES:
            own = {o for o in outputs if o.source_gender and o.gender == target}
            if own:
                yield "", SEXES[target], own

    def average(
        self,
        outputs: Sequence[Output],
        samples: Mapping[Output, tuple[float, float]],
        *,
        seed: int,
        **row: object,
    ) -> list[Row]:
        """Average samples: together, by direction and by sex.

        Args:
            outputs: those that were to be measured.
            samples: of each that could be, above and below of a ratio of sums.
            seed: of the bootstrap over people.
            row: further cells.
        """
        rows = []
        for direction, sex, own in self.parts(outputs):
            part = [(*samples[one], one.who) for one in outputs if one in own and one in samples]
            if any(below for _, below, _ in part):
                cells = {"direction": direction, "sex": sex, **row}
                rows.append({**self.names, **cells, **ratio(part, seed=seed)})
        return rows


def _usability(
    group: Group, outputs: Sequence[Output], failures: Mapping[Path, str], text: str, seed: int
) -> list[Row]:
    """Share of unusable outputs, and how many for which reason."""
    if not outputs:
        return []
    row = {"metric": UNUSABLE, "definition": text}
    shares = {one: (float(one.output in failures), 1.0) for one in outputs}
    if isinstance(group, Voices):
        rows = group.average(outputs, shares, seed=seed, **row)
    else:
        samples = [(*shares[one], one.who) for one in outputs]
        rows = [{**group.names, **row, **ratio(samples, seed=seed)}]
    return rows + [
        group.missing(EVERYTHING, reason, list(failures.values()).count(reason))
        for reason in dict.fromkeys(failures.values())
    ]


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
        raise _refusal(file, f"cannot be read ({error})", "save it as CSV in UTF-8") from error
    faults = [f"lacks {name}" for name in REQUIRED if name not in header]
    faults += [
        f"has {name!r} ({nearest(name, (*REQUIRED, *OPTIONAL))})"
        for name in header
        if name not in (*REQUIRED, *OPTIONAL)
    ]
    faults += [f"has {name} twice" for name in sorted({n for n in header if header.count(n) > 1})]
    if faults or not lines:
        advice = "begin it with these columns, separated by commas, and list the outputs below"
        raise _refusal(file, "; ".join(faults) or "has no row", advice)
    found: list[Output] = []
    seen: dict[object, tuple[str, int]] = {}
    for number, row in lines:
        cells = [cell for cell in row.values() if cell is not None]
        if None in row or len(cells) < len(header):
            faults.append(f"line {number} has not {len(header)} cells")
            continue
        wrong, made = _row(file.parent, {name: cell.strip() for name, cell in row.items()})
        if made is not None:
            for key, value, clash in (
                (made.output.resolve(), str(number), f"repeats the output {row['output']}"),
                (("said", made.source.resolve()), made.transcript, "has another transcript"),
                (("sex", made.speaker), made.speaker and made.gender, f"calls {made.speaker} both"),
            ):
                first, line = seen.setdefault(key, (value, number)) if value else (value, number)
                if first != value:
                    wrong.append(f"{clash} as line {line} has it: {first} and {value}")
            found.append(made)
        faults += [f"line {number} {fault}" for fault in wrong]
    if faults:
        more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        reason = f"has {len(faults)} faults: {'; '.join(faults[:SHOWN])}{more}"
        raise _refusal(file, reason, "correct the file")
    return tuple(found)


def _row(folder: Path, row: dict[str, str]) -> tuple[list[str], Output | None]:
    """Return what is wrong with a row, and the row if it can be used."""
    tasks = {task.value: task for task in Task}
    task = tasks.get(row["task"].lower())
    gender = GENDER_WORDS.get(row.get("gender", "").lower())
    wrong = []
    if task is None:
        wrong.append(f"has task {row['task']!r} ({nearest(row['task'], tasks)})")
    if gender is None:
        wrong.append(f"has gender {row['gender']!r} instead of f, m or nothing")
    wrong += [
        f"names no {name}"
        for name in ("source", "reference", "output", "model")
        if not row[name] and not (name == "reference" and task in (*WITHOUT_REFERENCE, None))
    ]
    names = [name for name in ("source", "reference", "output") if row[name]]
    paths = {name: folder / Path(row[name]).expanduser() for name in names}
    wrong += [f"has no file at its {n} {path}" for n, path in paths.items() if not path.is_file()]
    if wrong or task is None or gender is None:
        return wrong, None
    return [], Output(
        task=task,
        source=paths["source"],
        reference=paths.get("reference"),
        output=paths["output"],
        model=row["model"],
        transcript=row.get("transcript", ""),
        speaker=row.get("speaker", ""),
        gender=gender,
    )


def _refusal(file: Path, reason: str, advice: str) -> DataError:
    return DataError(
        f"manifest {file} {reason}; expected CSV with the columns {', '.join(REQUIRED)}, and where "
        f"known {', '.join(OPTIONAL)}; {advice}"
    )


def groups_of(outputs: Sequence[Output], *, dataset: str, size: int) -> list[Group]:
    """Sort a manifest's rows into groups, those of the ground truth at the end.

    Args:
        outputs: of :func:`read`.
        dataset: for the rows of results.
        size: pixels a side to which every picture is brought.
    """
    listed: dict[tuple[str, Task], list[Output]] = {}
    for one in outputs:
        listed.setdefault((one.model, one.task), []).append(one)
    groups: list[Group] = []
    people = utterances(outputs)
    real = [one.source for one in outputs if one.task.output == "face"]
    real += [one.reference for one in outputs if one.reference and one.task.guidance == "face"]
    for (model, task), own in listed.items():
        if task.output == "face":
            groups.append(_faces(own, list(dict.fromkeys(real)), dataset, size))
            continue
        groups.append(
            Voices(
                system=model,
                task=task.value,
                dataset=dataset,
                guidance=task.guidance,
                size=len(own),
                make=lambda own=own: own,  # type: ignore[misc]
                people=lambda name: people.get(name, ()),
            )
        )
    said = {
        one.source: one.transcript
        for one in sorted(outputs, key=lambda one: bool(one.transcript))
        if one.task.output == "voice"
    }
    return [*groups, *(ground_truth(lambda: said, lambda: people, dataset=dataset) if said else ())]


def ground_truth(
    sources: Callable[[], Mapping[Path, str]],
    people: Callable[[], Mapping[str, Sequence[Path]]],
    **group: Any,
) -> list[Group]:
    """Make the groups of real voices: the sources, and two utterances of a person.

    What no conversion can be expected to pass.

    Args:
        sources: gives them with what they say.
        people: gives the voices of everybody by name.
        group: further fields of both groups.
    """

    def real(file: Path, **more: Any) -> Output:
        return Output(task=Task.A2A, source=file, output=file, model=GROUND_TRUTH, **more)

    def alone() -> list[Output]:
        return [real(file, reference=None, transcript=said) for file, said in sources().items()]

    def pairs() -> list[Output]:
        return [
            real(first, reference=second, speaker=name)
            for name, files in people().items()
            for first, second in combinations(files, 2)
        ]

    return [
        Voices(system=GROUND_TRUTH, task=task, make=make, metrics=metrics, **group)
        for task, make, metrics in (
            ("sources", alone, ("nisqa", "nisqa_tts", "word_error", "content_character_error")),
            ("references", pairs, ("speaker_similarity",)),
        )
    ]


def utterances(outputs: Sequence[Output]) -> dict[str, list[Path]]:
    """Voices of people by name: the references of audio-guided rows, ten at most."""
    found: dict[str, dict[Path, None]] = {}
    for one in outputs:
        for file in one.voices if one.speaker else ():
            found.setdefault(one.speaker, {})[file] = None
    return {name: list(files)[:MOST_UTTERANCES] for name, files in found.items()}


def _faces(outputs: list[Output], real: list[Path], dataset: str, size: int) -> Faces:
    """Make a group of pictures in files, brought to one size, in one direction without a name."""
    failures = {}
    for one in outputs:
        try:
            _picture(one.output, size)
        except Exception as error:
            failures[one.output] = reason_of(error)
    good = [one for one in outputs if one.output not in failures]
    by_source: dict[Path, list[Path]] = {}
    for one in good:
        by_source.setdefault(one.source, []).append(one.output)

    def pairs(_: str) -> Iterator[tuple[Tensor, Tensor]]:
        sources = _pictures([one.source for one in good], size)
        yield from zip(sources, _pictures([one.output for one in good], size), strict=True)

    def blocks(_: str) -> Iterator[Tensor]:
        for files in by_source.values():
            yield torch.cat(list(_pictures(files, size)))[None]

    return Faces(
        system=outputs[0].model,
        task=outputs[0].task.value,
        dataset=dataset,
        guidance=outputs[0].task.guidance,
        size=len(outputs),
        directions={"": ""},
        blocks=blocks,
        pairs=pairs,
        real=lambda _: _pictures(real, size),
        notes={
            "fid": f"; against {len(real)} faces of the manifest",
            "lpips": "; from 8-bit files",
        },
        outputs=outputs,
        failures=failures,
    )


def _pictures(files: Sequence[Path], size: int) -> Iterator[Tensor]:
    """Pictures as (n, 3, H, W) uint8, a few at once."""
    for start in range(0, len(files), AT_ONCE):
        yield torch.stack([_picture(file, size) for file in files[start : start + AT_ONCE]])


def _picture(file: Path, size: int) -> Tensor:
    return torch.from_numpy(resize_image(load_image(file), size).copy()).permute(2, 0, 1)
