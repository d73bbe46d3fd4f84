"""`report.html`: what it shows, and that no name in it can become markup."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from metrics.reporting.report import write_report

HOSTILE = "<script>x</script>'\"&amp;"


class Page(HTMLParser):
    """Tags and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.labels: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.labels += [value or "" for name, value in attrs if name == "aria-label"]

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(folder: Path, name: str, **given: Any) -> Page:
    names = [f"{name}{k}" for k in range(3)]
    rng = np.random.default_rng(0)
    pictures = {n: {t: rng.integers(0, 255, (8, 8, 3), dtype=np.uint8) for t in ("result", "real")} for n in names}
    evaluator: Any = SimpleNamespace(
        names=names,
        notes=[name],
        per_picture=lambda: {"l1": [0.1, 0.2, float("nan")]},
        confusion=lambda: ([name, name, "unseen"], torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])),
    )
    detail = {"unit": "%", "protocol": name, "count": 3}
    bins = {"0-20": {"value": 0.5, "pictures": 2}}
    line = {
        "num_images": 3, "step": 7, "protocol": {"split": name},
        "metrics": {"l1": 1.5, "miou": 45.25},
        "details": {
            "l1": {**detail, "unit": "1", "bins": bins, "ci95": [1.0, 2.0], "real": 0.25},
            "miou": {**detail, "iou_per_class": {name: 60.0}, "iou_per_class_real": {name: 70.0}},
        },
    }  # fmt: skip
    path = write_report(line, evaluator, folder, title=name, load=pictures.__getitem__, **given)
    return Page(path.read_text())


@pytest.mark.parametrize("unpaired", [False, True])
def test_names_with_markup_stay_text(tmp_path: Path, unpaired: bool) -> None:
    """Names of files, classes and data sets come from elsewhere, and a report is opened in a browser."""
    given = {"sets": {HOSTILE: {HOSTILE: np.zeros((8, 8, 3), np.uint8)}}} if unpaired else {}
    page, plain = page_of(tmp_path, HOSTILE, **given), page_of(tmp_path, "plain", **given)
    assert page.tags == plain.tags and "script" not in page.tags
    assert page.text.count(HOSTILE) > 10 and any(HOSTILE in label for label in page.labels)


def test_the_page_holds_every_number(tmp_path: Path) -> None:
    page = page_of(tmp_path, "n")
    for shown in ("3 pictures · step 7 · split n", "1.500", "1.000 to 2.000", "0.2500", "45.25 %", "0–20", "real 70.0",
                  "75", "100"):  # fmt: skip
        assert shown in page.text, shown
    assert "n0: 0.1000" in page.text and "n1: 0.2000" in page.text and "n2: " not in page.text
    assert "unseen" not in page.text
