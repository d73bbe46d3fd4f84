"""TensorBoard's events of runs that were stopped and went on."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainer_toys import toy_trainer

from trainers.logger import Logger
from trainers.run_dir import open_run


def write(logger: Logger, *steps: int) -> None:
    for step in steps:
        logger.log(step, {"nimg": step, "losses": {"G/l1": step}, "lr": {}, "grad_norm": {}})


@pytest.mark.parametrize("shift", [0, -7200], ids=["same second", "clock set back"])
def test_events_of_a_resumed_run_have_neither_gaps_nor_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    now = 1_700_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    for start, stop in ((0, 6), (4, 8), (7, 9)):
        logger = Logger(tmp_path, enabled=True, tensorboard=True, start_step=start)
        write(logger, *range(start + 1, stop + 1))
        logger.close()
        now += shift
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss/G/l1")
    assert [event.step for event in events] == list(range(1, 10))


def test_a_checkpoint_has_its_events_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a process that is killed later: TensorBoard's writer holds them back for up to two minutes."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen: list[int] = []
    trainer = toy_trainer(tmp_path, max_steps=3, save_every=2, tensorboard=True)
    save = trainer.checkpoints.save

    def look(*args: object) -> Path:
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        seen.append(len(events.Scalars("loss/G/l1")) if events.Tags()["scalars"] else 0)
        return save(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer.checkpoints, "save", look)
    with open_run(tmp_path, resume=False, world=trainer.world):
        trainer.fit()
    assert seen == [0, 2, 3]
