"""Every watch that a gateway's configuration asks for, as one thing to start and stop."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from segue_cloud.config import ServeConfig
from segue_cloud.gateway.gateway import Gateway
from segue_cloud.watch.base import Watch, Watches
from segue_cloud.watch.events import EventLog
from segue_cloud.watch.exposition import MetricsServer
from segue_cloud.watch.gauges import Gauges
from segue_cloud.watch.metrics import Metrics
from segue_cloud.watch.record import AnswerLog
from segue_protocol.errors import InvalidRequest


class Watching:
    """Made before the gateway, which is given `watch`; started when it is there."""

    def __init__(self, config: ServeConfig) -> None:
        """Raises InvalidRequest on a port or a file that cannot be."""
        if config.metrics_port < -1:
            raise InvalidRequest(
                f"metrics_port is {config.metrics_port}, expected a port, 0 (any free one) or "
                "-1 (no metrics)"
            )
        self._host, self._port = config.metrics_host, config.metrics_port
        self._metrics = Metrics()
        self._server = MetricsServer(self._metrics.registry)
        self._answers = AnswerLog(Path(config.answer_log)) if config.answer_log else None
        watches: list[Watch] = [EventLog()]
        if self._port >= 0:
            watches.append(self._metrics)
        if self._answers is not None:
            watches.append(self._answers)
        if _has_open_telemetry():
            from segue_cloud.watch.tracing import tracing

            watches.append(tracing())
        self.watch = Watches(watches)

    async def start(self, gateway: Gateway) -> int | None:
        """Serve the metrics; returns the port, None without.

        Raises Unavailable naming the address when it cannot be had.
        """
        if self._port < 0:
            return None
        self._metrics.registry.register(Gauges(gateway, self._metrics.tenants))
        return await self._server.start(self._host, self._port)

    async def stop(self) -> None:
        """Close what was opened; the gateway has ended its sessions by now."""
        await self._server.stop()
        if self._answers is not None:
            self._answers.close()


def _has_open_telemetry() -> bool:
    try:
        return find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:  # of the package around it
        return False
