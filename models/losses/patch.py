"""SemIA's patch coherence loss: every patch of the result should exist in the source picture.

A few patches of the result's VGG features are drawn; each is compared with all patches of the source's features (mean
absolute difference), and its value is the mean over the five nearest. With classes, the source patches are only those
whose centre has the class of the target patch's centre. The search has no gradient; the five distances have.

Shapes: maps (1, C, H, W), classes (H, W) int64 of the full-size layout, D = C * size^2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.losses.perceptual import build_features, load_features
from util.device import send

NEAREST = 5
LAST_LAYER = 6  # ReLU 2_1 in torchvision's `features`; the first tap is ReLU 1_1
CHUNK_BYTES, CACHE_BYTES = 2**25, 2**28  # of patches in one comparison; of patches kept from step to step


@dataclass(frozen=True)
class Scale:
    """Patches of `size` pixels a side on one feature map, `picks` of them drawn; `stride` of the map in the picture."""

    size: int
    picks: int
    stride: int


SCALES = (Scale(3, 10, 1), Scale(1, 5, 2))
Corners = Sequence[Sequence[tuple[int, int]]]  # (row, column) of the drawn patches, by scale


class PatchFeatures(nn.Module):
    """VGG's ReLU 1_1 and 2_1 of pictures in [-1, 1], fed as they are (released); frozen."""

    def __init__(self, *, arch: str = "vgg19", weights: str | None = None) -> None:
        super().__init__()
        self.layers = build_features(arch)[: LAST_LAYER + 1]
        load_features(self.layers, arch, weights, without="--lambda_patch 0")
        self.requires_grad_(False)

    def forward(self, picture: Tensor) -> list[Tensor]:
        first = self.layers[:2](picture)
        return [first, self.layers[2:](first)]

    def patches(self, picture: Tensor, corners: Corners) -> list[Tensor]:
        """Return the maps' patches (n, C, size, size) at some corners, computed from what these see of a picture.

        Args:
            picture: (1, 3, H, W) of even sides.
            corners: on each scale's map.
        """
        found = []
        for scale, own in zip(SCALES, corners, strict=True):
            seen, inside = _seen(picture, own, scale, reach=1 if scale.stride == 1 else 4)
            for layer in self.layers[: 2 if scale.stride == 1 else None]:
                if isinstance(layer, nn.MaxPool2d):
                    seen, inside = layer(seen), inside[..., ::2, ::2]
                elif isinstance(layer, nn.Conv2d):
                    seen, inside = F.conv2d(seen, layer.weight, layer.bias), inside[..., 1:-1, 1:-1]
                else:
                    seen = layer(seen) * inside  # zeros beyond the border, as every layer is padded
            found.append(seen)
        return found


def _seen(picture: Tensor, corners: Sequence[tuple[int, int]], scale: Scale, *, reach: int) -> tuple[Tensor, Tensor]:
    """Return what patches see of a picture, (n, 3, s, s) with zeros beyond its border, and where that is within it."""
    first = torch.tensor(corners) * scale.stride - reach
    steps = torch.arange(scale.stride * (scale.size - 1) + 2 * reach + scale.stride)
    places = first[:, :, None] + steps  # (n, 2, s)
    sides = torch.tensor(picture.shape[2:])[:, None]
    within = (places >= 0) & (places < sides)
    places = send(places.clamp(min=0).minimum(sides - 1), picture.device)
    inside = send((within[:, 0, :, None] & within[:, 1, None]).to(picture.dtype)[:, None], picture.device)
    return picture[0][:, places[:, 0, :, None], places[:, 1, None]].transpose(0, 1) * inside, inside


