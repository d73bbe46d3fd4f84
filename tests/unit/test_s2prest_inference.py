"""S2PreST on the tiny random pipeline: inference, its coefficients, and diffusers' own loop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from s2prest_tiny import QUICK, batch_of, picture, run, tiny_controlnet, tiny_model

from models.networks.s2prest.inversion import Coefficients, alphas_cumprod
from models.s2prest_model import S2PreSTModel, truncated
from util.device import autocast
from util.edge_maps import edge_picture
from util.errors import UserError
from util.images import to_tensor
from util.pictures import canvas_size, resized

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "s2prest_golden.json").read_text())


@pytest.fixture(scope="module")
def model() -> S2PreSTModel:
    return tiny_model()


def test_same_seed_same_picture_and_strength_counts_steps(model: S2PreSTModel) -> None:
    content, calls = picture(1), []
    handle = model.frozen.unet.register_forward_hook(lambda *args: calls.append(len(args[1][0])))
    try:
        first = run(model, content)
        assert calls == [1, 2, 2, 2, 2]  # one conditional prediction, then both for guidance
        assert np.array_equal(first, run(model, content))
        assert not np.array_equal(first, run(model, content, seed=1))
        calls.clear()
        run(model, content, replace(QUICK, strength=0.2))
        assert len(calls) == 3
    finally:
        handle.remove()


def test_batch_gives_what_single_pictures_give(model: S2PreSTModel) -> None:
    contents = [picture(1), picture(2)]
    edges = [edge_picture(content, "gradient") for content in contents]
    together = model.stylise(contents, edges, [42, 43], QUICK)
    for content, seed, result in zip(contents, (42, 43), together, strict=True):
        assert np.abs(run(model, content, seed=seed).astype(int) - result).max() <= 1


def test_every_coefficient_has_its_effect(model: S2PreSTModel) -> None:
    content = picture(1)
    usual = run(model, content)
    for change in ({"cond_mix": (0.0, 1.0, 0.0)}, {"cond_mix": (0.3, 0.3, 0.4)}, {"latent": "adain"},
                   {"edge_mix": 0.1}, {"latent_mix": 0.2}, {"guidance": 1.0}, {"steps": 20},
                   {"match_noise_level": True}, {"strength": 1.0}):  # fmt: skip
        assert not np.array_equal(usual, run(model, content, replace(QUICK, **change))), change


def test_without_style_latent_the_style_picture_has_no_influence() -> None:
    model, content = tiny_model(), picture(1)
    how = replace(QUICK, latent_mix=1.0)
    one = run(model, content, how)
    mixed = run(model, content)
    model.style = picture(8)
    assert np.array_equal(one, run(model, content, how))
    assert not np.array_equal(mixed, run(model, content))


def test_the_shares_are_those_of_content_edges_and_style(model: S2PreSTModel) -> None:
    assert model.style is not None
    edges = edge_picture(model.style, "gradient")
    one, other = (
        model.stylise([model.style], [edges], [42], replace(QUICK, cond_mix=shares))[0]
        for shares in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    )
    assert np.array_equal(one, other)  # the content is the style picture


@torch.no_grad()
def test_the_network_answers_otherwise_about_pictures_that_it_was_not_trained_on() -> None:
    """With `rgb` a content's token is another one than the style's, with `legacy` there is one token for all."""
    for mode, alike in (("rgb", False), ("legacy", True)):
        model = tiny_model(mode)
        assert model.style is not None
        one, other = (model.netE(model.frozen.embed([p], mode)[None]) for p in (model.style, picture(1)))
        assert torch.equal(one, other) is alike
        style = replace(QUICK, token="style", cond_mix=(0.3, 0.3, 0.4))
        apart = int(np.abs(run(model, picture(1)).astype(int) - run(model, picture(1), style)).max())
        assert (apart <= 1) is alike


def test_the_styles_token_is_asked_for_the_noise_and_the_mix_for_guidance(model: S2PreSTModel) -> None:
    seen: list[torch.Tensor] = []
    handle = model.frozen.unet.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    try:
        for how in (QUICK, replace(QUICK, cond_mix=(0.0, 0.0, 1.0)), replace(QUICK, token="style")):
            run(model, picture(1), how)
    finally:
        handle.remove()
    usual, own, style = (seen[k : k + 5] for k in (0, 5, 10))
    assert torch.equal(style[0], own[0]) and not torch.equal(style[0], usual[0])
    assert all(torch.equal(a, b) for a, b in zip(style[1:], usual[1:], strict=True))


def test_a_second_style_alone_is_a_run_of_its_own() -> None:
    model, content, shares = tiny_model(), picture(1), (0.3, 0.3, 0.4)
    model.second_style = picture(8)
    mixed = run(model, content, replace(QUICK, style_mix=0.0, cond_mix=shares))
    model.style, model.second_style = picture(8), None
    assert np.array_equal(mixed, run(model, content, replace(QUICK, cond_mix=shares)))


def test_a_controlnet_guides_every_prediction_by_cannys_edges() -> None:
    usual, model, seen = run(tiny_model(), picture(1)), tiny_model(), list[torch.Tensor]()
    model.frozen.guide(tiny_controlnet(trained=False))
    assert np.array_equal(run(model, picture(1)), usual)
    model.frozen.guide(tiny_controlnet())
    model.frozen.controlnet.register_forward_pre_hook(
        lambda module, args, known: seen.append(known["controlnet_cond"]), with_kwargs=True
    )
    guided = run(model, picture(1))
    assert not np.array_equal(guided, usual)
    lines = torch.from_numpy(255 - edge_picture(picture(1), "canny")).movedim(-1, 0) / 255
    assert [len(control) for control in seen] == [1, 2, 2, 2, 2]
    assert all(torch.allclose(each, lines) for control in seen for each in control) and lines.any()
    together = model.stylise([picture(1), picture(2)], [edge_picture(picture(k), "gradient") for k in (1, 2)],
                             [42, 42], QUICK)  # fmt: skip
    assert np.abs(together[0].astype(int) - guided).max() <= 1


def test_a_controlnet_of_another_stable_diffusion_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(UserError, match="it has conditioning of width 64, --base_model 32; name one of v1"):
        model.frozen.guide(tiny_controlnet(64))
    assert model.frozen.controlnet is None


INDEPENDENT = [
    QUICK, replace(QUICK, guidance=1.0, cond_mix=(0.3, 0.3, 0.4)), replace(QUICK, guidance=1.0, latent="adain"),
]  # fmt: skip


@pytest.mark.parametrize("how", INDEPENDENT)
@torch.no_grad()
def test_flow_step_by_step_with_diffusers_own_scheduler(how: Coefficients, model: S2PreSTModel) -> None:
    """The whole inference written out anew, step by step, on diffusers' DDIM."""
    from diffusers import DDIMScheduler

    content = picture(1)
    edges = edge_picture(content, "gradient")
    frozen, draw = model.frozen, torch.Generator().manual_seed(42)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    assert model.style is not None
    latents = [
        frozen.vae.encode(to_tensor(p)[None]).latent_dist.sample(draw) * 0.18215 for p in (model.style, content, edges)
    ]
    z_s, z_c, z_k = latents
    n1, n2 = (torch.randn(z_c.shape, generator=draw) for _ in range(2))
    at = torch.tensor([400])
    x_t = 0.5 * scheduler.add_noise(z_c, n1, at) + 0.5 * scheduler.add_noise(z_k, n2, at)
    c = sum(
        share * frozen.condition(model.netE(frozen.embed([p], "rgb")[:, None])[:, 0])
        for share, p in zip(how.cond_mix, (content, edges, model.style), strict=True)
    )
    u = frozen.unconditional()
    eps = frozen.unet(x_t, 400, encoder_hidden_states=c).sample
    if how.latent == "adain":
        (mean, std), (mean_s, std_s) = ((z.mean((2, 3)), (z.var((2, 3)) + 1e-5).sqrt()) for z in (z_c, z_s))
        z_c = ((z_c.movedim(1, -1) - mean) / std * std_s + mean_s).movedim(-1, 1)
    z = scheduler.add_noise(0.7 * z_c + 0.3 * z_s, eps, at)
    scheduler.set_timesteps(10)
    for t in scheduler.timesteps[6:]:
        free, bound = (frozen.unet(z, t, encoder_hidden_states=k).sample for k in (u, c))
        z = scheduler.step(free + how.guidance * (bound - free), int(t), z, eta=0.0).prev_sample
    wanted = ((frozen.vae.decode(z / 0.18215).sample + 1) / 2).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(run(model, content, how) - wanted).max() < 1.01  # truncated


