"""Write the built-in example of SemIA: `python scripts/prepare_analogy.py --output datasets/lake`.

The folder holds img.png, label.png and two target layouts in cond/, for `train.py --model semia --dataset_mode
single_image --dataroot datasets/lake`; in edit/ a layout without the lake and a mask, for edit.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from data.prepare.single_image_example import COLOURS, LAYOUTS, draw_layout, draw_picture, without_lake
from data.prepare.writing import claim_output, save_picture
from options.parser import script_parser
from util.errors import EXIT_OK, UserError, run_main
from util.flags import numpy_seed

SMALLEST = 32  # pixels, of what SemIA takes


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--height", type=int, default=64, help="pixels; the width is 3/2 of it")
    parser.add_argument("--seed", type=numpy_seed, default=0, help="of the textures")
    opt = parser.parse_args(argv)
    if opt.height < SMALLEST:
        raise UserError(f"--height {opt.height} is less than {SMALLEST}")
    claim_output(opt.output, "prepare_analogy.py", {"height": opt.height, "seed": opt.seed})
    size = opt.height, round(1.5 * opt.height)
    save_picture(opt.output / "img.png", draw_picture(draw_layout(LAYOUTS["label"], *size), opt.seed))
    for name, lake in LAYOUTS.items():
        layout = COLOURS[draw_layout(lake, *size)]
        place = opt.output if name == "label" else opt.output / "cond"
        save_picture(place / f"{name}.png", layout)
    edited, mask = without_lake(draw_layout(LAYOUTS["label"], *size))
    save_picture(opt.output / "edit" / "no_lake.png", COLOURS[edited])
    save_picture(opt.output / "edit" / "mask.png", mask)
    print(f"{opt.output}: img.png, label.png, {len(LAYOUTS) - 1} target layouts in cond/, an edit in edit/")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
