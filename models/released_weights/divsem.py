"""Keys of the SPMPGAN and DivSem releases <-> ours; the tests compare the mapping with the full tables of both.

Generator: released `G1.dec6.gated_conv2d.mlp_gamma_ctx_beta.weight` is our `stages.0.dec6.spm.ctx_beta_scale.weight`.
Discriminators: `dis_model.0.conv.weight_orig` of `netD_1` is `scales.0.layers.0.weight_orig` of our one `netD`.
VGG: `slice4.14.weight` is `features.14.weight`.
"""

from __future__ import annotations

import re

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
VGG_SLICE_ENDS = (1, 6, 11, 20, 29)  # last index of slice1..slice5 in VGG-19's `features`


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


def released_vgg_key(key: str) -> str:
    """Map `N.weight` of the perceptual loss's features to the released slice."""
    index = int(key.split(".")[0])
    number = next(i for i, end in enumerate(VGG_SLICE_ENDS, start=1) if index <= end)
    return f"slice{number}.{key}"
