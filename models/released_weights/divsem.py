"""Keys of the SPMPGAN and DivSem releases <-> ours; the tests compare the mapping with the full tables of both.

Generator: released `G1.dec6.gated_conv2d.mlp_gamma_ctx_beta.weight` is our `stages.0.dec6.spm.ctx_beta_scale.weight`.
Discriminators: `dis_model.0.conv.weight_orig` of `netD_1` is `scales.0.layers.0.weight_orig` of our one `netD`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from models.released_weights.conversion import of_judge, swap_first, swap_last
from util.errors import UserError

BLOCK_NAMES = {  # inside an SPM block: ours -> released
    "conv": "conv2d",
    "feat_hidden": "mlp_shared.0",
    "feat_gamma": "mlp_gamma",
    "feat_beta": "mlp_beta",
    "ctx_hidden": "mlp_shared_2.0",
    "ctx_gamma_scale": "mlp_gamma_ctx_gamma",
    "ctx_gamma_shift": "mlp_beta_ctx_gamma",
    "ctx_beta_scale": "mlp_gamma_ctx_beta",
    "ctx_beta_shift": "mlp_beta_ctx_beta",
}


def released_block_key(key: str) -> str:
    """Map a key inside an SPM encoder or decoder layer (`spm.conv.bias`) to the released one."""
    path, name, tensor = re.fullmatch(r"(spm\.)?(\w+)\.(\w+)", key).groups()  # type: ignore[union-attr]
    return f"{'gated_conv2d.' if path else ''}{BLOCK_NAMES[name]}.{tensor}"


def released_generator_key(key: str) -> str:
    """Map a key of our `netG` to the released `netG`."""
    if key.startswith("style_encoder."):
        key = key.replace("style_encoder.", "zencoder.")
        return key.replace("dec1.weight", "dec1.conv.weight")
    stage, layer, rest = re.fullmatch(r"stages\.(\d)\.(\w+)\.(.+)", key).groups()  # type: ignore[union-attr]
    inner = "conv.weight" if layer == "dec1" else released_block_key(rest)
    return f"G{int(stage) + 1}.{layer}.{inner}"


def released_discriminator_key(key: str) -> tuple[str, str]:
    """Map a key of our `netD` to the released checkpoint entry and its key: ("netD_1", "dis_model.0.conv...")."""
    scale, layer, tensor = re.fullmatch(r"scales\.(\d)\.layers\.(\d)\.(\w+)", key).groups()  # type: ignore[union-attr]
    return f"netD_{int(scale) + 1}", f"dis_model.{layer}.conv.{tensor}"


# --- colours: the release works in BGR, we in RGB ---
PICTURE_INPUTS = re.compile(r"G[123]\.enc1\.(conv2d|mlp_shared\.0)\.weight")
PICTURE_OUTPUTS = re.compile(r"G[123]\.dec1\.conv\.weight")
ENCODER_INPUT = "zencoder.enc1.conv.weight"  # three colours and the validity
JUDGED_PICTURE = re.compile(r"dis_model\.0\.conv\.weight_(?:orig|v)")  # labels, then three colours


def to_rgb(key: str, value: Tensor) -> Tensor:
    """Reverse the colour channels of a released tensor (or of Adam's moments of it); others are returned as they are.

    A discriminator's three output channels are not colours.
    """
    if PICTURE_INPUTS.fullmatch(key):
        return value.flip(1)
    if PICTURE_OUTPUTS.fullmatch(key):
        return value.flip(0)
    if key == ENCODER_INPUT:
        return swap_first(value)
    if JUDGED_PICTURE.fullmatch(key):
        return of_judge(swap_last, value)
    return value


# --- what a checkpoint says of its networks ---
@dataclass(frozen=True)
class Architecture:
    """Widths of a released generator, from its tensors; `style_dim` and `nef` are 0 for SPMPGAN."""

    label_nc: int
    ngf: int
    hidden: int
    style_dim: int
    nef: int


def read_architecture(netG: Mapping[str, Tensor]) -> Architecture:
    """Return the widths of a released `netG`; raises `UserError` if its first layers are not there."""
    try:
        seen, wanted = netG["G1.enc1.mlp_shared_2.0.weight"], netG["G1.dec2.gated_conv2d.mlp_shared_2.0.weight"]
        ngf = netG["G1.enc1.conv2d.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"no SPMPGAN or DivSem generator: {error} is missing") from error
    nef = netG[ENCODER_INPUT].shape[0] if ENCODER_INPUT in netG else 0
    return Architecture(seen.shape[1] - 2, ngf, seen.shape[0], wanted.shape[1] - seen.shape[1], nef)
