"""Load a run for editing, by its folder."""

from __future__ import annotations

from pathlib import Path

from options.edit_options import add_palette_flags, add_segmenter_flags
from options.parser import StrictParser
from options.run_options import RunOptions
from semedit.editor import Editor


class EditorOptions(RunOptions):
    """Options of a run that is loaded for editing."""

    description = "Load a run for editing."

    def add_flags(self, parser: StrictParser) -> None:
        """Add the flags of label maps to those of a run."""
        super().add_flags(parser)
        add_palette_flags(parser)
        add_segmenter_flags(parser)


def load(
    run: str | Path,
    *,
    device: str = "auto",
    step: int | str | None = None,
    raw_weights: bool = False,
    precision: str = "fp32",
    palette: str | Path | None = None,
    color_tolerance: float | None = None,
    segmenter: str | None = None,
    segmenter_weights: str | Path | None = None,
    segmenter_classes: str | Path | None = None,
    segmenter_rename: str | None = None,
    trust: str | None = None,
) -> Editor:
    """Load a run for editing.

    Args:
        run: its folder, such as "checkpoints/cv".
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        step: take step_<N>.pt, or "best" by validation; None takes the latest checkpoint.
        raw_weights: take the last weights even where the run has averaged ones.
        precision: "fp32", "tf32" for rounded products on a GPU, "bf16" or "fp16" for mixed precision.
        palette, color_tolerance: the flags of these names: label maps are pictures in the colours of a classes.json.
        segmenter: makes the label and instance maps of pictures that come without, as --segmenter of scripts/edit.py
            does: "streets", "espnet_camvid", ...; a name of a run is looked for beside `run`.
        segmenter_weights, segmenter_classes, segmenter_rename, trust: the flags of these names.

    Raises:
        UserError: there is no such run, or its method edits no scenes; the same of the segmenter.
    """
    folder = Path(run).absolute()
    line = ["--checkpoints_dir", str(folder.parent), "--name", folder.name, "--device", device, "--num_workers", "0"]
    given = {
        "step": step, "palette": palette, "color_tolerance": color_tolerance,
        "segmenter": segmenter, "segmenter_weights": segmenter_weights,
        "segmenter_classes": segmenter_classes, "segmenter_rename": segmenter_rename, "trust": trust,
    }  # fmt: skip
    line += [f"--{name}={value}" for name, value in given.items() if value is not None]
    return Editor(EditorOptions().parse([*line, "--precision", precision, *(["--raw_weights"] if raw_weights else [])]))
