"""S2PreST on the tiny random pipeline: conditioning and training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from s2prest_tiny import batch_of, picture, tiny_model

from models.networks.s2prest.clip_input import LEGACY_LEVELS, MEAN, STD, clip_input
from models.networks.s2prest.diffusion import draw_normal
from models.networks.s2prest.style_attention import DROPOUT, StyleAttention, dropout_factors
from models.s2prest_model import S2PreSTModel

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


# --- training --------------------------------------------------------------------------------------------------------
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
