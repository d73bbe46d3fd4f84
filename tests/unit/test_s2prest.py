"""S2PreST on the tiny random pipeline: conditioning, inference, training, and what differs by flag."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from s2prest_tiny import QUICK, picture, run, tiny_model

from models.networks.s2prest.clip_input import LEGACY_LEVELS, MEAN, STD, clip_input
from models.networks.s2prest.diffusion import draw_normal
from models.networks.s2prest.inversion import Coefficients, alphas_cumprod
from models.networks.s2prest.style_attention import DROPOUT, StyleAttention, dropout_factors
from models.s2prest_model import S2PreSTModel, truncated
from util.edge_maps import edge_picture
from util.errors import UserError
from util.images import to_tensor
from util.pictures import canvas_size, resized

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "s2prest_golden.json").read_text())


@pytest.fixture(scope="module")
def model() -> S2PreSTModel:
    return tiny_model()


# --- conditioning ----------------------------------------------------------------------------------------------------
def test_tokens_are_those_of_clip(model: S2PreSTModel) -> None:
    told = GOLDEN["tokens"]["tiny_byte_tokenizer_514"]
    assert model.frozen.placeholder_id == told["star_word"] == 265
    assert model.frozen.prompt.tolist() == [told["bos"], 265, *[told["eos_and_pad"]] * 75]
    assert model.frozen.empty.tolist() == [told["bos"], *[told["eos_and_pad"]] * 76]


def test_parts_have_the_sizes_of_the_specification(model: S2PreSTModel) -> None:
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.frozen.parts().items()}
    assert counts == {"vae": 67_231, "unet": 203_204, "text_encoder": 36_064, "vision": 24_960}
    assert sum(p.numel() for p in model.netE.parameters()) == 9_312


@torch.no_grad()
def test_the_placeholder_and_it_alone_carries_the_picture(model: S2PreSTModel) -> None:
    tokens = [model.netE(model.frozen.embed([picture(k)], "rgb")[:, None])[:, 0] for k in (1, 2)]
    a, b = (model.frozen.condition(token) for token in tokens)
    assert torch.equal(a[:, 0], b[:, 0])  # before the placeholder: the causal mask
    assert not torch.allclose(a[:, 1:], b[:, 1:], atol=1e-5)
    own = model.frozen.text_encoder.get_input_embeddings().weight[265]
    plain = model.frozen.text_encoder(input_ids=model.frozen.prompt[None]).last_hidden_state
    torch.testing.assert_close(model.frozen.condition(own[None]), plain)
    assert not model.frozen.text_encoder.get_input_embeddings()._forward_hooks
    assert model.frozen.unconditional().shape == (1, 77, 32)


@torch.no_grad()
def test_a_batch_of_conditions_is_that_of_each(model: S2PreSTModel) -> None:
    tokens = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    each = torch.cat([model.frozen.condition(token[None]) for token in tokens])
    torch.testing.assert_close(model.frozen.condition(tokens), each)


def test_clip_input_is_the_centre_normalised() -> None:
    wide = picture(3, 64, 96)
    x = clip_input([wide], mode="rgb", size=32)
    scaled = np.asarray(Image.fromarray(wide).resize((48, 32), Image.Resampling.BICUBIC))[:, 8:40]
    levels = (x[0] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
    np.testing.assert_allclose(levels.permute(1, 2, 0).numpy(), scaled, atol=1e-3)


def test_legacy_input_is_nearly_black() -> None:
    told = GOLDEN["legacy_clip_uint8_cast"]["u->cast"]
    assert (LEGACY_LEVELS[0], LEGACY_LEVELS[255]) == (told["0"], told["255"])
    assert (LEGACY_LEVELS[1:255] == told["all_of_1..254"]).all()
    legacy = [clip_input([picture(k)], mode="legacy", size=32) for k in (1, 2)]
    assert torch.equal(*legacy)
    assert not torch.equal(*(clip_input([picture(k)], mode="rgb", size=32) for k in (1, 2)))


def test_embeddings_have_length_one(model: S2PreSTModel) -> None:
    embedded = model.frozen.embed([picture(1), picture(2, 48, 80)], "rgb")
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2))


# --- inference -------------------------------------------------------------------------------------------------------
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


def test_weights_held_in_bf16_give_what_casting_them_at_every_call_gives() -> None:
    cast, held = tiny_model(), tiny_model()
    held.frozen.hold("fp32")
    assert {p.dtype for part in held.frozen.parts().values() for p in part.parameters()} == {torch.float32}
    held.frozen.hold("bf16")
    sizes = [sum(p.nbytes for p in model.frozen.unet.parameters()) for model in (cast, held)]
    assert sizes[1] < 0.52 * sizes[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
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


# --- training --------------------------------------------------------------------------------------------------------
def batch_of(model: S2PreSTModel, draws: list[int]) -> Any:
    assert model.style is not None
    image = torch.stack([to_tensor(model.style)] * len(draws))
    count = len(draws)
    return {"image": image, "name": ["s"] * count, "index": [0] * count, "flip": [0] * count, "draw": draws}


def test_training_changes_the_style_network_alone_and_lowers_the_loss() -> None:
    model = tiny_model(lr=1e-3)
    frozen = {name: {k: v.clone() for k, v in part.state_dict().items()} for name, part in model.frozen.parts().items()}
    before = {name: p.detach().clone() for name, p in model.netE.named_parameters()}
    assert model.optimizer is not None
    batch, seen = batch_of(model, list(range(8))), []
    for _ in range(25):
        loss = model.losses(batch)["E/mse"]
        model.optimizer.zero_grad()
        loss.backward()
        model.optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < seen[0] - 0.005  # by 0.009 to 0.012, as the libraries draw the random parts
    for name, part in model.frozen.parts().items():
        assert all(torch.equal(value, frozen[name][key]) for key, value in part.state_dict().items())
        assert all(p.grad is None for p in part.parameters())
    changed = {name for name, p in model.netE.named_parameters() if not torch.equal(p, before[name])}
    assert changed >= {"attn2.to_v.weight", "attn2.to_out.0.weight", "net.1.weight", "net.1.bias"}
    real = StyleAttention()
    real(torch.randn(2, 1, 768)).square().sum().backward()
    assert {n for n, p in real.named_parameters() if p.grad is not None and p.grad.any()} == set(
        GOLDEN["style_net"]["real"]["params_with_nonzero_gradient"]
    )
    dead = [p.grad.abs().max() for n, p in model.netE.named_parameters() if n.startswith("attn1") or "to_q" in n]
    assert max(dead) == 0


def test_loss_is_the_mean_of_single_samples_and_cached_encodings_are_exact() -> None:
    model = tiny_model(lr=1e-3)
    singles = []
    for draw in (5, 6):
        singles.append(model.losses(batch_of(model, [draw]))["E/mse"].item())
    assert model.losses(batch_of(model, [5, 6]))["E/mse"].item() == pytest.approx(sum(singles) / 2, rel=1e-5)
    assert len(model._encoded) == 1
    fresh = tiny_model(lr=1e-3)
    assert fresh.losses(batch_of(fresh, [5]))["E/mse"].item() == singles[0]


def test_dropout_keeps_the_mean() -> None:
    drawn = dropout_factors(20_000, DROPOUT, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 20_000)
    assert float((drawn == 0).float().mean()) == pytest.approx(DROPOUT, abs=5e-3)
    assert float(drawn.mean()) == pytest.approx(1, abs=5e-3)


def test_draws_belong_to_the_picture() -> None:
    like = torch.zeros(2, 4, 3, 3)
    both = draw_normal(like, [torch.Generator().manual_seed(k) for k in (1, 2)])
    torch.testing.assert_close(both[1:], draw_normal(like[:1], [torch.Generator().manual_seed(2)]))
