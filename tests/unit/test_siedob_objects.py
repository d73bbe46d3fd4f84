"""Objects of a batch against plain loops: what is selected, how it is cut and pasted."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data.instances import dense_instances
from models.networks.siedob.crops import Objects, find_objects
from util.batch import PAD
from util.object_rules import ObjectRule

CAR, PERSON, ROAD, IGNORED = 3, 1, 0, 255
RULES = (ObjectRule(CAR, 0.31), ObjectRule(PERSON, 0.17, (0.9, 3.3)))
INTERPOLATE = {"bilinear": {"mode": "bilinear", "align_corners": False}, "nearest": {"mode": "nearest"}}


# --- cutting and pasting, by PyTorch's own resizing ---
def some_objects(boxes: list[tuple[int, int, int, int]], pictures: list[int], slots: list[int], side: int) -> Objects:
    """Return objects of these boxes whose pixels are noise inside them."""
    where = torch.zeros(len(boxes), side, side, dtype=torch.bool)
    noise = torch.rand(side, side, generator=torch.Generator().manual_seed(len(boxes))) < 0.7
    for own, (r0, r1, c0, c1) in zip(where, boxes, strict=True):
        own[r0:r1, c0:c1] = noise[r0:r1, c0:c1]
    numbers = torch.arange(len(boxes))
    return Objects(
        torch.tensor(pictures), torch.tensor(slots), torch.tensor(slots), numbers, where, torch.tensor(boxes)
    )


def resized(x: Tensor, size: tuple[int, int], how: str) -> Tensor:
    return F.interpolate(x[None], size, **INTERPOLATE[how])[0]  # type: ignore[arg-type]


def cut(x: Tensor, box: list[int], size: int, how: str) -> Tensor:
    r0, r1, c0, c1 = box
    return resized(x[:, r0:r1, c0:c1], (size, size), how)


def pasted(objects: Objects, crops: Tensor, shapes: Tensor, count: int, overlap: str) -> Tensor:
    """Paste one object after the other, as the release does: a canvas per class, the classes added ("sum")."""
    side = objects.where.shape[1]
    canvases: dict[Any, Tensor] = {}
    for k, (r0, r1, c0, c1) in enumerate(objects.box.tolist()):
        key = int(objects.slot[k]) if overlap == "sum" else "one"
        canvas = canvases.setdefault(key, torch.zeros(count, crops.shape[1], side, side))
        at = canvas[int(objects.picture[k]), :, r0:r1, c0:c1]
        shape = resized(shapes[k], (r1 - r0, c1 - c0), "nearest")
        at.copy_(at * (1 - shape) + resized(crops[k], (r1 - r0, c1 - c0), "bilinear") * shape)
    return sum(canvases.values(), torch.zeros(count, crops.shape[1], side, side))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Objects, int, int]:
    """Draw objects of up to three pictures, in the order that `find_objects` gives, with the size of the crops."""
    side, size = draw(st.sampled_from([16, 40, 70])), draw(st.sampled_from([64, 7, 16, 128]))
    count = draw(st.integers(0, 6))
    boxes = []
    for _ in range(count):
        ends = [sorted((draw(st.integers(0, side - 2)), draw(st.integers(2, side)))) for _ in range(2)]
        boxes.append(tuple(v for low, high in ends for v in (low, max(high, low + 2))))
    places = sorted((draw(st.integers(0, 2)), draw(st.integers(0, 1))) for _ in range(count))
    if not count:
        empty = torch.zeros(0, dtype=torch.int64)
        return Objects(*[empty] * 4, torch.zeros(0, side, side) > 0, torch.zeros(0, 4, dtype=torch.int64)), side, size
    return some_objects(boxes, [p for p, _ in places], [s for _, s in places], side), side, size


@settings(deadline=None, max_examples=60)
@given(layouts(), st.integers(0, 999))
def test_crops_are_those_of_pytorchs_resizing(layout: tuple[Objects, int, int], seed: int) -> None:
    objects, side, size = layout
    x = torch.randn(3, 2, side, side, generator=torch.Generator().manual_seed(seed))
    linear, nearest, where = objects.crop(x, size), objects.crop_nearest(x, size), objects.crop_where(size)
    assert linear.shape == nearest.shape == (len(objects), 2, size, size)
    assert where.shape == (len(objects), 1, size, size)
    for k, (picture, box) in enumerate(zip(objects.picture.tolist(), objects.box.tolist(), strict=True)):
        assert torch.allclose(linear[k], cut(x[picture], box, size, "bilinear"), atol=1e-4)
        assert torch.equal(nearest[k], cut(x[picture], box, size, "nearest"))
        own = cut(objects.where[k, None].float(), box, size, "bilinear")
        clear = (own - 0.5).abs() > 1e-5  # at a half, rounding decides
        assert torch.equal(where[k][clear], (own > 0.5).float()[clear])


@settings(deadline=None, max_examples=60)
@given(layouts(), st.sampled_from(["overwrite", "sum"]), st.integers(0, 999))
def test_pasting_is_that_of_a_loop(layout: tuple[Objects, int, int], overlap: str, seed: int) -> None:
    objects, _, size = layout
    generator = torch.Generator().manual_seed(seed)
    crops = torch.randn(len(objects), 3, size, size, generator=generator)
    shapes = (torch.rand(len(objects), 1, size, size, generator=generator) < 0.6).float()
    found = objects.paste(crops, shapes, 3, overlap=overlap)
    assert torch.allclose(
        found, pasted(objects, crops, shapes, 3, overlap), atol=1e-4
    )  # of positions in up to 128 pixels, rounded


def test_overlaps_are_hidden_or_added() -> None:
    objects = some_objects([(0, 8, 0, 8), (4, 12, 4, 12), (6, 16, 6, 16)], [0, 0, 0], [0, 0, 1], 16)
    crops = torch.tensor([1.0, 2.0, 4.0])[:, None, None, None].expand(3, 1, 8, 8)
    shapes = torch.ones(3, 1, 8, 8)
    over, summed = (
        objects.paste(crops, shapes, 1, overlap=how)[0, 0].round(decimals=5) for how in ("overwrite", "sum")
    )
    assert [over[k, k].item() for k in (0, 5, 7, 13)] == [1, 2, 4, 4]
    assert [summed[k, k].item() for k in (0, 5, 7, 13)] == [1, 2, 6, 4]  # 2 hides 1, and 4 is added


def test_the_union_is_of_each_picture_alone() -> None:
    objects = some_objects([(0, 8, 0, 8), (4, 12, 4, 12), (0, 4, 0, 4)], [0, 0, 2], [0, 1, 0], 16)
    union = objects.union(3)
    assert union.shape == (3, 1, 16, 16)
    assert torch.equal(union[0, 0] > 0, objects.where[0] | objects.where[1])
    assert not union[1].any()
    assert torch.equal(union[2, 0], objects.where[2].float())
    assert objects.union(3).max() == 1


# --- selection, by a loop ---
def collated(scenes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return label, dense inst and padded inst_id of pictures given as (label, ids)."""
    dense = [dense_instances(inst, label) for label, inst in scenes]
    longest = max(len(ids) for _, ids, _ in dense)
    inst_id = torch.full((len(scenes), longest), PAD, dtype=torch.int64)
    for row, (_, ids, _) in zip(inst_id, dense, strict=True):
        row[: len(ids)] = torch.from_numpy(ids)
    label = torch.stack([torch.from_numpy(own.astype(np.int64)) for own, _ in scenes])
    return label, torch.stack([torch.from_numpy(own) for own, *_ in dense]), inst_id


