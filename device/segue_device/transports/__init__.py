"""Ways to reach a cloud; each module needs only what its transport needs."""

from segue_device.transports.addresses import transport_for
from segue_device.transports.base import CloudStream, Transport

__all__ = ["CloudStream", "Transport", "transport_for"]
