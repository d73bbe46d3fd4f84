"""`report.html`: what it shows, that no name in it can become markup, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metrics.influence import as_kept
from metrics.reporting.page.gallery import EXTREMES, Result
from metrics.reporting.report import write_report
from util.errors import UserError

HOSTILE = "<script>x</script>'\"&amp;<img src=x onerror=alert(1)>"
NAMES = 3


class Page(HTMLParser):
    """Tags with their attributes, visible text, and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source, self.text = text, ""
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.bold: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and len(self.scripts) < self.tags.count("script"):
            self.scripts.append(data)
        elif self.tags[-1:] != ["style"]:
            self.text += data
            if self.tags[-1:] == ["b"]:
                self.bold.append(data)

    def values(self, name: str) -> list[str]:
        return [value for each, value in self.attributes if each == name]

    @property
    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.scripts[0]))


def result(name: str, text: str, *, task: str = "class", l1: float = 1.5, **more: Any) -> Result:
    """The result of a method on three pictures; `text` is in every name."""
    names = [f"{text}{k}" for k in range(NAMES)]
    rng = np.random.default_rng(0)
    pictures = {n: {t: rng.integers(0, 255, (8, 8, 3), dtype=np.uint8) for t in ("result", "real")} for n in names}
    detail = {"unit": "%", "protocol": text, "count": 3}
    line = {
        "num_images": 3, "step": 7, "task": task, "protocol": {"split": text},
        "metrics": {"l1_whole": l1, "miou": 45.25, "precision": 0.5, "recall": 0.75},
        "details": {
            "l1_whole": {**detail, "unit": "1", "bins": {"0-20": {"value": 0.5, "pictures": 2}}, "ci95": [1.0, 2.0],
                         "real": 0.25},
            "miou": {**detail, "iou_per_class": {text: 60.0}, "iou_per_class_real": {text: 70.0}},
            "precision": detail, "recall": detail,
        },
        "per_picture": {"names": names, "l1_whole": [0.1, 0.2, None]},
        "pictures": {"erased": [0.1, 0.2, None], "classes": [[text], [], []]},
        "confusion": {"classes": [text, text, "unseen"], "counts": [[3, 1, 0], [0, 4, 0], [0, 0, 0]]},
        **more,
    }  # fmt: skip
    return Result(name, line, pictures.__getitem__, [text])


def page_of(folder: Path, *results: Result, title: str = "title", **given: Any) -> Page:
    return Page(write_report(results, folder, title=title, **given).read_text())


@pytest.mark.parametrize("kind", ["one", "several", "unpaired"])
def test_names_with_markup_stay_text(tmp_path: Path, kind: str) -> None:
    """Names of files, classes, methods and data sets come from elsewhere, and a report is opened in a browser."""

    def page(text: str) -> Page:
        given = {"sets": {text: {text: np.zeros((8, 8, 3), np.uint8)}}} if kind == "unpaired" else {}
        others = [result("other", text), result(text, text, task=text)] if kind == "several" else []
        return page_of(tmp_path, result(text, text), *others, title=text, **given)

    found, plain = page(HOSTILE), page("plain")
    assert found.tags == plain.tags and found.tags.count("script") == 2
    assert [name for name, _ in found.attributes] == [name for name, _ in plain.attributes]
    assert found.text.count(HOSTILE) > 10 and any(HOSTILE in label for label in found.values("aria-label"))
    assert found.data["tasks"][0]["pictures"][0]["name"] == f"{HOSTILE}0"
    assert found.scripts[1] == plain.scripts[1] and "innerHTML" not in found.scripts[1]


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = page_of(tmp_path, result("a", "n"), result("b", "n"))
    assert not re.search(r"https?:|<link|@import|<iframe", page.source)
    assert not {"src", "href"} & {name for name, value in page.attributes if not value.startswith("#")}
    addresses = re.findall(r"url\(([^)]{5})", page.source)
    assert len(addresses) >= 2 * NAMES and set(addresses) == {"data:"}
    (policy,) = (value for value in page.values("content") if "default-src" in value)
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'") and f"script-src 'sha256-{digest}'" in policy


def test_the_page_holds_every_number(tmp_path: Path) -> None:
    page = page_of(tmp_path, result("a", "n"))
    for shown in ("3 pictures · step 7 · split n", "1.500", "1.000 to 2.000", "0.2500", "45.25 %", "0–20", "real 70.0",
                  "75", "100", "0.7500"):  # fmt: skip
        assert shown in page.text, shown
    assert "n0: 0.1000" in page.text and "n1: 0.2000" in page.text and "n2: " not in page.text
    assert "unseen" not in page.text
    assert ("225.0", "150.0") in list(zip(page.values("cx"), page.values("cy"), strict=True))  # recall to the right