Found = tuple[int, int, int, int, tuple[int, ...], int]  # picture, label, id, slot, box, pixels


def selected(label: np.ndarray, inst: np.ndarray, mask: np.ndarray, **how: Any) -> list[Found]:
    """Select a picture's objects step by step as the release does; ids of stuff are its label."""
    rules, least, any_aspect = how["rules"], how.get("min_erased", 0.0), how.get("any_aspect", False)
    side, margin = len(label), max(1, round(2 * len(label) / 256))
    candidates = []
    for number in np.unique(inst).tolist():
        own = inst == number
        inside = Counter(label[own & mask].tolist())
        kinds = sorted((-inside[r.label], r.label) for r in rules if inside[r.label])
        if kinds and number != kinds[0][1]:
            candidates.append((not (own & ~mask).any(), number, kinds[0][1]))
    found = []
    for slot, rule in enumerate(rules):
        for _, number, kind in sorted(candidates):
            if kind != rule.label:
                continue
            where = (inst == number) & (label == kind)
            rows, columns = np.nonzero(where.any(1))[0], np.nonzero(where.any(0))[0]
            (r0, r1), (c0, c1) = (rows[0], rows[-1]), (columns[0], columns[-1])
            box = (max(0, r0 - margin), min(r1 + margin, side), max(0, c0 - margin), min(c1 + margin, side))
            height, width, area = int(box[1] - box[0]), int(box[3] - box[2]), int(where.sum())
            aspect = (0.0, 100.0) if any_aspect else rule.aspect
            if r1 == r0 or c1 == c0 or not aspect[0] < height / width < aspect[1]:
                continue
            if area / (height * width) > rule.fill and Fraction(int((where & mask).sum()), area) > least:
                found.append((kind, number, slot, tuple(map(int, box)), area))
    return found  # type: ignore[return-value]