def test_schedule_is_diffusers_own() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), alphas_cumprod(), atol=5e-7)
    assert float(scheduler.final_alpha_cumprod) == pytest.approx(alphas_cumprod()[0])
    for steps in (10, 20, 50):
        scheduler.set_timesteps(steps)
        how = Coefficients(steps=steps)
        assert scheduler.timesteps[steps - len(how.visited) :].tolist() == how.visited


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_held_in_half_give_what_casting_them_at_every_call_gives(precision: str) -> None:
    cast, held = tiny_model(), tiny_model()
    held.frozen.hold("fp32")
    assert {p.dtype for part in held.frozen.parts().values() for p in part.parameters()} == {torch.float32}
    held.frozen.hold(precision)
    sizes = [sum(p.nbytes for p in model.frozen.unet.parameters()) for model in (cast, held)]
    assert sizes[1] < 0.52 * sizes[0]
    with autocast(torch.device("cpu"), precision):
        assert np.array_equal(run(cast, picture(1)), run(held, picture(1)))
        losses = [model.losses(batch_of(model, [5]))["E/mse"] for model in (cast, held)]
    assert torch.equal(*losses)


def test_slicing_changes_nothing_but_memory(model: S2PreSTModel) -> None:
    content = picture(1)
    before = run(model, content)
    sliced = tiny_model()
    attention = [type(each) for each in sliced.frozen.unet.attn_processors.values()]
    sliced.frozen.save_memory()
    assert np.abs(run(sliced, content).astype(int) - before).max() <= 1
    assert [type(each) for each in sliced.frozen.unet.attn_processors.values()] == attention
    assert sliced.frozen.vae.use_slicing and sliced.frozen.vae.use_tiling


