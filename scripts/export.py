"""Make a folder to share of a trained run: `python scripts/export.py --name RUN --output DIR [--half] [--graph onnx]`.

It holds the weights that are tested (averaged ones where the run has them) as safetensors, opt.yaml without paths of
this machine, classes, style bank, result lines and a model card. `--name DIR` in test.py and edit.py, and
`semedit.load(DIR)`, take it as any run. Of a run that holds a style, diffusers' `load_textual_inversion(DIR)` takes the
token. `--push_to_hub OWNER/NAME` uploads it.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # Ctrl-C while what follows is imported
    from util.errors import leave_on_interrupt

    leave_on_interrupt()

import yaml
from torch import Tensor

from data import DATASETS
from data.loader import plain_pictures
from data.records import CLASSES_FILE
from metrics.reporting.result import LINES_FILE
from models import MODELS
from models.base_bank import BANK_FILE
from models.style_bank import StyleBank
from options.base_options import OPTIONS_FILE, run_folder, saved_options
from options.export_options import GRAPHS, ExportOptions
from scripts.export_graph import write_graphs
from scripts.export_style import STYLE_FILES, about_style, write_style
from scripts.model_card import CARD_FILE, about_editing, model_card
from trainers.restore import load_run
from trainers.weights import WEIGHTS_FILE, save_weights
from util.errors import EXIT_OK, UserError, run_main
from util.files import results_in, write_text
from util.opt import Opt

MADE = (
    WEIGHTS_FILE, OPTIONS_FILE, CLASSES_FILE, LINES_FILE, CARD_FILE, BANK_FILE,
    BANK_FILE.replace(".safetensors", ".json"), ".bank.lock", ".results.lock",
    *(f"generator.{kind}" for kind in GRAPHS), *STYLE_FILES,
)  # fmt: skip
PATHS = ("config", "dataroot", "vgg_weights", "style_image")  # of the machine that the run was trained on
OR_IDS = ("base_model", "clip_model")  # likewise, unless they are ids of the hub
TAGS = {"editing": ("semantic-image-editing", "image-inpainting"), "stylising": ("style-transfer", "textual_inversion")}


def main(argv: list[str] | None = None) -> int:
    opt = ExportOptions().parse(argv)
    output = Path(opt.output)
    if output.exists() and (not output.is_dir() or any(path.name not in MADE for path in output.iterdir())):
        raise UserError(f"--output {output}: holds something else already; name a new folder")
    hub = hub_library() if opt.push_to_hub else None
    with results_in(output, "--output"):
        export(opt, output)
    size = sum(path.stat().st_size for path in output.iterdir()) / 2**20
    load = "semedit.load" if MODELS.get(opt.model).flow == "editing" else "pipeline.load_textual_inversion"
    print(f"{output}: {size:.1f} MiB; python test.py --name {output}, or {load}({str(output)!r})")
    if hub is not None:
        api = hub.HfApi()
        api.create_repo(opt.push_to_hub, exist_ok=True)
        print(api.upload_folder(repo_id=opt.push_to_hub, folder_path=str(output), ignore_patterns=[".*"]))
    return EXIT_OK


def export(opt: Opt, output: Path) -> None:
    """Write the folder."""
    run = run_folder(opt)
    model: Any = MODELS.get(opt.model).from_options(opt, is_train=False)
    loaded = load_run(model, run, step=opt.step, averaged=not opt.raw_weights)
    model.eval()
    model.prepare_inference(run, lambda limit: plain_pictures(opt, "train", limit), weights=loaded.name)
    save_weights(
        {name: narrowed(net, half=opt.half) for name, net in model.state().items()}, output / WEIGHTS_FILE,
        step=loaded.step, source=f"run {opt.name}, {loaded.name}",
    )  # fmt: skip
    bank = getattr(model, "bank", None)
    if isinstance(bank, StyleBank) and not model.input_runs:  # else in the weights
        rows = narrowed({str(label): codes for label, codes in bank.codes.items()}, half=opt.half)
        codes = {int(label): codes for label, codes in rows.items()}
        StyleBank(codes, rule=f"that of run {opt.name}", weights=WEIGHTS_FILE).save(output / BANK_FILE)
    values = saved_options(run / OPTIONS_FILE)
    local = {*PATHS, *(name for name in OR_IDS if Path(values.get(name) or ".").exists())}
    shared = {name: None if name in local else value for name, value in values.items() if name != "checkpoints_dir"}
    write_text(output / OPTIONS_FILE, yaml.safe_dump({**shared, "name": output.name}, sort_keys=False))
    for name in (CLASSES_FILE, LINES_FILE):
        if (run / name).is_file():
            shutil.copyfile(run / name, output / name)
    graphs = write_graphs(model, output, opt.graph)
    told: dict[str, Any] = {"summary": MODELS.get(opt.model).summary, "step": loaded.step}
    if model.flow == "stylising":
        about = about_style(output, write_style(model, run, output, half=opt.half), **told)
    else:
        known = (run / CLASSES_FILE).is_file()
        names = None if known else DATASETS.get(opt.dataset_mode).class_table(None).names
        about = about_editing(output, opt, class_names=names, **told)
    card = model_card(output, about, tags=(*TAGS[model.flow], opt.model), step=loaded.step, graphs=graphs)
    write_text(output / CARD_FILE, card)


def hub_library() -> Any:
    """Return the package huggingface_hub; raises `UserError` if it is missing."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UserError(f"--push_to_hub needs `pip install -r requirements-hf.txt` ({error})") from error


def narrowed(tensors: Mapping[str, Tensor], *, half: bool) -> dict[str, Tensor]:
    """Return tensors, as float16 if `half`; others than float32 stay as they are."""
    return {name: value.half() if half and value.is_floating_point() else value for name, value in tensors.items()}


if __name__ == "__main__":
    run_main(main)
