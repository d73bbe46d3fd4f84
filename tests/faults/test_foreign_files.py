"""Files and runs of somebody else that would run a command or write elsewhere."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import test
import train
from metrics.features.inception import load_inception
from metrics.segments.segmenters import load_segmenter
from models.released_weights.s2prest import read_embeddings
from models.style_bank import StyleBank
from options.base_options import OPTIONS_FILE
from options.edit_options import EditOptions
from options.test_options import TestOptions
from trainers.checkpoint import load_checkpoint
from trainers.weights import load_weights
from util.errors import UserError
from util.weight_files import file_hash

CPU = torch.device("cpu")


class Planted:
    """When unpickled, makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def poisoned(path: Path, trace: Path, *, plain: bool) -> Path:
    """A file of torch.save, or a plain pickle, that makes `trace` when it is unpickled carelessly."""
    held = {"model": {"netG": {"weight": torch.zeros(2)}}, "step": 3, "ema": Planted(trace)}
    path.write_bytes(pickle.dumps(held)) if plain else torch.save(held, path)
    if plain:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trace.exists(), "the trap does not work"
    trace.rmdir()
    return path


def load_graph(path: Path, **more: Any) -> Any:
    return load_segmenter(f"export:{path}", weights=None, checkpoints_dir="none", device=CPU, **more)


READERS = {
    "checkpoint": load_checkpoint,
    "weights": load_weights,
    "style bank": lambda path: StyleBank.load(path, style_dim=4),
    "embeddings": read_embeddings,
    "Inception": lambda path: load_inception(str(path)),
    "ESPNet": lambda path: load_segmenter("espnet_camvid", weights=str(path), checkpoints_dir="none", device=CPU),
}


