"""Ids in, text out, never a character that could still change."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from segue_protocol.sampling_options import validate_stops
from segue_protocol.vocabulary import Vocabulary


class TextStream:
    """Turns one answer's ids into text as they come and looks for stop strings.

    Held back are the bytes of an incomplete UTF-8 character and any end of
    the text that could begin a stop string. The stop string completed first
    counts; of several completed by one character the longest. What is
    released does not depend on how the text is cut into tokens.
    """

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = ()) -> None:
        """Raises InvalidRequest on an empty, an overlong or too many stop strings."""
        validate_stops(tuple(stop))
        self._vocabulary = vocabulary
        self._stops = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """A stop string was completed: the text before it is out, nothing follows."""
        return self._stopped

    def push(self, token_id: int) -> str:
        """Take the next token; return the text that is now certain.

        A special token, or an id the vocabulary does not use, has no text.
        """
        return self._advance(self._decoder.decode(self._vocabulary.text_bytes(token_id)))

    def flush(self) -> str:
        """The answer is over: return what was held back.

        An incomplete character becomes U+FFFD, which may complete a stop string.
        """
        certain = self._advance(self._decoder.decode(b"", final=True))
        rest, self._held = self._held, ""
        return certain + rest

    def _advance(self, new: str) -> str:
        if self._stopped:
            return ""
        text = self._held + new
        found = [(text.find(stop) + len(stop), -len(stop)) for stop in self._stops if stop in text]
        if found:
            end, negative_length = min(found)
            self._stopped, self._held = True, ""
            return text[: end + negative_length]
        certain = len(text) - self._length_to_hold(text)
        self._held = text[certain:]
        return text[:certain]

    def _length_to_hold(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
