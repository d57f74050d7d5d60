"""Voices that another system made, measured by all that applies.

Of every output: NISQA; speaker similarity with its reference, or with up to ten utterances of the
reference's person where a face led (those that lead other rows of the manifest); words, characters,
content and melody against its source; its sex against its reference. Beside every system stand the
sources themselves, as the system `ground truth`. An output that cannot be read has no scores and
counts in `unusable_outputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from xfavot.audio.mel import MEL
from xfavot.convert.results import Task
from xfavot.errors import DataError
from xfavot.evaluation import content_preservation, f0_agreement, nisqa, recognisers, word_error
from xfavot.evaluation import speaker_similarity as speaker
from xfavot.evaluation.foreign_manifest import Output
from xfavot.evaluation.ledger import UNUSABLE, Group, Ledger, Sample
from xfavot.evaluation.verification import pair_rows
from xfavot.evaluation.voice_tools import CONTENT, VoiceTools

GROUND_TRUTH = "ground truth"
UNUSABLE_DEFINITION = "share of outputs that cannot be read, are silent or not finite"
VERIFICATION = "speaker verification"
VERIFICATION_DEFINITION = "outputs against all references of the task, Resemblyzer's cosine"
NO_TRANSCRIPT = "no transcript"

Measured = dict[str, tuple[float, float]]  # above and below, by metric
Measure = Callable[[Output], Measured]


def score(
    group: Group, outputs: Sequence[Output], everything: Sequence[Output], tools: VoiceTools,
    ledger: Ledger,
) -> None:  # fmt: skip
    """Measure the voices of one system and task.

    Args:
        group: names for the rows.
        outputs: of that system and task.
        everything: the whole manifest, where utterances of people are looked for.
        tools: networks.
        ledger: receives rows and reasons.
    """
    good = [one for one in outputs if _readable(tools, group, one, ledger)]
    share = [Sample(float(one not in good), 1.0, one.who) for one in outputs]
    ledger.mean(group, UNUSABLE, share, UNUSABLE_DEFINITION)
    told = utterances(everything)
    measures: dict[tuple[str, ...], Measure] = {
        (nisqa.NISQA,): lambda one: _quality(tools, nisqa.NISQA, one.output),
        (nisqa.NISQA_TTS,): lambda one: _quality(tools, nisqa.NISQA_TTS, one.output),
        (speaker.METRIC,): lambda one: _likeness(tools, one, told),
        (word_error.WER, word_error.CER): lambda one: _words(tools, one.output, one.transcript),
        (f0_agreement.VOICING, f0_agreement.CORRELATION): lambda one: _melody(tools, one),
        (f0_agreement.GENDER,): lambda one: _gender(tools, one),
        (content_preservation.CHARACTERS,): lambda one: _characters(
            tools, one.output, one.transcript
        ),
        (content_preservation.LIKENESS,): lambda one: _content(tools, one),
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
        (nisqa.NISQA,): lambda one: _quality(tools, nisqa.NISQA, one.source),
        (nisqa.NISQA_TTS,): lambda one: _quality(tools, nisqa.NISQA_TTS, one.source),
        (word_error.WER, word_error.CER): lambda one: _words(tools, one.source, one.transcript),
        (content_preservation.CHARACTERS,): lambda one: _characters(
            tools, one.source, one.transcript
        ),
    }
    _measure(group, list(sources.values()), measures, tools, ledger, source=True)
    if tools.has(speaker.METRIC):
        _likeness_of_people(Group(system=GROUND_TRUTH, task="references", dataset=dataset),
                            utterances(outputs), tools, ledger)  # fmt: skip


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
    group: Group, outputs: Sequence[Output], measures: dict[tuple[str, ...], Measure],
    tools: VoiceTools, ledger: Ledger, *, source: bool = False,
) -> None:  # fmt: skip
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
    if metric.startswith(nisqa.NISQA):
        kind = nisqa.NISQA_TTS if metric == nisqa.NISQA_TTS else nisqa.NISQA
        return nisqa.DEFINITIONS[kind].format(rate=MEL.sample_rate)
    known = {
        **f0_agreement.DEFINITIONS, **content_preservation.DEFINITIONS,
        speaker.METRIC: speaker.DEFINITION,
        **{name: f"{text}; heard by {recogniser}" for name, text in word_error.DEFINITIONS.items()},
    }  # fmt: skip
    return known[metric]


def _tool(tools: VoiceTools, names: tuple[str, ...]) -> str | None:
    """Say why the tool of some metrics is missing, if it is."""
    needs = {
        word_error.WER: tools.recogniser, content_preservation.CHARACTERS: CONTENT,
        content_preservation.LIKENESS: CONTENT,
    }  # fmt: skip
    return tools.missing.get(needs.get(names[0], names[0]))


def _readable(tools: VoiceTools, group: Group, one: Output, ledger: Ledger) -> bool:
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
    if tools.recogniser == recognisers.SPHINX_GRID and not recognisers.in_grid_grammar(said):
        raise DataError(
            f"{tools.recogniser} hears GRID's sentences alone; the transcript is another; take "
            f"{recognisers.ESPNET}"
        )
    found = word_error.count_errors(said, tools.hear(file))
    return {
        word_error.WER: (found.word_errors, found.words),
        word_error.CER: (found.character_errors, found.characters),
    }


def _characters(tools: VoiceTools, file: Path, transcript: str) -> Measured:
    heard, _ = tools.content(file)
    errors, count = content_preservation.character_errors(_transcript(transcript), heard)
    return {content_preservation.CHARACTERS: (errors, count)}


def _transcript(text: str) -> str:
    if not text:
        raise DataError(f"{NO_TRANSCRIPT}; expected what the source says; fill the column")
    return text


def _content(tools: VoiceTools, one: Output) -> Measured:
    (_, source), (_, output) = tools.content(one.source), tools.content(one.output)
    return {content_preservation.LIKENESS: (content_preservation.likeness(source, output), 1.0)}


def _melody(tools: VoiceTools, one: Output) -> Measured:
    found = f0_agreement.agreement(tools.f0(one.source), tools.f0(one.output))
    values = {f0_agreement.VOICING: found.voicing, f0_agreement.CORRELATION: found.correlation}
    return {name: (value, 1.0) for name, value in values.items() if value is not None}


def _gender(tools: VoiceTools, one: Output) -> Measured:
    wanted = one.gender
    if one.reference is not None and one.task.guidance == "voice":
        wanted = f0_agreement.gender_by_pitch(tools.f0(one.reference))
    if not wanted:
        raise DataError(
            "the sex of the reference is not known; expected a voice with pitch as reference, or "
            "the column gender; fill it"
        )
    heard = f0_agreement.gender_by_pitch(tools.f0(one.output))
    return {f0_agreement.GENDER: (float(heard == wanted), 1.0)}


def _verify(group: Group, outputs: Sequence[Output], tools: VoiceTools, ledger: Ledger) -> None:
    """Tell the right person's references from other people's, by the outputs."""
    if not tools.has(speaker.METRIC):
        ledger.lacks(group, VERIFICATION, tools.missing[speaker.METRIC], len(outputs))
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
            made @ told.T, [one.speaker for one in known], list(people.values()),
            {one.speaker: one.gender for one in known if one.gender}, seed=ledger.seed,
        )  # fmt: skip
    except DataError as error:
        ledger.lacks(group, VERIFICATION, error, len(outputs))
        return
    for row in rows:
        ledger.add(group, {**row, "metric": f"speaker {row['metric']}",
                           "definition": VERIFICATION_DEFINITION})  # fmt: skip
