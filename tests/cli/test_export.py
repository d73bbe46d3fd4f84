"""Exported runs: they edit and test as the runs that they are of, in any place; graphs give the networks' pictures."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from editing_runs import amplify, make_runs
from safetensors.torch import load_file

import semedit
import test as test_command
import train
from models import MODELS
from models.networks.cascade.graph import FillGraph
from scripts import export
from util.errors import UserError

QUICK = ["--device", "cpu", "--num_workers", "0"]
TEST = [*QUICK, "--task", "free_form", "--num_images", "2", "--batch_size", "2", "--metrics", "l1"]


def exported(root: Path, name: str, output: Path, *flags: str) -> Path:
    assert export.main(["--name", str(root / name), "--output", str(output), *QUICK, *flags]) == 0
    return output


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_runs(tmp_path_factory.mktemp("runs"))
    assert test_command.main(["--name", "divsem", "--checkpoints_dir", str(root), *TEST]) == 0
    return root


@pytest.fixture(scope="module")
def shared(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export, moved to another place after its run was hidden."""
    folder = exported(root, "divsem", tmp_path_factory.mktemp("made") / "shared")
    return Path(shutil.move(folder, tmp_path_factory.mktemp("elsewhere") / "renamed"))


def fills(run: Path, root: Path) -> list[np.ndarray]:
    files = [root / kind / "a.png" for kind in ("image", "label", "inst", "mask")]
    return [np.asarray(picture) for picture in semedit.load(run, device="cpu").fill(*files, n=2)]


def test_an_export_edits_as_its_run(root: Path, shared: Path) -> None:
    ours, theirs = fills(shared, root), fills(root / "divsem", root)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not np.array_equal(*ours)  # draws from the bank


def test_name_takes_a_folder_and_the_test_gives_the_runs_numbers(root: Path, shared: Path) -> None:
    assert test_command.main(["--name", str(shared), *TEST]) == 0
    (before,) = (json.loads(line) for line in (root / "divsem" / "metrics.jsonl").read_text().splitlines())
    copied, after = (json.loads(line) for line in (shared / "metrics.jsonl").read_text().splitlines())
    assert copied == before
    assert after["metrics"] == before["metrics"]


def test_opt_yaml_names_no_place_of_the_training_machine(shared: Path) -> None:
    text = (shared / "opt.yaml").read_text()
    assert "/" not in "".join(line.partition(":")[2] for line in text.splitlines())
    assert yaml.safe_load(text)["dataroot"] is None


def test_the_card_is_of_the_hubs_form(shared: Path) -> None:
    _, head, body = (shared / "README.md").read_text().split("---\n", 2)
    (entry,) = yaml.safe_load(head)["model-index"][0]["results"]
    line = json.loads((shared / "metrics.jsonl").read_text().splitlines()[0])
    assert entry["metrics"][0]["value"] == pytest.approx(line["metrics"]["l1_masked"], abs=1e-6)
    assert line["protocol"]["mask_set"] in body
    assert "3 building" in body or "building" in body


def test_half_rounds_weights_and_styles_to_float16(root: Path, shared: Path, tmp_path: Path) -> None:
    half = exported(root, "divsem", tmp_path / "half", "--half")
    for file in ("weights.safetensors", "style_bank.safetensors"):
        rounded, exact = load_file(half / file), load_file(shared / file)
        assert {value.dtype for value in rounded.values() if value.is_floating_point()} == {torch.float16}
        assert all(torch.equal(rounded[name], value.half()) for name, value in exact.items())
    editor = semedit.load(half, device="cpu")  # which computes in float32
    assert {value.dtype for value in editor.model.netG.parameters()} == {torch.float32}
    assert len(fills(half, root)) == 2


def test_graphs_give_the_networks_pictures_for_any_number_of_instances(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="pip install -r requirements-onnx.txt")
    one_stage = [*MODELS.get("divsem").tiny(tmp_path), "--no-multi_scale", "--hole_entry", "instance"]
    untrained = ["--max_steps", "0", "--no-tensorboard"]
    assert train.main([*one_stage, *untrained, *QUICK, "--checkpoints_dir", str(tmp_path), "--name", "run"]) == 0
    amplify(tmp_path / "run")
    folder = exported(tmp_path, "run", tmp_path / "graphs", "--graph", "pt2", "onnx")
    assert "generator.onnx" in (folder / "README.md").read_text()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "generator.onnx"), providers=["CPUExecutionProvider"])
    graph = torch.export.load(folder / "generator.pt2").module()
    assert [given.name for given in session.get_inputs()] == ["image", "seg", "edge", "mask", "inst", "codes"]
    editor = semedit.load(folder, device="cpu")
    net = FillGraph(editor.model.netG)
    for instances in (2, 7, 40):
        inputs = net.example(instances, seed=instances)
        with torch.no_grad():
            wanted, ours = net(*inputs), graph(*inputs)
        feed = {given.name: value.numpy() for given, value in zip(session.get_inputs(), inputs, strict=True)}
        assert (ours - wanted).abs().max() < 1e-4
        assert np.abs(session.run(None, feed)[0] - wanted.numpy()).max() < 1e-4
        other = net(*inputs[:-1], inputs[-1] + 1).detach()
        assert (other - wanted).abs().max() > 1e-3  # the codes count


def test_the_hub_gets_the_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Api:
        def create_repo(self, repo: str, **how: Any) -> None:
            calls.append((repo, how))

        def upload_folder(self, **how: Any) -> str:
            calls.append(sorted(path.name for path in Path(how["folder_path"]).iterdir() if path.name[0] != "."))
            return "the address"

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Api))  # type: ignore[arg-type]
    exported(root, "spmpgan", tmp_path / "out", "--push_to_hub", "me/mine")
    assert calls == [("me/mine", {"exist_ok": True}),
                     ["README.md", "classes.json", "opt.yaml", "weights.safetensors"]]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "--output is missing"),
        (["--output", "{root}"], "--output .*holds something else"),
        (["--output", "{new}", "--step", "7"], "--step 7: there is no"),
        (["--output", "{new}", "--step", "half"], "--step"),
    ],
)
def test_mistakes_are_told(flags: list[str], says: str, root: Path, tmp_path: Path) -> None:
    filled = [flag.format(root=root, new=tmp_path / "new") for flag in flags]
    with pytest.raises((UserError, SystemExit), match=says if says != "--step" else None):
        export.main(["--name", str(root / "spmpgan"), *QUICK, *filled])
