"""Changes of label and instance maps, and how a scene's files are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from editing_scene import CAR, NAMES, ROAD, RULES, SKY, TREE, editor, scene
from hypothesis import given, settings
from hypothesis.strategies import integers

from data.edit.changes import box_shape, class_id, dilate, fill_nearest, scaled_shape
from data.edit.objects import numbered_overlay, object_table, scene_objects
from data.edit.scenes import Margin, Scene, SceneFiles, load_scene, pair_files
from data.records import MapRules, Record
from util.errors import DataError, UserError
from util.images import save_png


def test_an_added_object_is_a_new_instance_of_its_class_and_its_mask_is_grown() -> None:
    before, shape = scene(), box_shape((20, 30), (22, 5, 28, 11), "rectangle")
    after = editor(radius=2).add_object(before, CAR, shape)
    assert shape.sum() == 36
    assert (after.label[shape] == CAR).all()
    assert (after.inst[shape] == 3001).all()  # 3000 is the other car
    assert np.array_equal(after.label[~shape], before.label[~shape])
    assert after.mask[5:11, 20:30].all()  # two pixels beyond
    assert not after.mask[:, :20].any()
    assert not after.mask[3, 20]  # a disc, no square
    assert not before.mask.any()
    twice = editor().remove(after, 3000)  # changes add up
    assert np.array_equal(twice.mask, after.mask | (before.inst == 3000))
    joined = editor().add_object(before, SKY, shape)  # no thing: part of the sky that is there
    assert (joined.inst[shape] == SKY).all()
    assert (editor(rule="mod120", things=()).add_object(before, CAR, shape).inst[shape] == 123).all()


def test_shapes() -> None:
    ellipse = box_shape((20, 30), (4, 2, 24, 12), "ellipse")
    assert np.array_equal(ellipse[:, 4:24], ellipse[:, 23:3:-1])
    assert 0.74 < ellipse.sum() / 200 < 0.84  # pi / 4
    assert ellipse[2:12, 4:24].any(axis=1).all()
    assert ellipse[2:12, 4:24].any(axis=0).all()
    assert not ellipse[:, 24:].any()
    for box in ((0, 0, 31, 5), (5, 5, 5, 8), (-1, 0, 4, 4), (0, 0, 5, 21)):
        with pytest.raises(UserError, match="not inside the picture of 30x20"):
            box_shape((20, 30), box, "rectangle")


def test_a_shape_of_another_map_is_stretched_into_the_box() -> None:
    other = np.zeros((50, 50), np.int32)
    other[10:20, 10:14] = 7  # an L
    other[16:20, 10:22] = 7
    shape = scaled_shape((20, 30), (2, 4, 26, 14), other, 7, "--add_from x.png:7")
    assert np.array_equal(shape[4:14, 2:26], other[10:20, 10:22].repeat(2, axis=1) == 7)
    assert shape.sum() == 2 * (other == 7).sum()
    with pytest.raises(DataError, match=r"x\.png:8: no instance 8 .* Its ids: 0, 7"):
        scaled_shape((20, 30), (2, 4, 26, 14), other, 8, "--add_from x.png:8")


def test_a_removed_instance_takes_the_nearest_neighbours() -> None:
    before = scene()
    after = editor(radius=1).remove(before, 3000)
    where = before.inst == 3000
    assert not (after.inst == 3000).any()
    assert not (after.label == CAR).any()
    assert (after.label[8:10, 14:18] == SKY).all()
    assert (after.label[12:14, 14:18] == ROAD).all()
    assert np.array_equal(after.label[where], after.inst[where])  # sky and road have their label as id
    assert np.array_equal(after.inst[~where], before.inst[~where])
    assert np.array_equal(after.mask, dilate(where, 1))
    stray = scene()
    stray.label[8:14, 20] = CAR  # a label map that is a column wider than the instance
    assert not (editor(radius=1).remove(stray, 3000).label == CAR).any()
    stray.inst[8:14, 20:24], stray.label[8:14, 20:24] = 3001, CAR  # another car stays
    assert (editor(radius=1).remove(stray, 3000).label[8:14, 20:24] == CAR).all()
    with pytest.raises(DataError, match=r"no instance 3001 .*has: 0 sky at .*; 3000 car at 12,8,20,14 "):
        editor().remove(before, 3001)
    with pytest.raises(DataError, match="shows nothing else"):
        editor().remove(replace(before, inst=np.ones_like(before.inst)), 1)


def test_a_moved_instance_takes_its_pixels_along() -> None:
    before = scene()
    before.mask[0, 0] = before.mask[9, 14] = True
    where = before.inst == 3000
    after = editor(radius=2).move(before, 3000, -5, 4)
    now = np.zeros_like(where)
    now[12:18, 7:15] = True
    assert np.array_equal(after.inst == 3000, now) and np.array_equal(after.label == CAR, now)
    assert np.array_equal(after.image[now], before.image[where])
    assert np.array_equal(after.image[~now], before.image[~now])
    inner = np.zeros_like(where)
    inner[13:17, 8:14] = True  # all but its outermost pixels
    wanted = (dilate(where, 2) | dilate(now, 2)) & ~inner
    wanted[0, 0] = wanted[13, 9] = True  # what was erased before, there and in the thing, stays so
    assert np.array_equal(after.mask, wanted)
    assert (after.inst[where & ~now] == editor(radius=2).remove(before, 3000).inst[where & ~now]).all()
    cut = editor().move(before, 3000, 14, 0)
    assert (cut.inst == 3000).sum() == 6 * 4 and (cut.inst[8:14, 26:] == 3000).all()
    for way in ((30, 0), (18, 0), (0, -14)):
        with pytest.raises(DataError, match="nothing of it would be left in one"):
            editor().move(before, 3000, *way)
    with pytest.raises(DataError, match=r"--move 7:1,2: one: no instance 7 .*has: 0 sky"):
        editor().move(before, 7, 1, 2)


def test_a_thing_grows_by_what_is_painted_on() -> None:
    before, shape = scene(), box_shape((20, 30), (19, 5, 28, 11), "rectangle")
    after = editor().add_object(before, CAR, shape, 3000)
    assert np.array_equal(after.inst == 3000, (before.inst == 3000) | shape) and (after.label[shape] == CAR).all()


def test_a_scene_tells_what_it_shows() -> None:
    before = scene()
    objects = scene_objects(before, NAMES)
    assert sum(entry.share for entry in objects) == pytest.approx(1)
    assert [(entry.number, entry.class_name) for entry in objects[:2]] == [(0, "sky"), (1, "road")]
    for entry in objects:
        x0, y0, x1, y1 = entry.box
        where = before.inst == entry.number
        assert where[y0:y1, x0:x1].sum() == where.sum() == round(entry.share * where.size)
        assert where[y0, x0:x1].any() and where[y1 - 1, x0:x1].any() and where[y0:y1, x0].any()
    head, *lines = object_table(objects)
    assert head.split()[:2] == ["id", "class"] and len(lines) == len(objects)
    shown = numbered_overlay(before, objects, np.full((4, 3), 90, np.uint8))
    assert shown.shape == before.image.shape and (shown == 255).all(2).sum() > 30  # borders and numbers


@given(seed=integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_nearest_filling_equals_a_search(seed: int) -> None:
    rng = np.random.RandomState(seed)
    values, where = rng.randint(0, 9, (9, 11)), rng.rand(9, 11) > 0.4
    where[0, 0] = False
    filled = fill_nearest(values, where)
    assert np.array_equal(filled[~where], values[~where])
    known = np.argwhere(~where)
    for pixel in np.argwhere(where):
        distance = ((known - pixel) ** 2).sum(axis=1)
        nearest = known[distance == distance.min()]
        assert filled[tuple(pixel)] in values[nearest[:, 0], nearest[:, 1]]


def test_a_replaced_class_keeps_things_apart_and_joins_the_rest() -> None:
    before = scene()
    before.label[0:3, 20:25], before.inst[0:3, 20:25] = TREE, 2001
    trees = before.label == TREE
    cars = editor().replace_class(before, TREE, CAR)
    assert (cars.label[trees] == CAR).all()
    assert sorted(set(cars.inst[trees].tolist())) == [3001, 3002]
    assert np.array_equal(cars.mask, trees)
    assert sorted(set(cars.inst[before.inst == 2000].tolist())) == [3001]
    stray = replace(before, label=before.label.copy())
    stray.label[15:17, 7] = TREE  # on the road by its id: no instance of its own
    assert set(editor().replace_class(stray, TREE, CAR).inst.ravel().tolist()) == {SKY, ROAD, 3000, 3001, 3002}
    road = editor().replace_class(before, TREE, ROAD)
    assert set(road.inst[trees].tolist()) == {ROAD}  # the visible road's id
    gone = editor().replace_class(replace(before, label=np.minimum(before.label, 1)), SKY, TREE)
    assert SKY not in gone.label
    with pytest.raises(DataError, match=r"has no 'tree'\. Its classes: sky, road$"):
        editor().replace_class(replace(before, label=np.minimum(before.label, 1)), TREE, CAR)


def test_classes_by_name_or_number() -> None:
    assert class_id("tree", NAMES, "--add_object") == class_id("2", NAMES, "--add_object") == TREE
    with pytest.raises(UserError, match=r"--add_object: no class 'tres'\. Did you mean 'tree'"):
        class_id("tres", NAMES, "--add_object")
    with pytest.raises(UserError, match="no class '4'"):
        class_id("4", NAMES, "--add_object")


@pytest.mark.parametrize("side", ["left", "right", "up", "down"])
def test_an_extension_keeps_the_picture_and_erases_the_rest(side: str) -> None:
    before = scene()
    chosen = "mirror" if side in ("left", "right") else "repeat"
    for mode in ("mirror", "repeat", None):
        after = editor().extend(before, Margin(side, 7), mode)
        rows, columns = (
            slice(low, size + low) for (low, _), size in zip(Margin(side, 7).pads(), (20, 30), strict=True)
        )
        for name in ("image", "label", "inst"):
            assert np.array_equal(getattr(after, name)[rows, columns], getattr(before, name))
        assert not after.mask[rows, columns].any()
        assert after.mask.sum() == after.mask.size - 600 == 7 * (20 if side in ("left", "right") else 30)
    assert np.array_equal(after.label, editor().extend(before, Margin(side, 7), chosen).label)


def test_a_mirrored_thing_is_another_one_unless_it_touches_its_original() -> None:
    after = editor().extend(scene(), Margin("left", 8), "mirror")
    assert np.array_equal(after.label[:, :8], scene().label[:, 7::-1])
    assert set(after.inst[4:16, 2:6].ravel().tolist()) == {2001}
    assert (after.inst[4:16, 10:14] == 2000).all()
    touching = scene()
    touching.label[4:16, 0:2], touching.inst[4:16, 0:2] = TREE, 2000
    assert (editor().extend(touching, Margin("left", 8), "mirror").inst[4:16, 2:14] == 2000).all()
    far = editor().extend(scene(), Margin("right", 80), "mirror")  # mirrored again and again
    assert {i for i in far.inst.ravel().tolist() if i >= 3000} == {3000, 3001, 3002, 3003}


# --- reading ---------------------------------------------------------------------------------------------------------
def write(folder: Path, name: str, one: Scene, *, mask: np.ndarray | None = None) -> dict[str, str]:
    save_png(one.image, folder / "image" / f"{name}.png")
    save_png(one.label.astype(np.uint8), folder / "label" / f"{name}.png")
    save_png(one.inst.astype(np.uint16), folder / "inst" / f"{name}.png")
    save_png((np.ones((20, 30)) if mask is None else mask).astype(np.uint8) * 255, folder / "mask" / f"{name}.png")
    return {kind: str(folder / kind / f"{name}.png") for kind in ("image", "label", "inst", "mask")}


def test_files_are_paired_and_read_by_the_rules(tmp_path: Path) -> None:
    files = write(tmp_path, "a", scene())
    write(tmp_path, "b", scene())
    folders = {kind: str(tmp_path / kind) for kind in files}
    assert [f.record.name for f in pair_files(folders)] == ["a", "b"]
    assert pair_files(files)[0] == pair_files(folders)[0]
    read = load_scene(pair_files(files)[0], RULES)
    assert np.array_equal(read.inst, scene().inst)
    assert read.mask.all()
    assert np.array_equal(load_scene(pair_files({**files, "inst": None, "mask": None})[0], RULES).inst, scene().label)
    swapped = load_scene(pair_files(files)[0], MapRules(label_nc=4, label_map={CAR: TREE}))
    assert (swapped.label[8:14, 12:20] == TREE).all()
    (tmp_path / "image" / "b.png").rename(tmp_path / "c.png")
    with pytest.raises(UserError, match=r"--label .*b\.png: no picture of this name in --image \(2 more problems\)"):
        pair_files(folders)
    (tmp_path / "c.png").rename(tmp_path / "image" / "b.png")
    (tmp_path / "label" / "b.png").unlink()
    with pytest.raises(UserError, match=r"--label .*b\.png is missing"):
        pair_files(folders)
    with pytest.raises(UserError, match="--image is a folder, the others are files"):
        pair_files({**files, "image": folders["image"]})
    with pytest.raises(UserError, match="no such file"):
        pair_files({**files, "mask": str(tmp_path / "none.png")})


def test_maps_of_the_extended_size_are_taken_as_they_are(tmp_path: Path) -> None:
    files, margin = write(tmp_path, "a", scene()), Margin("left", 10)
    wide = editor().extend(scene(), margin, "repeat")
    save_png(wide.label.astype(np.uint8), files["label"])
    record = SceneFiles(Record("a", *(Path(files[kind]) for kind in ("image", "label", "inst"))), None)
    with pytest.raises(DataError, match=r"instance map is 30x20, .* 40x20 .*10 pixels added left included"):
        load_scene(record, RULES, margin)
    save_png(wide.inst.astype(np.uint16), files["inst"])
    read = load_scene(record, RULES, margin)
    assert read.extended
    assert np.array_equal(read.mask, wide.mask)
    assert np.array_equal(read.image[:, 10:], scene().image)
    with pytest.raises(DataError, match="label map is 40x20"):
        load_scene(record, RULES)
    with pytest.raises(UserError, match="30 pixels wide already"):
        Margin.to_width(Path(files["image"]), 30)
    assert Margin.to_width(Path(files["image"]), 40) == Margin("right", 10)
