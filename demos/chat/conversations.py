"""What the server keeps: conversations and their answers, so that a page may be reloaded."""

from __future__ import annotations

import dataclasses
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anyio.abc import TaskGroup

from demos.chat.device import Device
from demos.chat.recorded import RecordedAnswer
from demos.chat.settings import Settings
from demos.split.runs import Prompt
from segue_device import AnswerStream, Mode, Sampling, Session
from segue_device.compose import random_seed
from segue_protocol.errors import InvalidRequest, NotFound

MAX_CONVERSATIONS = 64
MAX_ANSWERS = 512
# The three ways, in the order of the page's columns.
WAYS = (Mode.ONLY_ON_DEVICE, Mode.SPLIT, Mode.ONLY_IN_CLOUD)


@dataclass(slots=True)
class Conversation:
    """Its turns as the page shows them; the session has the messages."""

    session: Session
    turns: list[Mapping[str, Any]] = field(default_factory=list)


class Conversations:
    """Conversations by names nobody can guess; the oldest are forgotten."""

    def __init__(
        self,
        tasks: TaskGroup,
        device: Device,
        second_device: Device,
        prompts: Sequence[Prompt],
    ) -> None:
        """`second_device` works beside the first where one prompt is answered three ways.

        A conversation that begins with one of `prompts` goes on with its seed, so that
        it can be shown again; any other text is sampled with a new seed.
        """
        self._seeds = {each.messages[-1]["content"]: each.sampling.seed for each in prompts}
        self._tasks = tasks
        self._device = device
        self._second_device = second_device
        self._conversations: OrderedDict[str, Conversation] = OrderedDict()
        self._answers: OrderedDict[str, RecordedAnswer] = OrderedDict()

    def begin(self) -> str:
        """A new conversation; returns its name."""
        session = Session(self._device.stream, ttft_target_s=None)
        return _keep(self._conversations, Conversation(session), MAX_CONVERSATIONS)

    def turns(self, name: str) -> list[Mapping[str, Any]]:
        """What was asked so far, and under which names the answers are kept."""
        return self._find(name).turns

    async def ask(self, name: str, text: str, settings: Settings) -> str:
        """The next turn; returns its answer's name. Raises what keeps it from beginning."""
        conversation = self._find(name)
        # A first turn finds an empty cache: a prompt that is tried again shows the same again.
        begun = bool(conversation.turns)
        seed = None if begun else self._seeds.get(text)
        stream = conversation.session.stream(
            text, settings=settings, reuse_kv=begun, sampling=_sampling(seed)
        )
        answer = await self._begin(self._device, stream)
        turn = {"text": text, "settings": settings.as_json(), "answer": answer}
        conversation.turns.append(turn)
        return answer

    async def compare(self, text: str, settings: Settings) -> Mapping[str, str]:
        """One prompt three ways at once; returns the answers' names by mode."""
        if not text:
            raise InvalidRequest("the prompt is empty; expected text")
        request: dict[str, Any] = {
            "reuse_kv": False,
            "messages": [{"role": "user", "content": text}],
            "sampling": _sampling(self._seeds.get(text) or random_seed()),
        }
        streams = []  # all of them before the first begins, so that a refusal starts nothing
        for mode in WAYS:
            device = self._second_device if mode is Mode.ONLY_ON_DEVICE else self._device
            way = dataclasses.replace(settings, mode=mode)
            streams.append((mode, device, device.stream(way, **request)))
        return {mode.value: await self._begin(device, stream) for mode, device, stream in streams}

    def answer(self, name: str) -> RecordedAnswer:
        """Raises NotFound."""
        found = self._answers.get(name)
        if found is None:
            raise NotFound("this answer is not kept here any more; ask again")
        return found

    async def _begin(self, device: Device, stream: AnswerStream) -> str:
        answer = RecordedAnswer(device, stream)
        await self._tasks.start(answer.run)
        return _keep(self._answers, answer, MAX_ANSWERS)

    def _find(self, name: str) -> Conversation:
        found = self._conversations.get(name)
        if found is None:
            raise NotFound("this conversation is not kept here any more; begin a new one")
        return found


def _sampling(seed: int | None) -> Sampling:
    return Sampling(temperature=0.8, top_k=40, seed=seed)


def _keep(kept: OrderedDict[str, Any], value: Any, limit: int) -> str:
    name = secrets.token_urlsafe(16)
    kept[name] = value
    while len(kept) > limit:
        kept.popitem(last=False)
    return name
