"""The page's tabs of SemIA and S2PreST: what they ask of the server, and the commands that make the same files."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the page's packages are not installed (requirements-app.txt)")

from page_client import Answer, Client, message, scene_of, serving_tabs

import test as test_command
import train as train_command
from models import MODELS
from scripts import app, edit
from semedit.page.parts import pack
from semedit.page.tabs import make_tab
from util.images import read_image, save_png

QUICK = ["--num_workers", "0", "--image_every", "0", "--no-tensorboard", "--device", "cpu"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `layout` and `ids` of one picture, and `style`."""
    pytest.importorskip("diffusers", reason="requirements-diffusion.txt is not installed")
    path = tmp_path_factory.mktemp("tabs")
    for name, model, steps in (("layout", "semia", "2"), ("style", "s2prest", "1")):
        where = ["--checkpoints_dir", str(path), "--name", name, "--max_steps", steps]
        assert train_command.main([*MODELS.get(model).tiny(path), *where, *QUICK]) == 0
    return path


def options(home: Path, name: str) -> Any:
    return app.AppOptions().parse(["--checkpoints_dir", str(home), "--name", name, "--device", "cpu"])


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[Client]:
    with serving_tabs([make_tab(options(home, name), 256) for name in ("layout", "style")]) as (client, _):
        yield client


def made(client: Client, answer: Answer) -> tuple[dict[str, Any], ZipFile]:
    key, job = client.wait(answer)
    assert job["state"] == "done", job["error"]
    (packed,) = [name for name in job["files"] if name.endswith(".zip")]
    content = ZipFile(io.BytesIO(client.ask(f"/api/jobs/{key}/{packed}").content))
    assert content.read("command.txt").decode() == job["facts"]["command"] + "\n"
    return job, content


def repeated(packed: ZipFile, results: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, main: Any) -> None:
    """Unpack, remove the results, run the command and compare."""
    packed.extractall(folder)
    for name in results:
        (folder / name).unlink()
    monkeypatch.chdir(folder)
    line = shlex.split(packed.read("command.txt").decode())
    assert main(line[line.index("--name") :]) == 0
    for name in results:
        assert (folder / name).read_bytes() == packed.read(name)


def test_tabs_are_listed_and_those_that_are_not_shown_answer_nothing(client: Client) -> None:
    listed = [{"kind": "analogy", "run": "layout"}, {"kind": "stylising", "run": "style"}]
    assert json.loads(client.ask("/api/tabs").content) == listed
    assert client.ask("/api/run").status == client.ask("/api/edits", b"x").status == 404


@pytest.mark.parametrize("part", [True, False], ids=["what is painted", "the whole picture"])
def test_a_painted_layout_is_rendered_as_the_command_does(
    client: Client, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: bool
) -> None:
    head, planes = scene_of(client.ask("/api/layout").content)
    picture = read_image(home / "analogy" / "img.png")
    np.testing.assert_array_equal(planes["image"], picture)
    assert (head["run"], len(head["classes"]), planes["label"].max()) == ("layout", 2, 1)
    label, mask = planes["label"].copy(), np.zeros_like(planes["mask"])
    label[5:20, 10:40] = 1 - label[5, 10]
    mask[5:20, 10:40] = 1
    sent = {"label": label, "mask": mask if part else mask * 0 + 1}
    _, packed = made(client, client.ask("/api/layouts", message((head, planes), {}, None, **sent)))
    result = np.array(Image.open(io.BytesIO(packed.read("img_edit.png"))))
    assert (result[5:20, 10:40] != picture[5:20, 10:40]).any()
    assert (result[30:] == picture[30:]).all() == part
    layout = np.array(Image.open(io.BytesIO(packed.read("img_layout.png"))))
    own = read_image(home / "analogy" / "label.png")
    np.testing.assert_array_equal(layout[30:], own[30:])  # what is not painted is as it was, soft borders too
    repeated(packed, ["img_edit.png"], tmp_path, monkeypatch, edit.main)


def test_layouts_that_cannot_be_rendered_are_refused(client: Client) -> None:
    scene = scene_of(client.ask("/api/layout").content)
    head, planes = scene
    ones = np.ones_like(planes["mask"])
    small = {name: values[:8, :8] for name, values in planes.items()}
    cases = [
        (message(scene, {}), "nothing is to be rendered"),
        (message(scene, {}, None, mask=ones, label=planes["label"] + 7), "the layout has a class"),
        (message(({**head, "size": [8, 8]}, small), {}), "the layout is 8x8"),
        (pack({"size": head["size"]}, {}), "malformed"),
        (pack({"size": [1 << 40, 1 << 40]}, {"label": b"", "mask": b""}), "the page takes"),
        (b"", "malformed"),
    ]
    for body, told in cases:
        answer = client.ask("/api/layouts", body)
        assert answer.status == 400 and told in answer.json()["error"]


