"""S2PreST on the tiny random pipeline: conditioning, inference, training, and what differs by flag."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ldm_files import ldm_state, small_v1_parts
from PIL import Image
from s2prest_tiny import picture, tiny_model
from torch import nn

import test as test_command
import train as train_command
from models.networks import diffusion_files
from models.networks.clip_input import LEGACY_LEVELS, MEAN, STD, clip_input
from models.networks.diffusion import draw_normal
from models.networks.inversion import Coefficients, alphas_cumprod
from models.networks.signature import check_signature, save_signature
from models.networks.style_attention import DROPOUT, StyleAttention, dropout_factors
from models.networks.tiny_diffusion import save_tiny
from models.released_weights.s2prest import read_embeddings
from models.s2prest_model import S2PreSTModel, truncated
from scripts.convert_weights import main as convert
from util.edge_maps import edge_picture
from util.errors import UserError
from util.images import read_image, save_png, to_tensor
from util.pictures import canvas_size, resized

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "s2prest_golden.json").read_text())
ROOT = Path(__file__).resolve().parents[2]
QUICK = Coefficients(steps=10, strength=0.4)


@pytest.fixture(scope="module")
def model() -> S2PreSTModel:
    return tiny_model()


def run(model: S2PreSTModel, content: np.ndarray, how: Coefficients = QUICK, seed: int = 42) -> np.ndarray:
    return model.stylise([content], [edge_picture(content, "gradient")], [seed], how)[0]


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
    for change in ({"cond_mix": 0.0}, {"edge_mix": 0.1}, {"latent_mix": 0.2}, {"guidance": 1.0}, {"steps": 20},
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


@torch.no_grad()
def test_flow_step_by_step_with_diffusers_own_scheduler(model: S2PreSTModel) -> None:
    """The whole inference written out anew from the specification's section 3, on diffusers' DDIM."""
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
    c = sum(0.5 * frozen.condition(model.netE(frozen.embed([p], "rgb")[:, None])[:, 0]) for p in (content, edges))
    u = frozen.unconditional()
    eps = frozen.unet(x_t, 400, encoder_hidden_states=c).sample
    z = scheduler.add_noise(0.7 * z_c + 0.3 * z_s, eps, at)
    scheduler.set_timesteps(10)
    for t in scheduler.timesteps[6:]:
        free, bound = (frozen.unet(z, t, encoder_hidden_states=k).sample for k in (u, c))
        z = scheduler.step(free + 10 * (bound - free), int(t), z, eta=0.0).prev_sample
    wanted = ((frozen.vae.decode(z / 0.18215).sample + 1) / 2).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(run(model, content) - wanted).max() < 1.01  # truncated


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


def test_slicing_changes_nothing_but_memory(model: S2PreSTModel) -> None:
    content = picture(1)
    before = run(model, content)
    sliced = tiny_model()
    sliced.frozen.save_memory()
    assert np.abs(run(sliced, content).astype(int) - before).max() <= 1


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
        model.begin_step(batch)
        loss = model.losses()["E/mse"]
        model.optimizer.zero_grad()
        loss.backward()
        model.optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < seen[0] - 0.01
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
        model.begin_step(batch_of(model, [draw]))
        singles.append(model.losses()["E/mse"].item())
    model.begin_step(batch_of(model, [5, 6]))
    assert model.losses()["E/mse"].item() == pytest.approx(sum(singles) / 2, rel=1e-5)
    assert len(model._encoded) == 1
    fresh = tiny_model(lr=1e-3)
    fresh.begin_step(batch_of(fresh, [5]))
    assert fresh.losses()["E/mse"].item() == singles[0]


def test_dropout_keeps_the_mean() -> None:
    drawn = dropout_factors(20_000, DROPOUT, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 20_000)
    assert float((drawn == 0).float().mean()) == pytest.approx(DROPOUT, abs=5e-3)
    assert float(drawn.mean()) == pytest.approx(1, abs=5e-3)


def test_draws_belong_to_the_picture() -> None:
    like = torch.zeros(2, 4, 3, 3)
    both = draw_normal(like, [torch.Generator().manual_seed(k) for k in (1, 2)])
    torch.testing.assert_close(both[1:], draw_normal(like[:1], [torch.Generator().manual_seed(2)]))


# --- files -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", [".ckpt", ".safetensors"])
def test_single_file_of_the_authors_names(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = small_v1_parts()
    state, path = ldm_state(parts), tmp_path / f"sd{ending}"
    if ending == ".safetensors":
        from safetensors.torch import save_file

        save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    else:  # with the class that Lightning leaves in sd-v1-4.ckpt, and which is not installed here
        names = "pytorch_lightning.callbacks.model_checkpoint".split(".")
        for k in range(1, len(names) + 1):
            monkeypatch.setitem(sys.modules, ".".join(names[:k]), types.ModuleType(".".join(names[:k])))
        kind = type("ModelCheckpoint", (), {"__module__": ".".join(names)})
        sys.modules[".".join(names)].ModelCheckpoint = kind  # type: ignore[attr-defined]
        torch.save({"callbacks": {kind: {"best": np.float64(0.5)}}, "state_dict": state, "epoch": 3}, path)
        for k in range(1, len(names) + 1):
            monkeypatch.delitem(sys.modules, ".".join(names[:k]))
    found = diffusion_files.read_single_file(path)
    for name, part in parts.items():
        wanted, own = part.state_dict(), found[name].state_dict()
        assert wanted.keys() == own.keys()
        assert all(torch.equal(wanted[key], own[key]) for key in wanted)
    x, c = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 32)
    with torch.no_grad():
        a, b = (net(x, 7, encoder_hidden_states=c).sample for net in (parts["unet"], found["unet"].eval()))
        torch.testing.assert_close(a, b)
        ids = torch.arange(77)[None]
        texts = (net(input_ids=ids).last_hidden_state for net in (parts["text_encoder"], found["text_encoder"].eval()))
        torch.testing.assert_close(*texts)
    assert found["vae"].config.scaling_factor == 0.18215


def test_a_run_on_a_single_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "sd.safetensors"
    save_file({key: value.contiguous().clone() for key, value in ldm_state(small_v1_parts()).items()}, file)
    run = ["--name", "one", "--checkpoints_dir", str(tmp_path), "--base_model", str(file), "--device", "cpu"]
    tiny = S2PreSTModel.tiny(tmp_path)
    assert train_command.main([*tiny, *run, "--max_steps", "1", "--num_workers", "0", "--no-tensorboard"]) == 0
    save_png(picture(1), tmp_path / "content.png")
    test = ["--content", str(tmp_path / "content.png"), "--size", "64", "--steps", "10"]
    assert test_command.main([*run, *test, "--results_dir", str(tmp_path)]) == 0
    assert read_image(tmp_path / "one" / "wt_0.4" / "stylized" / "content.png").shape == (64, 64, 3)


def test_other_single_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with pytest.raises(UserError, match="no such file"):
        diffusion_files.read_single_file(path)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match=r"no Stable Diffusion v1 file: it has no tensors 'model\.diffusion_model"):
        diffusion_files.read_single_file(path)
    torch.save({"run": Path("x")}, path)
    with pytest.raises(UserError, match="only tensors and plain values"):
        diffusion_files.read_single_file(path)
    state = ldm_state(small_v1_parts())
    del state["model.diffusion_model.input_blocks.1.0.in_layers.2.weight"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError, match="no Stable Diffusion v1 file"):
        diffusion_files.read_single_file(path)
    with pytest.raises(UserError, match=r"prediction_type v_prediction instead of epsilon"):
        diffusion_files.check_schedule({"prediction_type": "v_prediction"}, "x")


def test_architecture_of_the_real_file_is_read_from_its_shapes() -> None:
    """Stable Diffusion v1.4's plan without its weights: shapes alone."""
    import diffusers

    with torch.device("meta"):
        parts = {
            "unet": diffusers.UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8),
            "vae": diffusers.AutoencoderKL(
                block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            ),
            "text_encoder": nn.Linear(1, 1),
        }  # fmt: skip
        state = ldm_state(parts)
        names = ("text_model.embeddings.token_embedding", "text_model.embeddings.position_embedding")
        for name, size in zip(names, (49408, 77), strict=True):
            state[f"cond_stage_model.transformer.{name}.weight"] = torch.empty(size, 768)
        for k in range(12):
            state[f"cond_stage_model.transformer.text_model.encoder.layers.{k}.mlp.fc1.weight"] = torch.empty(3072, 768)
    assert sum(key.startswith("model.diffusion_model.") for key in state) == 686  # as in the official file
    assert sum(key.startswith("first_stage_model.") for key in state) == 248
    unet, vae, text = (read(state) for read in (diffusion_files.unet_config, diffusion_files.vae_config,
                                                diffusion_files.text_config))  # fmt: skip
    assert (unet["block_out_channels"], unet["layers_per_block"]) == ((320, 640, 1280, 1280), 2)
    assert unet["down_block_types"] == ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    assert (unet["cross_attention_dim"], unet["attention_head_dim"]) == (768, 8)
    assert (vae["block_out_channels"], vae["layers_per_block"]) == ((128, 256, 512, 512), 2)
    wanted = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 49408,
              "intermediate_size": 3072, "eos_token_id": 49407}  # fmt: skip
    assert wanted.items() <= text.items()


