"""Segmentation networks by name, for mIoU and pixel accuracy: `--segmenter SPEC [--segmenter_weights FILE]`.

SPEC is `espnet_camvid` or `espnet_cityscapes` (released weights), `streets` (ships with this repository), the name
of a run of `scripts/train_segmenter.py` below --checkpoints_dir, `hf:<id or folder>` or `export:<file>`
(metrics/segments/external.py). Shapes: B pictures, H x W pixels, C classes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from metrics.declaration import Flag
from metrics.segments.espnet import ESPNet
from metrics.segments.external import load_external
from metrics.segments.released import ESPNETS
from metrics.segments.segmenter import Segmenter
from metrics.segments.unet import build_segmenter_net
from util.errors import UserError
from util.opt import Opt
from util.registry import did_you_mean
from util.sealed import load_tensors
from util.text_files import load_yaml
from util.weight_files import file_hash, load_exactly, read_weights

WEIGHTS_FILE, CARD_FILE = "segmenter.safetensors", "segmenter.yaml"
BUILT_IN = {"streets": Path(__file__).parent / "weights" / "streets"}
_NAMED = "a run of train_segmenter.py, espnet_camvid, espnet_cityscapes, streets, hf:ID or export:FILE"
LOADING_FLAGS = (  # what `read_segmenter` reads
    Flag("segmenter", {"help": f"network that tells classes: {_NAMED}"}),
    Flag("segmenter_weights", {"metavar": "FILE", "help": "weights of the ESPNet segmenters"}),
    Flag("segmenter_classes", {"metavar": "FILE", "help": "class map of an hf: or export: segmenter"}),
    Flag("trust", {"metavar": "SHA256", "help": "hash of a trusted export: segmenter, which can run any code"}),
)


def read_segmenter(opt: Opt, device: torch.device) -> Segmenter:
    """Load the network that the segmenter's flags name."""
    return load_segmenter(
        opt.segmenter, weights=opt.segmenter_weights, checkpoints_dir=opt.checkpoints_dir, device=device,
        classes=opt.segmenter_classes, trust=opt.trust,
    )  # fmt: skip


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
        weights: --segmenter_weights; needed for the released networks, else the run's own file.
        classes: --segmenter_classes, the class map of an `hf:` or `export:` network.
        trust: --trust, the SHA-256 of an `export:` file.

    Raises:
        UserError: unknown name, a missing file, or one that does not fit.
    """
    if spec.startswith(("hf:", "export:")):
        return load_external(spec, classes=classes, trust=trust, device=device)
    if spec in ESPNETS:
        return _load_released(spec, weights, device)
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
    """Return whether a run may not have this name, because `load_segmenter` would load something else."""
    return name in ESPNETS or (name in BUILT_IN and folder.resolve() != BUILT_IN[name].resolve())


def _load_released(spec: str, weights: str | None, device: torch.device) -> Segmenter:
    released = ESPNETS[spec]
    needed = f"{released.url} (sha256 {released.sha256[:16]}...)"
    if not weights:
        raise UserError(f"--segmenter {spec} needs a file. Fetch {needed} and name it with --segmenter_weights FILE.")
    state = read_weights(weights, flag="--segmenter_weights", needed=needed)
    net = ESPNet(**released.net)
    load_exactly(net, state, source=weights)
    sha256 = file_hash(Path(weights))
    return Segmenter(
        name=spec,
        net=net.eval().requires_grad_(False).to(device),
        class_names=released.classes,
        short_side=released.short_side,
        weights=Path(weights).name,
        sha256=sha256,
        device=device,
        void=len(released.classes) - 1,
        notes={"released_file": sha256 == released.sha256},
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
