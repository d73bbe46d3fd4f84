"""Write a built-in example of SemIA: `python scripts/prepare_analogy.py --output datasets/lake`.

The folder holds img.png, label.png and target layouts in cond/, for `train.py --model semia --dataset_mode
single_image --dataroot datasets/lake`; of the lake in edit/ a layout without it and a mask, for edit.py. `--example
face` is a face with its parts, `--example sketch` a bag whose layout is a line drawing of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from data.prepare.drawn_examples import EXAMPLES
from data.prepare.single_image_example import without_lake
from data.prepare.writing import claim_output, save_picture
from options.parser import script_parser
from util.errors import EXIT_OK, UserError, run_main
from util.flags import numpy_seed

SMALLEST = 32  # pixels, of what SemIA takes


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--example", choices=tuple(EXAMPLES), default="lake", help="what is drawn")
    parser.add_argument("--height", type=int, default=64, help="pixels; the lake's width is 3/2 of it")
    parser.add_argument("--seed", type=numpy_seed, default=0, help="seed of the textures")
    opt = parser.parse_args(argv)
    if opt.height < SMALLEST:
        raise UserError(f"--height {opt.height} is less than {SMALLEST}")
    example, size = EXAMPLES[opt.example], {"height": opt.height, "seed": opt.seed}
    named = {} if opt.example == "lake" else {"example": opt.example}  # which earlier folders do not name
    claim_output(opt.output, "prepare_analogy.py", {**size, **named})
    regions = {name: draw(opt.height, round(example.ratio * opt.height)) for name, draw in example.regions.items()}
    save_picture(opt.output / "img.png", example.paint(regions["label"], opt.seed))
    for name, classes in regions.items():
        place = opt.output if name == "label" else opt.output / "cond"
        save_picture(place / f"{name}.png", example.show(classes))
    more = ""
    if opt.example == "lake":
        edited, mask = without_lake(regions["label"])
        save_picture(opt.output / "edit" / "no_lake.png", example.show(edited))
        save_picture(opt.output / "edit" / "mask.png", mask)
        more = ", an edit in edit/"
    print(f"{opt.output}: img.png, label.png, {len(regions) - 1} target layouts in cond/{more}")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
