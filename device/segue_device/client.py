"""`AsyncClient`: what an app holds. One client, one engine, one cloud."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from segue_device.answer_stream import AnswerStream
from segue_device.device_model import DeviceModel
from segue_device.modes import Mode, cloud_is_forbidden, plan
from segue_device.pacing import Pacing
from segue_device.request import AnswerRequest
from segue_device.transports.addresses import transport_for
from segue_device.transports.base import Transport
from segue_protocol.errors import ContextTooLong, InvalidRequest, Unsupported
from segue_protocol.sampling_options import Sampling
from segue_protocol.text import TextStream

Messages = Sequence[Mapping[str, str]]


class AsyncClient:
    """Opens answers. Use as an async context manager; it closes what it opened.

    `cloud` is an address (``host:port``, ``ws://...``) or a transport, `model` a
    converted model's path or a :class:`DeviceModel`; a device without a model
    stays cloud-only. The transport is made when an answer first needs it. With
    `reuse_kv` a prompt that begins like the turn before (a conversation) is
    prefilled only from where it differs. `insecure` allows plain text to a
    cloud that is not on this machine.
    """

    def __init__(
        self,
        *,
        cloud: str | Transport | None = None,
        model: str | Path | DeviceModel | None = None,
        pacing: Pacing | None = None,
        reuse_kv: bool = True,
        insecure: bool = False,
    ) -> None:
        if cloud is None and model is None:
            raise InvalidRequest("a client needs a cloud, a device model, or both")
        self._cloud = cloud
        self._transport = None if isinstance(cloud, str) else cloud
        self._model_path = model if isinstance(model, (str, Path)) else None
        self._model = None if isinstance(model, (str, Path)) else model
        self._pacing = pacing or Pacing()
        self._reuse_kv = reuse_kv
        self._insecure = insecure
        self._engine_in_use = False

    async def __aenter__(self) -> AsyncClient:
        """Load the model, if it was given by its path."""
        if self._model_path is not None and self._model is None:
            self._model = await DeviceModel.load(self._model_path)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close engine and connection. Idempotent."""
        if self._model is not None:
            await self._model.runner.close()
        if self._transport is not None:
            await self._transport.aclose()

    @property
    def model(self) -> DeviceModel | None:
        """The device's model, once it is loaded."""
        return self._model

    def _open_cloud(self) -> Transport:
        if self._transport is None:
            assert isinstance(self._cloud, str)
            self._transport = transport_for(self._cloud, insecure=self._insecure)
        return self._transport

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
            has_device=self._model is not None,
            has_cloud=self._cloud is not None,
            forbidden=cloud_is_forbidden(),
        )
        device = self._model if chosen.device else None
        request = self._request(messages, prompt, prompt_token_ids, sampling, max_tokens, model)
        if device is None or not chosen.cloud or chosen.standby:
            credit_through = max_tokens
        request = dataclasses.replace(
            request,
            credit_through=credit_through,
            cached_tokens=device.shared_cells(request.prompt_ids)
            if device and self._reuse_kv
            else 0,
            device_standby=chosen.standby,
        )
        if device is not None:
            _require_fit(request, device)
        return AnswerStream(
            request,
            self,
            runner=device.runner if device is not None else None,
            transport=self._open_cloud() if chosen.cloud else None,
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
        identity = self._model.identity if self._model is not None else None
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
            profile=self._model.profile if self._model is not None else None,
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
        tokenizer = self._model.tokenizer if self._model is not None else None
        if tokenizer is None:
            raise Unsupported("this device's model has no tokenizer; pass prompt_token_ids")
        if prompt is not None:
            return tuple(tokenizer.encode(prompt))
        return tuple(tokenizer.encode_chat(messages or ()))

    def _text_stream(self, request: AnswerRequest) -> TextStream | None:
        """Text of one answer; None when it comes from the cloud, or there is none."""
        vocabulary = self._model.vocabulary if self._model is not None else None
        if request.identity is None or vocabulary is None:
            return None
        return TextStream(vocabulary, request.sampling.stop)

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


def _mode(mode: Mode | str) -> Mode:
    try:
        return Mode(mode)
    except ValueError:
        known = ", ".join(each.value for each in Mode)
        raise InvalidRequest(f"mode {mode!r}, expected one of {known}") from None


def _require_fit(request: AnswerRequest, device: DeviceModel) -> None:
    context = device.max_context_tokens
    over = len(request.prompt_ids) + request.max_tokens - context
    if over > 0:
        raise ContextTooLong(
            f"{len(request.prompt_ids)} prompt tokens and up to {request.max_tokens} output tokens "
            f"exceed this device's context of {context} by {over}; shorten the prompt, lower "
            "max_tokens, or use Mode.ONLY_IN_CLOUD"
        )
