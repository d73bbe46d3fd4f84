"""S2PreST's files: base models in a folder or one file, what a run knows of its own, the authors' embeddings."""

from __future__ import annotations

import shutil
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ldm_files import ldm_state, small_v1_parts
from s2prest_tiny import picture, run, tiny_model
from torch import nn

import test as test_command
import train as train_command
from models.networks import diffusion_files
from models.networks.signature import check_signature, save_signature
from models.networks.style_attention import StyleAttention
from models.networks.tiny_diffusion import save_tiny
from models.released_weights.s2prest import read_embeddings
from models.s2prest_model import S2PreSTModel
from scripts.convert_weights import main as convert
from util.errors import UserError
from util.images import read_image, save_png


# --- base models -----------------------------------------------------------------------------------------------------
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


def test_a_single_file_is_read_before_anything_else_imported_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of diffusers are imported when they are named: another test may have done it before."""
    import diffusers.loaders

    path = tmp_path / "sd.ckpt"
    torch.save({"state_dict": ldm_state(small_v1_parts())}, path)
    name = "diffusers.loaders.single_file_utils"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(diffusers.loaders, "single_file_utils", raising=False)
    assert diffusion_files.read_single_file(path).keys() == {"vae", "unet", "text_encoder"}
    assert name in sys.modules


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
