"""Miniature archives in the official layouts of Cityscapes and ADE20K, for the tests of scripts/prepare_*.py."""

import io
import tarfile
import zipfile

import numpy as np
from PIL import Image

CITY = {"train": ["aachen_000000_000019", "bochum_000000_000600"], "val": ["lindau_000000_000019"]}
ADE = {
    "ADE_train_00000001": ("bedroom", (300, 300)),
    "ADE_train_00000002": ("living_room", (640, 480)),
    "ADE_train_00000003": ("street", (300, 300)),
    "ADE_train_00000004": ("mountain_snowy", (900, 300)),
    "ADE_val_00000001": ("hotel_room", (400, 512)),
    "ADE_val_00000002": ("coast", (150, 200)),
}  # scene, (width, height)


def encode(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def unpack(members, folder):
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def city_maps(number, scale=1):
    """A frame of 64x32 blocks: road 7, sky 23, two cars 26001 and 26014, a group of persons 24."""
    label = np.full((8, 16), 7, np.int32)
    label[:3] = 23
    label[4:6, 2:5] = label[5:7, 9:13] = 26
    label[4, 14:] = 24
    inst = label.copy()
    inst[4:6, 2:5], inst[5:7, 9:13] = 26001, 26014 + number
    image = np.random.RandomState(number).randint(0, 256, (8, 16, 3))
    grow = 16 * scale
    return tuple(
        a.repeat(grow, 0).repeat(grow, 1).astype(t)
        for a, t in ((image, np.uint8), (label, np.uint8), (inst, np.uint16))
    )


def cityscapes(scale=1, split_names=CITY):
    """Members of leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, with files that are not needed."""
    left, fine = {"README": b"text", "license.txt": b"text"}, {"README": b"text"}
    for split, names in split_names.items():
        for i, name in enumerate(names):
            image, label, inst = city_maps(i, scale)
            city = name.split("_")[0]
            left[f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png"] = encode(image)
            stem = f"gtFine/{split}/{city}/{name}_gtFine_"
            fine |= {f"{stem}labelIds.png": encode(label), f"{stem}instanceIds.png": encode(inst)}
            fine |= {f"{stem}color.png": encode(image), f"{stem}polygons.json": b"{}"}
    left["leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"] = encode(city_maps(9)[0])
    return left, fine


def ade_maps(name):
    """Wall 1 and bed 8 in quarters; instances: colours (1, 1, 0) on the bed's left, (1, 2, 0) on its right half."""
    width, height = ADE[name][1]
    label = np.ones((height, width), np.uint8)
    label[height // 2 :] = 8
    inst = np.zeros((height, width, 3), np.uint8)
    inst[height // 2 :, : width // 2] = (1, 1, 0)
    inst[height // 2 :, width // 2 :] = (1, 2, 0)
    label[:10, :10] = 0
    return np.repeat(label[..., None] * 20, 3, 2), label, inst


def ade20k():
    """Members of ADEChallengeData2016.zip and annotations_instance.tar."""
    root = "ADEChallengeData2016"
    scenes = "".join(f"{name} {scene}\n" for name, (scene, _) in ADE.items())
    main, instances = {f"{root}/sceneCategories.txt": scenes.encode(), f"{root}/objectInfo150.txt": b"Idx\n"}, {}
    for name in ADE:
        split = "training" if "train" in name else "validation"
        image, label, inst = ade_maps(name)
        main[f"{root}/images/{split}/{name}.jpg"] = encode(image, "JPEG")
        main[f"{root}/annotations/{split}/{name}.png"] = encode(label)
        instances[f"annotations_instance/{split}/{name}.png"] = encode(inst)
    return main, instances
