"""A segmentation network with its preprocessing, and how a data set's labels map to its classes.

Shapes: B pictures, H x W pixels, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.segments.released import CITYSCAPES_CLASSES, CITYSCAPES_LABEL_IDS
from util.errors import UserError

IGNORED = -1  # in a label table: the pixel is left out
CHUNK = 8  # pictures per forward pass
MOST_SCORES = 1 << 27  # numbers in memory when the classes of large pictures are compared: 512 MB


@dataclass(frozen=True)
class Segmenter:
    """A network with its classes and preprocessing.

    Args:
        name: as in `miou_<name>`.
        class_names: one per output channel.
        short_side: the pictures' short side in pixels that the network was trained at.
        weights, sha256: the file's name and hash.
        void: the output channel that is not a class; it is never averaged.
        notes: further information (accuracy on real test pictures, other weights than the released ones).
        label_map: class of each label id of the data set; None: ids mean the same.
    """

    name: str
    net: nn.Module
    class_names: tuple[str, ...]
    short_side: int
    weights: str
    sha256: str
    device: torch.device
    void: int | None = None
    notes: dict[str, Any] | None = None
    label_map: dict[int, int] | None = None

    @property
    def num_classes(self) -> int:
        """Number of output channels, void included."""
        return len(self.class_names)

    @torch.no_grad()
    def predict(self, pictures: Tensor) -> Tensor:
        """Return class ids (B,H,W) int64 on the segmenter's device for uint8 RGB pictures (B,3,H,W).

        The picture is scaled to the short side (bilinear, antialiased when it shrinks), both sides rounded to
        multiples of 8; the logits are scaled back bilinearly before the maximum is taken.
        """
        return torch.cat([self._predict(chunk) for chunk in pictures.split(CHUNK)])

    def _predict(self, pictures: Tensor) -> Tensor:
        h, w = pictures.shape[-2:]
        scale = self.short_side / min(h, w)
        size = (max(8, round(h * scale / 8) * 8), max(8, round(w * scale / 8) * 8))
        x = pictures.to(self.device).float()
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
        with torch.autocast(self.device.type, enabled=False):
            logits = self.net(x)
        if logits.shape[1] != self.num_classes:  # more would be counted as other classes
            raise UserError(
                f"--segmenter {self.name}: the network gives {logits.shape[1]} channels, its class map names "
                f"{self.num_classes} classes; name one per channel"
            )
        return likeliest(logits, (h, w))


def likeliest(logits: Tensor, size: tuple[int, int], most: int = MOST_SCORES) -> Tensor:
    """Return the largest channel (B,H,W) of logits (B,C,h,w) enlarged bilinearly to `size`.

    With more than `most` numbers in the enlarged logits, channels are enlarged and compared one by one.
    """

    def enlarged(part: Tensor) -> Tensor:
        return F.interpolate(part, size=size, mode="bilinear", align_corners=False)

    if logits[..., 0, 0].numel() * size[0] * size[1] <= most:
        return enlarged(logits).argmax(1)
    highest = enlarged(logits[:, :1])
    chosen = torch.zeros_like(highest, dtype=torch.int64)
    for channel in range(1, logits.shape[1]):
        score = enlarged(logits[:, channel : channel + 1])
        chosen[score > highest] = channel
        highest = torch.maximum(highest, score)
    return chosen[:, 0]


def label_table(
    segmenter: Segmenter, *, label_nc: int, ignore_label: int | None, class_names: list[str] | None = None
) -> Tensor:
    """Return (label_nc,) int64: the segmenter's class of each label id of the data set, -1 where it has none.

    Cityscapes' 34 or 35 labelIds are mapped to the 19 evaluated classes, ADE20K's 1..150 to 0..149; the
    segmenter's own class map comes first; otherwise ids must mean the same.

    Raises:
        UserError: the data set's classes are not the segmenter's.
    """
    if segmenter.label_map is not None:
        table = torch.full((label_nc,), IGNORED)
        for label, class_id in segmenter.label_map.items():
            if not 0 <= label < label_nc or not 0 <= class_id < segmenter.num_classes:
                raise UserError(
                    f"--segmenter {segmenter.name}: its class map sends label {label} to class {class_id}; labels are "
                    f"0..{label_nc - 1}, classes 0..{segmenter.num_classes - 1}"
                )
            table[label] = class_id
    elif segmenter.class_names[:19] == CITYSCAPES_CLASSES[:19] and label_nc in (34, 35):
        named = [class_names[i] for i in CITYSCAPES_LABEL_IDS] if class_names else []
        known = [name for name in named if not name.startswith("class ")]  # those are ids without a name
        if not set(known) <= set(CITYSCAPES_CLASSES):
            _refuse(segmenter, label_nc, class_names)
        table = torch.full((label_nc,), IGNORED)
        table[list(CITYSCAPES_LABEL_IDS)] = torch.arange(len(CITYSCAPES_LABEL_IDS))
    elif label_nc == segmenter.num_classes + 1 and (class_names[0] == "other" if class_names else label_nc == 151):
        # ADE20K's 0 = other, which its networks do not know
        _check_classes(segmenter, label_nc - 1, class_names[1:] if class_names else None)
        table = torch.arange(-1, label_nc - 1)
    else:
        _check_classes(segmenter, label_nc, class_names)
        table = torch.arange(label_nc)
        if segmenter.void is not None and segmenter.void < label_nc:
            table[segmenter.void] = IGNORED
    if ignore_label is not None and 0 <= ignore_label < label_nc:
        table[ignore_label] = IGNORED
    return table


def _check_classes(segmenter: Segmenter, label_nc: int, class_names: list[str] | None) -> None:
    fits = label_nc == segmenter.num_classes or (segmenter.void == label_nc == segmenter.num_classes - 1)
    theirs = [plain_name(name) for name in segmenter.class_names[:label_nc]]
    if fits and (not class_names or [plain_name(name) for name in class_names] == theirs):
        return
    _refuse(segmenter, label_nc, class_names)


def _refuse(segmenter: Segmenter, label_nc: int, class_names: list[str] | None) -> NoReturn:
    raise UserError(
        f"--segmenter {segmenter.name} knows {segmenter.num_classes} classes ({', '.join(segmenter.class_names)}), the "
        f"data set has {label_nc}{f' ({chr(44).join(class_names)})' if class_names else ''}: their ids do not mean the "
        "same. Train one on this data set with scripts/train_segmenter.py, give an hf: or export: network a class map "
        "(--segmenter_classes), or leave --segmenter out."
    )


def plain_name(name: str) -> str:
    """A class's first name, without regard to case: 'Building;edifice' is 'building'."""
    return name.replace(",", ";").split(";")[0].strip().lower()