class PatchBank:
    """The patches of one source feature map, found by class.

    Candidates have corners in rows 0..H-size-1 and columns 0..W-size-1, without the last ones, as released.
    """

    def __init__(self, source: Tensor, classes: Tensor | None, scale: Scale) -> None:
        self.scale = scale
        channels, height, width = source.shape[1:]
        self.pixels = source[0].detach().permute(1, 2, 0).reshape(-1, channels).contiguous()
        rows, columns = (torch.arange(size - scale.size) for size in (height, width))
        self.corners = (rows[:, None] * width + columns).flatten()
        steps = torch.arange(scale.size)
        self.offsets = send((steps[:, None] * width + steps).flatten(), source.device)
        self.classes = None if classes is None else _centres(classes, scale)[rows[:, None], columns].flatten()
        self.dim = channels * scale.size**2
        self.rows = max(1, CHUNK_BYTES // (4 * self.dim))
        self._keep = 4 * self.dim * len(self.corners) <= CACHE_BYTES
        self._chunks: dict[int | None, list[Tensor]] = {}
        self._known: dict[int | None, Tensor] = {}

    def candidates(self, label: int | None) -> Tensor:
        """Return the corners (flat indices) of the patches of a class; of all classes if it has fewer than five."""
        if label not in self._known:
            corners = self.corners
            if self.classes is not None and label is not None:
                of_class = self.corners[self.classes == label]
                corners = of_class if len(of_class) >= NEAREST else corners
            self._known[label] = send(corners, self.pixels.device)
        return self._known[label]

    def patches(self, corners: Tensor) -> Tensor:
        """Return the patches (n, D) at flat corners (n,)."""
        return self.pixels[corners[:, None] + self.offsets].flatten(1)

    def chunks(self, label: int | None) -> Iterator[Tensor]:
        """Yield the candidates of a class, a bounded number at a time."""
        if label in self._chunks:
            yield from self._chunks[label]
            return
        made = []
        for corners in self.candidates(label).split(self.rows):
            patches = self.patches(corners)
            yield patches
            if self._keep:
                made.append(patches)
        if self._keep:
            self._chunks[label] = made

    @torch.no_grad()
    def nearest(self, targets: Tensor, label: int | None) -> Tensor:
        """Return the five nearest patches (n, 5, D) of targets (n, D)."""
        best = targets.new_full((len(targets), 0), 0)
        where = torch.zeros(len(targets), 0, dtype=torch.int64, device=targets.device)
        start = 0
        for patches in self.chunks(label):
            distance = torch.cdist(targets, patches, p=1)
            value, index = distance.topk(min(NEAREST, distance.shape[1]), dim=1, largest=False)
            best, where = torch.cat([best, value], 1), torch.cat([where, index + start], 1)
            start += len(patches)
        order = best.topk(NEAREST, dim=1, largest=False).indices
        corners = self.candidates(label)[where.gather(1, order)]
        return self.patches(corners.flatten()).unflatten(0, corners.shape)


def _centres(classes: Tensor, scale: Scale) -> Tensor:
    """Return for each corner the class at the patch's centre; map pixels lie at every `stride`-th picture pixel."""
    layout = classes[:: scale.stride, :: scale.stride]
    middle = scale.size // 2
    return layout[middle:, middle:]


class PatchLoss(nn.Module):
    """See the module.

    Args:
        features: pictures to maps, one for each of `SCALES`, and to these maps' patches.
        semantic: compare within classes; off: as released.
    """

    def __init__(self, *, features: PatchFeatures, semantic: bool) -> None:
        super().__init__()
        self.features, self.semantic = features, semantic

    @torch.no_grad()
    def banks(self, source: Tensor, classes: Tensor) -> list[PatchBank]:
        """Return the source picture's patches, for as many results as are to be compared with them.

        Classes are best on the CPU, here and in `forward`: they decide there which patches are compared.
        """
        known = classes if self.semantic else None
        return [PatchBank(m, known, scale) for m, scale in zip(self.features(source), SCALES, strict=True)]

    def draw(self, size: tuple[int, int]) -> Corners:
        """Draw corners (row, column) for each scale; `size` is the picture's."""
        corners = []
        for scale in SCALES:
            highest = [side // scale.stride - scale.size + 1 for side in size]
            rows, columns = (torch.randint(high, (scale.picks,)).tolist() for high in highest)
            corners.append(list(zip(rows, columns, strict=True)))
        return corners

    def forward(
        self, fake: Tensor, banks: Sequence[PatchBank], classes: Tensor, corners: Corners | None = None
    ) -> Tensor:
        """Return the mean over the drawn patches.

        Args:
            fake: (1, 3, H, W), with gradient.
            classes: layout that `fake` follows.
            corners: instead of a draw, for tests.
        """
        drawn = self.draw((fake.shape[2], fake.shape[3])) if corners is None else corners
        values = []
        for patches, bank, picks in zip(self.features.patches(fake, drawn), banks, drawn, strict=True):
            centre = _centres(classes, bank.scale) if self.semantic else None
            cut = patches.permute(0, 2, 3, 1).flatten(1)
            labels = [None if centre is None else int(centre[r, c]) for r, c in picks]
            for label in dict.fromkeys(labels):
                members = [i for i, known in enumerate(labels) if known == label]
                targets = torch.stack([cut[i] for i in members])  # a list as an index would be copied to the device
                values.append((targets[:, None] - bank.nearest(targets.detach(), label)).abs().mean((1, 2)))
        return torch.cat(values).mean()
