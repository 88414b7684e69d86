"""`AsyncClient`: what an app holds. One client, one engine, one cloud."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence

from segue_device.answer_stream import AnswerStream
from segue_device.engines.runner import Runner
from segue_device.modes import Mode, cloud_is_forbidden, plan
from segue_device.pacing import Pacing
from segue_device.profile import measure_profile
from segue_device.request import AnswerRequest
from segue_device.transports.base import Transport
from segue_protocol.errors import ContextTooLong, InvalidRequest, Unsupported
from segue_protocol.sampling import Sampling
from segue_protocol.text import TextStream
from segue_protocol.timeline import DeviceProfile
from segue_protocol.tokenizer import ChatTokenizer
from segue_protocol.vocabulary import Vocabulary

Messages = Sequence[Mapping[str, str]]


class AsyncClient:
    """Opens answers. Use as an async context manager; it closes engine and transport.

    `runner` owns the device's engine and `tokenizer` belongs to its model; a
    device without a model gives neither and stays cloud-only. `vocabulary`
    stands for the tokenizer where only ids go in. `profile` is measured at the
    start when it is not given. With `reuse_kv` a prompt that begins like the
    turn before (a conversation) is prefilled only from where it differs.
    """

    def __init__(
        self,
        *,
        transport: Transport | None = None,
        runner: Runner | None = None,
        tokenizer: ChatTokenizer | None = None,
        vocabulary: Vocabulary | None = None,
        profile: DeviceProfile | None = None,
        pacing: Pacing | None = None,
        reuse_kv: bool = True,
    ) -> None:
        if transport is None and runner is None:
            raise InvalidRequest(
                "a client needs a cloud (transport), a device model (runner), or both"
            )
        self._transport = transport
        self._runner = runner
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary or (tokenizer.vocabulary if tokenizer else None)
        self._profile = profile
        self._pacing = pacing or Pacing()
        self._reuse_kv = reuse_kv
        self._engine_in_use = False

    async def __aenter__(self) -> AsyncClient:
        if self._runner is not None and self._profile is None:
            self._profile = await measure_profile(self._runner)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close engine and connection. Idempotent."""
        if self._runner is not None:
            await self._runner.close()
        if self._transport is not None:
            await self._transport.aclose()

    @property
    def profile(self) -> DeviceProfile | None:
        """The device's speed as told to the cloud."""
        return self._profile

    def stream(
        self,
        *,
        max_tokens: int,
        messages: Messages | None = None,
        prompt: str | None = None,
        prompt_token_ids: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        mode: Mode | str = Mode.SPLIT,
        credit_through: int | None = None,
        pacing: Pacing | None = None,
        model: str = "",
    ) -> AnswerStream:
        """An answer to exactly one of `messages`, `prompt` and `prompt_token_ids`.

        `credit_through` fixes how many tokens the cloud makes at most, in place
        of its advice and of extensions. The model's own stop ids always count.
        Raises InvalidRequest, ContextTooLong or Unsupported before anything is
        sent.
        """
        chosen = plan(
            _mode(mode),
            has_device=self._runner is not None,
            has_cloud=self._transport is not None,
            forbidden=cloud_is_forbidden(),
        )
        runner = self._runner if chosen.device else None
        transport = self._transport if chosen.cloud else None
        request = self._request(messages, prompt, prompt_token_ids, sampling, max_tokens, model)
        if runner is None or transport is None or chosen.standby:
            credit_through = max_tokens
        request = dataclasses.replace(
            request,
            credit_through=credit_through,
            cached_tokens=(
                _shared_cells(runner, request.prompt_ids)
                if runner is not None and self._reuse_kv
                else 0
            ),
            device_standby=chosen.standby,
        )
        if runner is not None:
            _require_fit(request, runner)
        return AnswerStream(
            request,
            self,
            runner=runner,
            transport=transport,
            text=self._text_stream(request),
            pacing=pacing or self._pacing,
        )

    def _request(
        self,
        messages: Messages | None,
        prompt: str | None,
        prompt_token_ids: Sequence[int] | None,
        sampling: Sampling | None,
        max_tokens: int,
        model: str,
    ) -> AnswerRequest:
        given = [each for each in (messages, prompt, prompt_token_ids) if each is not None]
        if len(given) != 1:
            raise InvalidRequest(
                f"{len(given)} of messages, prompt and prompt_token_ids were given, expected one"
            )
        if max_tokens < 1:
            raise InvalidRequest(f"max_tokens is {max_tokens}, expected at least 1")
        if not given[0]:
            raise InvalidRequest("the prompt is empty; expected at least one token or message")
        sampling = sampling or Sampling()
        identity = self._runner.identity if self._runner is not None else None
        sampling.validate(identity.vocab_size if identity is not None else None)
        request = AnswerRequest(
            request_id=str(uuid.uuid4()),
            prompt_ids=(),
            sampling=sampling,
            max_tokens=max_tokens,
            model=model,
        )
        if identity is None:
            if prompt_token_ids is not None:
                raise InvalidRequest(
                    "prompt_token_ids need a device model that says which vocabulary they are "
                    "from; pass messages or prompt"
                )
            pairs = tuple((m["role"], m["content"]) for m in messages or ())
            return dataclasses.replace(request, text=prompt, messages=pairs)
        stop_ids = {*sampling.stop_token_ids, *identity.stop_token_ids}
        return dataclasses.replace(
            request,
            prompt_ids=self._encode(messages, prompt, prompt_token_ids, identity.vocab_size),
            sampling=dataclasses.replace(sampling, stop_token_ids=tuple(sorted(stop_ids))),
            identity=identity,
            profile=self._profile,
        )

    def _encode(
        self,
        messages: Messages | None,
        prompt: str | None,
        prompt_token_ids: Sequence[int] | None,
        vocab_size: int,
    ) -> Sequence[int]:
        if prompt_token_ids is not None:
            for place, token in enumerate(prompt_token_ids):
                if not 0 <= token < vocab_size:
                    raise InvalidRequest(
                        f"prompt_token_ids[{place}] is {token}, outside the vocabulary of "
                        f"{vocab_size} ids"
                    )
            return tuple(prompt_token_ids)
        if self._tokenizer is None:
            raise Unsupported("this client has no tokenizer; pass prompt_token_ids")
        if prompt is not None:
            return tuple(self._tokenizer.encode(prompt))
        return tuple(self._tokenizer.encode_chat(messages or ()))

    def _text_stream(self, request: AnswerRequest) -> TextStream | None:
        """Text of one answer; None when it comes from the cloud, or there is none."""
        if request.identity is None or self._vocabulary is None:
            return None
        return TextStream(self._vocabulary, request.sampling.stop)

    def claim_engine(self) -> None:
        """One answer at a time may use the engine."""
        if self._engine_in_use:
            raise InvalidRequest(
                "another answer of this client is using the device engine; end it first, "
                "or open a second client with a second engine",
                reason="ENGINE_BUSY",
            )
        self._engine_in_use = True

    def release_engine(self) -> None:
        """Give the engine back."""
        self._engine_in_use = False


def _shared_cells(runner: Runner, prompt_ids: Sequence[int]) -> int:
    """How many leading cells of the engine are the prompt's, at the prompt's positions.

    The last token is always appended anew: its logits are needed.
    """
    shared = 0
    for place, (cell, token) in enumerate(zip(runner.cells, prompt_ids[:-1], strict=False)):
        if cell != (place, token):
            break
        shared = place + 1
    return shared


def _mode(mode: Mode | str) -> Mode:
    try:
        return Mode(mode)
    except ValueError:
        known = ", ".join(each.value for each in Mode)
        raise InvalidRequest(f"mode {mode!r}, expected one of {known}") from None


def _require_fit(request: AnswerRequest, runner: Runner) -> None:
    context = runner.capabilities.max_context_tokens
    over = len(request.prompt_ids) + request.max_tokens - context
    if over > 0:
        raise ContextTooLong(
            f"{len(request.prompt_ids)} prompt tokens and up to {request.max_tokens} output tokens "
            f"exceed this device's context of {context} by {over}; shorten the prompt, lower "
            "max_tokens, or use Mode.ONLY_IN_CLOUD"
        )
