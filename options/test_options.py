"""Flags of test.py. The architecture and the data set come from the run's opt.yaml."""

from __future__ import annotations

from options.base_options import add_deterministic_flag
from options.parser import StrictParser
from options.run_options import RunOptions
from testing.flow import FLOWS
from util.opt import Opt


class TestOptions(RunOptions):
    """Options of test.py."""

    __test__ = False  # no test case, whatever its name
    takes_styles = True
    description = "Generate a split with a trained run, evaluate it, and save pictures, a grid and a line of numbers."

    def add_flags(self, parser: StrictParser) -> None:
        super().add_flags(parser)
        add_deterministic_flag(parser)
        FLOWS.get(self.model.flow).add_flags(parser)

    def validate(self, opt: Opt) -> None:
        super().validate(opt)
        FLOWS.get(self.model.flow).validate(opt)