@pytest.mark.fault("14", "a pickle with a planted command, as any kind of weights", sees="the file; nothing of it runs")
def test_poisoned_weights(ledger, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for attempt in ledger.attempts(24, quick=12):
        with attempt as number:
            name, read = list(READERS.items())[number % 6]
            path = poisoned(tmp_path / f"{number}.pt", trace, plain=number % 12 > 5)
            with pytest.raises(UserError, match=re.escape(str(path))):
                read(path)
            assert not trace.exists(), name


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """An exported network of three classes."""
    path = tmp_path / "net.pt2"
    sizes = {i: torch.export.Dim.AUTO for i in (0, 2, 3)}
    torch.export.save(
        torch.export.export(nn.Conv2d(3, 3, 1), (torch.zeros(2, 3, 16, 24),), dynamic_shapes=(sizes,)), path
    )
    (tmp_path / "net.pt2.yaml").write_text("class_names: [a, b, c]\nshort_side: 16\n")
    return path


def rewritten(path: Path, changed: dict[str, bytes]) -> Path:
    """Copy an archive with other content in some members, by the end of their names; others are added."""
    made = path.with_name(f"crafted{path.suffix}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as new:
        root = old.namelist()[0].split("/")[0]
        for member in old.infolist():
            end = next((end for end in changed if member.filename.endswith(end)), None)
            new.writestr(member.filename, old.read(member) if end is None else changed[end])
        for end in changed:
            if not any(name.endswith(end) for name in old.namelist()):
                new.writestr(f"{root}/{end}", changed[end])
    shutil.copy(f"{path}.yaml", f"{made}.yaml")
    return made


@pytest.mark.fault("14", "an exported program with a planted command, as segmenter", sees="its hash, and what it holds")
def test_poisoned_graph(ledger, graph: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with zipfile.ZipFile(graph) as archive:
        inputs = next(name for name in archive.namelist() if "sample_inputs" in name)
    saved = poisoned(tmp_path / "inputs.pt", trace, plain=False).read_bytes()
    plain = pickle.dumps(Planted(trace), protocol=2)
    constant = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = json.dumps({"config": {"planted": constant}}).encode()
    for attempt in ledger.attempts(3, quick=3):
        with attempt as number:
            content = ({inputs.partition("/")[2]: saved}, {inputs.partition("/")[2]: plain},
                       {"data/constants/opaque_obj_0": plain,
                        "data/constants/model_constants_config.json": config})[number]  # fmt: skip
            path = rewritten(graph, content)
            with pytest.raises(UserError, match=f"--trust {file_hash(path)}"):
                load_graph(path)
            with pytest.raises(UserError, match=r"crafted.pt2"):
                load_graph(path, trust=file_hash(path))
            assert not trace.exists()


@pytest.mark.parametrize("start", [pickle.EXT1, pickle.STACK_GLOBAL, pickle.GLOBAL, pickle.NONE + pickle.EXT2])
def test_weights_that_look_like_a_pickle_are_read(start: bytes, graph: Path) -> None:
    path = rewritten(graph, {"data/weights/weight_1": start.ljust(12, b"\x0a")})
    assert load_graph(path, trust=file_hash(path)).num_classes == 3


@pytest.mark.fault("14", "a saved graph that was not confirmed", sees="the flag with its SHA-256")
def test_graphs_need_the_users_word(ledger, graph: Path, tmp_path: Path) -> None:
    script = tmp_path / "net.pt"
    torch.jit.trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 16, 16)).save(str(script))
    shutil.copy(f"{graph}.yaml", f"{script}.yaml")
    for attempt in ledger.attempts(1):
        with attempt:
            for path, other in ((graph, script), (script, graph)):
                with pytest.raises(UserError, match=f"needs --trust: .* confirm it by --trust {file_hash(path)}"):
                    load_graph(path)
                with pytest.raises(UserError, match="is not the file of --trust"):
                    load_graph(path, trust=file_hash(other))
                assert load_graph(path, trust=file_hash(path).upper()).num_classes == 3


def test_a_network_that_brings_code_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    trace = tmp_path / "trace"
    (tmp_path / "code.py").write_text(f"import os\nos.mkdir({str(trace)!r})\n")
    (tmp_path / "config.json").write_text('{"model_type": "new", "auto_map": {"AutoConfig": "code.Config"}}')
    with pytest.raises(UserError, match="cannot be loaded"):
        load_segmenter(f"hf:{tmp_path}", weights=None, checkpoints_dir="none", device=CPU)
    assert not trace.exists()


# --- shared runs -----------------------------------------------------------------------------------------------------
def options_of(tmp_path: Path, **more: Any) -> list[str]:
    """A run of somebody else whose opt.yaml has more in it than training sets."""
    run = tmp_path / "runs" / "shared"
    run.mkdir(parents=True, exist_ok=True)
    (run / OPTIONS_FILE).write_text(yaml.safe_dump({"model": "divsem", "dataset_mode": "streets", "ngf": 4, **more}))
    return ["--name", "shared", "--checkpoints_dir", str(tmp_path / "runs")]


FOREIGN: dict[str, Any] = {
    "results_dir": "/elsewhere", "cache_dir": "/elsewhere", "segmenter": "export:/planted.pt2", "trust": "0" * 64,
    "segmenter_weights": "/planted.pth", "segmenter_classes": "/c.yaml", "inception_weights": "/planted.pth",
    "lpips_weights": "/planted.pth", "lpips_backbone": "/planted.pth", "mask_dir": "/elsewhere", "metrics": "all",
    "task": "folder", "checkpoints_dir": "/elsewhere", "config": "/planted.yaml", "device": "cuda",
}  # fmt: skip


@pytest.mark.fault("14", "the opt.yaml of a shared run names files to load or write", sees="what is not taken over")
def test_a_run_decides_nothing_but_what_it_is(ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for attempt in ledger.attempts(len(FOREIGN), quick=len(FOREIGN)):
        with attempt as number:
            name = list(FOREIGN)[number]
            run = options_of(tmp_path, **{name: FOREIGN[name]})
            opt = TestOptions().parse(run)
            assert getattr(opt, name) != FOREIGN[name]
            assert opt.ngf == 4
            if name not in ("checkpoints_dir", "config", "device"):
                assert f"names {name}, not set by training" in capsys.readouterr().out
    run = options_of(tmp_path, mask="/m.png", add_object="car")
    edit = EditOptions().parse([*run, "--image", "i.png", "--label", "l.png", "--output", "o.png", "--remove", "3"])
    assert (edit.mask, edit.add_object) == (None, None)


def test_testing_a_shared_run_reads_no_graph(graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace"
    with zipfile.ZipFile(graph) as archive:
        inputs = next(name for name in archive.namelist() if "sample_inputs" in name).partition("/")[2]
    path = rewritten(graph, {inputs: poisoned(tmp_path / "inputs.pt", trace, plain=False).read_bytes()})
    where = ["--name", "shared", "--checkpoints_dir", str(tmp_path / "runs"), "--device", "cpu", "--num_workers", "0"]
    small = ["--max_steps", "0", "--ngf", "4", "--ndf", "4", "--crop_size", "64", "--lambda_vgg", "0"]
    train.main([*where, *small, "--model", "spmpgan", "--streets_train_size", "4", "--streets_test_size", "2"])
    run = tmp_path / "runs" / "shared"
    with (run / OPTIONS_FILE).open("a") as file:
        file.write(f"segmenter: export:{path}\nresults_dir: {tmp_path / 'elsewhere'}\n")
    test.main([*where, "--metrics", "miou,l1"])
    assert "names results_dir, segmenter, not set by training" in capsys.readouterr().out
    assert not trace.exists()
    assert not (tmp_path / "elsewhere").exists()
    assert (run / "results" / "test_free_form" / "grid.png").is_file()
