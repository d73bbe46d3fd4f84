"""Data, pictures and small weights from integer arithmetic, and models whose results are exact on any processor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hash_fill import hash_tensor, hash_values
from torch import Tensor, nn

from data.streets.scene import CLASSES
from models import MODELS
from util.images import save_png

SIDE = 64


def noise(key: str, height: int, width: int, levels: int = 24) -> np.ndarray:
    """Return (H, W, 3) integers of 0 .. levels - 1."""
    return ((hash_values(key, height * width * 3) + 1) * levels / 2).astype(int).reshape(height, width, 3)


def scene(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture, its labels and instances: bands of the street classes, with two cars and a person."""
    y, x = np.mgrid[:SIDE, :SIDE]
    label = np.select([y < 16, y < 30 + 2 * (index % 3)], [0, 1], 2).astype(np.uint8)
    label[x > 56] = 5
    inst = label.astype(np.uint16)
    inst[label == 1] = 1000 + (x[label == 1] > 30)
    boxes = ((6, 4 + 3 * index, 18, 16), (6, 36, 20 - index, 16), (7, 26, 8, 22))
    for number, (class_id, left, width, height) in enumerate(boxes):
        part = (slice(56 - height, 56), slice(left, left + width))
        label[part], inst[part] = class_id, 1000 * class_id + number
    colours = np.roll(CLASSES.palette[label], index, -1).astype(int) * (18 - index) // 20 + 3 * (inst % 7)[..., None]
    return (colours + noise(f"scene {index}", SIDE, SIDE)).clip(0, 255).astype(np.uint8), label, inst


def write_scenes(root: Path, **counts: int) -> Path:
    """Write <root>/<split>/{images,labels,inst_map} and classes.json; returns root."""
    for split, count in counts.items():
        for index in range(count):
            for kind, array in zip(("images", "labels", "inst_map"), scene(index + len(split)), strict=True):
                save_png(array, root / split / kind / f"p{index}.png")
    table = [
        {"id": i, "name": name, "color": CLASSES.palette[i].tolist(), "thing": i in CLASSES.things}
        for i, name in enumerate(CLASSES.names)
    ]
    (root / "classes.json").write_text(json.dumps({"num_classes": len(table), "classes": table}))
    return root


# --- weights ----------------------------------------------------------------------------------------------------------
def write_lpips(folder: Path) -> list[str]:
    """Write AlexNet's backbone, narrow, with heads; returns the flags that name them."""
    shapes = {0: (4, 3, 11), 3: (6, 4, 5), 6: (8, 6, 3), 8: (6, 8, 3), 10: (6, 6, 3)}
    backbone = {}
    for place, (wide, deep, side) in shapes.items():
        backbone[f"features.{place}.weight"] = hash_tensor(f"lpips {place}", wide, deep, side, side) / deep**0.5 / side
        backbone[f"features.{place}.bias"] = hash_tensor(f"lpips bias {place}", wide) / 8
    heads = {
        f"lin{k}.model.1.weight": hash_tensor(f"head {k}", 1, wide, 1, 1).abs()
        for k, (wide, *_) in enumerate(shapes.values())
    }
    torch.save(backbone, folder / "backbone.pth")
    torch.save(heads, folder / "heads.pth")
    return ["--lpips_backbone", str(folder / "backbone.pth"), "--lpips_weights", str(folder / "heads.pth")]


def narrow_vgg19(weights: Any = None) -> SimpleNamespace:
    """Return what has the layers of torchvision's VGG-19, narrow."""
    layers: list[nn.Module] = []
    deep = 3
    for wide, convs in ((4, 2), (4, 2), (6, 4), (8, 4), (8, 4)):
        for _ in range(convs):
            layers += [nn.Conv2d(deep, wide, 3, padding=1), nn.ReLU(inplace=True)]
            deep = wide
        layers.append(nn.MaxPool2d(2, 2))
    return SimpleNamespace(features=nn.Sequential(*layers))


def write_vgg(folder: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """Write a narrow VGG-19, in place of torchvision's of 20 million weights; returns the flag that names it."""
    state = narrow_vgg19().features.state_dict()
    filled = {f"features.{key}": hash_tensor(f"vgg {key}", *value.shape) / 2 for key, value in state.items()}
    torch.save(filled, folder / "vgg19.pth")
    patch.setattr("torchvision.models.vgg19", narrow_vgg19)
    return ["--vgg_weights", str(folder / "vgg19.pth")]


# --- models -----------------------------------------------------------------------------------------------------------
def exact_edits(patch: pytest.MonkeyPatch, *models: str) -> None:
    """Let methods that edit scenes fill masks with shifted pixels of the picture; they count as they do."""

    def instead_of(generate: Callable[..., Tensor], least: int) -> Callable[..., Tensor]:
        def shifted(self: Any, batch: Any, seeds: list[int]) -> Tensor:
            generate(self, batch, seeds)
            moved = [image.roll(least + seed % 3, -1) for image, seed in zip(batch["image"], seeds, strict=True)]
            return torch.where(batch["mask"] > 0, torch.stack(moved), batch["image"])

        return shifted

    for place, name in enumerate(models, start=1):
        patch.setattr(MODELS.get(name), "generate", instead_of(MODELS.get(name).generate, place))


def exact_analogies(patch: pytest.MonkeyPatch) -> None:
    """Let SemIA render the source shifted, upside down where the target's class is another than the source's."""

    def shifted(self: Any, batch: Any, seeds: list[int]) -> Tensor:
        other = (batch["label"] != batch["target_label"])[:, None]
        return torch.where(other, batch["image"].flip(2), batch["image"].roll(1, 3))

    patch.setattr(MODELS.get("semia"), "generate", shifted)


def exact_styles(patch: pytest.MonkeyPatch) -> None:
    """Let S2PreST mix a content's channels with its edges, and CLIP see halves of pictures by their colours.

    The tiny CLIP will not do: each version of transformers draws its random weights in another order.
    """

    def mixed(self: Any, contents: Any, edges: Any, seeds: Any, how: Any) -> list[np.ndarray]:
        pairs = zip(contents, edges, strict=True)
        return [(content[..., [1, 2, 0]] // 2 + edge // 4 + 40).astype(np.uint8) for content, edge in pairs]

    def colours(self: Any, pictures: Any, mode: str) -> Tensor:
        halves = [np.array_split(picture - 64.0, 2) for picture in pictures]
        return F.normalize(torch.tensor([[*top.mean((0, 1)), *low.mean((0, 1))] for top, low in halves]))

    patch.setattr(MODELS.get("s2prest"), "stylise", mixed)
    patch.setattr("models.networks.s2prest.diffusion.Diffusion.embed", colours)