USUAL = {"style_guidance": 0.5, "steps": 10, "guidance": 2.5, "size": 64, "seed": 7, "num_samples": 2}


def photograph(kind: str = "JPEG", size: tuple[int, int] = (90, 70)) -> bytes:
    y, x = np.mgrid[: size[1], : size[0]]
    file = io.BytesIO()
    Image.fromarray(np.stack([2 * x, 3 * y, 200 - x - y], -1).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def test_a_photograph_is_stylised_as_the_command_does(
    client: Client, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = client.ask("/api/style").json()
    assert (about["run"], about["usual"]["steps"], about["limits"]["num_samples"]) == ("style", 50, [1, 4])
    shown = np.array(Image.open(io.BytesIO(client.ask("/api/style.png").content)))
    np.testing.assert_array_equal(shown, read_image(home / "style" / "style.png"))
    drawn = Image.open(io.BytesIO(client.ask("/api/style/example.png").content))
    assert drawn.size == (512, 384)
    sent = pack({"names": {"image": "../my photo.jpg"}, **USUAL}, {"image": photograph(size=(540, 420))})
    key, _ = client.wait(answer := client.ask("/api/stylise", sent))
    job, packed = made(client, answer)
    assert job["facts"]["titles"] == ["seed 7", "seed 8"]
    results = [name for name in packed.namelist() if name.startswith("results/")]
    files = [client.ask(f"/api/jobs/{key}/{name}").content for name in job["files"] if name.endswith(".png")]
    assert files == [packed.read(name) for name in results] and len(set(files)) == 2
    content = Image.open(io.BytesIO(packed.read("my_photo.png")))
    assert content.size == Image.open(io.BytesIO(files[0])).size == (256, 199)  # scaled down, as the page was told
    repeated(packed, results, tmp_path, monkeypatch, test_command.main)


def test_photographs_that_cannot_be_stylised_are_refused(client: Client) -> None:
    cases: list[tuple[dict[str, Any], bytes, str]] = [
        ({"steps": 0}, b"", "the number of steps is a whole number from 1 to 250"),
        ({"steps": 2.5}, b"", "the number of steps is a whole number"),
        ({"style_guidance": "0.5 --results_dir /"}, b"", "the strength is from 0.05 to 1"),
        ({"style_guidance": float("nan")}, b"", "the strength is from"),
        ({"style_guidance": 0.05}, b"", "does no step; raise either"),
        ({"size": 1 << 20}, b"", "the size is a whole number"),
        ({"num_samples": True}, b"", "the number of results is a whole number"),
        ({"seed": None}, b"", "the seed is a whole number"),
        ({"seed": 10**400}, b"", "the seed is a whole number"),
        ({"names": {"image": "\ud800.jpg"}}, b"GIF89a", "?.jpg: the picture is no PNG"),
        ({}, b"GIF89a", "is no PNG, JPEG or WebP file"),
        ({}, photograph()[:300], "cannot be decoded"),
        ({}, photograph(size=(20, 90)), "needs at least 32 pixels a side"),
        ({"size": 1024}, photograph(size=(256, 33)), "million pixels are"),
    ]
    for changed, sent, told in cases:
        body = pack({"names": {"image": "/etc/passwd"}, **USUAL, **changed}, {"image": sent or photograph()})
        answer = client.ask("/api/stylise", body)
        assert answer.status == 400 and told in answer.json()["error"], (changed, answer)
    for body in (pack(USUAL, {}), b"", pack({"parts": 3}, {})):
        assert client.ask("/api/stylise", body).status == 400


def test_a_layout_of_ids_keeps_its_ids(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ids"
    save_png(read_image(home / "analogy" / "img.png"), folder / "img.png")
    own = (read_image(home / "analogy" / "label.png")[..., 2] > 0).astype(np.uint8) * 7
    save_png(own, folder / "label.png")
    line = MODELS.get("semia").tiny(tmp_path / "unused")
    line[line.index("--dataroot") + 1] = str(folder)
    where = ["--checkpoints_dir", str(tmp_path), "--name", "ids", "--label_kind", "ids", "--max_steps", "0"]
    assert train_command.main([*line, *QUICK, *where]) == 0
    with serving_tabs([make_tab(options(tmp_path, "ids"), 256)]) as (client, _):
        scene = scene_of(client.ask("/api/layout").content)
        assert [each["name"] for each in scene[0]["classes"]] == ["id 0", "id 7"]
        label = 1 - scene[1]["label"]
        ones = np.ones_like(scene[1]["mask"])
        _, packed = made(client, client.ask("/api/layouts", message(scene, {}, None, label=label, mask=ones)))
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(packed.read("img_layout.png")))), 7 - own)
    repeated(packed, ["img_edit.png"], tmp_path / "again", monkeypatch, edit.main)
