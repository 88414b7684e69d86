"""How probable each token was, as OpenAI tells it."""

from __future__ import annotations

from collections.abc import Sequence

from segue_device import events
from segue_device.openai_form.answers import ChatLogprobs, CompletionLogprobs, TokenLogprob
from segue_protocol.vocabulary import Vocabulary


class TokenLogprobs:
    """Collects the tokens of one answer; with `wanted` False there are none."""

    def __init__(self, wanted: bool, vocabulary: Vocabulary | None) -> None:
        self._wanted = wanted
        self._vocabulary = vocabulary
        self._tokens: list[TokenLogprob] = []
        self._offsets: list[int] = []
        self._shown_characters = 0

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, token: events.Token) -> None:
        """Take the next token. One that stands for no text, such as the stop token, is left out."""
        if self._wanted and token.token_id is not None:
            piece = token.text.encode()
            if self._vocabulary is not None:
                piece = self._vocabulary.text_bytes(token.token_id)
            if piece or self._vocabulary is None:
                text = piece.decode(errors="replace")
                self._tokens.append(TokenLogprob(text, token.logprob, tuple(piece)))
                self._offsets.append(self._shown_characters)
        self._shown_characters += len(token.text)

    def chat(self, start: int = 0) -> ChatLogprobs | None:
        """The tokens from the `start`-th on."""
        return ChatLogprobs(self._tokens[start:]) if self._wanted else None

    def completion(self, start: int = 0) -> CompletionLogprobs | None:
        """The same in the older form: `text_offset` in characters of the answer."""
        if not self._wanted:
            return None
        tokens: Sequence[TokenLogprob] = self._tokens[start:]
        return CompletionLogprobs(
            tokens=[each.token for each in tokens],
            token_logprobs=[each.logprob for each in tokens],
            text_offset=self._offsets[start:],
        )
