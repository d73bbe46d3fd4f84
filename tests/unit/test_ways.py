"""Each way to test a run has a folder of its own, and what was left in other folders is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testing.rows import MARKER, finished_test
from testing.ways import WAYS, folder_of_test
from util.errors import UserError


def test_each_way_has_a_folder_of_its_own() -> None:
    def name(*, best: bool = False, **ways: str) -> str:
        return folder_of_test(Path("results"), "test", "object_removal", ways, best=best).name

    assert name() == name(**WAYS) == "test_object_removal"
    assert name(best=True) == "test_object_removal_best"
    assert name(object_classes="car, traffic light,26") == "test_object_removal_car-traffic-light-26"
    assert name(object_classes="../up", removal="released", best=True) == "test_object_removal_..-up_released_best"
    assert name(style_source="noise", test_cuts="halves") == "test_object_removal_noise_halves"
    long = [name(object_classes=",".join(["traffic light"] * n)) for n in (50, 51)]
    assert len(set(long)) == 2 and max(map(len, long)) < 50


def test_a_folder_of_a_test_lies_in_its_results() -> None:
    assert folder_of_test(Path("r"), "val/night", "class", {"removal": 5}) == Path("r/val/night_class_5")
    for split, task in (("x", "/../../y"), ("x", "/.."), ("/x", "class"), ("../x", "class")):
        with pytest.raises(UserError, match="would lie outside of r"):
            folder_of_test(Path("r"), split, task, {})


def test_a_finished_test_is_found_wherever_an_earlier_version_left_it(tmp_path: Path) -> None:
    now, former = tmp_path / "results/test_class_noise", tmp_path / "results/test_class"
    assert finished_test(now, "key") is None
    former.mkdir(parents=True)
    for age, name in ((20, "result.json"), (10, MARKER)):
        (former / name).write_text("key")
        os.utime(former / name, (1000 - age, 1000 - age))
    checkpoint = tmp_path / "step_3.pt"
    checkpoint.touch()
    for age, found in ((30, former), (5, None)):
        os.utime(checkpoint, (1000 - age, 1000 - age))
        assert finished_test(now, "key", after=checkpoint) == found
    assert finished_test(now, "key") == finished_test(former, "key") == former
    assert finished_test(now, "another key") is None
    os.utime(former / "result.json", (1000, 1000))  # tested again by hand, who knows how
    assert finished_test(now, "key") is None
