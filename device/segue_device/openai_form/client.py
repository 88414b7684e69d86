"""`client.chat.completions` and `client.completions`, called as with the openai package."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from segue_device import events
from segue_device.modes import Mode
from segue_device.openai_form.answers import ChatCompletion, ChatCompletionChunk, Completion
from segue_device.openai_form.detached import DetachedAnswer
from segue_device.openai_form.fields import wrong
from segue_device.openai_form.forms import ChatForm, ChunkT, CompletionForm, Form, WholeT
from segue_device.openai_form.request import (
    FormRequest,
    Outside,
    parse_chat,
    parse_completion,
)
from segue_device.pacing import Pacing
from segue_protocol.errors import NotFound
from segue_protocol.vocabulary import Vocabulary

if TYPE_CHECKING:
    from segue_device.client import AsyncClient


class AsyncChunkStream(Generic[ChunkT]):
    """The chunks of one answer: an async iterator and a context manager.

    Leaving the context, `close`, or dropping the stream cancels what is not
    finished. Iterating raises the answer's error, with `.partial`, after every
    chunk that came before it.
    """

    def __init__(self, answer: DetachedAnswer, form: Form[Any, ChunkT]) -> None:
        self._answer = answer
        self._form = form
        self._due: deque[ChunkT] = deque()
        self._closed = False

    def __aiter__(self) -> AsyncIterator[ChunkT]:
        return self

    async def __anext__(self) -> ChunkT:
        while not self._due and not self._closed:
            event = await self._answer.next_event()
            if event is None:
                break
            if not self._closed:  # by another task, meanwhile
                self._due.extend(self._form.chunks(event))
        if self._closed or not self._due:
            raise StopAsyncIteration
        return self._due.popleft()

    async def __aenter__(self) -> AsyncChunkStream[ChunkT]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the answer now and wait until the engine is free. Idempotent."""
        self._closed = True
        await self._answer.close()


def vocabulary_of(client: AsyncClient) -> Vocabulary | None:
    """What the device's ids stand for, if it has a model."""
    return client.model.vocabulary if client.model is not None else None


async def open_chunks(
    client: AsyncClient, form: Form[Any, ChunkT], *, model: str = ""
) -> AsyncChunkStream[ChunkT]:
    """Begin an answer and read it in chunks. `model` is the name to ask the cloud for."""
    return AsyncChunkStream(await _begin(client, form.request, model, None), form)


async def whole_answer(client: AsyncClient, form: Form[WholeT, Any], *, model: str = "") -> WholeT:
    """Make a whole answer. A caller that is cancelled cancels it."""
    # Nobody watches, so nothing is paced, unless the cloud's part is to stay small:
    # then the pace is what keeps it from running ahead while the device catches up.
    splits = (form.request.mode or client.mode) is Mode.SPLIT
    answer = await _begin(client, form.request, model, None if splits else Pacing.off())
    try:
        result = None
        while (event := await answer.next_event()) is not None:
            for _ in form.chunks(event):
                pass
            if isinstance(event, events.Done):
                result = event.result
    finally:
        await answer.close()
    assert result is not None
    return form.whole(result)


async def _begin(
    client: AsyncClient, request: FormRequest, model: str, pacing: Pacing | None
) -> DetachedAnswer:
    stream = client.stream(
        messages=request.messages,
        prompt=request.prompt,
        prompt_token_ids=request.prompt_token_ids,
        max_tokens=request.max_tokens,
        sampling=request.sampling,
        mode=request.mode,
        credit_through=request.credit_through,
        keep_ratio=request.keep_ratio,
        pacing=pacing,
        logprobs=request.logprobs,
        model=model,
    )
    return await DetachedAnswer.open(stream)


async def _create(
    client: AsyncClient,
    kind: Callable[..., Form[WholeT, ChunkT]],
    request: FormRequest,
    outside: Outside,
) -> WholeT | AsyncChunkStream[ChunkT]:
    """The answer to `request` in one of OpenAI's two forms, whole or in chunks."""
    form = kind(
        request,
        outside,
        model=_name(client, request.model),
        vocabulary=vocabulary_of(client),
    )
    model = _cloud_name(client, request.model)
    if request.stream:
        return await open_chunks(client, form, model=model)
    return await whole_answer(client, form, model=model)


@dataclass(frozen=True, slots=True)
class AsyncChatCompletions:
    """`create` takes OpenAI's parameters, and ``extra_body`` as the openai package does.

    ``segue={"mode": ...}`` holds what OpenAI has no word for. It raises Segue's
    errors (:mod:`segue_protocol.errors`), with the parameter in ``param``.
    """

    _client: AsyncClient
    _outside: Outside = field(default_factory=Outside)

    @overload
    async def create(
        self, *, stream: Literal[True], **parameters: Any
    ) -> AsyncChunkStream[ChatCompletionChunk]: ...

    @overload
    async def create(
        self, *, stream: Literal[False] | None = None, **parameters: Any
    ) -> ChatCompletion: ...

    async def create(
        self, *, stream: bool | None = None, **parameters: Any
    ) -> ChatCompletion | AsyncChunkStream[ChatCompletionChunk]:
        """An answer to `messages`."""
        request = parse_chat(_body(stream, parameters))
        return await _create(self._client, ChatForm, request, self._outside)


@dataclass(frozen=True, slots=True)
class AsyncCompletions:
    """As :class:`AsyncChatCompletions`, for a plain `prompt`."""

    _client: AsyncClient
    _outside: Outside = field(default_factory=Outside)

    @overload
    async def create(
        self, *, stream: Literal[True], **parameters: Any
    ) -> AsyncChunkStream[Completion]: ...

    @overload
    async def create(
        self, *, stream: Literal[False] | None = None, **parameters: Any
    ) -> Completion: ...

    async def create(
        self, *, stream: bool | None = None, **parameters: Any
    ) -> Completion | AsyncChunkStream[Completion]:
        """The text that goes on after `prompt`."""
        request = parse_completion(_body(stream, parameters))
        return await _create(self._client, CompletionForm, request, self._outside)


class AsyncChat:
    """`client.chat`."""

    def __init__(self, client: AsyncClient, outside: Outside | None = None) -> None:
        self.completions = AsyncChatCompletions(client, outside or Outside())


def _body(stream: bool | None, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request's body, as the openai package would send it."""
    body = {**parameters, "stream": stream}
    extra = body.pop("extra_body", None)
    if extra is not None and not isinstance(extra, Mapping):
        raise wrong("extra_body", extra, "an object")
    return {**body, **(extra or {})}


def _name(client: AsyncClient, asked: str) -> str:
    return asked or (client.model.identity.model if client.model is not None else "")


def _cloud_name(client: AsyncClient, asked: str) -> str:
    """What to call the model before the cloud.

    A device with a model answers to that model's name alone; the cloud's may have
    another one. Raises NotFound.
    """
    if client.model is None:
        return asked
    own = client.model.identity.model
    if asked not in ("", own):
        raise NotFound(
            f"no model {asked!r} here; this device has {own!r}: ask for that, or name none",
            reason="MODEL_NOT_FOUND",
            param="model",
        )
    return ""