def test_the_script_gets_what_it_sorts_and_filters_by(tmp_path: Path) -> None:
    later = result("b", "n", task="later")
    page = page_of(tmp_path, result("a", "n"), result("b", "n", l1=2.5), later)
    first, second = page.data["tasks"]
    assert (first["name"], first["methods"], second["methods"]) == ("class", ["a", "b"], ["b"])
    assert first["metrics"] == [{"name": "l1_whole", "lower": True}]
    assert [picture["values"] for picture in first["pictures"]] == [[[0.1, 0.1]], [[0.2, 0.2]], [[None, None]]]
    assert [picture["erased"] for picture in first["pictures"]] == [0.1, 0.2, None]
    assert [picture["classes"] for picture in first["pictures"]] == [["n"], [], []]
    assert [[title for title, _ in picture["shown"]] for picture in first["pictures"]] == [["a", "b", "real"]] * NAMES
    assert [title for title, _ in second["pictures"][0]["shown"]] == ["result", "real"]
    rules = {rule for task in (first, second) for picture in task["pictures"] for _, rule in picture["shown"]}
    assert all(page.data["sizes"][rule] == [8, 8] for rule in rules)
    opened = [tuple(map(int, value.split(",")[:2])) for value in page.values("data-open")]
    assert opened and all(page.data["tasks"][t]["pictures"][p]["shown"] for t, p in opened)


def test_best_and_worst_are_of_each_method_and_open_at_it(tmp_path: Path) -> None:
    def of(name: str, values: list[float]) -> Result:
        names = [f"n{k}" for k in range(len(values))]
        picture = {"result": np.zeros((4, 4, 3), np.uint8), "real": np.ones((4, 4, 3), np.uint8)}
        kept = {"per_picture": {"names": names, "l1_whole": values}, "pictures": {"erased": [None] * len(values)}}
        return Result(name, {**result(name, "n").line, **kept}, lambda _: picture)

    rising = [k / 10 for k in range(10)]
    page = page_of(tmp_path, of("a", rising), of("b", rising[::-1]))
    captions = re.findall(r"<figcaption>(n\d): ", page.source)
    assert captions == ["n0", "n1", "n9", "n8", "n9", "n8", "n0", "n1"] and EXTREMES == 4
    figures = re.findall(r'<figure class="two" data-of="0,\d"><button class="plain" data-open="(.*?)"', page.source)
    assert figures == ["0,0,0", "0,1,0", "0,9,0", "0,8,0", "0,9,1", "0,8,1", "0,0,1", "0,1,1"]


def test_differences_stand_with_their_certainty(tmp_path: Path) -> None:
    def of(name: str, l1: float, each: list[float]) -> Result:
        parts = {"l1_whole": (torch.tensor(each, dtype=torch.float64),)}
        return result(name, "n", l1=l1, influence=as_kept({"pairs": ["n0", "n1", "n2", "n3"]}, 1, parts))

    def table(last: float) -> Page:
        first, second = of("a", 1.0, [0.1, -0.1, 0.05, -0.05]), of("b", last, [0.11, -0.11, 0.06, -0.06])
        return page_of(tmp_path, first, second)

    certain, tie = table(2.0), table(1.01)
    assert "+1.000" in certain.text and "1.000" in certain.bold and "2.000" not in certain.bold
    assert re.search(r"\+0\.\d{4} to \+1\.\d{3}, p = ", certain.text)
    assert "+0.0100 =" in tie.text and "1.000" not in tie.bold and "1.010 =" in tie.text


def test_results_that_cannot_stand_side_by_side_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a, class: given twice"):
        write_report([result("a", "n"), result("a", "n")], tmp_path, title="t")
    with pytest.raises(UserError, match=r"split: n .a.; other .b."):
        write_report([result("a", "n"), result("b", "n", protocol={"split": "other"})], tmp_path, title="t")


def test_a_method_with_the_name_of_another_picture_keeps_its_own(tmp_path: Path) -> None:
    page = page_of(tmp_path, result("real", "n"), result("b", "n"))
    (task,) = page.data["tasks"]
    assert [title for title, _ in task["pictures"][0]["shown"]] == ["result of real", "b", "real"]
    assert task["views"] == ["result of real", "b"]