def test_a_hub_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> Any:
        raise OSError("cannot connect\nmore")

    diffusers, _ = diffusion_files.libraries()
    _, clip = save_tiny(tmp_path)
    monkeypatch.setattr(diffusers.AutoencoderKL, "from_pretrained", offline)
    with pytest.raises(UserError, match=r"a/b cannot be loaded: cannot connect\. Needed is a folder with vae/"):
        diffusion_files.load_diffusion("a/b", str(clip))


def test_a_missing_tokenizer_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    base, clip = save_tiny(tmp_path)
    shutil.rmtree(base / "tokenizer")
    with pytest.raises(UserError, match=r"sd: no tokenizer that knows '\*'. Needed is a folder with vae/"):
        diffusion_files.load_diffusion(str(base), str(clip))
    for file in clip.glob("*token*"):
        file.unlink()
    one = tmp_path / "one.safetensors"
    save_file({key: value.contiguous().clone() for key, value in ldm_state(small_v1_parts()).items()}, one)
    with pytest.raises(UserError, match="a tokenizer beside the image tower"):
        diffusion_files.load_diffusion(str(one), str(clip))


def test_a_single_file_is_read_by_a_fresh_process(tmp_path: Path) -> None:
    """Parts of diffusers are imported when they are named: another test may have done it before."""
    path = tmp_path / "sd.ckpt"
    torch.save({"state_dict": ldm_state(small_v1_parts())}, path)
    line = "from pathlib import Path; from models.networks.diffusion_files import read_single_file as r; "
    done = subprocess.run(
        [sys.executable, "-c", f"{line}r(Path({str(path)!r}))"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-1000:]


def test_missing_library_names_the_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"requirements-diffusion\.txt"):
        diffusion_files.load_diffusion("a", "b")


