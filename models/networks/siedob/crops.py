"""Objects of a batch: finding them, cutting them out and pasting them back (SIEDOB's `fusion/dataset.py`).

Shapes: B pictures, H x W pixels, I instances of a picture (padded), N objects of the whole batch, S pixels of a crop.
Objects of all pictures are in one list, so their number is not limited. That number, and so the shapes here, depend on
the data: all geometry is computed on the CPU, from the loader's own maps, and a GPU is sent the indices of what it is
to gather. It is never waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from util.batch import PAD
from util.device import send
from util.object_rules import ObjectRule

MARGIN = 2  # pixels of a 256 picture around an object
Weighted = tuple[Tensor, Tensor]  # indices and the weights of what lies there


@dataclass
class Objects:
    """N objects, by picture, by class in the rules' order, those of partly visible instances first, then by id.

    Args:
        picture: (N,) their pictures in the batch.
        slot: (N,) their classes, as indices of the rules; label: (N,) the same as label ids.
        number: (N,) dense instance ids in their pictures.
        where: (N, H, W) booleans.
        box: (N, 4) int64: first row, last row + 1, first column, last column + 1, with a margin.

    All of them lie on the CPU; pictures that are cut and pasted may lie on any device.
    """

    picture: Tensor
    slot: Tensor
    label: Tensor
    number: Tensor
    where: Tensor
    box: Tensor

    def __len__(self) -> int:
        return len(self.picture)

    def union(self, count: int) -> Tensor:
        """Return where the pictures have an object, (count, 1, H, W) float32 in {0, 1}."""
        return self._joined(self.where, count)

    def covered(self, shapes: Tensor, count: int) -> Tensor:
        """Return where pasted shapes (N, 1, S, S) lie, (count, 1, H, W) float32 in {0, 1}.

        Shapes come back from the size of a crop, so that they miss some pixels of their objects and cover others.
        """
        return self._joined(self._covers(shapes[:, 0] > 0.5), count)

    def _joined(self, where: Tensor, count: int) -> Tensor:
        joined = torch.zeros(count, *where.shape[1:])
        return joined.index_add_(0, self.picture, where.float()).clamp_(max=1)[:, None]

    # --- cutting ---------------------------------------------------------------------------------------------------
    def crop(self, x: Tensor, size: int) -> Tensor:
        """Cut the boxes out of x (B, C, H, W) and resize them bilinearly to (N, C, size, size)."""
        rows, columns = (self._linear(self.box[:, k], self.box[:, k + 1], size) for k in (0, 2))
        return self._gather_linear(x, self.picture, rows, columns)

    def crop_nearest(self, x: Tensor, size: int) -> Tensor:
        """As `crop`, each pixel taken as it is."""
        steps = torch.arange(size)
        first, end = self.box[:, 0::2, None], self.box[:, 1::2, None]
        rows, columns = (send(at, x.device) for at in (first + steps * (end - first) // size).unbind(1))  # (N, size)
        picture = send(self.picture, x.device)
        return x[picture[:, None, None], :, rows[:, :, None], columns[:, None]].movedim(-1, 1)

    def crop_where(self, size: int) -> Tensor:
        """Return the objects' own shapes in their boxes, (N, 1, size, size) float32 in {0, 1}."""
        rows, columns = (self._linear(self.box[:, k], self.box[:, k + 1], size) for k in (0, 2))
        own = torch.arange(len(self))
        return (self._gather_linear(self.where.float()[:, None], own, rows, columns) > 0.5).float()

    # --- pasting ---------------------------------------------------------------------------------------------------
    def paste(self, crops: Tensor, shapes: Tensor, count: int, *, overlap: str = "overwrite") -> Tensor:
        """Put crops back into their boxes, on zeros.

        Args:
            crops: (N, C, S, S), resized bilinearly.
            shapes: (N, 1, S, S) in {0, 1} on the CPU, resized by nearest: what is pasted.
            count: number of pictures, B.
            overlap: "overwrite": a later object hides an earlier one; "sum": only within a class, and the classes'
                pictures are added (the release).

        Returns:
            (B, C, H, W).
        """
        height, width = self.where.shape[1:]
        canvas = torch.zeros(count, crops.shape[1], height, width, device=crops.device)
        if not len(self):
            return canvas
        covers = self._covers(shapes[:, 0] > 0.5)
        groups = [self.slot == slot for slot in self.slot.unique()] if overlap == "sum" else [self.slot >= 0]
        for group in groups:
            canvas = canvas + self._paste_last(crops, covers & group[:, None, None], count)
        return canvas

    def _covers(self, shapes: Tensor) -> Tensor:
        """Return where the shapes (N, S, S) lie in their pictures, (N, H, W)."""
        size, extent = shapes.shape[-1], self.where.shape[1:]
        inside, place = [], []
        for k, length in zip((0, 2), extent, strict=True):
            first, end = self.box[:, k, None], self.box[:, k + 1, None]
            offset = torch.arange(length) - first
            inside.append((offset >= 0) & (offset < end - first))
            scale = torch.full_like(end, size) / (end - first)  # in float32, as PyTorch's own nearest
            place.append((offset.float() * scale).floor().long().clamp(0, size - 1))
        own = torch.arange(len(self))[:, None, None]
        inside_shape = shapes[own, place[0][:, :, None], place[1][:, None]]
        return inside_shape & inside[0][:, :, None] & inside[1][:, None]

    def _paste_last(self, crops: Tensor, covers: Tensor, count: int) -> Tensor:
        """Paste so that at each pixel the last object that covers it is seen."""
        size, extent = crops.shape[-1], covers.shape[1:]
        order = torch.arange(1, len(self) + 1)
        owner = torch.zeros(count, *extent, dtype=torch.int64)
        place = self.picture[:, None, None].expand(-1, *extent)
        owner.scatter_reduce_(0, place, covers * order[:, None, None], "amax")
        picture, row, column = owner.nonzero(as_tuple=True)
        own = owner[picture, row, column] - 1
        rows, columns = (
            _sent(
                _weigh(
                    (at - self.box[own, k] + 0.5) * (size / (self.box[own, k + 1] - self.box[own, k]).float()) - 0.5,
                    size,
                ),
                crops.device,
            )
            for at, k in ((row, 0), (column, 2))
        )
        own, picture, row, column = (send(index, crops.device) for index in (own, picture, row, column))
        parts = [crops[own, :, r, c] * (wr * wc)[:, None] for r, wr in rows for c, wc in columns]
        values = torch.stack(parts).sum(0)  # (pixels, C)
        canvas = torch.zeros(count, *extent, crops.shape[1], device=crops.device, dtype=crops.dtype)
        return canvas.index_put((picture, row, column), values).movedim(-1, 1)

    @staticmethod
    def _linear(first: Tensor, end: Tensor, size: int) -> list[Weighted]:
        """Return the two neighbours' indices (N, size) with their weights, of a resize of [first, end) to `size`."""
        length = end - first
        steps = torch.arange(size)
        source = (steps + 0.5) * (length.float() / size)[:, None] - 0.5
        return [(first[:, None] + index, weight) for index, weight in _weigh(source, length[:, None])]

    @staticmethod
    def _gather_linear(x: Tensor, picture: Tensor, rows: list[Weighted], columns: list[Weighted]) -> Tensor:
        chosen = send(picture, x.device)[:, None, None]
        rows, columns = _sent(rows, x.device), _sent(columns, x.device)
        parts = [
            x[chosen, :, r[:, :, None], c[:, None]] * (wr[:, :, None] * wc[:, None])[..., None]
            for r, wr in rows
            for c, wc in columns
        ]
        return torch.stack(parts).sum(0).movedim(-1, 1)


