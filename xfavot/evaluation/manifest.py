"""Outputs that another system made, listed in a CSV file, so that they can be scored.

One row an output: `task` (named guidance to output, as everywhere), `source`, `reference` (empty
for a latent code), `output`, `model`, and where known `transcript` (of the source), `speaker` and
`gender` (f or m) of the person whom the reference shows. Relative paths start at the CSV's folder.
Everything about the list is checked before anything is measured, and all that is wrong is told at
once; what the files hold is found when they are read.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot import __version__
from xfavot.audio.mel import MEL
from xfavot.convert.converter import StyleMaker, Task
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import images, voices
from xfavot.evaluation import voices as speaker
from xfavot.evaluation import voices as voices_evaluation
from xfavot.evaluation.images import (
    FEWEST_OUTPUTS,
    LPIPS,
    METRICS,
    Kept,
    Metrics,
    frechet_distance,
    to_floats,
)
from xfavot.evaluation.matching import pair_rows
from xfavot.evaluation.rows import (
    UNUSABLE,
    Group,
    Ledger,
    Missing,
    Sample,
    cell,
    csv_text,
    replace_text,
)
from xfavot.evaluation.voices import CONTENT, VoiceTools
from xfavot.image.io import load_image, resize_image
from xfavot.strict import nearest
from xfavot.training.checkpoint import load_model
from xfavot.weights.fetched import describe

REQUIRED = ("task", "source", "reference", "output", "model")
OPTIONAL = ("transcript", "speaker", "gender")
GENDER_WORDS = {"f": "f", "female": "f", "m": "m", "male": "m", "": ""}
WITHOUT_REFERENCE = (Task.Z2I, Task.Z2A)
SHOWN = 5  # faults that a message lists
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One row.

    Args:
        line: in the file, for messages.
        task: of the conversion.
        source, output: files that exist.
        reference: file that exists, or ``None`` where a latent code led.
        model: what made the output.
        transcript: what the source says, "" if not known.
        speaker: whom the reference shows, "" if not known.
        gender: of that person, "f", "m" or "".
    """

    line: int
    task: Task
    source: Path
    reference: Path | None
    output: Path
    model: str
    transcript: str = ""
    speaker: str = ""
    gender: str = ""

    @property
    def who(self) -> str:
        """Whose sample it is, for intervals: the reference's person, else the source file."""
        return self.speaker or str(self.source)


def read(path: str | PathLike[str]) -> tuple[Output, ...]:
    """Read and check a manifest.

    Args:
        path: a CSV file in UTF-8, with or without a byte order mark, separated by commas.

    Returns:
        The rows in their order, at least one.

    Raises:
        DataError: the file is missing, no text, empty or separated by something else; a column is
            missing or unknown; or rows name unknown tasks or missing files, have cells too many or
            too few, repeat an output, or contradict each other on a person or a transcript. Up to
            five faults are shown.
    """
    file = Path(path)
    header, rows = _cells(file)
    faults: list[str] = []
    found: list[Output] = []
    outputs: dict[Path, int] = {}
    genders: dict[str, str] = {}
    said: dict[Path, str] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            faults.append(f"line {line} has {len(cells)} cells instead of {len(header)}")
            continue
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        wrong, made = _row(file.parent, line, row)
        if made is not None:
            first = outputs.setdefault(made.output.resolve(), line)
            if first != line:
                wrong.append(f"line {line} repeats the output of line {first}, {row['output']}")
            if made.transcript:
                known = said.setdefault(made.source.resolve(), made.transcript)
                if known != made.transcript:
                    wrong.append(f"line {line} has another transcript of {row['source']}")
            if made.speaker and made.gender:
                known = genders.setdefault(made.speaker, made.gender)
                if known != made.gender:
                    wrong.append(f"line {line} calls {made.speaker} both {known} and {made.gender}")
        faults += wrong
        found += [made] if made is not None else []
    if faults:
        more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(
            f"manifest {file}: {len(faults)} faults: {'; '.join(faults[:SHOWN])}{more}; expected "
            f"one existing output a row, named by {', '.join(REQUIRED)}; correct the file"
        )
    if not found:
        raise _refusal(file, "has a header and no row", "list the outputs below it")
    return tuple(found)


