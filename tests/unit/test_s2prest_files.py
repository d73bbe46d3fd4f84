"""S2PreST's files: base models in a folder or one file, and what a run knows of its own."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ldm_files import ldm_state, small_v1_parts
from s2prest_tiny import picture, tiny_model
from torch import nn

import test as test_command
import train as train_command
from models import diffusion_checkpoint, diffusion_files
from models.networks.s2prest.tiny_diffusion import save_tiny
from models.s2prest_model import S2PreSTModel
from models.signature import check_signature, save_signature
from util.errors import UserError
from util.images import read_image, save_png


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
    found = diffusion_checkpoint.read_single_file(path)
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
    assert read_image(tmp_path / "one" / "wt_0.4_steps=10_size=64" / "stylized" / "content.png").shape == (64, 64, 3)


def test_other_single_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with pytest.raises(UserError, match="no such file"):
        diffusion_checkpoint.read_single_file(path)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match=r"not a Stable Diffusion v1 file: it has no tensors 'model\.diffusion_model"):
        diffusion_checkpoint.read_single_file(path)
    torch.save({"run": Path("x")}, path)
    with pytest.raises(UserError, match="only tensors and plain values"):
        diffusion_checkpoint.read_single_file(path)
    state = ldm_state(small_v1_parts())
    del state["model.diffusion_model.input_blocks.1.0.in_layers.2.weight"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError, match="not a Stable Diffusion v1 file"):
        diffusion_checkpoint.read_single_file(path)
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
    unet, vae, text = (read(state) for read in (diffusion_checkpoint.unet_config, diffusion_checkpoint.vae_config,
                                                diffusion_checkpoint.text_config))  # fmt: skip
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


def changed_unet(base: Path, **config: Any) -> None:
    import diffusers

    unet = diffusers.UNet2DConditionModel.load_config(base / "unet")
    diffusers.UNet2DConditionModel.from_config({**unet, **config}).save_pretrained(base / "unet")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


SDXL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80}
FAULTS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "a text encoder cut short": (
        lambda base, clip: cut(base / "text_encoder" / "model.safetensors"),
        r"text_encoder/model\.safetensors is cut short or damaged; copy it again$",
    ),
    "an image tower cut short": (
        lambda base, clip: cut(clip / "model.safetensors"),
        r"--clip_model .*clip/model\.safetensors is cut short or damaged; copy it again$",
    ),
    "a UNet for inpainting": (
        lambda base, clip: changed_unet(base, in_channels=9),
        "takes 9 channels instead of 4, as those for inpainting",
    ),
    "a UNet of SDXL": (lambda base, clip: changed_unet(base, **SDXL), "wants more than a text, as SDXL's does"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_models_that_cannot_be_used_are_told_in_a_sentence(fault: str, tmp_path: Path) -> None:
    change, told = FAULTS[fault]
    base, clip = save_tiny(tmp_path)
    change(base, clip)
    with pytest.raises(UserError, match=told):
        diffusion_files.load_diffusion(str(base), str(clip))


@pytest.mark.parametrize("ending", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_a_file_without_weights_is_told_in_a_sentence(ending: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is empty, cut short or no file of weights; copy it again$"):
        diffusion_checkpoint.read_single_file(path)


def test_files_of_half_precision_load_where_there_are_no_others(tmp_path: Path) -> None:
    base, clip = save_tiny(tmp_path)
    parts = diffusion_files.load_diffusion(str(base), str(clip)).parts()
    for name, part in parts.items():
        folder = clip if name == "vision" else base / name
        for file in folder.glob("*.safetensors"):
            file.unlink()
        half: Any = part.half()
        half.save_pretrained(folder, variant="fp16")
    for name, part in diffusion_files.load_diffusion(str(base), str(clip)).parts().items():
        wanted = parts[name].float().state_dict()
        assert all(torch.equal(wanted[key], value) for key, value in part.state_dict().items())


def test_a_model_without_scheduler_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, clip = save_tiny(tmp_path)
    diffusion_files.load_diffusion(str(base), str(clip))
    assert "predicts v" not in capsys.readouterr().out
    shutil.rmtree(base / "scheduler")
    diffusion_files.load_diffusion(str(base), str(clip))
    assert "A model that predicts v would give noise" in capsys.readouterr().out


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
    assert diffusion_checkpoint.read_single_file(path).keys() == {"vae", "unet", "text_encoder"}
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


def test_other_base_models_than_the_releases_are_taken_with_a_note() -> None:
    v1 = {"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 768}
    for released in ("CompVis/stable-diffusion-v1-4", "/models/sd-v1-4.ckpt"):
        assert diffusion_files.base_note(v1, released) is None
    told = diffusion_files.base_note(v1, "runwayml/stable-diffusion-v1-5")
    assert told is not None and "the sizes of Stable Diffusion v1 (v1.4, v1.5 or one trained further)" in told
    small = diffusion_files.base_note({**v1, "layers_per_block": 1}, "own/model")
    assert small is not None and "own/model has a UNet of other sizes than v1's" in small
