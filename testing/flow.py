"""Kinds of test: what test.py does with a trained run, by `BaseModel.flow`.

A kind of test is a `Flow`: its flags, and the tests that a command line asks for. A `Test` measures one run and writes
what people look at; this module makes the result line, the table and the notes of all of them.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from metrics.flags import add_metric_flags, validate_metric_flags
from metrics.metric import MetricValue
from metrics.registry import METRICS
from metrics.reporting.result import format_table, result_line, write_result
from metrics.segments.segmentation import class_table
from testing.method_flags import method_flags
from trainers.distributed import Distributed
from util.errors import UserError
from util.files import require_writable, results_in
from util.opt import Opt
from util.registry import Registry


@dataclass(frozen=True)
class Measured:
    """The outcome of a test.

    Args:
        values: by name.
        notes: what is missing from these and why.
        step: optimiser steps of the weights.
        num_images: pictures that the values are of.
        protocol: what the numbers depend on apart from the metrics.
        kept: of `Evaluator.kept`: what the result's file holds beside the line.
    """

    values: Mapping[str, MetricValue]
    notes: Sequence[str]
    step: int
    num_images: int
    protocol: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(default_factory=dict)


class Test(ABC):
    """One run under test.

    Attributes:
        name: of the run.
        task: what its result line calls the test.
        folder: where results go.
        run_dir: the run's folder.
    """

    __test__ = False  # no test case, whatever its name
    name: str
    task: str
    folder: Path
    run_dir: Path

    @abstractmethod
    def measure(self) -> Measured:
        """Generate and measure, and save the pictures."""

    def assist(self) -> None:
        """Do this process's part of `measure` for the first one, which alone measures and writes."""
        raise NotImplementedError

    @abstractmethod
    def write(self, line: Mapping[str, Any]) -> str:
        """Write grid and report of the result line, with what is kept beside it; return a sentence that names them."""


class Flow(ABC):
    """A kind of test; `names` and `first` say which metrics it takes and which of them lead its tables."""

    kind: ClassVar[str]  # of `Metric.asked`
    first: ClassVar[tuple[str, ...]] = ()
    default_metrics: ClassVar[str]
    shared: ClassVar[bool] = False  # whether several processes can make a test together, see `Test.assist`

    @classmethod
    def metrics(cls, text: str) -> list[str]:
        """Return the names in --metrics, see `metric_names`."""
        return METRICS.parse(text, cls.kind, first=cls.first)

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags of test.py."""
        cls.add_own_flags(parser.add_argument_group(f"testing: {cls.kind}"))
        add_metric_flags(parser, cls.kind, default=cls.default_metrics)

    @classmethod
    @abstractmethod
    def add_own_flags(cls, group: Any) -> None:
        """Add the flags of this kind of test."""

    @classmethod
    def validate(cls, opt: Opt) -> None:
        """Raise `UserError` for invalid combinations of flags."""
        validate_metric_flags(opt)
        cls.metrics(opt.metrics)

    @classmethod
    def require_inputs(cls, opt: Opt) -> None:
        """Raise `UserError` if files that a test with these flags reads are missing; checked before training."""
        if opt.metrics != "all":  # everything available
            for metric, names in METRICS.members(cls.metrics(opt.metrics)):
                metric.check(names, opt)

    @classmethod
    def require_data(cls, opt: Opt) -> None:
        """Raise `UserError` if the data do not allow a test with the options of a run."""

    @classmethod
    @abstractmethod
    def results_folder(cls, opt: Opt) -> Path:
        """Return where the results of a test go."""

    @classmethod
    @abstractmethod
    def tests(cls, opt: Opt, world: Distributed) -> list[Test]:
        """Return the tests that `opt` (of `TestOptions`) asks for; raises `UserError` before any work begins."""


FLOWS: Registry[Flow] = Registry(flag="kind of test", package="testing", suffix="flow")


def run_tests(flow: type[Flow], opt: Opt, world: Distributed) -> int:
    """Run the tests of a command line; returns the exit code."""
    if world.world_size > 1 and not flow.shared:
        raise UserError(f"a run of {opt.model} is tested by one process: start test.py without torchrun")
    tests = flow.tests(opt, world)
    if not world.is_main:
        for test in tests:
            test.assist()
        return 0
    for test in tests:
        require_writable(test.run_dir, "the run's folder")  # gets the result line
    measured_tests: dict[str, Measured] = {}
    written = []
    try:
        for test in tests:
            with results_in(test.folder, "--results_dir"):
                measured_tests[test.name] = measured = test.measure()
                line = result_line(
                    measured.values,
                    step=measured.step,
                    task=test.task,
                    num_images=measured.num_images,
                    protocol={**measured.protocol, "method_flags": method_flags(test.run_dir)},
                )
                written.append(test.write({**line, **measured.kept}))
                write_result(line, test.folder, test.run_dir, kept=measured.kept)
    finally:  # a full disk must not lose the numbers
        print_results(measured_tests)
    print("\n".join(written))
    return 0


def print_results(measured_tests: Mapping[str, Measured]) -> None:
    """Print the table of the tests by name, classes and notes."""
    if any(measured.values for measured in measured_tests.values()):
        print(format_table([(name, measured.values) for name, measured in measured_tests.items()]))
    for measured in measured_tests.values():
        if classes := class_table(measured.values):
            print(classes)
    for note in dict.fromkeys(note for measured in measured_tests.values() for note in measured.notes):
        print(f"note: {note}")
