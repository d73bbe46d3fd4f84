"""Make a run of an authors' checkpoint: `python scripts/convert_weights.py --model divsem --source best.pth
--style_codes style_codes.pt --label_nc 151 --name divsem_flickr`.

The run folder holds opt.yaml, the weights in RGB as safetensors, and the style bank; test.py and edit.py use it like
any other. A whole SPMPGAN or SIEDOB checkpoint (discriminators, optimisers) also becomes one that train.py continues.
SemIA's generator needs its picture: --dataroot DIR (img.*, label.*) and --resize.
SIEDOB is converted in four steps; siedob_fusion takes the runs of the other three, siedob_style's with a style bank.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from models.released_weights import siedob
from options.base_options import add_run_folder_flags
from options.parser import StrictParser
from scripts.conversion_run import read_source
from scripts.convert_cascade import convert_cascade
from scripts.convert_s2prest import add_s2prest_flags, convert_s2prest
from scripts.convert_semia import convert_semia
from scripts.convert_siedob import INPUT_RUNS, convert_siedob
from util.errors import EXIT_OK, UserError, run_main
from util.flags import positive


def main(argv: list[str] | None = None) -> int:
    parser = StrictParser(description=__doc__.split(":")[0] if __doc__ else None)
    add_run_folder_flags(parser)
    choices = ("divsem", "spmpgan", "semia", "s2prest", *siedob.CHECKPOINTS)
    parser.add_argument("--model", choices=choices, required=True, help="what --source holds")
    parser.add_argument("--source", type=Path, metavar="FILE", required=True, help="the authors' checkpoint")
    parser.add_argument("--style_codes", type=Path, metavar="FILE", help="the authors' style_codes.pt (divsem)")
    parser.add_argument("--label_nc", type=int, help="number of classes; read from the file, checked if given")
    parser.add_argument("--dataset_mode", help="layout of the data to test on; default: the release's")
    parser.add_argument("--dataroot", help="folder of the data; may be given to test.py instead (semia needs it here)")
    parser.add_argument("--resize", type=positive, default=1.0, help="factor that semia's weights were trained with")
    for flag in INPUT_RUNS:
        parser.add_argument(f"--{flag}", metavar="RUN", help="converted run, by name or folder (siedob_fusion)")
    add_s2prest_flags(parser)
    args = parser.parse_args(argv)
    if not args.name:
        raise UserError("--name is missing: give the run a name")
    test = shlex.join(["python", "test.py", "--name", args.name, "--checkpoints_dir", str(args.checkpoints_dir)])
    if args.model == "s2prest":
        print(f"{args.source} -> {convert_s2prest(args)}")
        print(f"{test} --content FILE_OR_DIR")
        return EXIT_OK
    if args.style_codes and args.model != "divsem":
        raise UserError(f"--style_codes: --model {args.model} has no style codes")
    for flag in INPUT_RUNS:
        if getattr(args, flag) and args.model != "siedob_fusion":
            raise UserError(f"--{flag}: only --model siedob_fusion builds on other runs")
    not_for = ("label_nc", "dataset_mode") if args.model == "semia" else ("resize",)
    for flag in not_for:
        if getattr(args, flag) != parser.get_default(flag):
            raise UserError(f"--{flag}: --model {args.model} does not take it; leave it out")
    if args.model == "semia":
        folder = convert_semia(args, read_source(args.source))
    else:
        folder = convert_siedob(args) if args.model in siedob.CHECKPOINTS else convert_cascade(args)
    print(f"{args.source} -> {folder}")
    print(f"{test} --dataroot DIR")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
