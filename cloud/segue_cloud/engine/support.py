"""Which models the torch engine serves; every refusal names what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segue_protocol.errors import Unsupported

# Families in which a token sees every earlier one, through one plain K and V.
SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")

_LATENT = "caches one latent vector instead of keys and values (MLA)"
_RECURRENT = "is recurrent and has no KV cache to transfer"
_HYBRID = "is a hybrid of attention and recurrent layers"
_WINDOWED = "has sliding-window layers"
_PAIRED = "is an encoder-decoder"
_WHY_NOT = {
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "kimi_k2": _LATENT,
    "minicpm3": _LATENT,
    "mamba": _RECURRENT,
    "mamba2": _RECURRENT,
    "falcon_mamba": _RECURRENT,
    "rwkv": _RECURRENT,
    "xlstm": _RECURRENT,
    "bamba": _HYBRID,
    "jamba": _HYBRID,
    "zamba2": _HYBRID,
    "recurrent_gemma": _HYBRID,
    "qwen3_next": _HYBRID,
    "falcon_h1": _HYBRID,
    "lfm2": _HYBRID,
    "cohere2": _WINDOWED,
    "gemma2": _WINDOWED,
    "gemma3_text": _WINDOWED,
    "gpt_oss": _WINDOWED,
    "ministral": _WINDOWED,
    "bart": _PAIRED,
    "t5": _PAIRED,
    "whisper": _PAIRED,
}
# Angles that depend on the longest position seen: one request would change
# another's keys, and a prompt prefilled in chunks would differ from a whole one.
_UNSTABLE_ROPE = ("dynamic", "longrope")


def require_supported_type(config: Mapping[str, Any]) -> None:
    """Raise Unsupported unless config.json names a family this engine serves.

    Looked at before transformers sees the file: what it does with a model it
    does not know, or with code beside the weights, is not ours to find out.
    """
    kind = config.get("model_type")
    if config.get("is_encoder_decoder"):
        raise _unsupported(kind, _PAIRED, "MODEL_TYPE")
    if kind not in SUPPORTED:
        raise _unsupported(kind, _WHY_NOT.get(str(kind), "is of an unknown family"), "MODEL_TYPE")
    if config.get("quantization_config") is not None:
        method = (config["quantization_config"] or {}).get("quant_method", "unnamed")
        raise _unsupported(kind, f"is stored quantized ({method}); convert it first", "QUANTIZED")


def require_full_attention(config: Any) -> None:
    """Raise Unsupported for a transformers config whose tokens do not see all before them.

    A window that is at least as long as the context hides nothing and passes.
    """
    kind = config.model_type
    # Qwen states a window that it does not use; transformers clears it then.
    window = config.sliding_window if hasattr(config, "sliding_window") else None
    if window is not None and window < config.max_position_embeddings:
        raise _unsupported(
            kind,
            f"attends through a sliding window of {window} tokens in a context of "
            f"{config.max_position_embeddings}",
            "SLIDING_WINDOW",
        )
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    if rope in _UNSTABLE_ROPE:
        raise _unsupported(kind, f"uses rotary embeddings of the type {rope!r}", "ROPE_TYPE")


def _unsupported(kind: object, what: str, reason: str) -> Unsupported:
    return Unsupported(
        f"this {kind!r} model {what}; the engine serves {', '.join(SUPPORTED)} with full attention",
        reason=reason,
    )
