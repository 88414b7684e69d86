"""From the events of one answer to OpenAI's objects; pure, one form an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Generic, TypeVar

from segue_device import events
from segue_device.openai_form.answers import (
    ChatChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChunkChoice,
    Completion,
    CompletionChoice,
    Delta,
    FinishReason,
    Message,
    PromptTokensDetails,
    SegueUsage,
    Usage,
    Wire,
)
from segue_device.openai_form.logprobs import TokenLogprobs
from segue_device.openai_form.request import FormRequest, Outside
from segue_protocol.errors import Cancelled
from segue_protocol.vocabulary import Vocabulary

WholeT = TypeVar("WholeT", bound=Wire)
ChunkT = TypeVar("ChunkT", bound=Wire)


class Form(ABC, Generic[WholeT, ChunkT]):
    """How one answer is written down. Every event is shown to `chunks`, in order.

    A cancelled answer has no finish reason with OpenAI: `chunks` and `whole`
    raise Cancelled at its end.
    """

    id_prefix: ClassVar[str]

    def __init__(
        self,
        request: FormRequest,
        outside: Outside,
        *,
        model: str,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """`model` is the name to answer under, `vocabulary` the device's for logprobs."""
        self.request = request
        self._id = self.id_prefix + outside.new_id()
        self._created = int(outside.now_s())
        self._model = model
        # From the cloud, which alone knows it where the device has no tokenizer.
        self._prompt_tokens = 0
        self._logprobs = TokenLogprobs(request.logprobs, vocabulary)

    @abstractmethod
    def whole(self, result: events.Result) -> WholeT:
        """The whole answer; the events before it must have been shown to `chunks`."""

    def chunks(self, event: events.Event) -> Iterator[ChunkT]:
        """The chunks that become due with `event`."""
        if isinstance(event, events.Started):
            self._prompt_tokens = event.prompt_tokens
        elif isinstance(event, events.Token):
            told = len(self._logprobs)
            self._logprobs.add(event)
            if event.text or len(self._logprobs) > told:
                yield from self._token(event.text, told)
        elif isinstance(event, events.Done):
            yield from self._end(_finish_reason(event.result))
            if self.request.include_usage:
                yield self._usage_chunk(self._usage(event.result))

    @abstractmethod
    def _token(self, text: str, told: int) -> Iterator[ChunkT]:
        """`told`: how many tokens' logprobs have been told before."""
        ...

    @abstractmethod
    def _end(self, reason: FinishReason) -> Iterator[ChunkT]: ...

    @abstractmethod
    def _usage_chunk(self, usage: Usage) -> ChunkT: ...

    def _usage(self, result: events.Result) -> Usage:
        usage = result.usage
        prompt_tokens = usage.prompt_tokens or self._prompt_tokens
        completion_tokens = usage.cloud_tokens + usage.device_tokens
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
            segue=SegueUsage(
                cloud_tokens=usage.cloud_tokens,
                device_tokens=usage.device_tokens,
                discarded_tokens=usage.discarded_tokens,
                takeover_index=result.takeover_index,
                ttft_s=result.timings.ttft_s,
                seed=result.seed,
            ),
        )


class ChatForm(Form[ChatCompletion, ChatCompletionChunk]):
    """A chat answer."""

    id_prefix = "chatcmpl-"
    _role_told = False

    def whole(self, result: events.Result) -> ChatCompletion:
        choice = ChatChoice(Message(result.text), _finish_reason(result), self._logprobs.chat())
        return ChatCompletion(self._id, self._created, self._model, [choice], self._usage(result))

    def _token(self, text: str, told: int) -> Iterator[ChatCompletionChunk]:
        yield from self._role()
        yield self._chunk(ChunkChoice(Delta(content=text), logprobs=self._logprobs.chat(told)))

    def _end(self, reason: FinishReason) -> Iterator[ChatCompletionChunk]:
        yield from self._role()
        yield self._chunk(ChunkChoice(Delta(), reason))

    def _usage_chunk(self, usage: Usage) -> ChatCompletionChunk:
        return ChatCompletionChunk(self._id, self._created, self._model, [], usage)

    def _role(self) -> Iterator[ChatCompletionChunk]:
        """The first chunk says who speaks."""
        if not self._role_told:
            self._role_told = True
            yield self._chunk(ChunkChoice(Delta(content="", role="assistant")))

    def _chunk(self, choice: ChunkChoice) -> ChatCompletionChunk:
        return ChatCompletionChunk(self._id, self._created, self._model, [choice])


class CompletionForm(Form[Completion, Completion]):
    """A text answer; its chunks have the form of the whole."""

    id_prefix = "cmpl-"

    def whole(self, result: events.Result) -> Completion:
        choice = CompletionChoice(result.text, _finish_reason(result), self._logprobs.completion())
        return Completion(self._id, self._created, self._model, [choice], self._usage(result))

    def _token(self, text: str, told: int) -> Iterator[Completion]:
        yield self._chunk(CompletionChoice(text, logprobs=self._logprobs.completion(told)))

    def _end(self, reason: FinishReason) -> Iterator[Completion]:
        yield self._chunk(CompletionChoice("", reason))

    def _usage_chunk(self, usage: Usage) -> Completion:
        return Completion(self._id, self._created, self._model, [], usage)

    def _chunk(self, choice: CompletionChoice) -> Completion:
        return Completion(self._id, self._created, self._model, [choice])


def _finish_reason(result: events.Result) -> FinishReason:
    if result.finish_reason is events.FinishReason.CANCELLED:
        cancelled = Cancelled("the answer was cancelled before its end")
        cancelled.partial = result.token_ids
        raise cancelled
    return "length" if result.finish_reason is events.FinishReason.LENGTH else "stop"
