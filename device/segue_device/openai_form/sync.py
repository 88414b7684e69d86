"""The same for code without `async`: a portal to the asynchronous form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from anyio.from_thread import BlockingPortal

from segue_device.openai_form.answers import ChatCompletion, ChatCompletionChunk, Completion
from segue_device.openai_form.client import (
    AsyncChatCompletions,
    AsyncChunkStream,
    AsyncCompletions,
)
from segue_device.openai_form.forms import ChunkT
from segue_device.openai_form.request import Outside

if TYPE_CHECKING:
    from segue_device.client import AsyncClient

# The open client, or InvalidRequest.
Opened = Callable[[], tuple[BlockingPortal, "AsyncClient"]]


class ChunkStream(Generic[ChunkT]):
    """As :class:`AsyncChunkStream`: an iterator and a context manager."""

    def __init__(self, portal: BlockingPortal, stream: AsyncChunkStream[ChunkT]) -> None:
        self._portal = portal
        self._stream = stream

    def __iter__(self) -> Iterator[ChunkT]:
        return self

    def __next__(self) -> ChunkT:
        chunk = self._portal.call(self._next)
        if chunk is None:
            raise StopIteration
        return chunk

    async def _next(self) -> ChunkT | None:
        return await anext(self._stream, None)

    def __enter__(self) -> ChunkStream[ChunkT]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the answer now and wait until the engine is free. Idempotent."""
        self._portal.call(self._stream.close)


@dataclass(frozen=True, slots=True)
class ChatCompletions:
    """As :class:`AsyncChatCompletions`."""

    _opened: Opened
    _outside: Outside = field(default_factory=Outside)

    @overload
    def create(
        self, *, stream: Literal[True], **parameters: Any
    ) -> ChunkStream[ChatCompletionChunk]: ...

    @overload
    def create(
        self, *, stream: Literal[False] | None = None, **parameters: Any
    ) -> ChatCompletion: ...

    def create(
        self, *, stream: bool | None = None, **parameters: Any
    ) -> ChatCompletion | ChunkStream[ChatCompletionChunk]:
        """An answer to `messages`."""
        portal, client = self._opened()
        create: Any = AsyncChatCompletions(client, self._outside).create
        made = portal.call(partial(create, stream=stream, **parameters))
        return ChunkStream(portal, made) if isinstance(made, AsyncChunkStream) else made


@dataclass(frozen=True, slots=True)
class Completions:
    """As :class:`AsyncCompletions`."""

    _opened: Opened
    _outside: Outside = field(default_factory=Outside)

    @overload
    def create(self, *, stream: Literal[True], **parameters: Any) -> ChunkStream[Completion]: ...

    @overload
    def create(self, *, stream: Literal[False] | None = None, **parameters: Any) -> Completion: ...

    def create(
        self, *, stream: bool | None = None, **parameters: Any
    ) -> Completion | ChunkStream[Completion]:
        """The text that goes on after `prompt`."""
        portal, client = self._opened()
        create: Any = AsyncCompletions(client, self._outside).create
        made = portal.call(partial(create, stream=stream, **parameters))
        return ChunkStream(portal, made) if isinstance(made, AsyncChunkStream) else made


class Chat:
    """`client.chat`."""

    def __init__(self, opened: Opened, outside: Outside | None = None) -> None:
        self.completions = ChatCompletions(opened, outside or Outside())
