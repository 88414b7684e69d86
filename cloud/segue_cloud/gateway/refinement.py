"""Whether a prompt is refined, how far, and what came of it. A keep ratio of 1 is not at all."""

from __future__ import annotations

from collections.abc import Sequence

from segue_cloud.gateway.admission import Request
from segue_cloud.tuner.advice import DEFAULT_NETWORK
from segue_protocol.tuning import CloudSpeed
from segue_protocol.wire import private, public

# What may not be dropped is most of a shorter prompt.
MIN_PROMPT_TOKENS = 128


def qualities(
    request: Request, of_group: Sequence[tuple[float, float]]
) -> Sequence[tuple[float, float]]:
    """(keep ratio, quality) the tuner may choose from; none where a list would be of no use.

    Who asks for a ratio has judged its quality.
    """
    if not _may_be_refined(request):
        return ()
    return of_group if request.keep_ratio is None else ((request.keep_ratio, 1.0),)


def keep_ratio_for(request: Request, advised: float, cloud: CloudSpeed) -> float:
    """The keep ratio to prefill with: what was asked for, else `advised`; 1 is not at all.

    1 where a list would be of no use, also because the device will have computed
    everything when it comes.
    """
    ratio = advised if request.keep_ratio is None else request.keep_ratio
    if ratio >= 1 or not _may_be_refined(request):
        return 1.0
    if request.profile is not None:
        own_s = request.profile.prefill_left_s(len(request.prompt_ids), request.cached_tokens)
        list_s = cloud.ttft_s if cloud.list_s is None else cloud.list_s
        if own_s <= list_s + (request.network or DEFAULT_NETWORK).added_s:
            return 1.0
    return ratio


def _may_be_refined(request: Request) -> bool:
    """A device will prefill this prompt, which is long, and nobody has begun to answer."""
    through = request.credit_through
    return (
        not request.wants_text
        and len(request.prompt_ids) >= MIN_PROMPT_TOKENS
        and not request.output_prefix
        and (through is None or through < request.max_tokens)
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
