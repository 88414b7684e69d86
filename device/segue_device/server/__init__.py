"""The SDK behind OpenAI's HTTP interface, on this device (extra ``server``).

Importing it raises Unsupported where starlette or uvicorn is missing.
"""

from segue_protocol.errors import Unsupported

try:
    from segue_device.server.app import build_app
    from segue_device.server.listener import serve
except ModuleNotFoundError as error:
    raise Unsupported(
        f'the server needs the package {error.name!r}; run: pip install "segue-device[server]"',
        reason="MISSING_DEPENDENCY",
    ) from error

__all__ = ["build_app", "serve"]
