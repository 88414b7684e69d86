"""Bring a model to this device: whole or not at all, and the one that was meant.

A single file, or a directory with a list of its files
(:mod:`segue_device.pull.listing`), from a web server or a local path. Nothing
is printed; progress goes to a callback.
"""

from __future__ import annotations

from segue_device.pull.listing import LISTING_NAME, write_listing
from segue_device.pull.sources import pull

__all__ = ["LISTING_NAME", "pull", "write_listing"]