def found_by_code(scenes: list[tuple[np.ndarray, np.ndarray]], masks: list[np.ndarray], **how: Any) -> list[list[Any]]:
    label, inst, inst_id = collated(scenes)
    mask = torch.stack([torch.from_numpy(m.astype(np.float32)) for m in masks])[:, None]
    objects = find_objects(label, inst, inst_id, mask, **how)
    rows: list[list[Any]] = [[] for _ in scenes]
    assert objects.picture.tolist() == sorted(objects.picture.tolist())
    for k, picture in enumerate(objects.picture.tolist()):
        number = int(inst_id[picture, objects.number[k]])
        where = objects.where[k].numpy()
        assert np.array_equal(where, (scenes[picture][1] == number) & (scenes[picture][0] == int(objects.label[k])))
        box = tuple(objects.box[k].tolist())
        rows[picture].append((int(objects.label[k]), number, int(objects.slot[k]), box, int(where.sum())))
    return rows


@st.composite
def pictures(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw rectangles of labels, rectangles of ids (which rarely agree), and a mask; all may touch the borders."""
    side = draw(st.sampled_from([24, 24, 160]))
    label, mask = np.full((side, side), ROAD), np.zeros((side, side), bool)
    scale = side // 24

    def rectangle() -> tuple[slice, slice]:
        (r0, r1), (c0, c1) = (sorted(draw(st.lists(st.integers(0, 24), min_size=2, max_size=2))) for _ in range(2))
        if draw(st.booleans()):
            r1, c1 = min(24, r0 + 8), min(24, c0 + 8)
        return slice(r0 * scale, max(r1 * scale, r0 * scale + 1)), slice(c0 * scale, max(c1 * scale, c0 * scale + 1))

    for _ in range(draw(st.integers(0, 3))):
        label[rectangle()] = draw(st.sampled_from([CAR, PERSON, 2, IGNORED]))
    inst = label.copy()
    for _ in range(draw(st.integers(0, 5))):
        at, kind = rectangle(), draw(st.sampled_from([CAR, PERSON, 2]))
        inst[at] = 1000 * kind + draw(st.integers(0, 3))
        if draw(st.booleans()):
            label[at] = kind
    for _ in range(draw(st.integers(0, 3))):
        mask[rectangle()] = True
    return label, inst, mask


@settings(deadline=None, max_examples=300)
@given(
    st.lists(pictures(), min_size=1, max_size=3).filter(lambda ps: len({len(p[0]) for p in ps}) == 1),
    st.sampled_from([0.0, 0.37]),
    st.booleans(),
    st.sampled_from([RULES, RULES[::-1], RULES[:1], ()]),
)
def test_selection_is_that_of_a_loop(
    scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray]], least: float, aspect: bool, rules: tuple[ObjectRule, ...]
) -> None:
    how = {"rules": rules, "min_erased": least, "any_aspect": aspect}
    found = found_by_code([s[:2] for s in scenes], [s[2] for s in scenes], **how)
    assert found == [selected(*s, **how) for s in scenes]


# --- selection, case by case ---
def rectangles(
    side: int, *parts: tuple[int, int, int, int, int, int], mask: tuple[int, int, int, int] = (0, 999, 0, 999)
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[np.ndarray]]:
    """Return a scene of road with rectangles (r0, r1, c0, c1, label, id), and a mask."""
    label, inst, erased = np.zeros((side, side), int), np.zeros((side, side), int), np.zeros((side, side), bool)
    for r0, r1, c0, c1, kind, number in parts:
        label[r0:r1, c0:c1], inst[r0:r1, c0:c1] = kind, number
    erased[mask[0] : mask[1], mask[2] : mask[3]] = True
    return [(label, inst)], [erased]


def numbers(scene: Any, **how: Any) -> list[int]:
    return [number for _, number, *_ in found_by_code(*scene, **{"rules": RULES, **how})[0]]


def test_a_class_is_that_of_most_erased_pixels_the_lowest_on_a_tie() -> None:
    tie = rectangles(32, (4, 12, 4, 12, CAR, 3000), (4, 12, 12, 20, PERSON, 3000))
    assert found_by_code(*tie, rules=RULES)[0][0][:3] == (PERSON, 3000, 1)
    more = rectangles(32, (4, 12, 4, 12, CAR, 3000), (4, 12, 12, 20, PERSON, 3000), mask=(0, 32, 0, 19))
    assert found_by_code(*more, rules=RULES)[0][0][:3] == (CAR, 3000, 0)
    assert numbers(rectangles(32, (4, 12, 4, 12, 2, 3000))) == []  # no foreground class among its labels
    mixed = rectangles(32, (4, 12, 4, 12, 2, 3000), (12, 16, 4, 12, CAR, 3000))
    assert found_by_code(*mixed, rules=RULES)[0][0][3:] == ((11, 16, 3, 12), 32)  # of its car pixels alone


def test_the_order_is_class_then_partly_visible_then_id() -> None:
    cars = [(2, 10, 2, 10, CAR, 3005), (2, 10, 12, 20, CAR, 3004), (2, 10, 22, 32, CAR, 3003)]
    persons = [(20, 28, 2, 6, PERSON, 1001)]
    scene = rectangles(40, *cars, *persons, mask=(0, 40, 0, 30))
    assert numbers(scene) == [3003, 3004, 3005, 1001]
    assert numbers(scene, rules=RULES[::-1]) == [1001, 3003, 3004, 3005]
    # an instance is partly visible where any of its pixels is, whatever their labels
    other = rectangles(40, *cars, (0, 1, 35, 40, 2, 3005), mask=(0, 40, 0, 30))
    assert numbers(other) == [3003, 3005, 3004]


def test_stuff_and_groups_are_no_objects() -> None:
    assert numbers(rectangles(32, (4, 12, 4, 12, CAR, CAR))) == []
    assert numbers(rectangles(32, (4, 12, 4, 12, CAR, 3000), (4, 12, 20, 28, CAR, CAR))) == [3000]


def test_specks_and_lines_are_no_objects_and_two_by_two_is_one() -> None:
    for part in ((4, 5, 4, 5), (4, 5, 4, 12), (4, 12, 4, 5)):
        assert numbers(rectangles(32, (*part, CAR, 3000)), rules=[ObjectRule(CAR, 0.0)]) == []
    assert numbers(rectangles(32, (4, 6, 4, 6, CAR, 3000)), rules=[ObjectRule(CAR, 0.0)]) == [3000]


@pytest.mark.parametrize(("side", "margin"), [(16, 1), (64, 1), (128, 1), (256, 2), (512, 4)])
def test_boxes_have_a_margin_that_ends_with_the_picture(side: int, margin: int) -> None:
    rule = [ObjectRule(CAR, 0.0)]

    def box(r0: int, r1: int, c0: int, c1: int) -> Any:
        return found_by_code(*rectangles(side, (r0, r1, c0, c1, CAR, 3000)), rules=rule)[0][0][3]

    low, high = side // 4, side // 2
    assert box(low, high, low, high) == (low - margin, high - 1 + margin, low - margin, high - 1 + margin)
    assert box(0, 2, low, high) == (0, 1 + margin, low - margin, high - 1 + margin)
    assert box(side - 2, side, 0, 2) == (side - 2 - margin, side, 0, 1 + margin)
    assert box(low, high, side - 2, side) == (low - margin, high - 1 + margin, side - 2 - margin, side)
    assert box(0, side, 0, side) == (0, side, 0, side)


def test_thresholds_are_strict() -> None:
    scene = rectangles(64, (10, 20, 10, 20, CAR, 3000), mask=(0, 14, 0, 64))  # 100 of 121 pixels, 40 erased
    assert numbers(scene, min_erased=0.4) == []
    assert numbers(scene, min_erased=0.399) == [3000]
    side = 64
    box = found_by_code(*scene, rules=RULES)[0][0][3]
    assert box == (9, 20, 9, 20)
    fill = 100 / 121
    assert numbers(scene, rules=[ObjectRule(CAR, fill - 1e-6)]) == [3000]
    assert numbers(scene, rules=[ObjectRule(CAR, fill + 1e-6)]) == []
    tall = rectangles(side, (10, 29, 10, 19, CAR, 3000))  # a box of 20 x 10
    assert numbers(tall, rules=[ObjectRule(CAR, 0.1, (2.0, 6.0))]) == []
    assert numbers(tall, rules=[ObjectRule(CAR, 0.1, (1.9, 6.0))]) == [3000]
    assert numbers(tall, rules=[ObjectRule(CAR, 0.1, (2.0, 6.0))], any_aspect=True) == [3000]


def test_what_the_mask_does_not_touch_is_left_alone() -> None:
    parts = [(2, 10, 2, 10, CAR, 3000), (2, 10, 20, 28, CAR, 3001)]
    assert numbers(rectangles(32, *parts, mask=(0, 32, 16, 32))) == [3001]
    assert numbers(rectangles(32, *parts, mask=(0, 0, 0, 0))) == []


def test_pictures_without_objects_give_empty_tensors_that_still_work() -> None:
    label, inst, inst_id = collated(rectangles(16)[0])
    objects = find_objects(label, inst, inst_id, torch.ones(1, 1, 16, 16), rules=RULES)
    assert len(objects) == 0
    assert objects.where.shape == (0, 16, 16)
    x = torch.zeros(1, 3, 16, 16)
    assert objects.crop(x, 64).shape == objects.crop_nearest(x, 64).shape == (0, 3, 64, 64)
    assert objects.crop_where(64).shape == (0, 1, 64, 64)
    pasted = objects.paste(torch.zeros(0, 3, 64, 64), torch.zeros(0, 1, 64, 64), 2)
    assert pasted.shape == (2, 3, 16, 16)
    assert not objects.union(2).any()


def test_a_crowd_is_found_whole() -> None:
    """More than the release's 180 slots."""
    parts = [(r, r + 5, c, c + 5, CAR, 3000 + r * 100 + c) for r in range(1, 120, 8) for c in range(1, 120, 8)]
    assert numbers(rectangles(128, *parts)) == [part[-1] for part in parts]
    assert len(parts) == 225
