"""One pass over all metrics, the result line, the table, and what a wrong name answers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from metrics.declaration import Setup
from metrics.evaluator import Evaluator, build_evaluator
from metrics.flags import add_metric_flags
from metrics.metric import Metric, MetricValue
from metrics.pictures import Pictures
from metrics.registry import EDITING
from metrics.reporting.result import append_result, format_table, result_line, write_result
from options.parser import StrictParser
from testing.editing_flow import EditingFlow
from util.errors import DataError, UserError
from util.versions import current_commit, library_versions


def setup(*flags: str) -> Setup:
    parser = StrictParser()
    add_metric_flags(parser, EDITING, default="none")
    parser.add_argument("--checkpoints_dir", default="checkpoints")
    return Setup(opt=parser.parse_args([*flags]), device=torch.device("cpu"), label_nc=3)


def pictures(seed: int) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    fake, real = (torch.randint(0, 256, (2, 3, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2))
    mask = torch.ones(2, 1, 16, 16, dtype=torch.uint8)
    return Pictures(fake, real, mask, torch.zeros(2, 16, 16, dtype=torch.int64), ["a", "b"])


class CountPictures(Metric):
    def reset(self) -> None:
        self.seen = 0

    def update(self, pictures: Pictures) -> None:
        self.seen += len(pictures)

    def compute(self) -> dict[str, MetricValue]:
        self.notes = ["counted"]
        return {"count": MetricValue(self.seen, "1", "pictures", self.seen, {"real": 7.0})}


def test_every_metric_sees_every_batch_once() -> None:
    counters = [CountPictures(), CountPictures()]
    evaluator = Evaluator(counters, notes=["set-up"])
    evaluator.reset()
    for seed in range(3):
        evaluator.update(pictures(seed))
    assert [counter.seen for counter in counters] == [6, 6]
    assert evaluator.compute()["count"].value == 6
    assert evaluator.notes == ["set-up", "counted", "counted"]


def test_build_leaves_miou_out_and_says_how_to_get_it() -> None:
    evaluator = build_evaluator(["miou", "acc", "l1", "psnr"], setup())
    evaluator.update(pictures(0))
    assert set(evaluator.compute()) == {"l1_masked", "psnr_masked"}
    assert "--segmenter" in evaluator.notes[0]
    assert "train_segmenter.py" in evaluator.notes[0]


def test_result_line_is_plain_json_with_details() -> None:
    values = {"fid": MetricValue(31.25, "distance", "how", 4, {"num_real": 3})}
    line = result_line(values, step=7, task="free_form", num_images=4, protocol={"crop_size": 64})
    assert json.loads(json.dumps(line, allow_nan=False)) == {
        "metrics": {"fid": 31.25},
        "details": {"fid": {"unit": "distance", "protocol": "how", "count": 4, "num_real": 3}},
        "step": 7,
        "task": "free_form",
        "num_images": 4,
        "protocol": {"crop_size": 64, "commit": current_commit(), "versions": library_versions()},
    }


def test_no_file_of_a_result_holds_what_is_no_json(tmp_path: Path) -> None:
    """NaN and infinities: as a value, in details, in protocols."""
    extra = {"standard_error": math.nan, "each": {"a": 1.0, "b": math.inf}, "draws": [1.0, math.nan]}
    values = {"fid": MetricValue(31.25, "distance", "how", 4, extra), "kid": MetricValue(math.nan, "distance", "", 4)}
    protocol = {"scale": math.nan, "sizes": (-math.inf, 2)}
    line = result_line(values, step=7, task="class", num_images=4, protocol=protocol)
    write_result(line, tmp_path, tmp_path, kept={"influence": {"values": {"fid": [[0.5, None]]}}})

    def refuse(text: str) -> None:
        raise AssertionError(text)

    for text in ((tmp_path / "result.json").read_text(), (tmp_path / "metrics.jsonl").read_text()):
        read = json.loads(text, parse_constant=refuse)
        assert read["metrics"] == {"fid": 31.25}
        assert read["details"]["fid"].items() >= {"each": {"a": 1.0}, "draws": [1.0, None]}.items()
        assert "standard_error" not in read["details"]["fid"]
        assert read["details"]["kid"]["value"] == "nan"
        assert read["protocol"].items() >= {"sizes": [None, 2]}.items() and "scale" not in read["protocol"]
    with pytest.raises(ValueError, match="JSON compliant"):
        append_result({"metrics": {"fid": math.nan}}, tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_table_is_aligned_and_marks_what_is_missing() -> None:
    miou = MetricValue(41.5, "%", "", 4, {"real": 60.25})
    table = format_table([("trained", {"fid": 31.249, "miou_x": miou}), ("untrained run", {"l1_masked": 0.12345})])
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["fid", "↓", "miou_x", "↑", "l1_masked", "↓"]
    assert lines[2].split() == ["trained", "31.25", "41.50", "(real", "60.25)", "-"]
    assert lines[3].split() == ["untrained", "run", "-", "-", "0.1235"]


def test_names_are_parsed_and_wrong_ones_answered() -> None:
    parse = EditingFlow.metrics
    assert parse(" fid, l1,fid ") == ["fid", "l1"]
    assert parse("none") == parse("") == []
    for word in ("all", "none"):
        with pytest.raises(UserError, match=f"--metrics {word},fid: '{word}' stands alone"):
            parse(f"{word},fid")
    assert parse(EditingFlow.default_metrics) == [
        "fid",
        "fid_region",
        "miou",
        "acc",
        "miou_masked",
        "acc_masked",
        "l1",
        "psnr",
        "ssim",
        "seam",
    ]
    with pytest.raises(UserError, match=r"'ssin' is unknown. Did you mean 'ssim'"):
        parse("fid,ssin")


def test_what_cannot_be_had_stops_the_command_or_is_left_out_of_all() -> None:
    nowhere = setup("--lpips_weights", "nowhere.pth")
    with pytest.raises(UserError, match=r"--lpips_weights nowhere.pth: no such file"):
        build_evaluator(["lpips", "l1"], nowhere)
    evaluator = build_evaluator(["lpips", "l1"], nowhere, required=False)
    evaluator.update(pictures(0))
    assert set(evaluator.compute()) == {"l1_masked"}
    assert evaluator.notes == [
        "lpips: left out: --lpips_weights nowhere.pth: no such file; needed is alex.pth of the package lpips"
    ]
    assert set(EditingFlow.metrics("all")) > {
        "fid_clean",
        "fid_region",
        "kid",
        "prdc",
        "class_acc",
        "div",
        "seam",
        "style",
    }


def test_many_metrics_stand_below_each_other_with_their_errors() -> None:
    values = {f"m{i}": MetricValue(float(i), "1", "", 4) for i in range(9)}
    values["kid"] = MetricValue(0.5, "distance", "", 4, {"standard_error": 0.25})
    values["l1_whole"] = MetricValue(0.5, "1", "", 4, {"ci95": [0.25, 0.75]})
    lines = format_table([("run", values)]).splitlines()
    assert [line.split()[0] for line in lines] == ["run", "-" * len(lines[1]), *values]
    assert lines[-2].split() == ["kid", "↓", "0.5000", "±", "0.2500"]
    assert lines[-1].split() == ["l1_whole", "↓", "0.5000", "[0.25,", "0.75]"]


def test_a_generated_picture_that_is_not_finite_is_named() -> None:
    from testing.editing_flow import as_saved

    image = torch.zeros(2, 3, 16, 16)
    ids = torch.zeros(2, 16, 16, dtype=torch.int64)
    batch = {"image": image, "mask": torch.ones(2, 1, 16, 16), "label": ids, "inst": ids, "name": ["a", "b"]}
    saved = as_saved(batch, [image, image + 1], "free_form")  # type: ignore[arg-type]
    assert saved.draws is not None
    assert saved.draws.shape == (2, 2, 3, 16, 16)
    assert (int(saved.fake.max()), int(saved.draws[:, 1].min())) == (128, 255)
    broken = image.clone()
    broken[1, 0, 3, 3] = float("nan")
    with pytest.raises(DataError, match="b: the generated picture holds NaN"):
        as_saved(batch, [image, broken], "free_form")  # type: ignore[arg-type]
