"""What llama.cpp must be told of a model's shape, and the models it cannot be told of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue_protocol.errors import InvalidRequest, Unsupported
from segue_protocol.model_files import read_json

# Hugging Face's model_type and llama.cpp's name of the same architecture.
_NAMES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
# Angles that are constants of the model; others depend on the longest position seen.
_SCALED_ROPE = ("linear", "llama3")


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a model that llama.cpp computes as transformers does.

    ``rope_divisors`` [head_dim / 2] divide the rotary frequencies; None when
    the model scales none.
    """

    name: str
    vocab_size: int
    max_context_tokens: int
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_epsilon: float
    rope_theta: float
    rope_divisors: npt.NDArray[np.float32] | None
    tied_embeddings: bool

    @classmethod
    def from_directory(cls, directory: Path) -> Architecture:
        """Read config.json with transformers' defaults for what it leaves out.

        Unsupported, naming what is in the way, for a model that would compute
        something else in llama.cpp; InvalidRequest for a damaged file.
        """
        plain = read_json(directory, "config.json")
        # Looked at first: what transformers does with a model it does not know,
        # or with code beside the weights, is not ours to find out.
        _require_known_type(plain)
        from transformers import AutoConfig

        try:
            config: Any = AutoConfig.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
        # transformers raises whatever its validation happens to.
        except Exception as error:
            raise InvalidRequest(
                f"transformers refuses {directory / 'config.json'}: {error}; download it again",
                reason="MODEL_FILE_DAMAGED",
            ) from error
        _require_plain_attention(config)
        head_dim = getattr(config, "head_dim", None)
        return cls(
            name=_NAMES[config.model_type],
            vocab_size=config.vocab_size,
            max_context_tokens=config.max_position_embeddings,
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            feed_forward=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=head_dim or config.hidden_size // config.num_attention_heads,
            norm_epsilon=config.rms_norm_eps,
            rope_theta=config.rope_parameters["rope_theta"],
            rope_divisors=_rope_divisors(config),
            tied_embeddings=config.tie_word_embeddings,
        )

    @property
    def interleaved_rope(self) -> bool:
        """Whether llama.cpp rotates neighbouring pairs where transformers rotates halves."""
        return self.name == "llama"

    def write(self, writer: Any) -> None:
        """Add the keys of the architecture to a gguf.GGUFWriter."""
        writer.add_vocab_size(self.vocab_size)
        writer.add_context_length(self.max_context_tokens)
        writer.add_block_count(self.layers)
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(self.feed_forward)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_rope_dimension_count(self.head_dim)
        writer.add_rope_freq_base(self.rope_theta)
        writer.add_layer_norm_rms_eps(self.norm_epsilon)


def _require_known_type(config: Mapping[str, Any]) -> None:
    kind = config.get("model_type")
    if kind not in _NAMES:
        raise _unsupported(kind, "is of another family", "MODEL_TYPE")
    if config.get("quantization_config") is not None:
        raise _unsupported(kind, "is stored quantized", "QUANTIZED")


def _require_plain_attention(config: Any) -> None:
    kind = config.model_type
    # Qwen states a window that it does not use; transformers clears it then.
    window = getattr(config, "sliding_window", None)
    if window is not None and window < config.max_position_embeddings:
        raise _unsupported(
            kind, f"attends through a sliding window of {window} tokens", "SLIDING_WINDOW"
        )
    if config.hidden_act != "silu":
        raise _unsupported(kind, f"has the activation {config.hidden_act!r}", "ACTIVATION")
    rope = config.rope_parameters["rope_type"]
    # Only llama.cpp's llama reads divisors of the frequencies from the file.
    scalable = _NAMES[kind] == "llama"
    if rope != "default" and not (scalable and rope in _SCALED_ROPE):
        raise _unsupported(kind, f"uses rotary embeddings of the type {rope!r}", "ROPE_TYPE")


def _rope_divisors(config: Any) -> npt.NDArray[np.float32] | None:
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    frequencies, _attention_factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    scaled = frequencies.double().numpy()
    pairs = np.arange(len(scaled)) / len(scaled)
    plain = config.rope_parameters["rope_theta"] ** -pairs
    return np.asarray(plain / scaled, np.float32)


def _unsupported(kind: object, what: str, reason: str) -> Unsupported:
    return Unsupported(
        f"this {kind!r} model {what}; {', '.join(_NAMES)} with full attention can be converted "
        "to GGUF",
        reason=reason,
    )
