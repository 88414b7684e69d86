"""A small Llama with random weights, as a Hugging Face directory and as an ONNX one.

The ONNX graph is written here in the form onnxruntime-genai's builder gives
it (GroupQueryAttention that counts positions itself, logits of the last
position), so that the engine is tested without the convert extra and in a
fraction of a second.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from segue_device.engines.manifest import Manifest
from segue_protocol.model_files import read_weights_digest

LAYERS, HEADS, KV_HEADS, HEAD_DIM = 2, 4, 2, 64
VOCAB_SIZE, CONTEXT, THETA, EPSILON = 512, 2048, 10000.0, 1e-5


def write_hf_model(directory: Path) -> None:
    """Config, tokenizer and weights; the same every time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HEADS * HEAD_DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        intermediate_size=704,
        vocab_size=VOCAB_SIZE,
        tie_word_embeddings=True,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=EPSILON,
        # Weights large enough that positions matter and no two logits are near.
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2}
    for character in sorted(pre_tokenizers.ByteLevel.alphabet()):  # it comes in any order
        vocabulary[character] = len(vocabulary)
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("1", "2"), ("Ġ", "Ġ"), ("Ã", "©")]
    for pair in merges:
        vocabulary["".join(pair)] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    fast.save_pretrained(directory)


def write_onnx_model(hf_dir: Path, out_dir: Path) -> None:
    """What convert_to_onnx writes, but for its last step on the graph."""
    out_dir.mkdir()
    onnx.save(_Graph(load_file(hf_dir / "model.safetensors")).model(), str(out_dir / "model.onnx"))
    for path in [*hf_dir.glob("*.json"), *hf_dir.glob("*.jinja")]:
        shutil.copy(path, out_dir)
    Manifest(
        model=hf_dir.name,
        weights_digest=read_weights_digest(hf_dir).hex(),
        numerics="fp32",
        max_context_tokens=CONTEXT,
        head_dim=HEAD_DIM,
    ).write(out_dir)


class _Graph:
    """Collects nodes and constants; `model` is the whole."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        angles = np.arange(CONTEXT)[:, None] * THETA ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        self._constant("cos", np.cos(angles).astype(np.float32))
        self._constant("sin", np.sin(angles).astype(np.float32))
        self._constant("one", np.array(1))
        self._constant("axis", np.array([1]))
        self._constant("last", np.array([-1]))
        counted = self._node("ReduceSum", ["attention_mask", "axis"])
        counted = self._node("Sub", [counted, "one"])
        lengths = self._node("Cast", [counted], to=TensorProto.INT32)
        shape = self._node("Shape", ["attention_mask"])
        total = self._node("Gather", [shape, "one"], axis=0)
        total = self._node("Cast", [total], to=TensorProto.INT32)
        embeddings = self._weight("model.embed_tokens.weight")
        hidden = self._node("Gather", [embeddings, "input_ids"])
        for layer in range(LAYERS):
            hidden = self._layer(f"model.layers.{layer}.", layer, hidden, [lengths, total])
        hidden = self._norm(hidden, "model.norm.weight")
        hidden = self._node("Gather", [hidden, "last"], axis=1)
        head = self._constant("lm_head", self._weights["model.embed_tokens.weight"].T)
        self._node("MatMul", [hidden, head], ["logits"])
        return self._wrap()

    def _layer(self, name: str, layer: int, hidden: str, counts: list[str]) -> str:
        normed = self._norm(hidden, name + "input_layernorm.weight")
        attended = self._node(
            "GroupQueryAttention",
            [self._linear(normed, f"{name}self_attn.{part}_proj.weight") for part in "qkv"]
            + [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
            + [*counts, "cos", "sin"],
            [f"attended.{layer}"] + [f"present.{layer}.{part}" for part in ("key", "value")],
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            do_rotary=1,
        )
        attended = self._linear(attended, name + "self_attn.o_proj.weight")
        hidden = self._node("Add", [hidden, attended])
        normed = self._norm(hidden, name + "post_attention_layernorm.weight")
        gate = self._linear(normed, name + "mlp.gate_proj.weight")
        gate = self._node("Mul", [gate, self._node("Sigmoid", [gate])])
        up = self._linear(normed, name + "mlp.up_proj.weight")
        down = self._linear(self._node("Mul", [gate, up]), name + "mlp.down_proj.weight")
        return self._node("Add", [hidden, down])

    def _wrap(self) -> onnx.ModelProto:
        def value(name: str, shape: list[str | int], kind: int = TensorProto.FLOAT):
            return helper.make_tensor_value_info(name, kind, shape)

        inputs = [
            value("input_ids", ["batch", "tokens"], TensorProto.INT64),
            value("attention_mask", ["batch", "total"], TensorProto.INT64),
        ]
        outputs = [value("logits", ["batch", 1, VOCAB_SIZE])]
        for layer in range(LAYERS):
            for part in ("key", "value"):
                past = ["batch", KV_HEADS, "past", "head_dim"]
                inputs.append(value(f"past_key_values.{layer}.{part}", past))
                outputs.append(value(f"present.{layer}.{part}", [*past[:2], "total", "head_dim"]))
        graph = helper.make_graph(self._nodes, "tiny", inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _node(self, kind: str, inputs: list[str], outputs: list[str] | None = None, **more) -> str:
        outputs = outputs or [f"{kind}.{len(self._nodes)}"]
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[0], **more))
        return outputs[0]

    def _constant(self, name: str, array: np.ndarray) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _linear(self, hidden: str, name: str) -> str:
        return self._node("MatMul", [hidden, self._constant(name, self._weights[name].T)])

    def _norm(self, hidden: str, name: str) -> str:
        return self._node(
            "SimplifiedLayerNormalization", [hidden, self._weight(name)], epsilon=EPSILON, axis=-1
        )
