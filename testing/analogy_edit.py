"""scripts/edit.py with a run of one picture (SemIA): rendered for the edited layout and pasted back under the mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from data.edit.masks import read_drawn_mask
from data.single_image import padded
from data.single_image_dataset import single_batch
from options.edit_options import CHANGES, REFERENCE, mask_rule
from testing.analogy_flow import Renderer
from util.errors import UserError
from util.images import PictureFile, read_image, save_png, to_uint8
from util.opt import Opt

NOT_HERE = (*CHANGES, *REFERENCE, "box", "add_from", "add_shape", "dilate", "extend_labels", "interpolate", "inst",
            "list_objects", "style_source", "style_code", "palette", "segmenter")  # fmt: skip


class LayoutEditor:
    """A run of one picture, ready to render it for edited layouts.

    Args:
        opt: of a command that takes a run.

    Attributes:
        image: the run's picture (H, W, 3) uint8, as stored.
        dataset: the picture with its layout and its classes.
    """

    def __init__(self, opt: Opt) -> None:
        self.renderer = Renderer(opt)
        self.dataset = self.renderer.dataset("train")
        self.dataset.fit = padded  # instead of cropping, so that the border can be edited too
        self.image = read_image(self.dataset.image_path)

    def edited(self, layout: PictureFile, mask: np.ndarray) -> np.ndarray:
        """Return the picture rendered for a layout where `mask` (H, W) is true; all other pixels are unchanged.

        Raises:
            DataError: a layout of another size, or with colours or ids that the run does not know.
        """
        self.dataset.targets, self.dataset.names = [layout], ["edited"]
        result = to_uint8(self.renderer.render(single_batch(self.dataset, 0)).image)
        height, width = self.dataset.image.shape[:2]
        result = result[:height, :width]
        if result.shape != self.image.shape:
            result = np.asarray(Image.fromarray(result).resize(self.image.shape[1::-1], Image.Resampling.LANCZOS))
        return np.where(mask[..., None], result, self.image)


def edit(opt: Opt) -> int:
    """Make the edit that `opt` (of `EditOptions`) asks for; pixels outside the mask are unchanged.

    Raises:
        UserError: flags that this method does not take, files that do not fit the run or each other.
    """
    refuse(opt)
    editor = LayoutEditor(opt)
    image = read_image(opt.image)
    if not np.array_equal(image, editor.image):
        raise UserError(
            f"--image {opt.image} is not {editor.dataset.image_path}, the one picture that run '{opt.name}' was "
            "trained on and knows how to render"
        )
    mask, notes = read_drawn_mask(Path(opt.mask), image.shape[:2], mask_rule(opt))
    for note in notes:
        print(f"note: {note}")
    if not mask.any():
        raise UserError(f"--mask {opt.mask} is empty, so there is nothing to generate (white: generate)")
    save_png(editor.edited(opt.label, mask), opt.output)
    print(f"{opt.image}: {100 * mask.mean():.1f} % generated\n  -> {opt.output}")
    return 0


def refuse(opt: Opt) -> None:
    """Raise `UserError` for flags of scene edits: here the edited layout alone defines the edit."""
    for name in NOT_HERE:
        if getattr(opt, name) not in (None, False):
            raise UserError(f"--{name}: --model {opt.model} takes an edited --label and a --mask only; edit the layout")
    if opt.num_samples > 1:
        raise UserError(f"--num_samples {opt.num_samples}: --model {opt.model} is deterministic; leave the flag out")
    for name in ("image", "label", "mask"):
        path = getattr(opt, name)
        if not Path(path).is_file():
            raise UserError(f"--{name} {path}: no such file (a run of --model {opt.model} edits its one picture)")
