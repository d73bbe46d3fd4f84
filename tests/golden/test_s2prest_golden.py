"""S2PreST's numbers: schedule, mixing, the whole flow with an analytic denoiser, style network, edges, CLIP's input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.networks.s2prest.inversion import (
    Coefficients,
    Latents,
    alphas_cumprod,
    ddim_step,
    decode,
    encode,
    half_noised,
    noised,
    stylise,
    timesteps,
)
from models.networks.s2prest.style_attention import StyleAttention
from util.edge_maps import edge_picture, suppressed_gradient

GOLDEN = json.loads(Path(__file__).with_name("s2prest_golden.json").read_text(encoding="utf-8"))
INDEX = torch.arange(16, dtype=torch.float64)
SHAPE = (1, 4, 2, 2)
CLOSE = {"rtol": 0, "atol": 1e-9}


def latents(dtype: torch.dtype = torch.float64) -> Latents:
    formulas = (
        torch.sin(0.5 * INDEX + 0.1),
        torch.cos(0.3 * INDEX),
        torch.sin(0.9 * INDEX + 0.4),
        torch.cos(1.1 * INDEX + 0.2),
        torch.sin(1.7 * INDEX + 0.6),
    )
    return Latents(*(values.reshape(SHAPE).to(dtype) for values in formulas))


def wanted(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(SHAPE)


def analytic(x: Tensor, t: int, guidance: float | None) -> Tensor:
    conditional, free = (0.6 * x + 0.0005 * t + 0.02 * c for c in (1, -1))
    return conditional if guidance is None else free + guidance * (conditional - free)


def test_schedule() -> None:
    told = GOLDEN["schedule"]
    abar = alphas_cumprod()
    for t, value in told["alphas_cumprod"].items():
        assert abar[int(t)] == pytest.approx(value, abs=1e-11)
    for t, value in told["sqrt_alphas_cumprod"].items():
        assert abar[int(t)] ** 0.5 == pytest.approx(value, abs=1e-11)
    for t, value in told["sqrt_one_minus_alphas_cumprod"].items():
        assert (1 - abar[int(t)]) ** 0.5 == pytest.approx(value, abs=1e-11)


def test_timesteps_and_strengths() -> None:
    told = GOLDEN["timesteps"]
    assert timesteps(50) == told["steps50_ascending"]
    default = told["default_strength_0.4_steps_50"]
    how = Coefficients()
    assert how.visited == default["visited_descending"]
    assert how.noised_at == default["t_enc_noise_index"] == 400
    for strength, row in told["strength_table_steps_50"].items():
        how = Coefficients(strength=float(strength))
        assert len(how.visited) == row["int(strength*50)"]
        assert (how.visited or [None])[0] == row["first_denoise_t"]
        assert how.noised_at == min(row["int(strength*1000)"], 999)
    for steps, row in told["unequal_when_not_divisible"].items():
        assert len(timesteps(int(steps))) == row["ldm_count"]
        assert timesteps(int(steps))[-1] == row["ldm_last"]
    assert max(timesteps(500)) == 999


def test_ddim_coefficients() -> None:
    rows = GOLDEN["ddim_step_coefficients_eta0"]["steps_50_strength_0.4"]
    visited = Coefficients().visited
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for row, t, previous in zip(rows, visited, [*visited[1:], 0], strict=True):
        assert row["t"] == t
        assert float(ddim_step(one, none, t, previous)) == pytest.approx(row["A"], abs=1e-10)
        assert float(ddim_step(none, one, t, previous)) == pytest.approx(row["B"], abs=1e-10)


def test_diffusers_ddim_gives_the_released_values_to_float_rounding() -> None:
    """Its table is float32, which moves coefficients by up to 3e-7; steps that do not divide 1000 need our own list."""
    diffusers = pytest.importorskip("diffusers", reason="requirements-diffusion.txt is not installed")
    scheduler = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                        clip_sample=False, set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    scheduler.set_timesteps(50)
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for row in GOLDEN["ddim_step_coefficients_eta0"]["steps_50_strength_0.4"]:
        for noise, x, wanted_value in ((none, one, row["A"]), (one, none, row["B"])):
            step = scheduler.step(noise, row["t"], x, eta=0.0).prev_sample
            assert float(step) == pytest.approx(wanted_value, abs=1e-6)
    told, z = GOLDEN["mixing"], latents()
    noisy = scheduler.add_noise(z.content, z.noise_content, torch.tensor([400]))
    torch.testing.assert_close(noisy, wanted(told["x_noisy_content_t400"]), rtol=0, atol=1e-6)
    scheduler.set_timesteps(30)
    released = GOLDEN["timesteps"]["unequal_when_not_divisible"]["30"]["ldm_count"]
    assert len(timesteps(30)) == released != len(scheduler.timesteps)


def test_mixing() -> None:
    told, z, how = GOLDEN["mixing"], latents(), Coefficients()
    torch.testing.assert_close(noised(z.content, z.noise_content, 400), wanted(told["x_noisy_content_t400"]), **CLOSE)
    torch.testing.assert_close(noised(z.edge, z.noise_edge, 400), wanted(told["x_noisy_canny_t400"]), **CLOSE)
    torch.testing.assert_close(half_noised(z, how), wanted(told["x_noisy_t400"]), **CLOSE)
    mixed = how.latent_mix * z.content + (1 - how.latent_mix) * z.style
    torch.testing.assert_close(mixed, wanted(told["init_latent_mix"]), **CLOSE)
    predicted = (0.1 * INDEX - 0.5).reshape(SHAPE)
    given = encode(z, lambda x, t, guidance: predicted, how)
    torch.testing.assert_close(given, wanted(told["z_enc_t400_with_eps_0.1*i-0.5"]), **CLOSE)


def test_noise_levels() -> None:
    """The release's mix of two noises is weaker than its step says; --match_noise_level is not."""
    told = GOLDEN["mixing"]["effective_noise_std_of_x_noisy"]
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 100_000, dtype=torch.float64, generator=draw)
    none = torch.zeros(100_000, dtype=torch.float64)
    z = Latents(none, none, none, *noise)
    released = half_noised(z, Coefficients()).std()
    assert float(released) == pytest.approx(told["expected_for_independent_unit_noises"], rel=1e-2)
    matched = Coefficients(match_noise_level=True)
    assert matched.noised_at == matched.visited[0] == 381
    nominal = (1 - alphas_cumprod()[381]) ** 0.5
    assert float(half_noised(z, matched).std()) == pytest.approx(nominal, rel=1e-2)


