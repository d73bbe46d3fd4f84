"""Pieces of the report: thumbnails, tables, bars, a heat map. Inline CSS only."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

SIDE = 192  # pixels of a thumbnail's long side
STYLE = """
:root{--ink:#1f2933;--soft:#66727f;--line:#e3e8ee;--fill:#3b6ea5;--pale:#eef3f8}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
header{padding:28px 32px 14px;border-bottom:1px solid var(--line)}
h1{margin:0;font-size:24px;font-weight:600}h2{margin:0 0 12px;font-size:18px;font-weight:600}
p{margin:4px 0 12px;color:var(--soft)}small{color:var(--soft)}
nav a{margin-right:18px;color:var(--fill);text-decoration:none}nav a:hover{text-decoration:underline}
main{padding:8px 32px 40px;max-width:1240px}section{padding:22px 0;border-bottom:1px solid var(--line)}
section:last-child{border:0}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:6px 14px 6px 0;text-align:right;border-bottom:1px solid var(--line);vertical-align:top;white-space:nowrap}
th{font-weight:500;color:var(--soft)}th:first-child,td:first-child{text-align:left}
td:has(small),th.last{text-align:left;white-space:normal;min-width:340px}
.grid{display:grid;gap:10px;justify-content:start;align-items:start}.grid>b{font-weight:500;color:var(--soft)}
details{border-bottom:1px solid var(--line);padding:8px 0}summary{cursor:pointer;padding:2px 0;font-weight:500}
details[open]>summary{margin-bottom:10px}
.strip{display:flex;flex-wrap:wrap;gap:10px;margin-bottom:10px;align-items:flex-start}
.strip>span{width:44px;color:var(--soft);font-size:13px;padding-top:2px}
figure{margin:0}figcaption{font-size:12px;color:var(--soft);max-width:264px;overflow-wrap:anywhere}
.t{display:inline-block;background-size:100% 100%;border-radius:3px}
.two .t+.t{margin-left:4px}
.bar{display:grid;grid-template-columns:150px 1fr 120px;gap:12px;align-items:center;max-width:820px;padding:3px 0}
.bar>span:first-child{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.track{position:relative;height:12px;background:var(--pale);border-radius:2px}
.track i{position:absolute;left:0;top:0;bottom:0;background:var(--fill);border-radius:2px}
.track b{position:absolute;top:-3px;bottom:-3px;width:2px;background:var(--ink)}
.bar>span:last-child{font-variant-numeric:tabular-nums}
.heat td,.heat th{padding:0;border:0;text-align:center;font-size:12px}
.heat td{width:38px;min-width:38px;height:30px;vertical-align:middle}
.heat td:first-child,.heat th:first-child{text-align:right;padding-right:10px;width:auto;white-space:nowrap}
.heat th div{writing-mode:vertical-rl;transform:rotate(180deg);margin:0 auto 6px;max-height:130px;overflow:hidden}
pre{font:12px/1.5 ui-monospace,"DejaVu Sans Mono",monospace;overflow-x:auto}
pre{background:var(--pale);padding:14px;border-radius:4px}
@media print{section{break-inside:avoid}}
"""


class Thumbnails:
    """Small pictures, each embedded once however often it is shown."""

    def __init__(self) -> None:
        self._rules: dict[bytes, str] = {}
        self._names: dict[bytes, str] = {}

    def css(self) -> str:
        """Return the rules that hold the pictures."""
        return "".join(self._rules.values())

    def pair(self, pictures: Mapping[str, np.ndarray], caption: str) -> str:
        """Return result and real picture side by side, small."""
        shown = [title for title in ("result", "real") if title in pictures]
        boxes = "".join(self.box(pictures[title], f"{title} of {caption}", 2 * SIDE // 3) for title in shown)
        return f'<figure class="two">{boxes}<figcaption>{escape(caption)}</figcaption></figure>'

    def box(self, picture: np.ndarray, alt: str, side: int = SIDE) -> str:
        """Return a picture (H,W,3) uint8 with its long side at `side` pixels; `alt` says what it shows."""
        key = picture.tobytes() + repr(picture.shape).encode()
        if key not in self._names:
            self._names[key] = f"p{len(self._names)}"
            self._rules[key] = f".{self._names[key]}{{background-image:url({_data_uri(picture)})}}"
        height, width = picture.shape[:2]
        scale = side / max(height, width)
        crisp = ";image-rendering:pixelated" if scale > 1 else ""
        size = f"width:{round(width * scale)}px;height:{round(height * scale)}px{crisp}"
        return f'<span class="t {self._names[key]}" role="img" aria-label="{escape(alt)}" style="{size}"></span>'


def _data_uri(picture: np.ndarray) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def number(value: float) -> str:
    """Return a number with two to four decimals, by its size."""
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.{3 if abs(value) >= 1 else 4}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are HTML."""
    top = "".join(f"<th{' class=last' if text == 'what' else ''}>{text}</th>" for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def grid(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return cells in columns under their titles."""
    cells = "".join(f"<b>{escape(title)}</b>" for title in titles) + "".join(cell for row in rows for cell in row)
    columns = f"grid-template-columns:repeat({len(titles)},auto)"
    return f'<div class="wide"><div class="grid" style="{columns}">{cells}</div></div>'


def bars(rows: Sequence[tuple[str, float, float | None]]) -> str:
    """Return bars of 0..100 with a mark where the second number is."""
    parts = []
    for name, value, mark in rows:
        line = "" if mark is None else f'<b style="left:calc({mark:.2f}% - 1px)"></b>'
        told = f"{value:.1f}" + ("" if mark is None else f" <small>real {mark:.1f}</small>")
        track = f'<div class="track"><i style="width:{value:.2f}%"></i>{line}</div>'
        parts.append(f'<div class="bar"><span>{escape(name)}</span>{track}<span>{told}</span></div>')
    return "".join(parts)


def heat_map(names: Sequence[str], percent: Sequence[Sequence[float]]) -> str:
    """Return a square table whose cells are as dark as their percentage is high."""
    head = "".join(f"<th><div>{escape(name)}</div></th>" for name in names)
    rows = []
    for name, line in zip(names, percent, strict=True):
        cells = []
        for value in line:
            ink = "#fff" if value > 55 else "inherit"
            text = f"{value:.0f}" if value >= 0.5 else ""
            cells.append(f'<td style="background:rgba(59,110,165,{value / 100:.3f});color:{ink}">{text}</td>')
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
    return f'<div class="wide"><table class="heat"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