def test_signature_knows_a_model_again_in_half_precision_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "base_model.json"
    model, other = tiny_model(), tiny_model(seed=1)
    save_signature(model.frozen.parts(), path, clip_input="rgb")
    model.frozen.unet.half()
    check_signature(model.frozen.parts(), path, clip_input="rgb")
    with pytest.raises(UserError, match="trained with another --base_model"):
        check_signature(other.frozen.parts(), path, clip_input="rgb")
    mixed = {**model.frozen.parts(), "vision": other.frozen.vision}
    with pytest.raises(UserError, match="trained with another --clip_model"):
        check_signature(mixed, path, clip_input="rgb")
    with pytest.raises(UserError, match="with --clip_input rgb, not legacy"):
        check_signature(model.frozen.parts(), path, clip_input="legacy")


# --- the authors' embeddings -----------------------------------------------------------------------------------------
def released_module(net: StyleAttention) -> tuple[nn.Module, dict[str, types.ModuleType]]:
    """Return the authors' module classes with our tensors, and the modules that pickle needs while it writes."""
    modules = {name: types.ModuleType(name) for name in
               ("ldm", "ldm.modules", "ldm.modules.attention", "ldm.modules.embedding_manager")}  # fmt: skip
    cross = type("CrossAttention", (nn.Module,), {"__module__": "ldm.modules.attention"})
    outer = type("Attentions", (nn.Module,), {"__module__": "ldm.modules.embedding_manager"})
    modules["ldm.modules.attention"].CrossAttention = cross  # type: ignore[attr-defined]
    modules["ldm.modules.embedding_manager"].Attentions = outer  # type: ignore[attr-defined]

    def attention(own: Any) -> nn.Module:
        made = cross()
        made.scale, made.heads = 0.125, own.heads
        made.to_q, made.to_k, made.to_v = own.to_q, own.to_k, own.to_v
        made.to_out = nn.Sequential(own.to_out[0], nn.Dropout(0.05))
        return made

    whole = outer()
    whole.attn1, whole.attn2 = attention(net.attn1), attention(net.attn2)
    whole.net = nn.Sequential(nn.Dropout(0.05), net.net[0])
    return whole, modules


