"""The page's server as its page asks it: scenes, changes, results and the command that makes the same ones."""

from __future__ import annotations

import io
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from editing_runs import make_runs
from PIL import Image

pytest.importorskip("uvicorn", reason="the page's packages are not installed (requirements-app.txt)")

from page_client import Answer, Client, message, scene_of, serving

import semedit
from data.edit.changes import box_shape, scaled_shape
from data.edit.scenes import Margin
from scripts import app, edit
from semedit.page.jobs import MOST_KEPT, MOST_WAITING, Job, JobQueue
from semedit.page.parts import pack
from semedit.page.server import PageServer
from semedit.page.thumbnails import varied
from util.errors import UserError

Scene = tuple[dict[str, Any], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def editor(root: Path) -> semedit.Editor:
    return load(root, "divsem")


def load(root: Path, name: str, *flags: str) -> semedit.Editor:
    where = ["--checkpoints_dir", str(root), "--name", name, "--device", "cpu", "--num_workers", "0", *flags]
    return semedit.Editor(app.AppOptions().parse(where))


@pytest.fixture(scope="module")
def served(editor: semedit.Editor) -> Iterator[tuple[Client, PageServer]]:
    with serving(editor) as pair:
        yield pair


@pytest.fixture
def client(served: tuple[Client, PageServer]) -> Client:
    return served[0]


def files_of(root: Path, scene: str = "a", *kinds: str) -> dict[str, bytes]:
    return {kind: (root / kind / f"{scene}.png").read_bytes() for kind in kinds or ("image", "label", "inst")}


@pytest.fixture
def scene(client: Client, root: Path) -> Scene:
    return client.ask("/api/open", pack({"names": {"image": "my car.PNG"}}, files_of(root))).scene()


def result(client: Client, answer: Answer) -> tuple[dict[str, Any], ZipFile]:
    """Return what a finished edit says, and everything that it offers to download."""
    key, job = client.wait(answer)
    assert job["state"] == "done", job["error"]
    (packed,) = [name for name in job["files"] if name.endswith(".zip")]
    content = ZipFile(io.BytesIO(client.ask(f"/api/jobs/{key}/{packed}").content))
    for name in job["files"]:
        if name.endswith(".png"):
            fetched = client.ask(f"/api/jobs/{key}/{name}")
            assert (fetched.headers["content-type"], fetched.content) == ("image/png", content.read(name))
            raw = client.ask(f"/api/jobs/{key}/{name.removesuffix('.png')}.rgb").content
            assert raw == Image.open(io.BytesIO(fetched.content)).tobytes()
    return job, content


def test_the_page_and_what_it_asks_first(client: Client) -> None:
    kinds = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
    for path, kind in kinds.items():
        answer = client.ask(path)
        assert answer.status == 200 and answer.headers["content-type"].startswith(kind)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert b"http://" not in client.ask("/").content + client.ask("/page.js").content  # nothing from elsewhere
    run = client.ask("/api/run").json()
    assert (run["run"], run["crop"], run["segmenter"], run["styles"]) == ("divsem", 64, None, True)
    assert run["classes"][6] == {"name": "car", "colour": [30, 60, 190], "thing": True, "styled": True}
    head, planes = client.ask(f"/api/examples/{run['examples'][3]}").scene()
    assert head["name"] == "test_00003" and planes["image"].shape == (64, 85, 3) and not planes["mask"].any()


def test_files_open_as_they_are(client: Client, root: Path, scene: Scene) -> None:
    head, planes = scene
    assert head["name"] == "my_car" and head["size"] == [128, 96] and not planes["mask"].any()
    for kind in ("image", "label", "inst"):
        np.testing.assert_array_equal(planes[kind], np.array(Image.open(root / kind / "a.png")))
    assert sum(each["share"] for each in head["objects"]) == pytest.approx(1)
    large = Image.open(root / "image/a.png").resize((1280, 960))
    file = io.BytesIO()
    large.save(file, "WEBP")
    maps = {kind: io.BytesIO() for kind in ("label", "inst")}
    for kind, content in maps.items():
        Image.open(root / kind / "a.png").resize((1280, 960), Image.Resampling.NEAREST).save(content, "PNG")
    sent = {"image": file.getvalue(), **{kind: content.getvalue() for kind, content in maps.items()}}
    head, scaled = client.ask("/api/open", pack({}, sent)).scene()
    assert head["size"] == [512, 384] and head["notes"] == ["scaled from 1280x960 to 512x384 pixels"]
    np.testing.assert_array_equal(scaled["inst"][2::4, 2::4], planes["inst"])
    masked = client.ask("/api/open", pack({}, files_of(root, "a", "image", "label", "inst", "mask"))).scene()[1]
    np.testing.assert_array_equal(masked["mask"] > 0, np.array(Image.open(root / "mask/a.png")) > 0)
    small = io.BytesIO()
    Image.new("L", (64, 48)).save(small, "PNG")
    refused = client.ask("/api/open", pack({}, {**files_of(root), "mask": small.getvalue()}))
    assert refused.status == 400 and "the mask is 64x48, its picture 128x96" in refused.json()["error"]


def test_every_change_is_the_librarys(client: Client, editor: semedit.Editor, scene: Scene, root: Path) -> None:
    head, planes = scene
    maps = editor.map_editor()
    start = editor.scene(planes["image"], planes["label"].astype(int), planes["inst"], name=head["name"])
    number = max(each["id"] for each in head["objects"] if each["class"] == "car")
    shape = np.zeros((96, 128), bool)
    shape[40:60, 10:30] = True
    car, tree = editor.class_id("car", ""), editor.class_id("tree", "")
    wanted = {
        "paint": ({"class": car, "id": None}, maps.add_object(start, car, shape)),
        "box": ({"class": car, "box": [10, 40, 30, 60], "shape": "rectangle"}, maps.add_object(start, car, shape)),
        "become": ({"id": number, "class": tree}, maps.add_object(start, tree, start.inst == number)),
        "remove": ({"id": number}, maps.remove(start, number)),
        "move": ({"id": number, "right": -9, "down": 4}, maps.move(start, number, -9, 4)),
        "replace": ({"old": tree, "new": car}, maps.replace_class(start, tree, car)),
        "renew": ({"id": number, "reach": 0}, replace(start, mask=start.inst == number)),
        "extend": ({"side": "left", "pixels": 20}, maps.extend(start, Margin("left", 20), None)),
        "extend ": ({"width": 300, "labels": "repeat"}, maps.extend(start, Margin("right", 172), "repeat")),
        "box ": ({"class": car, "box": [10, 40, 30, 60], "shape": "ellipse", "reach": 9},
                 editor.map_editor(9).add_object(start, car, box_shape((96, 128), (10, 40, 30, 60), "ellipse"))),
    }  # fmt: skip
    for kind, (change, expected) in wanted.items():
        more = {"shape": shape} if kind == "paint" else {}
        told, got = client.change(scene, {"kind": kind.strip(), **change}, **more).scene()
        assert told["size"] == [expected.label.shape[1], expected.label.shape[0]]
        for name in ("image", "label", "inst", "mask"):
            np.testing.assert_array_equal(got[name], getattr(expected, name), err_msg=f"{kind}: {name}")
        assert got["mask"].any()
    refused = client.change(scene, {"kind": "box", "class": car, "box": [10, 40, 30, 60], "shape": "star"})
    assert refused.status == 400 and "no such shape" in refused.json()["error"]
    lent = client.ask("/api/open", pack({}, files_of(root, "b")))
    other = lent.scene()[1]
    lender = int(np.unique(other["inst"][other["label"] == car])[0])
    change = {"kind": "box", "class": car, "box": [10, 40, 60, 90], "shape": "thing", "of": lender}
    message_of = message(scene, {"change": change}, {"reference": lent.content})
    got = client.ask("/api/changes", message_of).scene()[1]
    where = scaled_shape((96, 128), (10, 40, 60, 90), other["inst"], lender, "")
    np.testing.assert_array_equal(got["inst"], maps.add_object(start, car, where).inst)
    grown, _ = client.change(scene, {"kind": "paint", "class": car, "id": number}, shape=shape).scene()
    assert len(grown["objects"]) == len(head["objects"])


STYLES: dict[str, dict[str, Any]] = {
    "draws": {"count": 3, "seed": 5, "style": "bank"},
    "mean": {"count": 1, "seed": 0, "style": "mean"},
    "codes": {"count": 1, "seed": 3, "style": "codes", "codes": {"6": 2, "5": 0}},
    "slider to a code": {"count": 3, "seed": 3, "style": "codes", "codes": {"6": 1}, "between": True},
    "reference": {"count": 2, "seed": 1, "style": "reference", "style_class": 6},
    "slider": {"count": 3, "seed": 2, "style": "bank", "between": True},
    "slider to a reference": {"count": 2, "seed": 2, "style": "reference", "style_class": 6, "between": True},
}


@pytest.mark.parametrize("how", STYLES)
def test_the_command_makes_the_downloaded_pictures_byte_for_byte(
    client: Client, root: Path, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    wish, more = STYLES[how], {}
    if wish["style"] == "reference":
        more["reference"] = client.ask("/api/open", pack({}, files_of(root, "b"))).content
    changed = client.change(scene, {"kind": "box", "class": 6, "box": [10, 50, 60, 90], "shape": "ellipse"}).scene()
    if how == "draws":  # of a larger picture, whose new part is erased
        changed = client.change(changed, {"kind": "extend", "side": "right", "pixels": 40}).scene()
    job, packed = result(client, client.ask("/api/edits", message(changed, wish, more)))
    assert job["facts"]["drawn"]["car"] >= 1
    names = [name for name in job["files"] if name.endswith(".png")]
    assert len(names) == wish["count"] and len({packed.read(name) for name in names}) == wish["count"]
    first = np.array(Image.open(io.BytesIO(packed.read("my_car_edit.png"))))
    known = changed[1]["mask"] == 0
    np.testing.assert_array_equal(first[known], changed[1]["image"][known])
    packed.extractall(tmp_path)
    for name in names:
        (tmp_path / name).unlink()
    assert packed.read("command.txt").decode() == job["facts"]["command"] + "\n"
    program, script, *line = shlex.split(job["facts"]["command"])
    assert (program, script) == ("python", "scripts/edit.py")
    monkeypatch.chdir(tmp_path)
    assert edit.main(line) == 0
    for name in names:
        assert (tmp_path / name).read_bytes() == packed.read(name)


def test_thumbnails_are_results_with_the_codes_of_the_bank(
    client: Client, editor: semedit.Editor, scene: Scene
) -> None:
    changed = client.change(scene, {"kind": "box", "class": 6, "box": [30, 40, 60, 70], "shape": "ellipse"}).scene()
    (made,) = {each["id"] for each in changed[0]["objects"]} - {each["id"] for each in scene[0]["objects"]}
    key, job = client.wait(client.ask("/api/styles", message(changed, {"id": made, "first": 0})))
    assert job["state"] == "done", job["error"]
    assert editor.bank is not None
    codes = editor.bank.codes[6]
    assert job["facts"] == {"label": 6, "total": len(codes)} and len(job["files"]) == min(8, len(codes))
    numbers = [int(name.removeprefix("style_").removesuffix(".png")) for name in job["files"]]
    assert numbers == varied(codes)[:8] and sorted(varied(codes)) == list(range(len(codes)))
    far = (codes - codes[0]).norm(dim=1)
    assert numbers[0] == 0 and far[numbers[1]] == far.max()
    shown = [client.ask(f"/api/jobs/{key}/{name}").content for name in job["files"]]
    assert len(set(shown)) == len(shown)
    wish = {"count": 1, "seed": 0, "style": "codes", "codes": {"6": numbers[1]}}
    packed = result(client, client.ask("/api/edits", message(changed, wish)))[1]
    whole = np.array(Image.open(io.BytesIO(packed.read("my_car_edit.png"))))
    small = np.array(Image.open(io.BytesIO(shown[1])))
    inside = whole[45:65, 35:55]  # the window is the whole picture's height: here it shows the same pixels
    places = np.lib.stride_tricks.sliding_window_view(small, inside.shape)
    assert (places == inside).all(axis=(-1, -2, -3)).any()
    rest = client.wait(client.ask("/api/styles", message(changed, {"id": made, "first": 8})))[1]
    assert not set(rest["files"]) & set(job["files"])
    for wish, told in (({"id": 7, "first": 0}, "no instance 7"), ({"id": made, "first": -1}, "whole numbers")):
        refused = client.ask("/api/styles", message(changed, wish))
        assert refused.status == 400 and told in refused.json()["error"]


def test_one_result_is_made_where_more_would_equal_it(client: Client, scene: Scene) -> None:
    changed = client.change(scene, {"kind": "box", "class": 6, "box": [10, 50, 60, 90], "shape": "ellipse"}).scene()
    for style in ({"style": "mean"}, {"style": "codes", "codes": {"6": 0}}):
        job, _ = result(client, client.ask("/api/edits", message(changed, {"count": 5, "seed": 0, **style})))
        assert [name for name in job["files"] if name.endswith(".png")] == ["my_car_edit.png"]
        assert "--num_samples 1 " in job["facts"]["command"] and "one result instead of 5" in job["facts"]["note"]
    for codes, told in (({"6": 10**6}, "has codes 0 to"), ({"6": "1"}, "malformed"), ({"car": 1}, "malformed"),
                        ({"99": 0}, "no class '99'"), ([6], "malformed"), ({"9" * 5000: 0}, "malformed"),
                        ({"6": 0, "06": 1}, "malformed")):  # fmt: skip
        wish = {"count": 1, "seed": 0, "style": "codes", "codes": codes}
        refused = client.ask("/api/edits", message(changed, wish))
        assert refused.status == 400 and told in refused.json()["error"]


def test_a_method_without_styles_and_renamed_labels(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = load(root, "spmpgan", "--label_map", "6:5,5:6")  # trees and cars change places when files are read
    with serving(editor) as (client, _):
        scene = client.ask("/api/open", pack({}, files_of(root))).scene()
        stored = np.array(Image.open(root / "label/a.png"))
        np.testing.assert_array_equal(scene[1]["label"], np.choose(stored, [0, 1, 2, 3, 4, 6, 5, 7, 8]))
        painted = client.change(scene, {"kind": "box", "class": 6, "box": [9, 9, 60, 60], "shape": "rectangle"}).scene()
        wish = {"count": 1, "seed": 0, "style": "bank"}
        job, packed = result(client, client.ask("/api/edits", message(painted, wish)))
        refused = client.ask("/api/edits", message(painted, {**wish, "style": "mean"}))
        assert refused.status == 400 and refused.json()["error"] == "a run of spmpgan draws no styles"
        refused = client.ask("/api/styles", message(painted, {"id": 0, "first": 0}))
        assert refused.status == 400 and refused.json()["error"] == "a run of spmpgan draws no styles"
    packed.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    made = (tmp_path / "picture_edit.png").read_bytes()
    assert edit.main(shlex.split(job["facts"]["command"])[2:]) == 0
    assert (tmp_path / "picture_edit.png").read_bytes() == made


def test_a_photograph_without_labels(root: Path) -> None:
    editor = load(root, "divsem", "--segmenter", "streets")
    with serving(editor, max_side=96) as (client, _):
        assert client.ask("/api/run").json()["segmenter"] == "streets"
        sent = pack({"names": {"image": "../../p.jpg"}}, files_of(root, "a", "image"))
        key, job = client.wait(client.ask("/api/open", sent))
        assert job["state"] == "done", job["error"]
        head, planes = scene_of(client.ask(f"/api/jobs/{key}/scene").content)
        assert (head["name"], head["size"]) == ("p", [96, 72])
        assert "labels by streets: " in head["notes"][1]
        maps = editor.labeller(planes["image"]) if editor.labeller else None
        assert maps is not None
        np.testing.assert_array_equal(planes["label"], maps.label)
    with serving(load(root, "divsem")) as (client, _):
        answer = client.ask("/api/open", sent)
        assert answer.status == 400 and "start the page with --segmenter" in answer.json()["error"]


def test_a_slow_job_does_not_hold_up_the_rest(
    served: tuple[Client, PageServer], scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, page = served
    release = threading.Event()
    slow = page.jobs.submit(lambda job: (release.wait(60), None)[1])
    masked = (scene[0], {**scene[1], "mask": np.ones((96, 128), np.uint8)})
    body = message(masked, {"count": 2, "seed": 0, "style": "bank"})
    try:
        first, second = (client.ask("/api/edits", body).json()["job"] for _ in range(2))
        told = client.ask(f"/api/jobs/{second}").json()
        assert (told["state"], told["ahead"], told["total"]) == ("waiting", 2, 2)
        assert client.change(scene, {"kind": "replace", "old": 0, "new": 1}).status == 200  # answered meanwhile
        gone = client.ask(f"/api/jobs/{first}", method="DELETE").json()
        assert gone["state"] == "cancelled" and client.ask(f"/api/jobs/{second}").json()["ahead"] == 1
        for _ in range(MOST_WAITING - 1):
            assert client.ask("/api/edits", body).status == 202
        refused = client.ask("/api/edits", body)
        assert refused.status == 503 and "waiting already" in refused.json()["error"]
    finally:
        for job in list(page.jobs._jobs.values()):
            page.jobs.cancel(job)
        release.set()
    deadline = time.monotonic() + 30
    while slow.state == "running" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert slow.state == "done" and client.ask(f"/api/jobs/{second}").json()["state"] == "cancelled"


def test_finished_jobs_are_forgotten_in_time_and_faults_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    queue = JobQueue()

    def work(job: Job) -> None:
        job.add("a.png", b"12")
        job.step(1)

    def wrong(job: Job) -> None:
        raise UserError("a sentence")

    def broken(job: Job) -> None:
        raise ZeroDivisionError("a defect")

    def ended(job: Job) -> Job:
        deadline = time.monotonic() + 30
        while job.state in ("waiting", "running") and time.monotonic() < deadline:
            time.sleep(0.005)
        return job

    try:
        jobs = [ended(queue.submit(work)) for _ in range(MOST_KEPT + 3)]
        assert [queue.get(job.key) is None for job in jobs] == [True] * 3 + [False] * MOST_KEPT
        assert ended(queue.submit(wrong)).error == "a sentence"
        defect = ended(queue.submit(broken))
        assert (defect.state, defect.files) == ("failed", {}) and "the terminal" in defect.error
        assert "ZeroDivisionError: a defect" in capsys.readouterr().err
    finally:
        queue.end()


def test_the_command_says_what_is_wrong(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--checkpoints_dir", str(root), "--name", "divsem", "--device", "cpu"]
    with pytest.raises(UserError, match="--port 70000: a number up to 65535"):
        app.main([*line, "--port", "70000"])
    with pytest.raises(UserError, match=r"--tabs spmpgan: spmpgan and divsem .* would need one tab"):
        app.main([*line, "--port", "0", "--tabs", "spmpgan"])
    with pytest.raises(UserError, match=r"--tabs divsm: --name divsm: no run at .* Did you mean 'divsem'"):
        app.main([*line, "--port", "0", "--tabs", "divsm"])
    with pytest.raises(UserError, match="--max_side 10: from 64 to 2048 pixels"):
        app.main([*line, "--max_side", "10"])
    with pytest.raises(UserError, match=r"--host 203.0.113.1 --port 0: cannot listen there"):
        app.main([*line, "--host", "203.0.113.1", "--port", "0"])
    with app.listening("127.0.0.1", 0) as taken, pytest.raises(UserError, match="choose another --port"):
        app.listening("127.0.0.1", taken.getsockname()[1])


def test_without_a_name_the_pretrained_run_is_taken(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--name is missing: which run. `make pretrained` makes one"):
        app.main([])
    (tmp_path / app.PRETRAINED.parent).mkdir(parents=True)
    (tmp_path / app.PRETRAINED).symlink_to(root / "divsem")
    opt = app.AppOptions().parse(["--device", "cpu"])
    assert (opt.checkpoints_dir, opt.name, opt.model) == ("checkpoints/pretrained", "divsem", "divsem")
