"""Write the originals of the corpus `mini`: one folder a speaker, as a real corpus would come.

Layout: `speakers.csv` (speaker, gender), `factors.json` (hidden factors and voice of every speaker,
nuisance of every picture), `<speaker>/<sentence>.wav` (24 kHz, 16 bit), `<sentence>.txt`,
`<sentence>_0.png` and so on. Each speaker is made by a process of its own
(`python -m xfavot.data.mini.generate`), because espeak-ng keeps a state; so the bytes do not depend
on the number of workers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.data.mini.factors import Person, nuisance, people, stream
from xfavot.errors import DataError

SCHEMA = 1


def _write_wave(path: Path, samples: NDArray[np.float64], rate_hz: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())


def _rank(cast: tuple[Person, ...], speaker: int) -> int:
    gender = cast[speaker].gender
    return sum(person.gender == gender for person in cast[:speaker])


def make_speaker(
    folder: Path, *, speaker: int, speakers: int, utterances: int, faces_per_clip: int, seed: int
) -> dict[str, Any]:
    """Speak and draw everything of one speaker; meant for a fresh process.

    Args:
        folder: root of the corpus; the speaker's own folder is made in it.
        speaker: index, 0 .. speakers - 1.
        speakers, utterances, faces_per_clip, seed: as in :func:`generate`.

    Returns:
        The speaker's entry of `factors.json`: `hidden`, `voice` and `faces`.

    Raises:
        DataError: an extra is missing.
    """
    from PIL import Image

    from xfavot.data.mini.draw import draw_face
    from xfavot.data.mini.speak import SAMPLE_RATE_HZ, Espeak, become, code, sentences, voice_of

    cast = people(speakers, seed=seed)
    person = cast[speaker]
    voice = voice_of(person, _rank(cast, speaker))
    own = folder / person.speaker
    own.mkdir()
    espeak = Espeak()
    faces: dict[str, Any] = {}
    for clip, words in enumerate(sentences(seed, speaker, utterances)):
        name = code(words)
        said = espeak.say(words, voice=voice.base, words_per_minute=voice.words_per_minute)
        samples = become(said, espeak.rate_hz, voice, stream(seed, "voice", speaker, clip))
        _write_wave(own / f"{name}.wav", samples, SAMPLE_RATE_HZ)
        (own / f"{name}.txt").write_text(" ".join(words) + "\n", encoding="utf-8")
        for face in range(faces_per_clip):
            pose = nuisance(seed, speaker, clip, face)
            picture, points = draw_face(person, pose)
            Image.fromarray(picture).save(own / f"{name}_{face}.png")
            faces[f"{name}_{face}"] = {**asdict(pose), "landmarks": points.round(2).tolist()}
    return {"hidden": asdict(person), "voice": asdict(voice), "faces": faces}


def _in_own_process(folder: Path, job: dict[str, int]) -> dict[str, Any]:
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "xfavot.data.mini.generate", str(folder), json.dumps(job)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(
            f"speaker {job['speaker']} of `mini` could not be made: {last}; expected exit status "
            f'0, got {done.returncode}; pip install "xfavot[mini]" if a module is missing'
        )
    entry: dict[str, Any] = json.loads(done.stdout)
    return entry


def generate(
    folder: Path,
    *,
    speakers: int = 16,
    utterances: int = 24,
    faces_per_clip: int = 4,
    seed: int = 0,
    workers: int = 2,
    on_log: Callable[[str], None] | None = None,
) -> Path:
    """Make the embedded audio-visual corpus.

    Args:
        folder: where to; must not exist yet, or be an empty folder.
        speakers: how many, at least 2; the women come first.
        utterances: sentences a speaker.
        faces_per_clip: pictures a sentence.
        seed: equal seeds give equal corpora.
        workers: processes at a time; does not change the result.
        on_log: receives one line a speaker.

    Returns:
        `folder`, which appears only when it is complete.

    Raises:
        DataError: a number is too small, the folder is taken, or an extra is missing.
    """
    numbers = {"speakers": (speakers, 2), "utterances": (utterances, 1), "workers": (workers, 1),
               "faces_per_clip": (faces_per_clip, 1), "seed": (seed, 0)}  # fmt: skip
    for name, (got, least) in numbers.items():
        if got < least:
            raise DataError(f"mini: {name} is {got}; expected at least {least}; choose more")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(
            f"{folder} is not empty; expected a new folder for the corpus `mini`; "
            "remove it or choose another"
        )
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shared = {"speakers": speakers, "utterances": utterances, "faces_per_clip": faces_per_clip,
              "seed": seed}  # fmt: skip

    def make(speaker: int) -> dict[str, Any]:
        entry = _in_own_process(partial, {**shared, "speaker": speaker})
        if on_log is not None:
            on_log(f"mini: {entry['hidden']['speaker']} made ({speaker + 1} of {speakers})")
        return entry

    try:
        with ThreadPoolExecutor(workers) as pool:
            entries = list(pool.map(make, range(speakers)))
        rows = [f"{e['hidden']['speaker']},{e['hidden']['gender']}\n" for e in entries]
        (partial / "speakers.csv").write_text("speaker,gender\n" + "".join(rows), encoding="utf-8")
        factors = {
            "schema": SCHEMA,
            **shared,
            "people": {
                e["hidden"]["speaker"]: {**e["hidden"], "voice": e["voice"]} for e in entries
            },
            "faces": {
                f"{e['hidden']['speaker']}/{name}": pose
                for e in entries
                for name, pose in e["faces"].items()
            },
        }
        text = json.dumps(factors, indent=1, sort_keys=True) + "\n"
        (partial / "factors.json").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


if __name__ == "__main__":
    made = make_speaker(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(made))
