"""The page as a person uses it: Chromium opens, paints, moves, generates, downloads (make test-browser)."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from editing_runs import make_runs
from PIL import Image

pytest.importorskip("uvicorn", reason="the page's packages are not installed (requirements-app.txt)")
pytest.importorskip("playwright", reason="Playwright is not installed (make test-browser)")

from page_client import serving, serving_tabs
from playwright.sync_api import sync_playwright

import semedit
import train as train_command
from models import MODELS
from scripts import app, edit
from semedit.page.tabs import make_tab
from util.images import read_image

PROGRAM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not PROGRAM, reason="no Chromium is installed (make test-browser)")
CAR = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    where = ["--checkpoints_dir", str(root), "--name", "divsem", "--device", "cpu", "--num_workers", "0"]
    editor = semedit.Editor(app.AppOptions().parse([*where, "--segmenter", "streets"]))
    with serving(editor) as (client, _):
        yield f"http://127.0.0.1:{client.port}/"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])  # which root must not have
        yield browser
        browser.close()


class Page:
    """A page with what a person does there."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda told: self.wrong.append(told.text) if told.type == "error" else None)

    def start(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector("#frame:not([hidden])")

    def open(self, root: Path, scene: str = "a", *kinds: str) -> None:
        self.page.click("summary")
        for kind in kinds or ("image", "label", "inst"):
            self.page.set_input_files(f"#open [name={kind}]", root / kind / f"{scene}.png")
        self.page.click("#open button")
        self.until("document.querySelector('#view').width === 128")

    def until(self, expression: str) -> None:
        """Wait for an expression to be true; Playwright's own waiting evaluates it in a way that the page forbids."""
        deadline = time.monotonic() + 60
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.03)

    def tool(self, name: str) -> None:
        self.page.check(f"#tools [value={name}]", force=True)

    def choose(self, name: str) -> None:
        self.page.click(f"#palette label[title={name}]")

    def at(self, x: float, y: float) -> tuple[float, float]:
        box = self.page.locator("#marks").bounding_box()
        width, height = self.page.evaluate(
            "[document.querySelector('#view').width, document.querySelector('#view').height]"
        )
        return box["x"] + x / width * box["width"], box["y"] + y / height * box["height"]

    def drag(self, *places: tuple[float, float]) -> None:
        self.page.locator("#marks").scroll_into_view_if_needed()
        self.page.mouse.move(*self.at(*places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.at(*place))
        self.page.mouse.up()

    def click(self, x: float, y: float) -> None:
        self.drag((x + 0.5, y + 0.5))

    def things(self) -> list[str]:
        """Ids of all instances that the list offers."""
        found: list[str] = self.page.eval_on_selector_all("#things option", "all => all.map(each => each.value)")
        return [value for value in found if value]

    def generate(self, count: int, *, by_keyboard: bool = False, made: int | None = None) -> None:
        before = self.page.get_attribute("#all", "href")
        self.page.fill("#count", str(count))
        if by_keyboard:
            self.page.keyboard.press("Control+Enter")
        else:
            self.page.click("#generate")
        self.until(f"document.querySelector('#all').getAttribute('href') !== {json.dumps(before)}")
        self.until("document.querySelector('#progress').hidden")
        assert self.page.locator("#grid figure").count() == (made or count)

    def everything(self, link: str = "#all") -> ZipFile:
        with self.page.expect_download() as waiting:
            self.page.click(link)
        return ZipFile(io.BytesIO(waiting.value.path().read_bytes()))


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    one = Page(context.new_page())
    one.start(address)
    yield one
    context.close()
    assert not one.wrong


def pixels(packed: ZipFile, name: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(packed.read(name))))