def _sent(neighbours: list[Weighted], device: torch.device) -> list[Weighted]:
    """Return neighbours on a device."""
    return [(send(index, device), send(weight, device)) for index, weight in neighbours]


def _weigh(source: Tensor, length: Tensor | int) -> list[Weighted]:
    """Return lower and upper neighbour of positions, kept within [0, length), with their weights."""
    last = torch.as_tensor(length) - 1
    source = source.clamp(min=0).minimum(last.to(source.dtype))
    low = source.floor().long()
    weight = source - low
    return [(low, 1 - weight), ((low + 1).minimum(last), weight)]


def find_objects(
    label: Tensor,
    inst: Tensor,
    inst_id: Tensor,
    mask: Tensor,
    *,
    rules: Sequence[ObjectRule],
    min_erased: float = 0.0,
    any_aspect: bool = False,
) -> Objects:
    """Select the objects of a batch that a mask touches.

    An instance's class is the foreground class that most of its erased pixels are labelled with, the lowest on a tie;
    its object is all its pixels of that class. A region whose id is its class (stuff, groups) is not an instance.

    Args:
        label, inst: (B, H, W), see `util.batch.on_host`; inst_id: (B, I); mask: (B, 1, H, W).
        rules: foreground classes.
        min_erased: an object counts if more than this share of it is erased.
        any_aspect: leave the rules' aspects out.
    """
    candidates, chosen = _classes(label, inst, inst_id, mask, rules)
    picture, number = candidates.nonzero(as_tuple=True)
    labels = chosen[picture, number]
    own, erase = inst[picture] == number[:, None, None], mask[picture, 0] > 0.5
    where = own & (label[picture] == labels[:, None, None])
    area, erased = where.flatten(1).sum(1), (where & erase).flatten(1).sum(1)
    hidden = ~(own & ~erase).flatten(1).any(1)
    box, solid = _boxes(where)
    sizes = torch.stack([box[:, 1] - box[:, 0], box[:, 3] - box[:, 2], area], 1).tolist()
    by_label = {rule.label: (k, rule) for k, rule in enumerate(rules)}
    slots, fits = [], []
    for kind, (height, width, pixels) in zip(labels.tolist(), sizes, strict=True):
        place, rule = by_label[kind]
        rule = ObjectRule(kind, rule.fill) if any_aspect else rule
        slots.append(place)
        fits.append(rule.accepts(area=pixels, height=height, width=width))
    slot = torch.tensor(slots, dtype=torch.int64)
    keep = solid & torch.tensor(fits, dtype=torch.bool) & (erased > min_erased * area)
    order = ((picture * len(rules) + slot) * 2 + hidden) * inst_id.shape[1] + number
    kept = order[keep].argsort()
    return Objects(*(x[keep][kept] for x in (picture, slot, labels, number, where, box)))


