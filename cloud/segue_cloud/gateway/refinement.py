"""Whether a prompt is refined, how far, and what came of it. A keep ratio of 1 is not at all."""

from __future__ import annotations

from collections.abc import Sequence

from segue_cloud.gateway.admission import Request
from segue_cloud.tuner.advice import DEFAULT_NETWORK, LIST_SHARE
from segue_protocol.wire import private, public

# What may not be dropped is most of a shorter prompt.
MIN_PROMPT_TOKENS = 128


def qualities(
    request: Request, table: Sequence[tuple[float, float]]
) -> Sequence[tuple[float, float]]:
    """(keep ratio, quality) that the tuner may reckon with: the app's wish, else the `table`.

    Nothing where a list would come to nothing, whatever the device's speed.
    """
    if _needless(request):
        return ()
    return table if request.keep_ratio is None else [(request.keep_ratio, 1.0)]


def keep_ratio_for(request: Request, advised: float, ttft_s: float) -> float:
    """The keep ratio to prefill with: what was asked for, else `advised`, or 1.

    1 where a list would come to nothing: the client has no model or leaves the
    whole answer to the cloud, the prompt is short, tokens of the answer exist
    already, or the device will have computed everything when the list arrives.
    `ttft_s` is what the cloud expects its own first token to take.
    """
    ratio = advised if request.keep_ratio is None else request.keep_ratio
    if _needless(request) or ratio >= 1:
        return 1.0
    if request.profile is not None:
        own_s = request.profile.prefill_left_s(len(request.prompt_ids), request.cached_tokens)
        if own_s <= LIST_SHARE * ttft_s + DEFAULT_NETWORK.added_s:
            return 1.0
    return ratio


def _needless(request: Request) -> bool:
    through = request.credit_through
    return (
        request.wants_text
        or len(request.prompt_ids) < MIN_PROMPT_TOKENS
        or len(request.output_prefix) > 0
        or (through is not None and through >= request.max_tokens)
    )


class PromptList:
    """What of one prompt is worth keeping: asked for, made, and told to every stream.

    Asked of the first prefill only, and by the prompt's own end, its question:
    a prefill behind tokens of the answer would be asked by those.
    """

    def __init__(self, keep_ratio: float) -> None:
        self._keep_ratio = keep_ratio
        self._wanted = keep_ratio < 1
        # None while there is none that a device could use.
        self.message: public.Refinement | None = None

    def ratio_for(self, output_tokens: int) -> float:
        """The keep ratio of a prefill behind so many tokens of the answer."""
        return self._keep_ratio if self._wanted and not output_tokens else 1.0

    def no_use(self) -> None:
        """The device has computed the whole prompt: nothing is told that was not told yet."""
        self._wanted = False

    def made(self, refined: private.Refined) -> bool:
        """A worker's list; whether it is to be told."""
        if not self._wanted:
            return False
        self._wanted = False
        self.message = public.Refinement(kept=refined.kept)
        return True

    @property
    def kept_tokens(self) -> int | None:
        """Of the prompt; None: it was not refined."""
        if self.message is None:
            return None
        return sum(each.end - each.start for each in self.message.kept)
