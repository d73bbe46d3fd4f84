"""Keys of the SIEDOB release <-> ours; the tests compare the mapping with the full tables of all nine networks.

Released `dec1.gated_conv2d.mask_conv2d.bias` of the background generator is our `unet.up.0.gate.bias`. The object
generators' keys begin with the name of a wrapper in the authors' checkpoints, and may have lost it in other files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from models.released_weights.conversion import of_judge, swap_first, swap_last
from util.errors import UserError

Modules = dict[str, str]  # convolutions: our path -> theirs


@dataclass(frozen=True)
class ReleasedNetwork:
    """One network of the release. Keys are meant without `prefix`.

    Args:
        entry: its name in the authors' checkpoint.
        modules: our convolutions -> theirs.
        colours: their convolutions that meet a picture -> what makes their weights RGB.
        prefix: of all keys in the authors' checkpoint.
    """

    entry: str
    modules: Modules
    colours: Mapping[str, Callable[[Tensor], Tensor]]
    prefix: str = ""

    def name(self, key: str) -> str:
        """Map a key of our state dict to the released one."""
        module, _, tensor = key.rpartition(".")
        return f"{self.modules[module]}.{tensor}"

    def to_rgb(self, key: str, value: Tensor) -> Tensor:
        """Reverse the colours of a released tensor, or of Adam's moments of it, where it meets a picture."""
        module, _, tensor = key.rpartition(".")
        if module in self.colours and tensor in ("weight", "weight_orig", "weight_v"):
            return self.colours[module](value)
        return value

    def unprefixed(self, released: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a released state dict without the wrapper's name, in its order; which may be missing already."""
        return {key.removeprefix(self.prefix): value for key, value in released.items()}


# --- blocks: ours -> theirs ---
def below(ours: str, theirs: str, block: Modules) -> Modules:
    """Return the convolutions of a block that lies at a path."""
    return {f"{ours}.{a}": f"{theirs}.{b}" for a, b in block.items()}


GATED = {"feature": "conv2d", "gate": "mask_conv2d"}
SPADE = {"shared": "mlp_shared.0", "gamma": "mlp_gamma", "beta": "mlp_beta"}
SASPM = {"code": "conv.conv", "conv": "stylelayer.conv_0", **below("spade", "stylelayer.spade", SPADE)}
RESIDUAL = {"conv1": "conv_block.2", "conv2": "conv_block.6", "shortcut": "shortcut"}
SSNM = {"conv1": "conv_0", "conv2": "conv_1"}
SSNM |= below("class_norm", "norm_0", SPADE) | below("style_norm", "norm_1", SPADE)
STYLE_ENCODER = {**{f"layers.{i}": f"model.{i}.conv" for i in range(5)}, "head": "model.6"}
JUDGE = {f"layers.{i}": f"dis_model.{i}.conv" for i in range(6)}


def unet(encoder: Sequence[Sequence[str]], decoder: Sequence[str], last: str) -> Modules:
    """Return a gated U-Net's convolutions, given the released names of its layers; without refining layers."""
    modules = {"unet.stem.conv": "init_conv.conv", "picture": "conv_img.conv", **below("unet.last", last, GATED)}
    for i, level in enumerate(encoder):
        for j, name in enumerate(level):
            modules |= below(f"unet.down.{i}.{j}", name, GATED)
    for k, name in enumerate(decoder):
        modules |= below(f"unet.up.{k}", f"{name}.gated_conv2d", GATED)
    return modules


# --- networks ---
STYLE_BLOCKS = {"0.blocks.0": "1_1", "0.blocks.1": "1_2", "1.blocks.0": "2_1", "1.blocks.1": "2_2", "2.blocks.0": "3"}
PAIRS = (("enc1", "enc2"), ("enc3", "enc4"), ("enc5", "enc6"), ("enc7", "enc8"))
BACKGROUND = unet(PAIRS, ("dec1", "dec2", "dec3", "dec4"), "dec5")
for number in range(3):
    BACKGROUND |= below(f"unet.refine.{number}", f"style{number + 1}", SASPM)
FUSION = unet(PAIRS[:3], ("dec2", "dec3", "dec4"), "dec5")
INPAINT_LEVELS = (("enc1",), ("enc2", "enc22"), ("enc3", "enc32"), ("enc4", "enc5", "enc6"))
INPAINTER = unet(INPAINT_LEVELS, ("dec2", "dec3", "dec4", "dec5"), "dec6")
for number, layer in enumerate(("dec22", "dec32", "dec43")):
    INPAINTER |= below(f"unet.refine.{number}", layer, GATED)
STYLE: Modules = {"content.0.conv": "init_conv.conv", "picture": "conv_img.conv"}
STYLE |= below("encoder", "enc_style", STYLE_ENCODER) | below("cycle_encoder", "cycle_style", STYLE_ENCODER)
for number in (1, 2, 3):
    STYLE |= below(f"content.{number}", f"enc{number}", {"conv": "conv"})
    STYLE |= below(f"styled.{number - 1}.narrow", f"conv{number}", RESIDUAL)
for number in (1, 2, 3, 4):
    STYLE |= below(f"content.{number + 3}", f"resblk{number}", RESIDUAL)
for place, layer in STYLE_BLOCKS.items():
    STYLE |= below(f"styled.{place}", f"spade{layer}", SSNM)


def swap_outputs(value: Tensor) -> Tensor:
    """Reverse the three outputs of a weight."""
    return value.flip(0)


FROM_PICTURE_TO_PICTURE = {"init_conv.conv": swap_first, "conv_img.conv": swap_outputs}
STYLE_COLOURS = dict.fromkeys(("enc_style.model.0.conv", "cycle_style.model.0.conv"), swap_first)
STYLE_COLOURS["conv_img.conv"] = swap_outputs  # its `init_conv` sees classes
PICTURE_FIRST = {"dis_model.0.conv": partial(of_judge, swap_first)}
PICTURE_LAST = {"dis_model.0.conv": partial(of_judge, swap_last)}

BACKGROUND_G = ReleasedNetwork("netG_BG", BACKGROUND, FROM_PICTURE_TO_PICTURE)
BACKGROUND_D = ReleasedNetwork("netD_BG", JUDGE, PICTURE_LAST)
BACKGROUND_PATCH = ReleasedNetwork("netD_patch", JUDGE, PICTURE_FIRST)
INPAINT_G = ReleasedNetwork("netG", INPAINTER, FROM_PICTURE_TO_PICTURE, prefix="fg_inpainting.")
INPAINT_D = ReleasedNetwork("netD_inp", JUDGE, PICTURE_FIRST)
STYLE_G = ReleasedNetwork("netG", STYLE, STYLE_COLOURS, prefix="fg_style.")
STYLE_D = ReleasedNetwork("netD_style", JUDGE, PICTURE_FIRST)
FUSION_G = ReleasedNetwork("netG_F", FUSION, FROM_PICTURE_TO_PICTURE)
FUSION_D = ReleasedNetwork("netD_F", JUDGE, PICTURE_FIRST)

CHECKPOINTS: dict[str, dict[str, tuple[ReleasedNetwork, str]]] = {
    "siedob_background": {
        "netG": (BACKGROUND_G, "optimizer_G_BG"),
        "netD": (BACKGROUND_D, "optimizer_D_bg"),
        "netP": (BACKGROUND_PATCH, "optimizer_D_patch"),
    },
    "siedob_inpaint": {"netG": (INPAINT_G, "optimizer_G"), "netD": (INPAINT_D, "optimizer_D_inp")},
    "siedob_style": {"netG": (STYLE_G, "optimizer_G"), "netD": (STYLE_D, "optimizer_D_style")},
    "siedob_fusion": {"netG": (FUSION_G, "optimizer_G_F"), "netD": (FUSION_D, "optimizer_D_F")},
}
"""What the authors' checkpoint of each of our methods holds: our network -> theirs, and its optimiser."""


# --- what a generator's tensors say ---
SIGNS = {  # a layer that the generator has, and what it sees beside labels or classes
    "siedob_background": ("enc8.", 5),
    "siedob_inpaint": ("enc32.", 5),
    "siedob_style": ("enc_style.", 0),
    "siedob_fusion": ("enc6.", 5),
}


@dataclass(frozen=True)
class Architecture:
    """Widths of a generator; `label_nc` is 0 for the fusion network, `style_dim` for all but the style generator."""

    ngf: int
    label_nc: int
    style_dim: int
    saspm: bool


def read_architecture(model: str, netG: Mapping[str, Tensor]) -> Architecture:
    """Return the widths of a released generator, its keys without prefix; raises `UserError` for another network."""
    layer, others = SIGNS[model]
    first = netG.get("init_conv.conv.weight")
    if first is None or not any(key.startswith(layer) for key in netG):
        raise UserError(f"--model {model}: the file's generator is none of that step")
    head = netG.get("enc_style.model.6.weight")
    saspm = any(key.startswith("style1.") for key in netG)
    return Architecture(first.shape[0], first.shape[1] - others, 0 if head is None else head.shape[0], saspm)