def groups_of(outputs: Sequence[Output]) -> dict[tuple[str, Task], list[Output]]:
    """Outputs by model and task, in the order in which they first appear."""
    found: dict[tuple[str, Task], list[Output]] = {}
    for one in outputs:
        found.setdefault((one.model, one.task), []).append(one)
    return found


def _cells(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the numbered rows that are not blank."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refusal(file, f"cannot be read ({error})", "save it as CSV in UTF-8") from error
    if not lines:
        raise _refusal(file, "is empty", f"begin it with the line {','.join(REQUIRED)}")
    header = [cell.strip().lower() for cell in lines[0][1]]
    other = [name for mark, name in OTHER_DELIMITERS.items() if mark in lines[0][1][0]]
    if len(header) == 1 and other:
        raise _refusal(file, f"is separated by {other[0]}", "save it separated by commas")
    absent = [name for name in REQUIRED if name not in header]
    unknown = [name for name in header if name not in (*REQUIRED, *OPTIONAL)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if absent or unknown or twice:
        reasons = [f"lacks {', '.join(absent)}"] if absent else []
        reasons += [f"has {name!r} ({nearest(name, (*REQUIRED, *OPTIONAL))})" for name in unknown]
        reasons += [f"has {', '.join(twice)} twice"] if twice else []
        raise _refusal(file, f"{'; '.join(reasons)} in its first line", "correct the header")
    return header, lines[1:]


def _row(folder: Path, line: int, row: dict[str, str]) -> tuple[list[str], Output | None]:
    """Return what is wrong with a row, and the row if it can be used."""
    tasks = {task.value: task for task in Task}
    task = tasks.get(row["task"].lower())
    gender = GENDER_WORDS.get(row.get("gender", "").lower())
    wrong = []
    if task is None:
        wrong.append(f"line {line}: task {row['task']!r} ({nearest(row['task'], tasks)})")
    if gender is None:
        wrong.append(f"line {line}: gender {row['gender']!r} instead of f, m or nothing")
    if not row["model"]:
        wrong.append(f"line {line} names no model")
    paths: dict[str, Path] = {}
    for name in ("source", "reference", "output"):
        if row[name]:
            paths[name] = folder / Path(row[name]).expanduser()
            if not paths[name].is_file():
                wrong.append(f"line {line}: no file at its {name} {paths[name]}")
        elif name != "reference" or task not in (*WITHOUT_REFERENCE, None):
            wrong.append(f"line {line} names no {name}")
    if wrong or task is None or gender is None:
        return wrong, None
    return [], Output(
        line=line,
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


# Faces that another system made: FID and LPIPS from files, by the protocol's own networks


AT_ONCE = 32  # images
FEWEST = 2  # images of either kind
UNUSABLE_FACES = "share of outputs that cannot be read as images"


def score_faces(
    group: Group,
    outputs: Sequence[Output],
    everything: Sequence[Output],
    metrics: Metrics,
    ledger: Ledger,
    *,
    size: int,
) -> None:
    """Measure the faces of one system and task.

    Args:
        group: names for the rows.
        outputs: of that system and task.
        everything: the whole manifest, where the real faces are.
        metrics: networks, and why others are missing.
        ledger: receives rows and reasons.
        size: pixels a side to which every picture is brought.
    """
    good = [one for one in outputs if _readable_faces(group, one, size, ledger)]
    share = [Sample(float(one not in good), 1.0, one.who) for one in outputs]
    ledger.mean(group, UNUSABLE, share, UNUSABLE_FACES)
    for metric, reason in metrics.missing.items():
        ledger.lacks(group, metric, reason, len(outputs))
    real = real_faces(everything)
    for extractor in metrics.extractors:
        if min(len(good), len(real)) < FEWEST:
            reason = f"{len(good)} outputs and {len(real)} real faces; expected {FEWEST} of both"
            ledger.lacks(group, extractor.metric, f"{reason} at least; list more", len(outputs))
            continue
        try:
            known = extractor.moments(_batches(real, size))
            made = extractor.moments(_batches([one.output for one in good], size))
            value = frechet_distance(known, made)
        except DataError as error:
            ledger.lacks(group, extractor.metric, error, len(outputs))
            continue
        ledger.add(
            group,
            {
                "metric": extractor.metric,
                "value": value,
                "n": made.count,
                "seed": ledger.seed,
                "definition": f"{extractor.definition}; against {known.count} of its faces",
            },
        )
    for distance in metrics.distances:
        _diversity(group, good, distance, ledger, size)
    if metrics.preserved and good:
        _preservation(group, good, ledger, size)


def real_faces(everything: Sequence[Output]) -> list[Path]:
    """Distinct real faces that a manifest names."""
    found: dict[Path, None] = {}
    for one in everything:
        if one.task.output == "face":
            found[one.source] = None
        if one.task.guidance == "face" and one.reference is not None:
            found[one.reference] = None
    return list(found)


def _diversity(
    group: Group, outputs: Sequence[Output], distance: LPIPS, ledger: Ledger, size: int
) -> None:
    by_source: dict[Path, list[Output]] = {}
    for one in outputs:
        by_source.setdefault(one.source, []).append(one)
    samples, single = [], 0
    for members in by_source.values():
        if len(members) < FEWEST_OUTPUTS:
            single += 1
            continue
        images = torch.cat(list(_batches([one.output for one in members], size)))
        value = float(distance.diversity(to_floats(images)[None])[0])
        samples.append(Sample(value, 1.0, str(members[0].source)))
    if single:
        ledger.lacks(
            group,
            distance.metric,
            f"sources with one output; expected "
            f"{FEWEST_OUTPUTS} or more for a diversity; list more",
            single,
        )
    ledger.mean(group, distance.metric, samples, f"{distance.definition}; from 8-bit files")


def _preservation(group: Group, outputs: Sequence[Output], ledger: Ledger, size: int) -> None:
    kept = Kept()
    try:
        sources = _batches([one.source for one in outputs], size)
        made = _batches([one.output for one in outputs], size)
        for before, after in zip(sources, made, strict=True):
            kept.add(before, after)
    except DataError as error:  # a source that is no picture
        for metric in METRICS:
            ledger.lacks(group, metric, error, len(outputs))
        return
    for row in kept.rows(seed=ledger.seed):
        ledger.add(group, {**row, "seed": ledger.seed})


def _readable_faces(group: Group, one: Output, size: int, ledger: Ledger) -> bool:
    try:
        _read(one.output, size)
    except DataError as error:
        ledger.lacks(group, "all", error)
        return False
    return True


def _batches(files: Iterable[Path], size: int) -> Iterator[Tensor]:
    """Pictures as (n, 3, H, W) uint8, a few at once."""
    waiting: list[Tensor] = []
    for file in files:
        waiting.append(_read(file, size))
        if len(waiting) == AT_ONCE:
            yield torch.stack(waiting)
            waiting = []
    if waiting:
        yield torch.stack(waiting)


def _read(file: Path, size: int) -> Tensor:
    return torch.from_numpy(resize_image(load_image(file), size).copy()).permute(2, 0, 1)


# Voices that another system made, measured by all that applies


GROUND_TRUTH = "ground truth"
UNUSABLE_VOICES = "share of outputs that cannot be read, are silent or not finite"
VOICE_VERIFICATION = "speaker verification"
VERIFICATION_DEFINITION = "outputs against all references of the task, Resemblyzer's cosine"
NO_TRANSCRIPT = "no transcript"

Measured = dict[str, tuple[float, float]]  # above and below, by metric
Measure = Callable[[Output], Measured]


def score_voices(
    group: Group,
    outputs: Sequence[Output],
    everything: Sequence[Output],
    tools: VoiceTools,
    ledger: Ledger,
) -> None:
    """Measure the voices of one system and task.

    Args:
        group: names for the rows.
        outputs: of that system and task.
        everything: the whole manifest, where utterances of people are looked for.
        tools: networks.
        ledger: receives rows and reasons.
    """
    good = [one for one in outputs if _readable_voices(tools, group, one, ledger)]
    share = [Sample(float(one not in good), 1.0, one.who) for one in outputs]
    ledger.mean(group, UNUSABLE, share, UNUSABLE_VOICES)
    told = utterances(everything)
    measures: dict[tuple[str, ...], Measure] = {
        (voices_evaluation.NISQA,): lambda one: _quality(
            tools, voices_evaluation.NISQA, one.output
        ),
        (voices_evaluation.NISQA_TTS,): lambda one: _quality(
            tools, voices_evaluation.NISQA_TTS, one.output
        ),
        (speaker.METRIC,): lambda one: _likeness(tools, one, told),
        (voices_evaluation.WER, voices_evaluation.CER): lambda one: _words(
            tools, one.output, one.transcript
        ),
        (voices_evaluation.VOICING, voices_evaluation.CORRELATION): lambda one: _melody(tools, one),
        (voices_evaluation.GENDER,): lambda one: _gender(tools, one),
        (voices_evaluation.CHARACTERS,): lambda one: _characters(tools, one.output, one.transcript),
        (voices_evaluation.LIKENESS,): lambda one: _content(tools, one),
    }
    _measure(group, good, measures, tools, ledger)
    if group.task == Task.A2A.value:
        _verify(group, good, tools, ledger)


def score_sources(
    dataset: str, outputs: Sequence[Output], tools: VoiceTools, ledger: Ledger
) -> None:
    """Measure the distinct sources of voices, as the system `ground truth`."""
    voices = [one for one in outputs if one.task.output == "voice"]
    voices.sort(key=lambda one: bool(one.transcript))  # a row with transcript speaks for its source
    sources = {one.source: one for one in voices}
    group = Group(system=GROUND_TRUTH, task="sources", dataset=dataset)
    measures: dict[tuple[str, ...], Measure] = {
        (voices_evaluation.NISQA,): lambda one: _quality(
            tools, voices_evaluation.NISQA, one.source
        ),
        (voices_evaluation.NISQA_TTS,): lambda one: _quality(
            tools, voices_evaluation.NISQA_TTS, one.source
        ),
        (voices_evaluation.WER, voices_evaluation.CER): lambda one: _words(
            tools, one.source, one.transcript
        ),
        (voices_evaluation.CHARACTERS,): lambda one: _characters(tools, one.source, one.transcript),
    }
    _measure(group, list(sources.values()), measures, tools, ledger, source=True)
    if tools.has(speaker.METRIC):
        _likeness_of_people(
            Group(system=GROUND_TRUTH, task="references", dataset=dataset),
            utterances(outputs),
            tools,
            ledger,
        )


def _likeness_of_people(
    group: Group, told: dict[str, list[Path]], tools: VoiceTools, ledger: Ledger
) -> None:
    """Compare every two utterances of one person: what no conversion can be expected to pass."""
    samples = []
    for name, files in told.items():
        for first, second in combinations(files, 2):
            try:
                value = speaker.similarity(tools.embed(first), tools.embed(second))
                samples.append(Sample(value, 1.0, name))
            except DataError as error:
                ledger.lacks(group, speaker.METRIC, error)
    ledger.mean(group, speaker.METRIC, samples, f"{speaker.DEFINITION}, two utterances of a person")


def utterances(everything: Sequence[Output]) -> dict[str, list[Path]]:
    """Voices of people by name: the references of the manifest's voice-led rows, ten at most."""
    found: dict[str, dict[Path, None]] = {}
    for one in everything:
        if one.reference is not None and one.speaker and one.task.guidance == "voice":
            found.setdefault(one.speaker, {})[one.reference] = None
    return {name: list(files)[: speaker.MOST_UTTERANCES] for name, files in found.items()}


def _measure(
    group: Group,
    outputs: Sequence[Output],
    measures: dict[tuple[str, ...], Measure],
    tools: VoiceTools,
    ledger: Ledger,
    *,
    source: bool = False,
) -> None:
    """Go through the outputs once, with all measures at each, and add rows."""
    samples: dict[str, list[Sample]] = {}
    ready = {names: run for names, run in measures.items() if _tool(tools, names) is None}
    for names in measures.keys() - ready.keys():
        ledger.lacks(group, names[0], _tool(tools, names), len(outputs))
    for one in outputs:
        who = str(one.source) if source else one.who
        for names, run in ready.items():
            try:
                found = run(one)
            except DataError as error:
                ledger.lacks(group, names[0], error)
                continue
            for name, (above, below) in found.items():
                samples.setdefault(name, []).append(Sample(above, below, who))
    for name, values in samples.items():
        ledger.mean(group, name, values, definition(name, tools.recogniser))


def definition(metric: str, recogniser: str) -> str:
    """Say what a metric of voices is."""
    if metric.startswith(voices_evaluation.NISQA):
        kind = (
            voices_evaluation.NISQA_TTS
            if metric == voices_evaluation.NISQA_TTS
            else voices_evaluation.NISQA
        )
        return voices_evaluation.NISQA_DEFINITIONS[kind].format(rate=MEL.sample_rate)
    known = {
        **voices_evaluation.F0_DEFINITIONS,
        **voices_evaluation.CONTENT_DEFINITIONS,
        speaker.METRIC: speaker.DEFINITION,
        **{
            name: f"{text}; heard by {recogniser}"
            for name, text in voices_evaluation.WORD_DEFINITIONS.items()
        },
    }
    return known[metric]


def _tool(tools: VoiceTools, names: tuple[str, ...]) -> str | None:
    """Say why the tool of some metrics is missing, if it is."""
    needs = {
        voices_evaluation.WER: tools.recogniser,
        voices_evaluation.CHARACTERS: CONTENT,
        voices_evaluation.LIKENESS: CONTENT,
    }
    return tools.missing.get(needs.get(names[0], names[0]))


def _readable_voices(tools: VoiceTools, group: Group, one: Output, ledger: Ledger) -> bool:
    try:
        tools.wave(one.output)
    except DataError as error:
        ledger.lacks(group, "all", error)
        return False
    return True


def _quality(tools: VoiceTools, metric: str, file: Path) -> Measured:
    return {name: (value, 1.0) for name, value in tools.rate(metric, file).items()}


def _likeness(tools: VoiceTools, one: Output, told: dict[str, list[Path]]) -> Measured:
    files = [one.reference] if one.reference and one.task.guidance == "voice" else []
    files = files or told.get(one.speaker, [])
    if not files:
        raise DataError(
            "no voice of the reference's person is known; expected a voice as reference, or the "
            "same speaker as the reference of an a2a or a2i row; add such rows"
        )
    voice = tools.embed(one.output)
    value = speaker.similarity(voice, *(tools.embed(file) for file in files if file))
    return {speaker.METRIC: (value, 1.0)}


def _words(tools: VoiceTools, file: Path, transcript: str) -> Measured:
    said = _transcript(transcript)
    if tools.recogniser == voices_evaluation.SPHINX_GRID and not voices_evaluation.in_grid_grammar(
        said
    ):
        raise DataError(
            f"{tools.recogniser} hears GRID's sentences alone; the transcript is another; take "
            f"{voices_evaluation.ESPNET}"
        )
    found = voices_evaluation.count_errors(said, tools.hear(file))
    return {
        voices_evaluation.WER: (found.word_errors, found.words),
        voices_evaluation.CER: (found.character_errors, found.characters),
    }


def _characters(tools: VoiceTools, file: Path, transcript: str) -> Measured:
    heard, _ = tools.content(file)
    errors, count = voices_evaluation.character_errors(_transcript(transcript), heard)
    return {voices_evaluation.CHARACTERS: (errors, count)}


def _transcript(text: str) -> str:
    if not text:
        raise DataError(f"{NO_TRANSCRIPT}; expected what the source says; fill the column")
    return text


def _content(tools: VoiceTools, one: Output) -> Measured:
    (_, source), (_, output) = tools.content(one.source), tools.content(one.output)
    return {voices_evaluation.LIKENESS: (voices_evaluation.likeness(source, output), 1.0)}


def _melody(tools: VoiceTools, one: Output) -> Measured:
    found = voices_evaluation.agreement(tools.f0(one.source), tools.f0(one.output))
    values = {
        voices_evaluation.VOICING: found.voicing,
        voices_evaluation.CORRELATION: found.correlation,
    }
    return {name: (value, 1.0) for name, value in values.items() if value is not None}


def _gender(tools: VoiceTools, one: Output) -> Measured:
    wanted = one.gender
    if one.reference is not None and one.task.guidance == "voice":
        wanted = voices_evaluation.gender_by_pitch(tools.f0(one.reference))
    if not wanted:
        raise DataError(
            "the sex of the reference is not known; expected a voice with pitch as reference, or "
            "the column gender; fill it"
        )
    heard = voices_evaluation.gender_by_pitch(tools.f0(one.output))
    return {voices_evaluation.GENDER: (float(heard == wanted), 1.0)}


def _verify(group: Group, outputs: Sequence[Output], tools: VoiceTools, ledger: Ledger) -> None:
    """Tell the right person's references from other people's, by the outputs."""
    if not tools.has(speaker.METRIC):
        ledger.lacks(group, VOICE_VERIFICATION, tools.missing[speaker.METRIC], len(outputs))
        return
    try:
        known = [one for one in outputs if one.speaker and one.reference is not None]
        people = {one.reference: one.speaker for one in known if one.reference is not None}
        made = np.array([tools.embed(one.output) for one in known])  # (Q, 256)
        told = np.array([tools.embed(file) for file in people])  # (G, 256)
        if len(set(people.values())) < 2:
            raise DataError(
                f"references of {len(set(people.values()))} known people; expected two at least; "
                "fill the column speaker"
            )
        rows = pair_rows(
            made @ told.T,
            [one.speaker for one in known],
            list(people.values()),
            {one.speaker: one.gender for one in known if one.gender},
            seed=ledger.seed,
        )
    except DataError as error:
        ledger.lacks(group, VOICE_VERIFICATION, error, len(outputs))
        return
    for row in rows:
        ledger.add(
            group,
            {**row, "metric": f"speaker {row['metric']}", "definition": VERIFICATION_DEFINITION},
        )


# Scores of outputs that any system made, from a list of files (`foreign_manifest.py`)


IMAGE_SIZE = 128  # pixels, the paper's
VERIFICATION = "cross-modal verification"
NO_VERIFIER = (
    "no verifier was given; expected a model whose encoders say what fits face to voice; pass a "
    "checkpoint"
)

Vector = NDArray[np.float64]


class Verifier(Protocol):
    """Brings faces and voices to vectors of one space."""

    @property
    def name(self) -> str:
        """What it is, for the rows."""

    def embed(self, file: Path, kind: str, gender: str) -> Vector:
        """Vector (S,) of a "face" or a "voice" of a person of a gender ("" if not known).

        Raises:
            DataError: the file cannot be used.
        """


class StyleVerifier:
    """A model's style encoders as verifier.

    Args:
        converter: the model; it reads faces and voices.
        aligned: faces are square crops as in CelebA-HQ; no face is looked for.
    """

    def __init__(self, converter: StyleMaker, *, aligned: bool = False) -> None:
        """Keep the model; see the class."""
        self.name = f"the style encoders of {converter.name or 'a model'}"
        self._converter, self._aligned = converter, aligned

    def embed(self, file: Path, kind: str, gender: str) -> Vector:
        """See :class:`Verifier`; a face needs its gender."""
        try:
            style = (
                self._converter.style_of_face(file, gender=gender or None, aligned=self._aligned)
                if kind == "face"
                else self._converter.style_of_voice(file, gender=gender or None)
            )
        except ConfigError as error:
            raise DataError(f"{error}; or fill the column gender") from error
        return np.asarray(style.vector[0].cpu().double().numpy())


def verifier_of(checkpoint: str, *, device: str = "cpu") -> StyleVerifier | None:
    """Load a model as verifier, or none.

    Args:
        checkpoint: a run folder or checkpoint; "" for no verifier.
        device: where its encoders run.

    Raises:
        CheckpointError: it cannot be used.
    """
    if not checkpoint:
        return None
    model = load_model(Path(checkpoint))
    name = f"{model.config.name or model.config.configuration} at step {model.step}"
    return StyleVerifier(StyleMaker(model, name=name, device=device))


def score(
    manifest: str | PathLike[str],
    *,
    recogniser: str = voices.ESPNET,
    verifier: Verifier | None = None,
    cache: str | PathLike[str] | None = None,
    dataset: str = "",
    image_size: int = IMAGE_SIZE,
    seed: int = 0,
    on_log: Callable[[str], None] | None = None,
) -> Ledger:
    """Score every output of a manifest.

    Args:
        manifest: the CSV file.
        recogniser: one of `recognisers.NAMES`; never replaced by another.
        verifier: says what fits face to voice.
        cache: the folder of weights; see `weights.root`. Nothing is fetched.
        dataset: for the rows; default, the name of the CSV file.
        image_size: pixels a side to which faces are brought.
        seed: of the intervals.
        on_log: told what is done and what is missing.

    Returns:
        Rows by system and task, `ground truth` among them, and what is missing and why.

    Raises:
        DataError: the manifest cannot be used (see `foreign_manifest.read`), or no such recogniser.
    """
    say = on_log or (lambda line: None)
    outputs, ledger = read(manifest), Ledger(seed=seed)
    named = dataset or Path(manifest).stem
    say(f"{manifest}: {len(outputs)} outputs of {len({one.model for one in outputs})} systems")
    tools, metrics = None, None
    if any(one.task.output == "voice" for one in outputs):
        tools = VoiceTools(recogniser, cache=cache)
    if any(one.task.output == "face" for one in outputs):
        metrics = images.available_metrics(image_size=image_size, cache=cache)
    for (model, task), members in groups_of(outputs).items():
        group = Group(system=model, task=task.value, dataset=named)
        if task.output == "voice" and tools is not None:
            score_voices(group, members, outputs, tools, ledger)
        elif metrics is not None:
            score_faces(group, members, outputs, metrics, ledger, size=image_size)
        if {task.guidance, task.output} == {"face", "voice"}:
            verify(group, members, verifier, ledger)
        say(f"{model}, {task.value}: {len(members)} outputs measured")
    if tools is not None:
        score_sources(named, outputs, tools, ledger)
    for one in ledger.missing:
        say(f"{one.system}, {one.task}: {one.metric} missing for {one.samples}: {one.reason}")
    return ledger


def verify(
    group: Group, outputs: Sequence[Output], verifier: Verifier | None, ledger: Ledger
) -> None:
    """Tell the right person's references from other people's, across face and voice.

    Args:
        group: names for the rows.
        outputs: of one system and one task that crosses from voice to face or back.
        verifier: see `score`.
        ledger: receives rows and reasons.
    """
    if verifier is None:
        ledger.lacks(group, VERIFICATION, NO_VERIFIER, len(outputs))
        return
    kind, other = outputs[0].task.output, outputs[0].task.guidance
    made: list[tuple[str, Vector]] = []
    told: dict[Path, tuple[str, Vector]] = {}
    for one in outputs:
        try:
            if not one.speaker or one.reference is None:
                raise DataError("the reference's person is not known; fill the column speaker")
            if one.reference not in told:
                found = verifier.embed(one.reference, other, one.gender)
                told[one.reference] = (one.speaker, found)
            made.append((one.speaker, verifier.embed(one.output, kind, one.gender)))
        except DataError as error:
            ledger.lacks(group, VERIFICATION, error)
    people = [who for who, _ in told.values()]
    try:
        if len(set(people)) < 2 or not made:
            raise DataError(
                f"{len(made)} outputs and references of {len(set(people))} known people; expected "
                "two people at least; list more"
            )
        score = _unit([x for _, x in made]) @ _unit([x for _, x in told.values()]).T
        rows = pair_rows(
            score, [who for who, _ in made], people, genders(outputs), seed=ledger.seed
        )
    except DataError as error:
        ledger.lacks(group, VERIFICATION, error, len(outputs))
        return
    for row in rows:
        ledger.add(
            group,
            {
                **row,
                "metric": f"cross-modal {row['metric']}",
                "definition": f"outputs against all references of a task, {verifier.name}, cosine",
            },
        )


def genders(outputs: Sequence[Output]) -> Mapping[str, str]:
    """Gender of people by name, where it is known."""
    return {one.speaker: one.gender for one in outputs if one.speaker and one.gender}


def _unit(vectors: Sequence[Vector]) -> Vector:
    x = np.stack(vectors)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


# Scores of foreign outputs on the disk: the rows, what is missing and why, and where it is from


JUDGES = ("nisqa", "nisqa_tts", "resemblyzer")  # sets of weights with a published checksum
SCORES_SHOWN = ("system", "task", "metric", "value", "ci_low", "ci_high", "n")
LONGEST_REASON = 160  # characters, in Markdown


def save(ledger: Ledger, manifest: Path | str, folder: Path | str) -> Path:
    """Write the scores of a manifest, each file whole or not at all.

    Args:
        ledger: of `foreign_outputs.score`.
        manifest: the CSV file that was scored, for its hash.
        folder: made if it is not there.

    Returns:
        The table in Markdown.

    Raises:
        DataError: there is no row, or the files cannot be written.
    """
    if not ledger.rows:
        raise DataError(f"scores of {manifest}: no row to write; expected one; read the reasons")
    missing = [dataclasses.asdict(one) for one in ledger.missing]
    fields = [field.name for field in dataclasses.fields(Missing)]
    target = Path(folder, "scores.md")
    try:
        said = _origin(ledger, Path(manifest))
        for name, text in (
            ("scores.csv", csv_text(ledger.rows, list(ledger.rows[0]))),
            ("missing.csv", csv_text(missing, fields)),
            ("scores.json", json.dumps(said, indent=2, sort_keys=True) + "\n"),
            ("scores.md", markdown(ledger)),
        ):
            replace_text(target.with_name(name), text)
    except OSError as error:
        raise DataError(
            f"scores in {folder} cannot be written ({error}); expected a writable folder with room "
            "for a few kilobytes; free some space or name another"
        ) from error
    return target


def markdown(ledger: Ledger) -> str:
    """Write rows, definitions and reasons for people."""
    lines = ["| " + " | ".join(SCORES_SHOWN) + " |", "|---|---|---|---:|---:|---:|---:|"]
    for row in ledger.rows:
        lines.append("| " + " | ".join(cell(row[name]) for name in SCORES_SHOWN) + " |")
    definitions = {str(row["metric"]): str(row["definition"]) for row in ledger.rows}
    lines += ["", *(f"- {metric}: {text}." for metric, text in definitions.items())]
    if ledger.missing:
        lines += ["", "Missing, or not for all:", ""]
    for one in ledger.missing:
        reason = " ".join(one.reason.split())
        short = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}..."
        lines.append(f"- {one.system}, {one.task}, {one.metric} ({one.samples}): {short}")
    return "\n".join(lines) + "\n"


def _origin(ledger: Ledger, manifest: Path) -> dict[str, Any]:
    """Where the scores come from."""
    return {
        "schema": "xfavot foreign scores 1",
        "version": __version__,
        "manifest": manifest.name,
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "seed": ledger.seed,
        "weights": {name: describe(name).checksum for name in JUDGES},
        "rows": len(ledger.rows),
        "missing": len(ledger.missing),
    }
