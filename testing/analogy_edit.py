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
from util.images import read_image, save_png, to_uint8
from util.opt import Opt

NOT_HERE = (*CHANGES, *REFERENCE, "box", "add_from", "add_shape", "dilate", "extend_labels", "interpolate", "inst",
            "list_objects", "style_source", "style_code", "palette", "segmenter")  # fmt: skip


def edit(opt: Opt) -> int:
    """Make the edit that `opt` (of `EditOptions`) asks for; pixels outside the mask are unchanged.

    Raises:
        UserError: flags that this method does not take, files that do not fit the run or each other.
    """
    refuse(opt)
    renderer = Renderer(opt)
    dataset = renderer.dataset("train")
    image = read_image(opt.image)
    if image.shape != (*dataset.stored_size, 3) or not np.array_equal(image, read_image(dataset.image_path)):
        raise UserError(
            f"--image {opt.image} is not {dataset.image_path}, the one picture that run '{opt.name}' was trained "
            "on and knows how to render"
        )
    mask, notes = read_drawn_mask(Path(opt.mask), image.shape[:2], mask_rule(opt))
    for note in notes:
        print(f"note: {note}")
    if not mask.any():
        raise UserError(f"--mask {opt.mask} is empty, so there is nothing to generate (white: generate)")
    dataset.fit = padded  # instead of cropping, so that the border can be edited too
    dataset.targets, dataset.names = [Path(opt.label)], [Path(opt.label).stem]
    result = to_uint8(renderer.render(single_batch(dataset, 0)).image)
    height, width = dataset.image.shape[:2]
    result = result[:height, :width]
    if result.shape != image.shape:
        result = np.asarray(Image.fromarray(result).resize(image.shape[1::-1], Image.Resampling.LANCZOS))
    save_png(np.where(mask[..., None], result, image), opt.output)
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
