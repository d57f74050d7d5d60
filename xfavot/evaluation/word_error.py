"""Word and character error rate of what a recogniser hears in converted voices.

Paper: Sec. 4.2, Tables 3 and 5; its recogniser is one of ESPnet's, not told which, and neither is
its normalisation. Ours, for transcripts and hypotheses alike (`normalise`): Unicode NFKC, lower
case, typographic apostrophes made plain; everything but letters, digits and apostrophes inside a
word becomes a space. Numbers stay as they are written, spelling is not unified. Rates are those of
a corpus: all errors over all words (jiwer), not the mean of the clips' rates. The same figures of
the sources, with the same recogniser, belong beside them.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from xfavot.errors import DataError

WER, CER = "word_error", "character_error"
DEFINITIONS = {
    WER: "errors over words of the transcripts (jiwer), NFKC, lower case, no punctuation",
    CER: "errors over characters of the transcripts, spaces included (jiwer), same normalisation",
}
APOSTROPHES = dict.fromkeys(map(ord, "‘’ʼ`´"), "'")  # noqa: RUF001 - they are what is replaced
_OTHER = re.compile(r"[^\w']|_")
_LOOSE = re.compile(r"(?<!\w)'+|'+(?!\w)")


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of one clip.

    Args:
        word_errors, words: insertions, deletions and substitutions; words of the transcript.
        character_errors, characters: the same of characters.
    """

    word_errors: int
    words: int
    character_errors: int
    characters: int


def normalise(text: str) -> str:
    """Bring a transcript or a hypothesis to plain lower-case words; see the module.

    >>> normalise("It's Well-known -- 'Please', call Stella.")
    "it's well known please call stella"
    """
    plain = unicodedata.normalize("NFKC", text.translate(APOSTROPHES)).translate(APOSTROPHES)
    words = _OTHER.sub(" ", plain.lower())
    return " ".join(_LOOSE.sub(" ", words).split())


def count_errors(said: str, heard: str) -> Errors:
    """Count the errors of one clip.

    Args:
        said: the transcript, as it was written.
        heard: the hypothesis, "" for nothing.

    Raises:
        DataError: no word is left of the transcript, or jiwer is not installed.
    """
    jiwer = _jiwer()
    truth, guess = normalise(said), normalise(heard)
    if not truth:
        raise DataError(
            f"word error: the transcript {said!r} has no word; expected what is said; leave it "
            "empty only where it is not known"
        )
    words, characters = jiwer.process_words(truth, guess), jiwer.process_characters(truth, guess)
    return Errors(_sum(words), len(truth.split()), _sum(characters), len(truth))


def _sum(found: Any) -> int:
    return int(found.substitutions + found.deletions + found.insertions)


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise DataError(
            f'word error needs jiwer, which is not installed ({error}); run: pip install "xfavot'
            '[metrics]"'
        ) from error
    return jiwer
