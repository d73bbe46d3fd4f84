"""SIEDOB's networks reproduce the numbers recorded from the authors' code (tests/golden/siedob_golden.json)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hash_fill import assert_stats
from siedob_nets import GOLDEN, NETWORKS, Objects, Scene, assert_golden, golden_network
from torch import Tensor

EXPECTED = GOLDEN["networks"]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def objects() -> Objects:
    return Objects()


def children(tag: str) -> dict[str, str]:
    """Return the released network's children -> our modules with the same output."""
    paths: dict[str, list[list[str]]] = {}
    for ours, theirs in NETWORKS[tag][0].modules.items():
        paths.setdefault(theirs.split(".")[0], []).append(ours.split("."))
    return {child: shared_start(found).removesuffix(".conv") for child, found in paths.items()}


def shared_start(paths: list[list[str]]) -> str:
    different = (k for k, parts in enumerate(zip(*paths, strict=False)) if len(set(parts)) > 1)
    return ".".join(paths[0][: next(different, len(paths[0]))])


def run_recorded(tag: str, call: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return what `call` does with the network, and the outputs of its children by their released names."""
    net, outputs, hooks = golden_network(tag), {}, []
    for child, path in children(tag).items():
        hook = net.get_submodule(path).register_forward_hook(
            lambda module, args, out, child=child: outputs.__setitem__(child, out)
        )
        hooks.append(hook)
    with torch.no_grad():
        result = call(net)
    for hook in hooks:
        hook.remove()
    return result, outputs


def assert_children(outputs: dict[str, Tensor], expected: dict[str, list[dict[str, Any]]]) -> None:
    """Compare shapes, means and deviations; 7 digits after the point are listed."""
    assert outputs.keys() == expected.keys()
    for child, (stats,) in expected.items():
        assert_stats(outputs[child].reshape(stats["shape"]), stats, moments=1e-5)


def test_inputs_are_the_golden_ones(scene: Scene, objects: Objects) -> None:
    check = EXPECTED["netG_BG"]["input_check"]
    assert scene.edge.sum() == check["nonzero_edge_px"]
    assert scene.background_mask.sum() == check["mask_px"]
    assert (1 - scene.background).sum() == check["fg_px"]
    labels, counts = scene.label.unique(return_counts=True)
    hist = {str(k): n for k, n in zip(labels.tolist(), counts.tolist(), strict=True)}
    assert hist == check["label_hist"]
    image, seg, edge, mask, background = scene.background_input()
    assert_golden(torch.cat([image.flip(1), seg * background, edge * background, mask], 1), check["input"])
    check = EXPECTED["inp.netG"]["input_check"]
    assert objects.object_mask.sum((1, 2, 3)).tolist() == check["inst_px"]
    assert objects.mask.sum((1, 2, 3)).tolist() == check["mask_px"]


def test_background_generator_and_discriminators(scene: Scene) -> None:
    made, outputs = run_recorded("netG_BG", lambda net: net(*scene.background_input()))
    expected = EXPECTED["netG_BG"]
    assert_golden(made, expected["output"], picture=True)
    assert_children(outputs, expected["children"])
    composite = scene.background_composite(made)
    assert_golden(composite, expected["masked_fake"], picture=True)
    judged = golden_network("netD_BG")(torch.cat([scene.seg, composite], 1))[-1]
    assert_golden(judged, EXPECTED["netD_BG"]["output"], judged=True)
    seen = torch.cat([composite, scene.seg], 1)[:, :, 60:180, 40:160]
    patch = F.interpolate(seen, (160, 160), mode="bilinear", align_corners=False)
    assert_golden(torch.cat([patch[:, :3].flip(1), patch[:, 3:]], 1), EXPECTED["netD_patch"]["input"])
    assert_golden(golden_network("netD_patch")(patch)[-1], EXPECTED["netD_patch"]["output"], judged=True)


def test_object_inpainter_and_discriminator(objects: Objects) -> None:
    made, outputs = run_recorded(
        "inp.netG", lambda net: net(objects.masked, objects.object_mask, objects.mask, objects.cls)
    )
    expected = EXPECTED["inp.netG"]
    assert_golden(made, expected["inp_img"], picture=True)
    assert_children(outputs, expected["children"])
    composite = made * objects.mask + objects.masked
    assert_golden(composite, expected["masked_inp"], picture=True)
    judged = golden_network("inp.netD_inp")(torch.cat([composite, objects.mask, objects.cls], 1))[-1]
    assert_golden(judged, EXPECTED["inp.netD_inp"]["output"], judged=True)


def test_style_generator_and_discriminator(objects: Objects) -> None:
    inputs = objects.cls, objects.style_image, objects.style_cls
    (made, code, cycle), outputs = run_recorded("sty.netG", lambda net: net(*inputs))
    expected = EXPECTED["sty.netG"]
    assert_golden(made, expected["image"], picture=True)
    assert_golden(code[..., None, None], expected["sty_code"])
    assert_golden(cycle[..., None, None], expected["cycle_code"])
    ups = expected["children"].pop("up")  # one module of theirs, used after each block that narrows
    for k, stats in enumerate(ups, start=1):
        doubled = outputs[f"conv{k}"].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        assert_stats(doubled, stats, moments=1e-5)
    assert_children(outputs, expected["children"])
    judged = golden_network("sty.netD_style")(torch.cat([made * objects.object_mask, objects.cls], 1))[-1]
    assert_golden(judged, EXPECTED["sty.netD_style"]["output"], judged=True)


def test_fusion_generator_and_discriminator(scene: Scene) -> None:
    made, outputs = run_recorded("netG_F", lambda net: net(scene.recomposed, scene.mask, scene.edge))
    expected = EXPECTED["netG_F"]
    assert_golden(made, expected["output"], picture=True)
    assert_children(outputs, expected["children"])
    composite = made * scene.mask + scene.image * (1 - scene.mask)
    assert_golden(composite, expected["masked_F"], picture=True)
    assert_golden(golden_network("netD_F")(composite)[-1], EXPECTED["netD_F"]["output"], judged=True)


def test_colours_matter() -> None:
    """The golden numbers would not be met by a network fed in the other order."""
    scene = Scene()
    made = golden_network("netG_F")(scene.recomposed.flip(1), scene.mask, scene.edge)
    with pytest.raises(AssertionError):
        assert_golden(made.flip(1), EXPECTED["netG_F"]["output"], picture=True)