def test_open_paint_generate_download(page: Page, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page.open(root)
    before = page.things()
    page.tool("paint")
    page.choose("car")
    page.drag((20, 70), (45, 75), (50, 75))
    page.until(f"document.querySelectorAll('#things option').length === {len(before) + 2}")
    (made,) = set(page.things()) - set(before)
    page.drag((50, 75), (60, 80))  # goes on with the same car
    page.tool("mask")
    page.drag((90, 20), (100, 24))
    page.generate(2)
    packed = page.everything()
    label, inst, mask = (pixels(packed, f"a_{kind}.png") for kind in ("label", "inst", "mask"))
    assert (label[74, 30], inst[74, 30], inst[79, 59]) == (CAR, int(made), int(made))
    assert mask[74, 30] == mask[22, 95] == 255 and mask[5, 5] == 0
    assert label[22, 95] == np.array(Image.open(root / "label/a.png"))[22, 95]  # erased, not painted
    known = mask == 0
    results = [pixels(packed, name) for name in ("a_edit.png", "a_edit_2.png")]
    for picture in results:
        np.testing.assert_array_equal(picture[known], np.array(Image.open(root / "image/a.png"))[known])
    assert (results[0] != results[1]).any()
    with page.page.expect_download() as waiting:
        page.page.click("figure:nth-child(2) a")
    assert waiting.value.suggested_filename == "a_edit_2.png"
    assert waiting.value.path().read_bytes() == packed.read("a_edit_2.png")
    packed.extractall(tmp_path)
    (tmp_path / "a_edit_2.png").unlink()
    monkeypatch.chdir(tmp_path)
    line = shlex.split(page.page.text_content("#command"))[2:]
    assert edit.main(line) == 0
    assert (tmp_path / "a_edit_2.png").read_bytes() == packed.read("a_edit_2.png")


def test_select_move_remove_undo_and_go_on(page: Page, root: Path) -> None:
    page.open(root)
    inst, label = (np.array(Image.open(root / kind / "a.png")) for kind in ("inst", "label"))
    cars = [int(number) for number in np.unique(inst[label == CAR])]
    number = max(cars, key=lambda each: int((inst == each).sum()))
    rows, columns = np.nonzero(inst == number)
    x, y = int(columns[len(columns) // 2]), int(rows[len(rows) // 2])
    page.click(x, y)
    assert page.page.input_value("#things") == str(number)
    page.page.hover("#marks")
    page.page.mouse.move(*page.at(x + 0.5, y + 0.5))
    assert page.page.get_attribute("#marks", "title") == "car"
    assert page.page.text_content("#under").startswith(f"car {number} at {x}, {y}")
    page.tool("move")
    page.drag((x + 0.5, y + 0.5), (x - 10, y - 3), (x - 14.5, y - 5.5))
    page.page.wait_for_selector("#undo:enabled")
    page.generate(1)
    moved = page.everything()
    image, now = pixels(moved, "a.png"), pixels(moved, "a_inst.png") == number
    rows, columns = np.nonzero(now)
    assert (now[:-6, :-15] == (inst == number)[6:, 15:])[rows.min() : rows.max(), columns.min() : columns.max()].all()
    np.testing.assert_array_equal(image[y - 6, x - 15], np.array(Image.open(root / "image/a.png"))[y, x])
    page.page.click("#undo")
    page.page.focus("#marks")
    page.page.keyboard.press("Delete")
    page.until(f"![...document.querySelectorAll('#things option')].some(o => o.value === '{number}')")
    page.generate(2, made=1)  # nothing takes a style: a second result would be the same
    removed = page.everything()
    page.page.click("#grid button")  # go on from it
    page.page.wait_for_selector("#generate:disabled")
    page.page.fill("#pixels", "16")
    page.page.click("[data-side=left]")
    page.until("document.querySelector('#view').width === 144")
    page.generate(1)
    np.testing.assert_array_equal(pixels(page.everything(), "a.png")[:, 16:], pixels(removed, "a_edit.png"))
    for _ in range(3):
        page.page.keyboard.press("Control+z")
    page.page.wait_for_selector("#undo:disabled")
    assert str(number) in page.things()
    page.page.keyboard.press("Control+Shift+z")
    assert str(number) not in page.things()


def test_styles_by_draw_mean_reference_and_slider(page: Page, root: Path) -> None:
    page.open(root)
    page.tool("box")
    page.choose("car")
    page.drag((20, 60), (60, 90))
    page.page.wait_for_selector("#generate:enabled")
    pictures = {}
    for style in ("bank", "mean", "reference"):
        page.page.select_option("#style", style)
        if style == "reference":
            page.page.wait_for_selector("#lent:not([hidden])")
            page.page.select_option("#style-class", label="its car")
        page.generate(1)
        packed = page.everything()
        pictures[style] = packed.read("a_edit.png")
        assert f"--style_class {CAR}" in packed.read("command.txt").decode() or style != "reference"
    assert len(set(pictures.values())) == 3
    assert "car (" in page.page.text_content("#drawn")
    page.page.check("#between")
    page.generate(4)
    assert page.page.locator("#grid figure:visible").count() == 1
    assert page.page.locator("#grid figure:visible b").text_content() == "t = 0.00"
    page.page.focus("#slide input")
    page.page.keyboard.press("End")
    assert page.page.locator("#grid figure:visible b").text_content() == "t = 1.00"
    assert "--interpolate 4" in page.page.text_content("#command")


def test_styles_by_thumbnail(page: Page, root: Path) -> None:
    page.open(root)
    inst, label = (np.array(Image.open(root / kind / "a.png")) for kind in ("inst", "label"))
    ids, counts = np.unique(inst[label == CAR], return_counts=True)
    number = int(ids[counts.argmax()])
    page.page.select_option("#style", "codes")
    assert page.page.text_content("#codes-of") == "Select a thing to see the styles of its class."
    page.page.select_option("#things", str(number))
    page.until("document.querySelectorAll('#thumbs img').length >= 3")
    page.until("[...document.querySelectorAll('#thumbs img')].every(each => each.complete && each.naturalWidth > 0)")
    second = page.page.locator("#thumbs button").nth(1)
    code = second.get_attribute("data-code")
    second.click()
    page.page.wait_for_selector("#generate:enabled")  # a visible car is erased, or it would keep its look
    assert second.get_attribute("aria-pressed") == "true"
    assert page.page.text_content("#chosen") == f"car: style {code} ×"
    page.generate(3, made=1)
    assert f"--num_samples 1 --style_code {CAR}:{code} " in page.page.text_content("#command")
    packed = page.everything()
    assert (pixels(packed, "a_mask.png")[inst == number] == 255).all()
    np.testing.assert_array_equal(pixels(packed, "a_inst.png"), inst)
    page.page.click("#chosen button")
    assert page.page.locator("#thumbs [aria-pressed=true]").count() == 0
    page.generate(2)
    assert "--style_code" not in page.page.text_content("#command")


def test_a_shape_from_another_picture_and_a_panorama(page: Page, root: Path) -> None:
    page.open(root)
    inst, label = (np.array(Image.open(root / kind / "a.png")) for kind in ("inst", "label"))
    ids, counts = np.unique(inst[label == CAR], return_counts=True)
    number = int(ids[counts.argmax()])
    rows, columns = np.nonzero(inst == number)
    page.page.select_option("#box-shape", "thing")
    page.page.fill("#reach", "0")
    page.tool("box")
    page.choose("person")
    page.drag((20, 20), (40, 40))
    page.page.wait_for_selector("#say.wrong")
    assert page.page.text_content("#say") == "Click the thing in the other picture whose shape is wanted."
    box = page.page.locator("#lent").bounding_box()
    middle = len(rows) // 2
    x, y = ((v[middle] + 0.5) / n for v, n in ((columns, inst.shape[1]), (rows, inst.shape[0])))
    page.page.locator("#lent").click(position={"x": x * box["width"], "y": y * box["height"]})
    assert page.page.text_content("#shape-of") == f"The next box takes the shape of its car {number}."
    page.drag((20, 20), (20 + int(np.ptp(columns)), 20 + int(np.ptp(rows))))
    page.page.wait_for_selector("#undo:enabled")
    page.page.fill("#width", "200")
    page.page.click("#widen")
    page.until("document.querySelector('#view').width === 200")
    page.page.click("#invert")
    page.page.click("#invert")
    page.generate(1)
    packed = page.everything()
    silhouette = inst[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == number
    part = np.s_[20 : 20 + silhouette.shape[0], 20 : 20 + silhouette.shape[1]]
    np.testing.assert_array_equal(pixels(packed, "a_label.png")[part] == 7, silhouette)
    np.testing.assert_array_equal(pixels(packed, "a_mask.png")[part] == 255, silhouette)  # without a margin
    assert (pixels(packed, "a_mask.png")[:, 128:] == 255).all()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_by_keyboard_in_400_pixels(chromium: Any, address: str, scheme: str) -> None:
    context = chromium.new_context(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    page = Page(context.new_page())
    page.start(address)
    press = page.page.keyboard.press

    def tab_to(selector: str) -> None:
        for _ in range(80):
            if page.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            press("Tab")
        raise AssertionError(f"{selector} cannot be reached")

    before = page.things()
    tab_to("#tools input")
    press("ArrowRight")
    assert page.page.is_checked("#tools [value=paint]")
    tab_to("#marks")
    press("ArrowLeft")
    press("Shift+ArrowDown")
    assert " at 41, 40" in page.page.text_content("#under")
    tab_to("#palette input")
    for _ in range(CAR):
        press("ArrowDown")
    page.page.keyboard.press("Shift+Tab")
    tab_to("#marks")
    press("Space")
    page.until(f"document.querySelectorAll('#things option').length === {len(before) + 2}")
    page.generate(1, by_keyboard=True)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 400
    small = page.page.evaluate(
        "[...document.querySelectorAll('button, select, input[type=number], a.button')]"
        ".filter(each => each.offsetParent && each.offsetHeight < 32).map(each => each.id || each.textContent)"
    )
    assert not small  # too low for a finger
    context.close()
    assert not page.wrong


@pytest.fixture(scope="module")
def tabs(root: Path) -> Iterator[str]:
    pytest.importorskip("diffusers", reason="requirements-diffusion.txt is not installed")
    quick = ["--num_workers", "0", "--image_every", "0", "--no-tensorboard", "--device", "cpu", "--max_steps", "0"]
    for name, model in (("layout", "semia"), ("style", "s2prest")):
        where = ["--checkpoints_dir", str(root), "--name", name]
        assert train_command.main([*MODELS.get(model).tiny(root), *where, *quick]) == 0
    runs = []
    for name in ("divsem", "layout", "style"):
        runs.append(app.AppOptions().parse(["--checkpoints_dir", str(root), "--name", name, "--device", "cpu"]))
    with serving_tabs([make_tab(run, 256) for run in runs]) as (client, _):
        yield f"http://127.0.0.1:{client.port}/"


@pytest.mark.parametrize("width", [1280, 400])
def test_tabs_of_one_picture_and_of_a_style(
    chromium: Any, tabs: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 900})
    page = Page(context.new_page())
    page.start(tabs)
    page.until("document.querySelector('#layout-render').disabled === false")
    page.page.focus("#tabs button")
    page.page.keyboard.press("ArrowRight")
    assert page.page.is_visible("#layout-marks") and page.page.is_hidden("#marks")
    assert page.page.text_content("#about").startswith("layout: semia of one picture")
    page.page.click("#layout-palette label:nth-child(2)")
    page.page.focus("#layout-marks")
    page.page.keyboard.press("Space")
    page.page.keyboard.press("Control+z")
    page.page.wait_for_selector("#layout-clear:disabled")
    page.page.keyboard.press("Control+Shift+z")
    page.page.check("#layout-part")
    page.page.click("#layout-render")
    page.page.wait_for_selector("#layout-grid img")
    packed = page.everything("#layout-all")
    mask = pixels(packed, "img_mask.png") == 255
    result, picture = pixels(packed, "img_edit.png"), read_image(root / "analogy" / "img.png")
    np.testing.assert_array_equal((result != picture).any(-1) & ~mask, np.zeros_like(mask))
    assert 0 < mask.sum() < 200
    packed.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert edit.main(shlex.split(page.page.text_content("#layout-command"))[2:]) == 0
    assert (tmp_path / "img_edit.png").read_bytes() == packed.read("img_edit.png")

    page.page.click("#tabs button:last-child")
    page.page.click("#content-example")
    page.until("document.querySelector('#content-shown').naturalWidth === 512")
    page.page.set_input_files("#content", root / "image" / "a.png")
    page.until("document.querySelector('#content-shown').naturalWidth === 128")
    for name, value in {"size": 64, "steps": 5, "num_samples": 2, "seed": 3}.items():
        page.page.fill(f"#style-{name}", str(value))
    page.page.click("#stylise")
    page.until("document.querySelectorAll('#style-grid img').length === 2")
    packed = page.everything("#style-all")
    folder = "results/style/wt_0.4_steps=5_size=64_seed=3_num_samples=2"
    names = [f"{folder}/stylized/a.png", f"{folder}/stylized_2/a.png"]
    assert [name for name in packed.namelist() if name.startswith("results")] == names
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert not page.wrong


def test_a_photograph_is_labelled_and_mistakes_are_sentences(page: Page, root: Path, tmp_path: Path) -> None:
    page.open(root, "a", "image")
    page.until("document.querySelector('#say').textContent.includes('labels by streets')")
    (tmp_path / "x.png").write_text("no picture")
    page.page.click("summary")
    page.page.set_input_files("#open [name=image]", tmp_path / "x.png")
    page.page.click("#open button")
    page.page.wait_for_selector("#say.wrong")
    assert page.page.text_content("#say") == (
        "x.png: the picture is no PNG, JPEG or WebP file, whatever its name says; save it as one"
    )
    page.wrong.clear()  # Chromium notes the answer's status