def write_embeddings(path: Path, net: StyleAttention, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    module, modules = released_module(net)
    with monkeypatch.context() as patch:
        for name, own in modules.items():
            patch.setitem(sys.modules, name, own)
        torch.save({"string_to_token": {"*": torch.tensor(265)}, "attention": module} | more, path)


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('ran')",)


def test_released_embeddings_are_read_and_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, path = tiny_model().netE, tmp_path / "embeddings.pt"
    write_embeddings(path, net, monkeypatch)
    with pytest.raises(Exception, match=r"Weights only load failed"):
        torch.load(path, weights_only=True)
    state, number = read_embeddings(path)
    assert number == 265
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())

    write_embeddings(path, net, monkeypatch, extra=Evil())
    with pytest.raises(UserError, match=r"embeddings\.pt: it holds __builtin__\.exec, which is refused"):
        read_embeddings(path)
    write_embeddings(path, net, monkeypatch, extra=nn.Conv2d(1, 1, 1))
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.conv\.Conv2d, which is refused"):
        read_embeddings(path)


def test_embeddings_become_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = S2PreSTModel.tiny(tmp_path)
    net, path, style = StyleAttention(dim=32, heads=8, dim_head=4), tmp_path / "embeddings.pt", tmp_path / "style.png"
    write_embeddings(path, net, monkeypatch)
    save_png(picture(5), style)
    where = ["--name", "wiki", "--checkpoints_dir", str(tmp_path)]
    flags = [*where, "--model", "s2prest", "--source", str(path)]
    with pytest.raises(UserError, match="--style_image is missing"):
        convert(flags)
    assert convert([*flags, "--style_image", str(style)]) == 0
    with pytest.raises(UserError, match="exists already"):
        convert([*flags, "--style_image", str(style)])
    saved = yaml.safe_load((tmp_path / "wiki" / "opt.yaml").read_text())
    assert (saved["clip_input"], saved["base_model"]) == ("legacy", "CompVis/stable-diffusion-v1-4")
    places = [part for flag in ("--base_model", "--clip_model") for part in (flag, tiny[tiny.index(flag) + 1])]
    test = [*where, *places, "--content", str(style), "--size", "64", "--steps", "10", "--results_dir", str(tmp_path)]
    assert test_command.main(test) == 0
    result = read_image(tmp_path / "wiki" / "wt_0.4" / "stylized" / "style.png")
    wanted = S2PreSTModel(
        frozen=diffusion_files.load_diffusion(places[1], places[3]), netE=net.eval(), clip_input="legacy", lr=None,
        style=picture(5), size=64,
    )  # fmt: skip
    assert np.array_equal(result, run(wanted, picture(5)))
    write_embeddings(path, StyleAttention(dim=32, heads=8, dim_head=4), monkeypatch, string_to_token={"*": 7})
    with pytest.raises(UserError, match="its placeholder is token 7"):
        convert([*flags, "--style_image", str(style), "--name", "other"])


def test_other_files_are_no_embeddings(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.pt"
    with pytest.raises(UserError, match="no such file"):
        read_embeddings(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"is not an embeddings\.pt"):
        read_embeddings(path)
    for content in ({"a": torch.zeros(2)}, OrderedDict(attention=1, string_to_token={"*": 1})):
        torch.save(content, path)
        with pytest.raises(UserError, match=r"is not an embeddings\.pt"):
            read_embeddings(path)