@pytest.mark.parametrize("case", [(50, 0.4), (10, 0.2), (50, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_closed_form_flow(case: tuple[int, float], dtype: torch.dtype) -> None:
    steps, strength = case
    told = GOLDEN["closed_form_flow"][f"steps_{steps}_strength_{strength}"]
    how, z = Coefficients(steps=steps, strength=strength), latents(dtype)
    close = CLOSE if dtype == torch.float64 else {"rtol": 0, "atol": 1e-5}
    assert (how.noised_at, len(how.visited)) == (told["t_enc"], told["n_steps"])

    def same(found: Tensor, values: list[float]) -> None:
        torch.testing.assert_close(found.double(), wanted(values), **close)

    same(analytic(half_noised(z, how), how.noised_at, None), told["eps_single_call"])
    encoded = encode(z, analytic, how)
    same(encoded, told["z_enc"])
    if how.visited:
        t = how.visited[0]
        previous = (*how.visited, 0)[1]
        same(ddim_step(encoded, analytic(encoded, t, 10.0), t, previous), told["after_first_step"])
    same(decode(encoded, analytic, how), told["final_latent"])
    same(stylise(z, analytic, how), told["final_latent"])


def formula_net() -> StyleAttention:
    net = StyleAttention(dim=4, heads=2, dim_head=3).double()
    assert list(net.state_dict()) == GOLDEN["style_net"]["tiny"]["param_order"]
    with torch.no_grad():
        for k, parameter in enumerate(net.parameters()):
            index = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.3 * torch.sin(1.0 + 0.7 * index + 1.3 * k)).view_as(parameter))
    return net


def test_style_net() -> None:
    told, net = GOLDEN["style_net"]["tiny"], formula_net()
    for tokens, name in ((1, "one_token"), (3, "three_tokens")):
        flat = "" if tokens == 1 else "_flat"
        given = torch.tensor(told[f"input_{name}{flat}"], dtype=torch.float64).view(1, tokens, 4)
        out = torch.tensor(told[f"output_{name}{flat}"], dtype=torch.float64).view(1, tokens, 4)
        torch.testing.assert_close(net(given), out, **CLOSE)


def test_style_net_is_affine_and_parts_of_it_are_dead() -> None:
    told, net = GOLDEN["style_net"]["tiny"], formula_net()
    matrix = torch.tensor(told["affine_matrix_flat"], dtype=torch.float64).view(4, 4)
    bias = torch.tensor(told["affine_bias"], dtype=torch.float64)
    e = torch.randn(5, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(net(e), e @ matrix.T + bias, **CLOSE)
    net(e).square().sum().backward()
    alive = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-15}
    assert alive == set(GOLDEN["style_net"]["real"]["params_with_nonzero_gradient"])
    with torch.no_grad():
        before = net(e)
        for name, parameter in net.named_parameters():
            if name not in alive:
                parameter.add_(1.0)
        torch.testing.assert_close(net(e), before, **CLOSE)


def test_style_net_of_real_size() -> None:
    told = GOLDEN["style_net"]["real"]
    with torch.device("meta"):
        net = StyleAttention()
    assert {name: list(p.shape) for name, p in net.state_dict().items()} == told["state_dict_shapes"]
    assert sum(p.numel() for p in net.parameters()) == told["param_count"]


def golden_picture() -> Tensor:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    red = 0.5 + 0.5 * torch.sin(0.9 * x + 0.4 * y)
    green = ((7 * x + 13 * y) % 11) / 10
    blue = 0.5 + 0.4 * torch.cos(0.5 * x - 1.1 * y)
    return torch.stack([red, green, blue])[None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edge_map(dtype: torch.dtype) -> None:
    told: Any = GOLDEN["edge_map"]
    found = suppressed_gradient(golden_picture().to(dtype))[0, 0]
    rows = torch.tensor(told["nms_magnitude_rows"], dtype=dtype)
    torch.testing.assert_close(found, rows, rtol=0, atol=1e-4)
    assert torch.equal(found > 0, rows > 0)
    assert int((found > 0).sum()) == told["nonzero_count"]
    inverted = torch.tensor(told["inverted_rows"], dtype=dtype)
    torch.testing.assert_close(1 - found.clamp(0, 1), inverted, rtol=0, atol=1e-4)


def test_a_straight_border_is_one_line_whatever_the_last_bits() -> None:
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., 10:20] = 0.8
    picture[..., 16:, :] += 0.13
    lines = suppressed_gradient(picture) > 0
    assert (lines[0, 0, :14].sum(1) == 2).all()
    for seed in range(5):
        noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(suppressed_gradient(picture + 1e-7 * noise) > 0, lines)


def test_a_picture_without_edges_is_white() -> None:
    for kind in ("gradient", "canny"):
        assert (edge_picture(np.full((9, 7, 3), 77, np.uint8), kind) == 255).all()


def test_canny_is_thin_closed_and_binary() -> None:
    y, x = np.mgrid[:64, :64]
    disc = (np.hypot(y - 32, x - 32) < 20).astype(np.uint8) * 200
    lines = edge_picture(np.repeat(disc[..., None], 3, 2), "canny")[..., 0]
    assert set(np.unique(lines)) == {0, 255}
    distance = np.hypot(y - 32, x - 32)[lines == 0]
    assert len(distance) > 2 * math.pi * 20 * 0.8
    assert abs(distance - 20).max() < 2.5
