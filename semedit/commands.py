"""Console commands of an installed copy; in a checkout they are train.py, test.py and scripts/."""

from __future__ import annotations

from util.errors import leave_on_interrupt, run_main


def train() -> None:
    """`semedit-train`: train.py."""
    leave_on_interrupt(stop_signals=True)
    from train import main

    run_main(main)


def test() -> None:
    """`semedit-test`: test.py."""
    leave_on_interrupt()
    from test import main

    run_main(main)


def edit() -> None:
    """`semedit-edit`: scripts/edit.py."""
    leave_on_interrupt()
    from scripts.edit import main

    run_main(main)


def app() -> None:
    """`semedit-app`: scripts/app.py."""
    leave_on_interrupt()
    from scripts.app import main

    run_main(main)


def evaluate() -> None:
    """`semedit-evaluate`: scripts/evaluate.py."""
    leave_on_interrupt()
    from scripts.evaluate import main

    run_main(main)
