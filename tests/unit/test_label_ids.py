"""From a segmenter's classes to label ids: by equal tables, class maps, names, and what the user says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from data.ade20k_classes import NAMES
from data.camvid_dataset import CLASSES as CAMVID
from data.cityscapes_dataset import CityscapesDataset
from data.prepare.writing import write_class_table
from data.streets.scene import CLASSES as STREETS
from metrics.segments.label_ids import label_ids, parse_renamed
from metrics.segments.released import CAMVID_CLASSES, CITYSCAPES_CLASSES, CITYSCAPES_LABEL_IDS
from metrics.segments.segmenter import Segmenter, likeliest
from semedit.labels import classes_of
from util.class_table import ClassTable
from util.errors import UserError
from util.images import default_palette


def segmenter(*names: str, **options: object) -> Segmenter:
    about = {"short_side": 8, "weights": "", "sha256": "", "device": torch.device("cpu"), **options}
    return Segmenter("net", nn.Identity(), names, **about)  # type: ignore[arg-type]


def table(*names: str, ignore: int | None = None) -> ClassTable:
    return ClassTable(names, default_palette(len(names)), ignore=ignore)


def test_equal_classes_keep_their_ids() -> None:
    assert label_ids(segmenter(*STREETS.names), STREETS, {}).tolist() == list(range(9))
    camvid = segmenter(*CAMVID_CLASSES, void=11)
    assert label_ids(camvid, CAMVID, {}).tolist() == list(range(12))


def test_cityscapes_and_ade20k_have_ids_of_their_own() -> None:
    cityscapes = segmenter(*CITYSCAPES_CLASSES, void=19)
    ids = label_ids(cityscapes, CityscapesDataset.built_in, {}).tolist()
    assert ids == [*CITYSCAPES_LABEL_IDS, 0]  # 0: unlabeled
    of_ade = label_ids(segmenter(*NAMES[1:]), table(*NAMES), {})
    assert of_ade.tolist() == list(range(1, 151))


def test_other_tables_are_joined_by_name() -> None:
    net = segmenter("Road; route", "car", "wall", "nothing", void=3)
    ours = table("building", "road", "CAR", ignore=255)
    assert label_ids(net, ours, {"wall": "building"}).tolist() == [1, 2, 0, 255]
    assert label_ids(net, ours, {"wall": "building", "car": "road"}).tolist() == [1, 1, 0, 255]
    with pytest.raises(UserError, match=r"do not have: wall\. .*--segmenter_rename wall:building. .*building, road"):
        label_ids(net, ours, {})
    with pytest.raises(UserError, match=r"--segmenter_rename wal:road: no class 'wal'. Did you mean 'wall'"):
        label_ids(net, ours, {"wal": "road"})
    with pytest.raises(UserError, match=r"no class 'rode'. Did you mean 'road'"):
        label_ids(net, ours, {"wall": "rode"})


def test_a_class_map_is_read_backwards() -> None:
    net = segmenter("flat", "object", label_map={4: 0, 2: 0, 1: 1})
    assert label_ids(net, table("a", "b", "c", "d", "e"), {}).tolist() == [2, 1]  # the lowest label of each
    with pytest.raises(UserError, match="class map sends label 4"):
        label_ids(net, table("a", "b"), {})


def test_renamed_classes_are_parsed() -> None:
    assert parse_renamed(None) == {}
    assert parse_renamed("wall:building, rider : person") == {"wall": "building", "rider": "person"}
    with pytest.raises(UserError, match="'wall' is not THEIRS:OURS"):
        parse_renamed("wall")


def test_own_classes_come_with_their_things(tmp_path: Path) -> None:
    assert classes_of(segmenter(*CAMVID_CLASSES, void=11), tmp_path).things == CAMVID.things
    assert classes_of(segmenter(*CITYSCAPES_CLASSES, void=19), tmp_path) == CityscapesDataset.built_in
    write_class_table(tmp_path, STREETS)  # of a run of the segmenter's name
    assert classes_of(segmenter(*CAMVID_CLASSES, void=11), tmp_path).names == CAMVID.names
    write_class_table(tmp_path, replace(CAMVID, things=frozenset({8})))
    assert classes_of(segmenter(*CAMVID_CLASSES, void=11), tmp_path).things == {8}
    unknown = classes_of(segmenter("cat", "dog", void=1), tmp_path)
    assert (unknown.names, unknown.things, unknown.ignore) == (("cat", "dog"), frozenset(), 1)


@pytest.mark.parametrize("size", [(37, 53), (8, 8), (5, 64)])
def test_channels_compared_one_by_one_give_the_largest(size: tuple[int, int]) -> None:
    logits = torch.randn(2, 7, 9, 13, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1)
    assert torch.equal(likeliest(logits, size), whole)
    assert torch.equal(likeliest(logits, size, most=0), whole)
