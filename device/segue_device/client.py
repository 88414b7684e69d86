"""`AsyncClient`: what an app holds. One client, one engine, one cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from segue_device.answer import Answer
from segue_device.answer_stream import AnswerStream
from segue_device.budgets import Budgets
from segue_device.compose import (
    random_seed,
    request_for,
    situation_of,
    text_stream,
    with_seed,
)
from segue_device.conditions import DeviceConditions, Privacy
from segue_device.credentials import Credentials
from segue_device.device_model import DeviceModel, Match
from segue_device.events import Result
from segue_device.learning import NetworkSpeed, Seen, network_added_s
from segue_device.modes import Mode, cloud_forbidden_by_user, plan
from segue_device.openai_form.client import AsyncChat, AsyncCompletions
from segue_device.pacing import Pacing
from segue_device.prompts import Messages, common_prefix, read_prompt
from segue_device.request import require_fit
from segue_device.running import RunningAnswers
from segue_device.session import Session
from segue_device.status import Preflight, SideStatus, Status, preflight, survey
from segue_device.transports.addresses import transport_for
from segue_device.transports.base import Transport
from segue_protocol.errors import InvalidRequest, Unsupported
from segue_protocol.sampling_options import Sampling


class AsyncClient:
    """Opens answers. Use as an async context manager; it closes what it opened.

    `cloud` is an address (``host:port``, ``ws://...``) or a transport, `model` a
    converted model's path or a :class:`DeviceModel`; a device without a model
    stays cloud-only. The transport is made when an answer first needs it. `mode`,
    `pacing` and `budgets` hold where an answer names none of its own. With
    `reuse_kv` a prompt that begins like the turn before (a conversation) is
    prefilled only from where it differs. `insecure` allows plain text to a
    cloud that is not on this machine; `credentials` are what the cloud is shown
    and known by. `label` names the scenario that answers belong to, for which the
    cloud may keep workers of its own. `draw_seed` gives an answer that is sampled
    without a seed its own.
    """

    def __init__(
        self,
        *,
        cloud: str | Transport | None = None,
        model: str | Path | DeviceModel | None = None,
        mode: Mode | str = Mode.SPLIT,
        pacing: Pacing | None = None,
        budgets: Budgets | None = None,
        privacy: Privacy | None = None,
        reuse_kv: bool = True,
        insecure: bool = False,
        label: str = "",
        credentials: Credentials | None = None,
        draw_seed: Callable[[], int] = random_seed,
    ) -> None:
        if cloud is None and model is None:
            raise InvalidRequest("a client needs a cloud, a device model, or both")
        self._cloud = cloud
        self._transport = None if isinstance(cloud, str) else cloud
        self._model_path = model if isinstance(model, (str, Path)) else None
        self._model = None if isinstance(model, (str, Path)) else model
        self._mode = Mode.of(mode)
        self._pacing = pacing or Pacing()
        self._budgets = budgets or Budgets()
        self._privacy = privacy or Privacy()
        self._reuse_kv = reuse_kv
        self._insecure = insecure
        self._label = label
        self._credentials = credentials
        self._running = RunningAnswers()
        self._network = NetworkSpeed()
        self._draw_seed = draw_seed

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

    @property
    def mode(self) -> Mode:
        """Where answers run that name no mode of their own."""
        return self._mode

    # ---- answers

    @property
    def chat(self) -> AsyncChat:
        """`chat.completions.create`, as in the openai package."""
        return AsyncChat(self)

    @property
    def completions(self) -> AsyncCompletions:
        """`completions.create`, as in the openai package."""
        return AsyncCompletions(self)

    def stream(
        self,
        *,
        messages: Messages | None = None,
        prompt: str | None = None,
        prompt_token_ids: Sequence[int] | None = None,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        mode: Mode | str | None = None,
        credit_through: int | None = None,
        keep_ratio: float | None = None,
        ttft_target_s: float | None = None,
        pacing: Pacing | None = None,
        budgets: Budgets | None = None,
        logprobs: bool = False,
        model: str = "",
        label: str | None = None,
        on_result: Callable[[Result], None] = lambda result: None,
    ) -> AnswerStream:
        """An answer to exactly one of `messages`, `prompt` and `prompt_token_ids`.

        `max_tokens` None lets the answer fill the device's context.
        `credit_through` fixes how many tokens the cloud makes at most, in place
        of its advice and of extensions; `keep_ratio` the share of the prompt that
        this device shall prefill, by the cloud's choice, 1 being all of it. With
        `ttft_target_s` a split answer asks the cloud only if the device's own
        first token comes later. `model` names the cloud's; `label`, in place of the
        client's own, its scenario. `on_result` is called with the result of an answer
        that did not fail. The model's own stop ids always count. Raises
        InvalidRequest, ContextTooLong or Unsupported before anything is sent.
        """
        asked = read_prompt(self._model, messages, prompt, prompt_token_ids)
        match = self._model.match(asked.ids) if self._model and self._reuse_kv else Match()
        situation = situation_of(
            asked,
            match,
            self._model,
            has_cloud=self._cloud is not None,
            upload_history=self._privacy.upload_history,
            device_spared=self._running.conditions.reason,
            ttft_target_s=ttft_target_s,
            network=self._network.network,
        )
        chosen = plan(self._mode if mode is None else Mode.of(mode), situation)
        device = self._model if chosen.device else None
        request = request_for(
            asked,
            match if device is not None else Match(),
            chosen,
            self._model,
            sampling=with_seed(sampling or Sampling(), self._draw_seed),
            max_tokens=require_fit(max_tokens, len(asked.ids), device),
            credit_through=credit_through,
            keep_ratio=keep_ratio,
            upload_history=self._privacy.upload_history,
            logprobs=logprobs,
            budgets=budgets or self._budgets,
            ttft_target_s=ttft_target_s,
            network=self._network.network,
            cloud_model=model,
            label=self._label if label is None else label,
        )
        return AnswerStream(
            request,
            self._running,
            runner=device.runner if device is not None else None,
            transport=self._open_cloud() if chosen.cloud else None,
            text=text_stream(self._model, request.sampling),
            pacing=pacing or self._pacing,
            on_result=on_result,
            learn=self._learn,
        )

    def session(
        self, *, system: str | None = None, messages: Messages = (), **options: Any
    ) -> Session:
        """A conversation; `options` as for :class:`Session`."""
        return Session(self.stream, system=system, messages=messages, **options)

    def preflight(
        self,
        *,
        messages: Messages | None = None,
        prompt: str | None = None,
        prompt_token_ids: Sequence[int] | None = None,
        max_tokens: int = 1,
    ) -> Preflight:
        """Whether a prompt with an answer of `max_tokens` fits; nothing is sent.

        Raises Unsupported without a device model, which alone can count tokens.
        """
        model = self._require_model("counting a prompt")
        asked = read_prompt(model, messages, prompt, prompt_token_ids)
        return preflight(model, asked.ids, max_tokens)

    async def keep_prefix(
        self,
        *,
        messages: Messages | None = None,
        prompt: str | None = None,
        prompt_token_ids: Sequence[int] | None = None,
    ) -> int:
        """Hold the KV of what prompts begin with (a system prompt), also across launches.

        It is loaded from the model's prefix store, or computed and stored there.
        Returns its length in tokens. Raises InvalidRequest without a store or
        while an answer uses the engine, Unsupported without a device model.
        """
        model = self._require_model("keeping a prefix")
        self._running.require_free_engine()
        if messages is not None:
            ids = common_prefix(model, messages)
        else:
            ids = read_prompt(model, None, prompt, prompt_token_ids).ids
        await model.keep_prefix(ids)
        return len(ids)

    # ---- both sides, and the device's own life

    async def status(self, *, model: str = "") -> Status:
        """Who could answer now, and why not. Asks the cloud, unless that is forbidden."""
        forbidden = cloud_forbidden_by_user()
        ask: SideStatus | Callable[[], Transport] = self._open_cloud
        if self._cloud is None:
            ask = SideStatus("this client has no cloud")
        elif forbidden is not None:
            ask = SideStatus(forbidden)
        elif self._mode is Mode.ONLY_ON_DEVICE:
            ask = SideStatus(f"this client's mode is {self._mode.value}")
        return await survey(
            SideStatus(self._why_no_device()),
            self._model,
            ask,
            cloud_model=model,
            timeout_s=self._budgets.connect_s,
        )

    def set_conditions(self, conditions: DeviceConditions) -> None:
        """Tell what state the device is in; holds for running and for later answers."""
        self._running.set_conditions(conditions)

    def suspend(self) -> None:
        """The app is about to be put to sleep: stop all work, close all streams. Idempotent."""
        self._running.suspend()

    def resume(self) -> None:
        """The app is awake: answers go on where they stopped. Idempotent."""
        self._running.resume()

    # ---- how an answer is made up

    def _require_model(self, what: str) -> DeviceModel:
        if self._model is None:
            raise Unsupported(
                f"{what} needs a device model; pass `model` to the client",
                reason="NO_DEVICE_MODEL",
            )
        return self._model

    async def _learn(self, answer: Answer, result: Result) -> None:
        """How quick device and network were is how quick they are expected to be."""
        added_s = network_added_s(result)
        if added_s is not None:
            self._network = self._network.after(added_s)
        if self._model is not None:
            seen = Seen(answer.prefill_clock.ratio, answer.decode_clock.ratio)
            await self._model.learn(seen)

    def _why_no_device(self) -> str | None:
        if self._model is None:
            return "this client has no device model"
        if self._running.engine_in_use:
            return "an answer is using the device engine"
        return self._running.conditions.reason

    def _open_cloud(self) -> Transport:
        if self._transport is None:
            assert isinstance(self._cloud, str)
            self._transport = transport_for(
                self._cloud, insecure=self._insecure, credentials=self._credentials
            )
        return self._transport
