"""One thread per test process: the tests run in parallel processes, and their networks are tiny."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the commands that tests start

import torch

torch.set_num_threads(1)
