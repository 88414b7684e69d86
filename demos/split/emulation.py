"""The emulated device and network of the demo, read from one named file."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segue_device import DeviceProfile

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Emulation:
    """What the engine is slowed to and how long a round trip takes."""

    name: str
    profile: DeviceProfile
    network_rtt_s: float

    @classmethod
    def load(cls, path: Path = HERE / "phone.json") -> Emulation:
        """Read a profile file such as the committed ``phone.json``."""
        values = json.loads(path.read_text())
        fields = dataclasses.fields(DeviceProfile)
        names = [field.name for field in fields if field.name in values]
        return cls(
            name=values["name"],
            profile=DeviceProfile(**{name: values[name] for name in names}),
            network_rtt_s=values["network_rtt_s"],
        )

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        profile = self.profile
        return {
            "name": self.name,
            "prefill_tokens_per_s": 1 / profile.prefill_per_token_s,
            "decode_tokens_per_s": 1 / profile.decode_s,
            "network_rtt_s": self.network_rtt_s,
        }
