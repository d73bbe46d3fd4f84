"""Test a trained run: `python test.py --name cv --task free_form --segmenter espnet_camvid --segmenter_weights FILE`.

What is generated and how it is judged depends on the method: `testing/flow.py`. Every test leaves pictures and a
line of numbers with their protocol. `torchrun --nproc_per_node 4 test.py ...` shares the generating of scenes.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

from models import MODELS
from options.test_options import TestOptions
from testing.flow import FLOWS, run_tests
from trainers.distributed import Distributed
from trainers.failures import GENERATION, out_of_memory_hint
from util.device import compute_deterministically
from util.errors import run_main

TIMEOUT = 30.0  # minutes: the others wait while the first process measures what was generated


def main(argv: list[str] | None = None) -> int:
    opt = TestOptions().parse(argv)
    if opt.deterministic:
        compute_deterministically()
    start = Distributed.start(opt.device, timeout=TIMEOUT, remedy="start all of them again")
    with out_of_memory_hint(GENERATION), start as world:
        return run_tests(FLOWS.get(MODELS.get(opt.model).flow), opt, world)


if __name__ == "__main__":
    run_main(main)
