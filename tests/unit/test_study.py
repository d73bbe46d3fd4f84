"""A user study: what the page hides, what it shows, how votes are counted and which are refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.study import main
from testing.study.counting import Counted, count_votes, wilson
from testing.study.making import Trial, draw_trials
from util.errors import UserError
from util.images import save_labels, save_png

NAMES = ["a<b>", "c&d", "e'f"]
METHODS = ["first_method", "second_method", "third_method"]
HOSTILE = "</script><script>alert(1)</script>\"'<b>"


def make_results(root: Path) -> list[str]:
    """Folders as test.py leaves them: a grey per method and picture, a real picture, mask and labels."""
    for level, method in enumerate(METHODS):
        folder = root / method / "results" / "test_free_form"
        for place, name in enumerate(NAMES):
            flat = np.full((64, 64, 3), 10 * level + place, np.uint8)
            save_png(flat, folder / "fake" / f"{name}.png")
            save_png(np.full((64, 64, 3), 200 + place, np.uint8), folder / "real" / f"{name}.png")
            save_png(np.full((64, 64), 255 * (place % 2), np.uint8), folder / "mask" / f"{name}.png")
            save_labels(np.zeros((64, 64), np.int64), np.zeros((1, 3), np.uint8), folder / "label" / f"{name}.png")
        line = {"metrics": {}, "details": {}, "step": 1, "task": "free_form", "num_images": len(NAMES),
                "protocol": {"run": method, "mask_set": "m"}, "per_picture": {"names": NAMES}}  # fmt: skip
        (folder / "result.json").write_text(json.dumps(line))
    return [str(root / method / "results" / "test_free_form") for method in METHODS]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    command = ["make", *make_results(root), "--output", str(root / "out"), "--title", HOSTILE, "--question", HOSTILE]
    assert main(command) == 0
    return root / "out"


def page_data(study: Path) -> dict:
    text = (study / "study.html").read_text()
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def test_the_page_names_no_method_and_no_picture(study: Path) -> None:
    text = (study / "study.html").read_text()
    assert not [name for name in (*METHODS, *NAMES) if name in text]
    assert "<script>alert" not in text and "<b>" not in text
    assert text.count("</script>") == 2
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text and "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)


def test_the_page_shows_what_the_key_says(study: Path) -> None:
    data, key = page_data(study), json.loads((study / "study.json").read_text())
    assert data["study"] == key["study"] and len(data["trials"]) == len(key["trials"]) == 3 * 3

    def level(place: int) -> int:
        return np.array(Image.open(io.BytesIO(base64.b64decode(data["pictures"][place]))))[0, 0, 0]

    for shown, trial in zip(data["trials"], key["trials"], strict=True):
        expected = [10 * METHODS.index(trial[side]) + NAMES.index(trial["picture"]) for side in ("left", "right")]
        assert [level(place) for place in shown["sides"]] == expected
        assert [title for title, _ in shown["shared"]] == ["input", "labels"]
        assert level(shown["shared"][0][1]) in (128, 200 + NAMES.index(trial["picture"])), "nothing of what was erased"
    assert len({frozenset((t["left"], t["right"], t["picture"])) for t in key["trials"]}) == 9


def test_sides_and_order_are_drawn() -> None:
    names = [f"p{i}" for i in range(200)]
    trials = draw_trials(names, ["x", "y"], count=150, seed=0)
    assert trials == draw_trials(names[::-1], ["x", "y"], count=150, seed=0)
    assert trials != draw_trials(names, ["x", "y"], count=150, seed=1)
    assert len({trial.picture for trial in trials}) == 150
    assert 50 < Counter(trial.left for trial in trials)["x"] < 100


def votes(folder: Path, name: str, **changes: object) -> Path:
    key = json.loads((folder / "study.json").read_text())
    content = {"study": key["study"], "participant": name, "votes": {"0": "left", "1": "right"}, **changes}
    path = folder / f"votes_{name}.json"
    path.write_text(json.dumps(content))
    return path


def test_votes_are_counted(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(votes(study, name)) for name in ("u", "v")]
    capsys.readouterr()
    assert main(["count", str(study), *files]) == 0
    printed = capsys.readouterr().out
    trials = [Trial(**trial) for trial in json.loads((study / "study.json").read_text())["trials"]]
    assert "2 participants, 9 choices each; 14 choices were not made" in printed
    chosen, other = trials[0].left, trials[0].right
    counted = count_votes(trials, {"u": {0: "left"}, "v": {0: "left"}})
    assert counted == [Counted(*((chosen, other), (2, 0)) if chosen < other else ((other, chosen), (0, 2)))]
    total = sum(int(number) for number in re.findall(r"_method (\d+)\b", printed))
    assert total == 4


def test_the_interval_is_wilsons() -> None:
    """Its ends p solve |share - p| = z sqrt(p (1 - p) / n)."""
    for chosen, count in ((0, 5), (3, 10), (65, 100), (7, 7)):
        for end in wilson(chosen, count):
            if 0 < end < 1:
                assert abs(chosen / count - end) == pytest.approx(1.959963984540054 * (end * (1 - end) / count) ** 0.5)
    assert 0.55 < wilson(65, 100)[0] < 0.65 < wilson(65, 100)[1] < 0.74
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    "changes, said",
    [({"study": "0" * 16}, "votes of study 0000000000000000, not of"),
     ({"votes": {"9": "left"}}, "'9: left' is no choice"), ({"votes": {"0": "both"}}, "'0: both' is no choice"),
     ({"votes": [1]}, "not the votes"),
     ({"participant": "first"}, "the participant of")],
)  # fmt: skip
def test_other_votes_are_refused(study: Path, changes: dict, said: str) -> None:
    first = votes(study, "first")
    with pytest.raises(UserError, match=re.escape(said)):
        main(["count", str(study), str(first), str(votes(study, "second", **changes))])


def test_a_study_needs_two_methods_of_one_task(tmp_path: Path) -> None:
    one, *_ = make_results(tmp_path)
    with pytest.raises(UserError, match="two methods at least, not of first_method"):
        main(["make", one, "--output", str(tmp_path / "out")])
    with pytest.raises(UserError, match=r"not a study's key|cannot be read as a study's key"):
        main(["count", str(tmp_path), one])
