"""Batches: what every data set yields and every model takes.

Shapes: B batch, H x W pixels, I the largest number of instances of a picture in the batch.
Ranges: image float32 in [-1, 1], RGB; mask and edge float32 in {0, 1}; mask 1 = to be generated.
Loaders carry batches in compact form, of 7 bytes per pixel; `to_device` makes the full maps of 36 on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, overload

import torch
from torch import Tensor

from util.edges import mark_edges
from util.images import from_levels

PAD = -1  # in `inst_id` and `inst_class`, after the last instance of a picture


class CompactSample(TypedDict):
    """A picture as a loader carries it: image (3, H, W), label (H, W) and mask (1, H, W) uint8, inst (H, W) int16.

    Labels and numbers of instances that do not fit are int32. Samples in full form may be carried as well: an image
    of another type than uint8 says so, and then nothing is changed. An `edge` that a sample holds is kept.
    """

    image: Tensor
    label: Tensor
    inst: Tensor
    inst_id: Tensor
    inst_class: Tensor
    mask: Tensor
    name: str
    index: int
    hidden: NotRequired[bool]
    draw: NotRequired[int]


class Sample(CompactSample):
    """One picture, before batching (no B): `inst_id` and `inst_class` have their own length."""

    edge: Tensor


class CompactBatch(TypedDict):
    """A batch of compact samples, or of full ones: `to_device` takes both."""

    image: Tensor
    label: Tensor
    inst: Tensor
    inst_id: Tensor
    inst_class: Tensor
    mask: Tensor
    name: list[str]
    index: list[int]
    hidden: NotRequired[list[bool]]
    draw: NotRequired[list[int]]


class Batch(CompactBatch):
    """image (B,3,H,W); label, inst (B,H,W) int64; inst_id, inst_class (B,I) int64; edge, mask (B,1,H,W).

    `inst` is dense: 0..n-1 per picture, in ascending order of the original ids, which `inst_id` holds; an id below the
    data set's first instance (Cityscapes: 1000) is there the region's class.
    `inst_class` is the majority label of an instance's pixels (the lowest id on a tie); `edge` is 1 on both sides of a
    boundary between instances. `index` is the position in the data set; `hidden` says whether an instance of the
    picture is fully erased, where it is known without asking the device; `draw` seeds a method's own draws for a
    training sample: like all draws, they depend on the seed, the epoch and the index, not on the process that loads or
    trains it. `host` is the batch as it was before it was moved to a device, see `on_host`; `copied` tells when all of
    it is there, see `trainers.feed`.
    """

    edge: Tensor
    host: NotRequired[CompactBatch]
    copied: NotRequired[torch.cuda.Event]


@overload
def expand(compact: CompactSample) -> Sample: ...
@overload
def expand(compact: CompactBatch) -> Batch: ...
def expand(compact: Any) -> Any:
    """Return a sample or batch with its full maps, on its device; one that has them already as it is.

    The values are the same on every device, bit for bit.
    """
    if compact["image"].dtype != torch.uint8:
        return compact
    full = {
        **compact,
        "image": from_levels(compact["image"]),
        "label": compact["label"].long(),
        "inst": compact["inst"].long(),
        "mask": compact["mask"].float(),
    }
    if "edge" not in compact:
        # By way of bytes, as a CPU takes five times as long from booleans to floats
        full["edge"] = mark_edges(compact["inst"]).byte().unsqueeze(-3).float()
    return full


def collate(samples: Sequence[CompactSample]) -> CompactBatch:
    """Stack samples; instance lists are padded with -1 to the longest. Further tensor keys are stacked as they are."""
    batch: dict[str, Any] = {}
    longest = max((len(sample["inst_id"]) for sample in samples if "inst_id" in sample), default=0)
    for key in samples[0]:
        values = [sample[key] for sample in samples]  # type: ignore[literal-required]
        if key in ("inst_id", "inst_class"):
            padded = torch.full((len(values), longest), PAD, dtype=torch.int64)
            for row, value in zip(padded, values, strict=True):
                row[: len(value)] = value
            batch[key] = padded
        else:
            batch[key] = torch.stack(values) if isinstance(values[0], Tensor) else values
    return batch  # type: ignore[return-value]


def take(batch: CompactBatch, rows: list[int]) -> CompactBatch:
    """Return the pictures of some places of a batch that is not on a device yet."""
    if len(rows) == len(batch["name"]):
        return batch
    items: dict[str, Any] = dict(batch)
    return {k: v[rows] if isinstance(v, Tensor) else [v[row] for row in rows] for k, v in items.items()}  # type: ignore[return-value]


def to_device(batch: CompactBatch, device: torch.device) -> Batch:
    """Move every tensor of the batch, then make its full maps there.

    To a GPU while the host goes on, to the CPU so that it can be read at once.
    """
    ahead = device.type != "cpu"
    moved: Any = {k: v.to(device, non_blocking=ahead) if isinstance(v, Tensor) else v for k, v in batch.items()}
    if ahead and batch["image"].device.type == "cpu":
        moved["host"] = batch
    return expand(moved)  # type: ignore[no-any-return]


def on_host(batch: CompactBatch) -> Batch:
    """Return the batch on the CPU, without waiting for the device where it came from there (`to_device`)."""
    known: Any = batch
    if "host" not in known:
        return to_device(batch, torch.device("cpu"))
    known["host"] = expand(known["host"])  # once, and only for a method that asks
    return known["host"]  # type: ignore[no-any-return]


def one_hot(label: Tensor, label_nc: int, ignore_label: int | None = None) -> Tensor:
    """Return (B, label_nc, H, W) float32 of ids (B, H, W); pixels of `ignore_label` are zero in every channel."""
    keep = torch.ones_like(label, dtype=torch.bool) if ignore_label is None else label != ignore_label
    ids = torch.where(keep, label, torch.zeros_like(label))
    seg = label.new_zeros((label.shape[0], label_nc, *label.shape[1:]), dtype=torch.float32)
    return seg.scatter_(1, ids[:, None], keep[:, None].to(seg.dtype))
