"""Result lines and printed text as they were stored, compared within what processors and threads may change.

`UPDATE_GOLDENS=1` in the environment writes the files anew instead of comparing.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "golden" / "results"
OF_THE_MACHINE = {"commit": "COMMIT", "versions": "VERSIONS", "real_set": "HASH", "fake_set": "HASH"}
CHANGES = re.compile("sha256$")  # of files that a test writes: torch.save's bytes are not those of every version
COUNTED = re.compile("miou|acc|class|confusion|segnet")
DIGITS = 6  # behind the point; more are not compared one by one
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[+-]?\d+)?(?!\w)")


def check(name: str, found: Any) -> None:
    """Compare with `results/<name>.json`, or write it."""
    found = json.loads(json.dumps(found))
    path = RESULTS / f"{name}.json"
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    faults = differences(json.loads(path.read_text(encoding="utf-8")), found)
    assert not faults, f"{path.name}, stored and found:\n" + "\n".join(faults)


def without_machine(value: Any) -> Any:
    """Return a result line without what machine, commit and versions of libraries change."""
    if isinstance(value, dict):
        return {
            key: OF_THE_MACHINE.get(key) or ("SHA256" if CHANGES.search(key) and each else without_machine(each))
            for key, each in value.items()
        }
    return [without_machine(each) for each in value] if isinstance(value, list) else value


def differences(want: Any, got: Any, place: str = "") -> list[str]:
    """Return what differs: types, keys, their order, texts, whole numbers, and other numbers beyond rounding."""
    if isinstance(want, dict) and isinstance(got, dict):
        faults = [] if list(want) == list(got) else [f"{place}: keys {list(want)} != {list(got)}"]
        return faults + [
            text for key in want if key in got for text in differences(want[key], got[key], f"{place}/{key}")
        ]
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        return [
            text for k, pair in enumerate(zip(want, got, strict=True)) for text in differences(*pair, f"{place}/{k}")
        ]
    if isinstance(want, str) and isinstance(got, str):
        return text_differences(want, got, place)
    number = isinstance(want, int | float) and not isinstance(want, bool)
    same = type(want) is type(got) and (want == got or (number and near(want, got, place)))
    return [] if same else [f"{place}: {want!r} != {got!r}"]


def near(want: float, got: float, place: str) -> bool:
    """Tell whether two numbers are one; `COUNTED` ones come from comparisons, which the last bit may turn."""
    if isinstance(want, int):
        return "confusion" in place and abs(want - got) <= 2 + want // 100
    return abs(want - got) <= (0.25 if COUNTED.search(place) else 1e-4 * abs(want) + 1e-6)


def text_differences(want: str, got: str, place: str) -> list[str]:
    """Compare texts: numbers with a point as they are printed, within two of their last digits, all else exactly."""
    lines = (want.splitlines(), got.splitlines())
    if len(lines[0]) != len(lines[1]):
        return [f"{place}: {want!r} != {got!r}"]
    faults = []
    for a, b in zip(*lines, strict=True):
        loose = 0.25 if COUNTED.search(a) else 0.05 if COUNTED.search(want) else 0.0  # rows of a table do not name it
        pairs = zip(NUMBER.findall(a), NUMBER.findall(b), strict=False)
        apart = [pair for pair in pairs if abs(float(pair[0]) - float(pair[1])) > loose + last_digits(pair[0])]
        same = shape(a, intervals="[" in want) == shape(b, intervals="[" in want)
        faults += [] if same and not apart else [f"{place}: {a!r} != {b!r}"]
    return faults


def shape(line: str, *, intervals: bool) -> str:
    """Return a line with # for the digits of its numbers; intervals have as many as they need, and the columns too."""
    digits = 1 if "[" in line else DIGITS
    text = NUMBER.sub(lambda found: "#" * min(digits, len(found[0].rpartition(".")[2])), line)
    return re.sub(" +|-{9,}", " ", text) if intervals else text


def last_digits(number: str) -> float:
    """Return what rounding may change of a printed number: two units of its last digit, if it has few of them."""
    digits, _, power = number.partition("e")
    printed = min(DIGITS, len(digits.rpartition(".")[2]))
    return 1e-4 * abs(float(number)) + 2.001 * 10.0 ** (int(power or 0) - printed)
