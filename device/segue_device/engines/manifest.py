"""``segue_model.json``: what a converted model directory says about itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from segue_protocol.errors import InvalidRequest
from segue_protocol.identity import ModelIdentity
from segue_protocol.model_files import read_json

NAME = "segue_model.json"
# The ONNX form's graph, beside it.
GRAPH_NAME = "model.onnx"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """Where a converted model came from.

    ``weights_digest`` is the hex SHA-256 over the source's safetensors files,
    as :mod:`segue_protocol.identity` computes it; ``numerics`` names the
    arithmetic of the graph, e.g. ``fp32``; ``head_dim`` is the last dimension
    of its caches, to which an ONNX graph gives no number.
    """

    model: str
    weights_digest: str
    numerics: str
    max_context_tokens: int
    head_dim: int
    format: int = FORMAT

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """NotFound without the file, InvalidRequest if it is of another format or damaged."""
        found = read_json(directory, NAME)
        expected = {each.name for each in fields(cls)}
        if found.get("format") != FORMAT or set(found) != expected:
            raise InvalidRequest(
                f"{directory / NAME} has format {found.get('format')!r} and the keys "
                f"{sorted(found)}, expected format {FORMAT} and {sorted(expected)}; "
                "convert the model again with this version of segue_device",
                reason="MODEL_FILE_DAMAGED",
            )
        return cls(**found)

    def identity(self, directory: Path) -> ModelIdentity:
        """The identity of the source, from the tokenizer files beside this manifest.

        Raises NotFound or InvalidRequest naming the file that is missing or damaged.
        """
        found = ModelIdentity.from_directory(
            directory, numerics=self.numerics, weights_digest=bytes.fromhex(self.weights_digest)
        )
        return replace(found, model=self.model)

    def write(self, directory: Path) -> None:
        text = json.dumps(asdict(self), indent=2) + "\n"
        (directory / NAME).write_text(text, encoding="utf-8")
