"""A cursor over one session's log: what one stream sends to its device."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from segue_cloud.gateway import messages
from segue_cloud.gateway.session import Session
from segue_cloud.gateway.silence import Silence
from segue_protocol.errors import SegueError
from segue_protocol.wire import public


class Reader:
    """Turns a session into the responses of one stream, from log index `cursor` on.

    `started`, `refinement` and `finish` are state and reach every reader, also
    one that attaches after the end.
    """

    def __init__(self, session: Session, cursor: int, *, heartbeat_s: float) -> None:
        self._session = session
        self._cursor = cursor
        self._heartbeat_s = heartbeat_s
        self._heartbeats = 0
        self._quiet = False  # for as long as a heartbeat allows
        self._interruption: SegueError | None = None

    def interrupt(self, error: SegueError) -> None:
        """End this reader, and only it, with an error."""
        self._interruption = self._interruption or error
        self._session.notify()

    async def responses(self) -> AsyncGenerator[public.GenerateResponse, None]:
        """Everything there is and will be, coalesced when the stream is slow.

        Raises the session's error or the interruption.
        """
        session = self._session
        with Silence(self._heartbeat_s, self._grew_quiet) as silence:
            yield public.GenerateResponse(started=messages.started(session))
            warned = announced = 0
            told_refinement = False
            while True:
                changed = session.changed
                finished = session.finished
                if self._interruption is not None:
                    raise self._interruption
                if warned < len(session.warnings):
                    yield public.GenerateResponse(warning=session.warnings[warned])
                    warned += 1
                elif session.refinement.message is not None and not told_refinement:
                    told_refinement = True
                    yield public.GenerateResponse(refinement=session.refinement.message)
                elif announced < session.recomputations:
                    announced = session.recomputations
                    progress = public.CloudProgress(state=public.REQUEST_STATE_RECOMPUTING)
                    yield public.GenerateResponse(progress=progress)
                elif self._cursor < len(session.log):
                    tokens = messages.tokens(session, self._cursor)
                    self._cursor = len(session.log)
                    yield public.GenerateResponse(tokens=tokens)
                    silence.heard()
                    self._quiet = False
                elif finished:
                    break
                elif self._quiet:
                    self._quiet = False
                    self._heartbeats += 1
                    heartbeat = public.Heartbeat(sequence=self._heartbeats)
                    yield public.GenerateResponse(heartbeat=heartbeat)
                else:
                    await changed.wait()
        if session.error is not None:
            raise session.error
        yield public.GenerateResponse(finish=messages.finish(session))

    def _grew_quiet(self) -> None:
        self._quiet = True
        self._session.notify()
