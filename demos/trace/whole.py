"""A client without a model: the cloud makes the whole answer."""

from __future__ import annotations

from collections.abc import Sequence

from demos.trace.call import Call
from demos.trace.case import Case
from demos.trace.events import Events
from demos.trace.gateway import Gateway
from demos.trace.network import Wire
from demos.trace.outcome import judge
from demos.trace.phone import Done
from demos.trace.requests import Request
from demos.trace.screen import Screen
from demos.trace.split import upload_s
from segue_protocol.tuning import DEFAULT_PACE_S


class WholeAnswer:
    """Nothing on the device acts upon the cloud, so what is shown is computed at the end."""

    def __init__(
        self, events: Events, case: Case, request: Request, done: Done, gateway: Gateway
    ) -> None:
        self._case, self._request, self._done, self._gateway = case, request, done, gateway
        self._up = Wire(events, case.network, request.chance("up"))
        self._down = Wire(events, case.network, request.chance("down"))
        self._received_s: list[float] = []
        # Cells for its true length are reserved: kinder than any gateway can be.
        self._call = Call(
            peer=self,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            credit=request.output_tokens,
            watched=False,
        )

    def begin(self) -> None:
        """The user has asked."""
        upload = upload_s(self._case, self._request)
        self._up.send(lambda: self._gateway.submit(self._call), upload)

    def tokens(self, made_s: Sequence[float]) -> None:
        """From the gateway."""
        self._received_s += [self._down.arrival_s(each_s) for each_s in made_s]
        if len(self._received_s) == self._request.output_tokens:
            self._end(refused=False)

    def kept_list(self) -> None:
        """From the gateway; not asked for."""

    def refused(self) -> None:
        """From the gateway."""
        self._end(refused=True)

    def _end(self, *, refused: bool) -> None:
        screen = Screen(DEFAULT_PACE_S)
        if self._received_s:
            screen.show_rest(self._received_s, self._received_s[0], arrived=1, device_clock=None)
        self._done(
            judge(
                self._request,
                screen.shown_s,
                self._case.targets,
                refused=refused,
                call=self._call,
            )
        )
