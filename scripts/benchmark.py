"""Measure the speed of this code, beside other tools or beside plain forms of its layers that do the same.

    python scripts/benchmark.py metrics --real DIR --fake DIR [--num_images 500] [--repeats 3] [--json FILE]
    python scripts/benchmark.py infer|train|memory [--size 256] [--ngf 32] [--batch_size 1] [--json FILE]
    python scripts/benchmark.py grid [--device cuda] [--size 256] [--ngf 32] [--repeats 3] [--json FILE]
    python scripts/benchmark.py scaling [--size 256] [--plot FILE]
    python scripts/benchmark.py style [--size 256] [--batch_size 1]
    python scripts/benchmark.py data [--dataroot DIR] [--size 256]
    python scripts/benchmark.py semia [--height 184 --width 280]

`metrics`: the FID of two folders by pytorch-fid, torch-fidelity (if installed) and scripts/evaluate.py.
`infer`, `train`: fills and training steps of SPMPGAN and DivSem; `memory`: the most memory of each.
`grid`: pictures a second and memory of DivSem's training by precision, compilation and batch size.
`scaling`: what a picture costs DivSem against instances, classes, size, batch and processes, with a plot.
`style`: means of maps over instances. `data`: samples of a training split, or of street scenes.
`semia`: SemIA's patch loss and whole iteration.

Forms take turns in one run, and the JSON has each one's figures and their ratio by row. Each file of
scripts/benchmarks says what its plain form is; the tests show that ours equals it. `--against none` times ours alone.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from options.parser import script_parser
from util.compiling import MODES, NOT
from util.errors import UserError, run_main
from util.files import require_writable
from util.flags import positive_int

FILES = {  # of scripts/benchmarks, by command
    "metrics": "metrics", "infer": "cascade", "train": "cascade", "memory": "memory", "scaling": "scaling",
    "grid": "grid", "style": "style", "data": "data", "semia": "semia",
    "pytorch_fid": "metrics", "torch_fidelity": "metrics", "shared_step": "scaling",
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    own = "what to time; the last three are what metrics and scaling start by themselves"
    parser.add_argument("what", choices=tuple(FILES), help=own)
    parser.add_argument("--against", choices=("plain", "none"), default="plain",
                        help="time plain forms, or other tools, in the same run; none: ours alone")  # fmt: skip
    parser.add_argument("--size", type=positive_int, default=256, help="side of pictures; of networks a multiple of 64")
    parser.add_argument("--repeats", type=int, default=1, help="the least of so many is told")
    parser.add_argument("--batch_size", type=positive_int, help="default: 16 for metrics, 1 for the others")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the networks run")
    parser.add_argument("--json", metavar="FILE", help="write all figures here")
    group = parser.add_argument_group("metrics")
    group.add_argument("--real", metavar="DIR", help="real pictures; default: made here")
    group.add_argument("--fake", metavar="DIR", help="generated pictures")
    group.add_argument("--num_images", type=int, default=500, help="pictures of each folder; data: samples")
    group.add_argument("--num_workers", type=int, default=2, help="decoding processes")
    group.add_argument("--inception_weights", metavar="FILE", help="weights of FID's network")
    group = parser.add_argument_group("infer, train, memory, scaling")
    group.add_argument("--ngf", type=int, default=32, help="base width of the generator")
    group.add_argument(
        "--precision", choices=("fp32", "tf32", "bf16"), default="fp32", help="precision of the networks, as train.py's"
    )
    group.add_argument("--compile", choices=MODES, default=NOT, help="train, memory: as train.py's")
    group.add_argument("--channels_last", action=argparse.BooleanOptionalAction, help="train, memory: as train.py's")
    group.add_argument("--plot", metavar="FILE", help="scaling: draw it as a PNG")
    group = parser.add_argument_group("data")
    group.add_argument("--dataroot", metavar="DIR", help="a folder with a classes.json; default: street scenes")
    group = parser.add_argument_group("semia")
    group.add_argument("--height", type=int, default=184, help="rows of the picture")
    group.add_argument("--width", type=int, default=280, help="columns of the picture")
    group.add_argument("--patch_loss", choices=("semantic", "released"), default="released",
                       help="patch loss of the iteration, as train.py's")  # fmt: skip
    group.add_argument("--semantic_alignment", choices=("paper", "released"), default="released",
                       help="semantic alignment of the iteration, as train.py's")  # fmt: skip
    group.add_argument("--loss_only", action="store_true", help="no iterations: the plain one takes a minute")
    group.add_argument("--vgg_weights", metavar="FILE", help="VGG-19; default: random weights, at the same cost")
    opt = parser.parse_args(argv)
    if opt.repeats < 1:
        raise UserError(f"--repeats {opt.repeats}: must be at least 1")
    if opt.json:
        if not Path(opt.json).parent.is_dir():
            raise UserError(f"--json {opt.json}: its folder does not exist")
        require_writable(Path(opt.json).parent, "--json")
    opt.batch_size = opt.batch_size or (16 if FILES[opt.what] == "metrics" else 1)
    # Late, as the time of other tools includes what is imported here
    import_module(f".benchmarks.{FILES[opt.what]}", __package__ or "scripts").main(opt)
    return 0


if __name__ == "__main__":
    run_main(main)
