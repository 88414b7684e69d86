"""Segue on the device: answers that start in the cloud and go on here."""

from segue_device.answer_stream import AnswerStream
from segue_device.budgets import Budgets
from segue_device.client import AsyncClient
from segue_device.conditions import DeviceConditions, Privacy
from segue_device.credentials import Credentials
from segue_device.device_model import DeviceModel
from segue_device.events import (
    Done,
    Event,
    Fallback,
    FinishReason,
    PrefillProgress,
    Progress,
    Reconnecting,
    Refinement,
    Result,
    Resumed,
    Started,
    Takeover,
    Token,
    Usage,
    Warning,
)
from segue_device.modes import Mode
from segue_device.pacing import Pacing
from segue_device.prefix_store import PrefixStore
from segue_device.session import Session
from segue_device.status import Preflight, SideStatus, Status
from segue_device.sync_client import Client, SyncAnswer, SyncSession
from segue_device.timings import Timings
from segue_device.token_log import Source
from segue_protocol.errors import SegueError
from segue_protocol.sampling_options import Sampling
from segue_protocol.timeline import DeviceProfile

__all__ = [
    "AnswerStream",
    "AsyncClient",
    "Budgets",
    "Client",
    "Credentials",
    "DeviceConditions",
    "DeviceModel",
    "DeviceProfile",
    "Done",
    "Event",
    "Fallback",
    "FinishReason",
    "Mode",
    "Pacing",
    "PrefillProgress",
    "PrefixStore",
    "Preflight",
    "Privacy",
    "Progress",
    "Reconnecting",
    "Refinement",
    "Result",
    "Resumed",
    "Sampling",
    "SegueError",
    "Session",
    "SideStatus",
    "Source",
    "Started",
    "Status",
    "SyncAnswer",
    "SyncSession",
    "Takeover",
    "Timings",
    "Token",
    "Usage",
    "Warning",
]
