"""The report's plots as SVG: bars of a few figures by policy, nothing to install."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, ROW, LEFT, RIGHT, TOP = 720, 26, 170, 80, 56
INK, BAR, GRID = "#333333", "#3b6ea5", "#dddddd"

PLOTS: dict[str, tuple[str, str]] = {
    "slot_seconds": ("slot_seconds.svg", "Slot time of the cloud per answer [s]"),
    "cloud_tokens": ("cloud_tokens.svg", "Tokens the cloud makes per answer"),
    "ttft_p50_s": ("ttft.svg", "Time to first token, median [s]"),
    "rps_per_instance": ("capacity.svg", "Requests per second and instance, 99 % in time"),
}


def save_plots(report: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write one file per figure; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for key, (name, title) in PLOTS.items():
        rows = [(policy, row.get(key)) for policy, row in report["policies"].items()]
        path = directory / name
        source = f"{report['trace']}, {report['requests']} requests, simulated"
        path.write_text(bars(title, source, rows), encoding="utf-8")
        written.append(path)
    return written


def bars(title: str, source: str, rows: Sequence[tuple[str, float | None]]) -> str:
    """Horizontal bars from 0, each with its value; None has no bar."""
    most = max((value for _, value in rows if value is not None), default=0.0) or 1.0
    height = TOP + ROW * len(rows) + 12
    room = WIDTH - LEFT - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="22" font-size="15" fill="{INK}">{escape(title)}</text>',
        f'<text x="12" y="40" fill="{INK}">{escape(source)}</text>',
        f'<line x1="{LEFT}" y1="{TOP - 6}" x2="{LEFT}" y2="{height - 8}" stroke="{GRID}"/>',
    ]
    for place, (name, value) in enumerate(rows):
        top, middle = TOP + ROW * place, TOP + ROW * place + 15
        label = "none" if value is None else f"{value:.3g}"
        length = 0.0 if value is None else room * value / most
        parts += [
            f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end" fill="{INK}">'
            f"{escape(name)}</text>",
            f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{ROW - 6}" fill="{BAR}"/>',
            f'<text x="{LEFT + length + 6:.1f}" y="{middle}" fill="{INK}">{label}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
