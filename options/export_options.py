"""Flags of scripts/export.py."""

from __future__ import annotations

from options.parser import StrictParser
from options.run_options import RunOptions
from util.errors import UserError
from util.opt import Opt
from util.shared_flags import add_shared

GRAPHS = ("pt2", "onnx")


class ExportOptions(RunOptions):
    """Options of scripts/export.py."""

    takes_styles = True
    description = "Make a folder to share of a trained run: weights, options, classes, styles, results, model card."

    def add_flags(self, parser: StrictParser) -> None:
        """Add the flags of the export to those of a run."""
        super().add_flags(parser)
        group = parser.add_argument_group("export")
        add_shared(group, "output", help="a new folder")
        group.add_argument("--half", action="store_true", help="store weights and styles as float16: half the size")
        graphs = "also the generator as a graph: pt2 (torch.export) or onnx (requirements-onnx.txt)"
        group.add_argument("--graph", choices=GRAPHS, nargs="+", default=[], help=graphs)
        group.add_argument("--push_to_hub", metavar="OWNER/NAME", help="upload the folder to the Hugging Face hub")

    def validate(self, opt: Opt) -> None:
        """Raise `UserError` without --output, and for methods that edit one picture."""
        super().validate(opt)
        if not opt.output:
            raise UserError("--output is missing: which folder is to be made?")
        if self.model.flow == "analogy":
            raise UserError(f"--name {opt.name}: a run of {opt.model} is of one picture; share its folder as it is")
