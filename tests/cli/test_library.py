"""The library `semedit`, in the tree and installed: the same bytes as scripts/edit.py."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from editing_runs import make_runs
from PIL import Image

import semedit
from scripts import edit
from util.images import read_image, read_map

ROOT = Path(__file__).resolve().parents[2]
BOX = (10, 60, 50, 90)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def editor(root: Path) -> semedit.Editor:
    return semedit.load(root / "divsem", device="cpu")


def files(root: Path, scene: str = "a") -> dict[str, Path]:
    return {kind: root / kind / f"{scene}.png" for kind in ("image", "label", "inst", "mask")}


def by_command(root: Path, folder: Path, *flags: str, mask: bool = False) -> list[np.ndarray]:
    """Return the results of scripts/edit.py for scene a, in order."""
    paths = files(root)
    line = [f"--{kind}={path}" for kind, path in paths.items() if mask or kind != "mask"]
    where = ["--checkpoints_dir", str(root), "--name", "divsem", "--device", "cpu", "--num_workers", "0"]
    assert edit.main([*where, *line, "--output", str(folder / "o.png"), *flags]) == 0
    return [read_image(path) for path in (folder / "o.png", folder / "o_2.png") if path.exists()]


EDITS: dict[str, tuple[list[str], Callable[..., Any]]] = {
    "fill": ([], lambda e, f, **how: e.fill(*f.values(), **how)),
    "remove": (["--remove", "{id}"], lambda e, f, **how: e.remove(*list(f.values())[:3], how.pop("id"), **how)),
    "move": (["--move", "{id}:-12,5"],
             lambda e, f, **how: e.move(*list(f.values())[:3], how.pop("id"), -12, 5, **how)),
    "add": (["--add_object", "car", "--box", "10,60,50,90", "--add_shape", "rectangle"],
            lambda e, f, **how: e.add(*list(f.values())[:3], "car", box=BOX, shape="rectangle", **how)),
    "replace": (["--replace_class", "tree:building", "--dilate", "0"],
                lambda e, f, **how: e.replace(*list(f.values())[:3], "tree", "building", dilate=0, **how)),
    "outpaint": (["--outpaint", "left", "32"],
                 lambda e, f, **how: e.outpaint(*list(f.values())[:3], "left", 32, **how)),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_results_are_those_of_the_command(root: Path, tmp_path: Path, editor: semedit.Editor, name: str) -> None:
    flags, call = EDITS[name]
    inst = read_map(root / "inst" / "a.png", "inst")
    number = int(np.unique(inst)[-1])
    flags = [flag.format(id=number) for flag in flags]
    wanted = by_command(root, tmp_path, *flags, "--num_samples", "2", "--seed", "3", mask=name == "fill")
    how = {"n": 2, "seed": 3, **({"id": number} if name in ("remove", "move") else {})}
    results = call(editor, files(root), **how)
    assert len(results) == 2
    for got, want in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(got, want)


def test_files_arrays_and_pil_images_are_the_same(root: Path, editor: semedit.Editor) -> None:
    paths = files(root)
    from_files = editor.fill(*paths.values())[0]
    opened = {kind: Image.open(path) for kind, path in paths.items()}
    from_pil = editor.fill(*opened.values())[0]
    assert isinstance(from_pil, Image.Image)
    np.testing.assert_array_equal(np.array(from_pil), from_files)
    arrays = {kind: np.array(picture) for kind, picture in opened.items()}
    named = editor.scene(*arrays.values(), name="a")  # an array has no name, which enters the seeds
    np.testing.assert_array_equal(next(editor.paint(named, editor.frames(1, editor.bank), 0)).picture, from_files)
    nameless = editor.fill(arrays["image"], arrays["label"], arrays["inst"], arrays["mask"] > 0)[0]
    known = arrays["mask"] == 0
    np.testing.assert_array_equal(nameless[known], arrays["image"][known])


def test_styles_of_a_reference_the_mean_and_a_chosen_code(root: Path, tmp_path: Path, editor: semedit.Editor) -> None:
    flags = ["--add_object", "car", "--box", "10,60,50,90"]
    paths, other = list(files(root).values())[:3], list(files(root, "b").values())[:3]
    reference = semedit.StyleReference("car", *other)
    named = [f"--style_{kind}={path}" for kind, path in zip(("image", "label", "inst"), other, strict=True)]
    (wanted,) = by_command(root, tmp_path / "r", *flags, *named, "--style_class", "car")
    np.testing.assert_array_equal(editor.add(*paths, "car", box=BOX, style=reference)[0], wanted)
    (wanted,) = by_command(root, tmp_path / "m", *flags, "--style_source", "mean")
    np.testing.assert_array_equal(editor.add(*paths, "car", box=BOX, style="mean")[0], wanted)
    (wanted,) = by_command(root, tmp_path / "c", *flags, "--style_code", "car:1")
    np.testing.assert_array_equal(editor.add(*paths, "car", box=BOX, style={"car": 1})[0], wanted)


def test_mistakes_are_errors_with_a_sentence(root: Path, editor: semedit.Editor) -> None:
    image, label, inst, mask = (np.array(Image.open(path)) for path in files(root).values())
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: semedit.load(root / "dvisem"), "Did you mean 'divsem'"),
        (lambda: editor.fill(image[..., 0], label, inst, mask), r"image: an array \(96, 128\) of uint8"),
        (lambda: editor.fill(image, label[:50], inst, mask), "the label map is 128x50, its picture"),
        (lambda: editor.fill(image, label + 100, inst, mask), "label ids outside the"),
        (lambda: editor.fill(image, label.astype(np.float32), inst, mask), "of integers is needed"),
        (lambda: editor.fill(image, label, inst.astype(np.int32) - 5000000, mask), "they are 0 or more"),
        (lambda: editor.fill(image, label, inst, mask // 2), "values besides 0 and 255"),
        (lambda: editor.fill(image, label, inst, 0 * mask), "the mask is empty"),
        (lambda: editor.fill(image, label, inst, mask, style="noise"), "style 'noise': 'bank', 'mean', numbers"),
        (lambda: editor.remove(image, label, inst, 1), "no instance 1 in the instance map"),
        (lambda: editor.add(image, label, inst, "cra", box=BOX), "Did you mean 'car'"),
        (lambda: editor.add(image, label, inst, "car", box=(0, 0, 500, 5)), "not inside the picture"),
        (lambda: editor.fill(root / "none.png", label, inst, mask), "none.png: the picture does not exist"),
    ]
    for call, message in cases:
        with pytest.raises(semedit.UserError, match=message):
            call()


def test_an_installed_wheel_edits_in_three_lines_and_claims_one_name(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tree"  # a build writes into the tree
    aside = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "checkpoints", "datasets", "results")
    shutil.copytree(ROOT, copy, ignore=aside)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(tmp_path), str(copy)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = tmp_path.glob("semedit-*.whl")
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    (folder,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (folder / "libraries.pth").write_text("\n".join(site.getsitepackages()))  # torch and the others, not copied
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True)
    assert {path.name for path in folder.iterdir() if path.suffix != ".dist-info"} == {"semedit", "libraries.pth"}
    for part in ("metrics", "testing", "semedit/page"):
        data = [path for path in (ROOT / part).rglob("*.*") if path.suffix not in (".py", ".pyc")]
        assert data
        for path in data:
            placed = folder / "semedit" / path.relative_to(ROOT / "semedit" if part == "semedit/page" else ROOT)
            assert placed.is_file(), f"{path.relative_to(ROOT)} is not in the wheel"

    paths = files(root)
    lines = (
        "import semedit, sys\n"
        f"editor = semedit.load({str(root / 'divsem')!r}, device='cpu')\n"
        f"editor.fill({', '.join(repr(str(path)) for path in paths.values())}, n=2)[1].tofile('second')\n"
        "assert not {'data', 'models', 'util', 'options'} & set(sys.modules)\n"
    )
    subprocess.run([str(python), "-c", lines], cwd=tmp_path, check=True)
    wanted = semedit.load(root / "divsem", device="cpu").fill(*paths.values(), n=2)[1]
    np.testing.assert_array_equal(np.fromfile(tmp_path / "second", np.uint8).reshape(wanted.shape), wanted)
    flags = [f"--{kind}={path}" for kind, path in paths.items()]
    command = [str(python.parent / "semedit-edit"), "--checkpoints_dir", str(root), "--name", "divsem", *flags]
    subprocess.run([*command, "--num_samples", "2", "--device", "cpu", "--output", "o.png"], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(read_image(tmp_path / "o_2.png"), wanted)
    for name in ("train", "test", "edit", "evaluate", "app"):
        shown = subprocess.run(
            [str(python.parent / f"semedit-{name}"), "--version"], cwd=tmp_path, capture_output=True, text=True
        )
        assert (shown.returncode, shown.stdout) == (0, f"SemEdit {semedit.__version__}\n"), shown.stderr
