"""Segmentation networks by name, for mIoU and pixel accuracy: `--segmenter SPEC [--segmenter_weights FILE]`.

SPEC is `espnet_camvid` or `espnet_cityscapes` (published weights), `streets` (ships with this repository), the name
of a run of `scripts/train_segmenter.py` below --checkpoints_dir, `hf:<id or folder>` or `export:<file>`
(metrics/external_segmenters.py). Shapes: B pictures, H x W pixels, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.espnet import ESPNet
from metrics.files import file_hash, load_exactly
from metrics.published import CITYSCAPES_CLASSES, CITYSCAPES_LABEL_IDS, ESPNETS
from metrics.segmenter_net import build_segmenter_net
from util.errors import UserError
from util.registry import did_you_mean
from util.sealed import load_tensors
from util.text_files import load_yaml

WEIGHTS_FILE, CARD_FILE = "segmenter.safetensors", "segmenter.yaml"
BUILT_IN = {"streets": Path(__file__).parent / "weights" / "streets"}
IGNORED = -1  # in a label table: the pixel is left out
CHUNK = 8  # pictures per forward pass


@dataclass(frozen=True)
class Segmenter:
    """A network with what it needs to know of its pictures.

    Args:
        name: as in `miou_<name>`.
        class_names: one per output channel.
        short_side: the pictures' short side in pixels that the network was trained at.
        weights, sha256: the file's name and hash.
        void: the output channel that is no class; it is never averaged.
        notes: what else a reader should know (accuracy on real test pictures, unpublished weights).
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
        return F.interpolate(logits, size=(h, w), mode="bilinear", align_corners=False).argmax(1)


def load_segmenter(
    spec: str,
    *,
    weights: str | None,
    checkpoints_dir: str,
    device: torch.device,
    classes: str | None = None,
    trust: str | None = None,
) -> Segmenter:
    """Load the segmenter called `spec` (see the module) in eval mode.

    Args:
        weights: --segmenter_weights; needed for the published networks, else the run's own file.
        classes: --segmenter_classes, the class map of an `hf:` or `export:` network.
        trust: --trust, the SHA-256 of an `export:` file.

    Raises:
        UserError: unknown name, a missing file, or one that does not fit.
    """
    if spec.startswith(("hf:", "export:")):
        from metrics.external_segmenters import load_external  # it makes Segmenters, and so imports this module

        return load_external(spec, classes=classes, trust=trust, device=device)
    if spec in ESPNETS:
        return _load_published(spec, weights, device)
    folder = BUILT_IN.get(spec, Path(checkpoints_dir) / spec)
    if not (folder / CARD_FILE).is_file():
        known = [*ESPNETS, *BUILT_IN, *_runs(Path(checkpoints_dir))]
        raise UserError(
            f"--segmenter '{spec}': no such segmenter, and {folder / CARD_FILE} does not exist."
            f"{did_you_mean(spec, known)} Known: {', '.join(known)}; "
            "`python scripts/train_segmenter.py --name RUN ...` makes one."
        )
    return load_trained(spec, folder, weights=Path(weights) if weights else folder / WEIGHTS_FILE, device=device)


def is_reserved(name: str, folder: Path) -> bool:
    """Tell whether a run of this name could not be named: `load_segmenter` gives something else for it."""
    return name in ESPNETS or (name in BUILT_IN and folder.resolve() != BUILT_IN[name].resolve())


def label_table(
    segmenter: Segmenter, *, label_nc: int, ignore_label: int | None, class_names: list[str] | None = None
) -> Tensor:
    """Return (label_nc,) int64: the segmenter's class of each label id of the data set, -1 where it has none.

    Cityscapes' 34 or 35 labelIds are mapped to the 19 evaluated classes, ADE20K's 1..150 to 0..149; a class map of
    the segmenter's own comes first; otherwise ids must mean the same.

    Raises:
        UserError: the data set's classes are not the segmenter's.
    """
    if segmenter.label_map is not None:
        table = torch.full((label_nc,), IGNORED)
        for label, found in segmenter.label_map.items():
            if not 0 <= label < label_nc or not 0 <= found < segmenter.num_classes:
                raise UserError(
                    f"--segmenter {segmenter.name}: its class map sends label {label} to class {found}; labels are "
                    f"0..{label_nc - 1}, classes 0..{segmenter.num_classes - 1}"
                )
            table[label] = found
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
    theirs = [_plain(name) for name in segmenter.class_names[:label_nc]]
    if fits and (not class_names or [_plain(name) for name in class_names] == theirs):
        return
    _refuse(segmenter, label_nc, class_names)


def _refuse(segmenter: Segmenter, label_nc: int, class_names: list[str] | None) -> NoReturn:
    raise UserError(
        f"--segmenter {segmenter.name} knows {segmenter.num_classes} classes ({', '.join(segmenter.class_names)}), the "
        f"data set has {label_nc}{f' ({chr(44).join(class_names)})' if class_names else ''}: their ids do not mean the "
        "same. Train one on this data set with scripts/train_segmenter.py, give an hf: or export: network a class map "
        "(--segmenter_classes), or leave --segmenter out."
    )


def _plain(name: str) -> str:
    """A class's first name, without regard to case: 'Building;edifice' is 'building'."""
    return name.replace(",", ";").split(";")[0].strip().lower()


def _load_published(spec: str, weights: str | None, device: torch.device) -> Segmenter:
    entry = ESPNETS[spec]
    if not weights or not Path(weights).is_file():
        problem = f"--segmenter_weights {weights}: no such file" if weights else f"--segmenter {spec} needs a file"
        raise UserError(
            f"{problem}. Fetch {entry.url} (sha256 {entry.sha256[:16]}...) and name it with --segmenter_weights FILE."
        )
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise UserError(f"--segmenter_weights {weights} cannot be read as a PyTorch file: {error}") from error
    net = ESPNet(**entry.net)
    load_exactly(net, state, source=weights)
    sha256 = file_hash(Path(weights))
    return Segmenter(
        name=spec,
        net=net.eval().requires_grad_(False).to(device),
        class_names=entry.classes,
        short_side=entry.short_side,
        weights=Path(weights).name,
        sha256=sha256,
        device=device,
        void=len(entry.classes) - 1,
        notes={"published_file": sha256 == entry.sha256},
    )


def load_trained(name: str, folder: Path, *, weights: Path, device: torch.device) -> Segmenter:
    """Load what `scripts/train_segmenter.py` wrote to `folder`; raises `UserError` for files that do not fit."""
    try:
        card = load_yaml(folder / CARD_FILE)
        classes = tuple(card["class_names"])
        net = build_segmenter_net(arch=card["arch"], width=card["width"], num_classes=len(classes))
        short_side, notes = int(card["short_side"]), dict(card["real_test"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / CARD_FILE} is not a segmenter's card: {error!r}; train it again") from error
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; train the segmenter again or name it with --segmenter_weights FILE")
    try:
        state = {key: value.float() for key, value in load_tensors(weights)[0].items()}  # stored in half precision
    except (OSError, ValueError) as error:
        raise UserError(f"{weights} cannot be read as a safetensors file: {error}") from error
    load_exactly(net, state, source=str(weights))
    return Segmenter(
        name=name,
        net=net.eval().requires_grad_(False).to(device),
        class_names=classes,
        short_side=short_side,
        weights=weights.name,
        sha256=file_hash(weights),
        device=device,
        notes={"when_trained": notes},
    )


def _runs(checkpoints_dir: Path) -> list[str]:
    return sorted(card.parent.name for card in checkpoints_dir.glob(f"*/{CARD_FILE}"))