def _classes(
    label: Tensor, inst: Tensor, inst_id: Tensor, mask: Tensor, rules: Sequence[ObjectRule]
) -> tuple[Tensor, Tensor]:
    """Return which instances (B, I) have erased foreground pixels, and the class of each."""
    count, instances = inst_id.shape
    if not rules:
        return torch.zeros_like(inst_id, dtype=torch.bool), inst_id
    foreground = torch.tensor(sorted(rule.label for rule in rules))
    seen = (label[..., None] == foreground) & (mask[:, 0] > 0.5)[..., None]  # (B, H, W, classes)
    picture, row, column, kind = seen.nonzero(as_tuple=True)
    own = picture * instances + inst[picture, row, column]
    votes = torch.bincount(own * len(foreground) + kind, minlength=count * instances * len(foreground))
    best, winner = votes.view(count, instances, len(foreground)).max(2)
    chosen = foreground[winner]
    return (best > 0) & (inst_id != PAD) & (inst_id != chosen), chosen


def _boxes(where: Tensor) -> tuple[Tensor, Tensor]:
    """Return the boxes (N, 4) with their margin, cut at the picture, and which objects are more than a line."""
    if not len(where):
        return torch.zeros(0, 4, dtype=torch.int64), where.new_zeros(0, dtype=torch.bool)
    sides: list[Tensor] = []
    solid = torch.ones(len(where), dtype=torch.bool)
    margin = max(1, round(MARGIN * where.shape[1] / 256))
    for axis, length in ((2, where.shape[1]), (1, where.shape[2])):
        line = where.any(axis).to(torch.uint8)
        first, final = line.argmax(1), length - 1 - line.flip(1).argmax(1)
        solid &= final > first
        # Differs from SIEDOB's `fusion/dataset.py`, whose limits let a box leave the picture at its last row
        sides += [(first - margin).clamp(min=0), (final + margin).clamp(max=length)]
    return torch.stack(sides, 1), solid