def test_offloading_moves_one_part_at_a_time() -> None:
    """Without a GPU: `to` is recorded instead of followed."""
    model = tiny_model()
    frozen = model.frozen
    frozen.device, frozen.offload = torch.device("cpu"), True  # as `to` sets it for a GPU
    moves: list[str] = []

    def recorded(name: str) -> Any:
        return lambda device: moves.append(f"{name} {device}")

    for name, part in frozen.parts().items():
        part.to = recorded(name)  # type: ignore[method-assign]
    assert np.array_equal(run(model, picture(1)), run(tiny_model(), picture(1)))
    arrived = [move.split()[0] for move in moves[::2]]
    assert arrived[0] == "vae" and arrived[-1] == "vae" and arrived.count("unet") == 1
    left = [move.split()[0] for move in moves[1::2]]
    assert left == arrived[:-1]  # each leaves before the next comes


def test_a_result_that_is_no_number_is_no_black_picture() -> None:
    broken = tiny_model()
    next(iter(broken.frozen.unet.parameters()))[:] = torch.nan
    with pytest.raises(UserError, match="NaN or infinite values, which would be saved as black"):
        run(broken, picture(1))


def test_output_is_truncated_as_released() -> None:
    told = GOLDEN["output_quantisation"]
    assert truncated(torch.tensor(told["x"])).tolist() == told["uint8"]


def test_canvas_keeps_the_aspect_ratio() -> None:
    assert canvas_size(1000, 750, side=512, multiple=8, keep_aspect=True) == (680, 512)
    assert canvas_size(300, 900, side=512, multiple=8, keep_aspect=True) == (512, 1536)
    assert canvas_size(300, 900, side=512, multiple=8, keep_aspect=False) == (512, 512)
    assert resized(picture(1, 64, 40), (13, 17)).shape == (17, 13, 3)
