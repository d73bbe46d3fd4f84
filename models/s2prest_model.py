"""S2PreST: Semantic-Shape-Guided Style Transfer in Inversion-Based Diffusion (S. Kim, J. Lee; code of 2024).

Training is InST's (arXiv 2211.13203): only the network from CLIP's embedding of the style picture to one token is
trained, by the noise loss of a frozen Stable Diffusion. Inference guides the inversion by the content's edge map.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import MODELS
from models.base_model import BaseModel, Phase, Runs, TrainingPictures
from models.diffusion_files import load_diffusion
from models.networks.s2prest.clip_input import CLIP_INPUTS
from models.networks.s2prest.diffusion import Diffusion, draw_normal, sample
from models.networks.s2prest.inversion import TRAIN_STEPS, Coefficients, Latents, alphas_cumprod, stylise
from models.networks.s2prest.style_attention import DROPOUT, StyleAttention, dropout_factors
from models.networks.s2prest.tiny_diffusion import SIDE, save_tiny
from models.signature import check_signature, save_signature
from util.batch import Batch, on_host
from util.class_table import ClassTable
from util.edge_maps import EDGE_SIDES, EDGES, edge_picture
from util.errors import UserError
from util.images import picture_grid, read_image, save_png, to_tensor, to_uint8
from util.opt import Opt
from util.pictures import read_photo, resized
from util.shared_flags import add_shared

STYLE_FILE, BASE_FILE = "style.png", "base_model.json"  # in a run's folder
RELEASED_WIDTH, HEADS = 768, 8  # of CLIP ViT-L/14; heads of the style network
Encoded = tuple[Tensor, Tensor, Tensor]  # latent mean and deviation, CLIP embedding of one picture


@MODELS.register("s2prest")
class S2PreSTModel(BaseModel):
    """A style embedding network `netE` and frozen parts, which are not in checkpoints.

    Args:
        frozen: Stable Diffusion and CLIP's image tower.
        netE: CLIP's embedding -> placeholder token.
        clip_input: "rgb" or "legacy", see `clip_input`.
        lr: AdamW's rate; None: no training.
        style: the style picture (H, W, 3) uint8, if available.
        size: side of the square that previews are computed at.
    """

    summary = "S2PreST (2024): semantic-shape-guided style transfer by diffusion, on Stable Diffusion v1"
    flow = "stylising"
    dataset_modes = ("style_image",)
    ema_networks = ("netE",)
    formerly = {**BaseModel.formerly, "edge_side": "released"}

    def __init__(
        self, *, frozen: Diffusion, netE: StyleAttention, clip_input: str, lr: float | None,
        style: np.ndarray | None, size: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.frozen, self.netE, self.clip_input, self.style, self.size = frozen, netE, clip_input, style, size
        self.second_style: np.ndarray | None = None  # mixed with `style` where pictures are stylised
        self.optimizer = None if lr is None else torch.optim.AdamW(netE.parameters(), lr=lr)
        self._encoded: dict[tuple[int, int], Encoded] = {}

    # --- options -----------------------------------------------------------------------------------------------------
    @classmethod
    def modify_commandline_options(cls, parser: argparse.ArgumentParser, *, is_train: bool) -> None:
        group = parser.add_argument_group("model s2prest")
        group.add_argument("--base_model", metavar="M", help="Stable Diffusion v1: a diffusers folder, a hub id, or "
                           "one .safetensors or .ckpt file")  # fmt: skip
        group.add_argument("--clip_model", metavar="C", help="CLIP ViT-L/14 with its image tower: a folder or hub id")
        group.add_argument("--clip_input", choices=CLIP_INPUTS, default="rgb", help="what CLIP sees: the picture, or, "
                           "as released (for the authors' embeddings), a nearly black one")  # fmt: skip
        side = "edge maps are drawn at the size that is computed at; released: at the picture's own, fainter if large"
        group.add_argument("--edge_side", choices=EDGE_SIDES, default="working", help=side)
        parser.set_defaults(batch_size=1, crop_size=512, seed=23 if is_train else 42)
        if is_train:
            add_shared(group, "lr")
            parser.set_defaults(max_steps=6100, save_every=500, image_every=0)

    @classmethod
    def complete_options(cls, opt: Opt, *, classes: ClassTable, runs: Runs) -> dict[str, Any]:
        wanted = {"style_image": "the picture whose style is learnt", "base_model": "Stable Diffusion v1",
                  "clip_model": "CLIP ViT-L/14, such as openai/clip-vit-large-patch14"}  # fmt: skip
        for name, what in wanted.items():
            if hasattr(opt, name) and not getattr(opt, name):
                raise UserError(f"--{name} is missing: {what}")
        return {}

    @classmethod
    def from_options(cls, opt: Opt, *, is_train: bool) -> S2PreSTModel:
        frozen = load_diffusion(opt.base_model, opt.clip_model)
        frozen.hold(opt.precision)
        width = frozen.width
        dim_head = 64 if width == RELEASED_WIDTH else max(1, width // HEADS)
        netE = StyleAttention(dim=width, heads=HEADS, dim_head=dim_head)
        lr, style = (opt.lr, read_photo(opt.style_image).rgb) if is_train else (None, None)
        return cls(frozen=frozen, netE=netE, clip_input=opt.clip_input, lr=lr, style=style, size=opt.crop_size)

    @classmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        base, clip = save_tiny(tmp_path / "tiny_diffusion")
        style = tmp_path / "tiny_diffusion" / "style.png"
        y, x = np.mgrid[:SIDE, :SIDE]
        save_png(np.stack([4 * x, 4 * y, 2 * (x + y)], -1).astype(np.uint8), style)
        places = ["--style_image", str(style), "--base_model", str(base), "--clip_model", str(clip)]
        return ["--model", "s2prest", *places, "--crop_size", str(SIDE), "--lr", "1e-3", "--batch_size", "2"]

    # --- training ----------------------------------------------------------------------------------------------------
    def networks(self) -> dict[str, nn.Module]:
        return {"netE": self.netE}

    def phases(self) -> list[Phase]:
        assert self.optimizer is not None, "built without --lr, for inference"
        return [Phase("E", ("netE",), self.optimizer, self.losses)]

    def checkpoint_activations(self) -> None:
        """The learnt network is small; it is the frozen UNet that the gradient passes through."""
        self.frozen.unet.enable_gradient_checkpointing()

    def compiled_parts(self) -> list[nn.Module]:
        """As the base, and the frozen UNet that the gradient passes through."""
        return [*super().compiled_parts(), self.frozen.unet]

    def to(self, device: torch.device) -> BaseModel:
        self.frozen.to(device)
        return super().to(device)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """MSE of the noise predicted under the learnt token; all draws come from each sample's own seed."""
        means, deviations, embeddings = map(torch.cat, zip(*self._encode(batch), strict=True))
        draws = [torch.Generator().manual_seed(seed) for seed in batch["draw"]]
        steps = torch.cat([torch.randint(TRAIN_STEPS, (1,), generator=draw) for draw in draws])
        latents = sample((means, deviations), draws)
        noise = draw_normal(latents, draws)
        abar = torch.tensor(alphas_cumprod(), dtype=latents.dtype)[steps][:, None, None, None]
        keep = torch.stack([dropout_factors(self.netE.dim, DROPOUT, draw) for draw in draws])
        keep, steps, abar = (x.to(latents.device, non_blocking=True) for x in (keep, steps, abar))
        noised = abar.sqrt() * latents + (1 - abar).sqrt() * noise
        tokens = self.call("netE")(embeddings[:, None], keep)[:, 0]
        predicted = self.frozen.predict(noised, steps, self.frozen.condition(tokens))
        return {"E/mse": F.mse_loss(predicted.float(), noise)}

    def _encode(self, batch: Any) -> list[Encoded]:
        """Return latents' moments and CLIP embeddings, computed once for each picture and flip."""
        pictures = zip(batch["image"], on_host(batch)["image"], strict=True)
        for index, flip, (image, on_cpu) in zip(batch["index"], batch["flip"], pictures, strict=True):
            if (index, flip) not in self._encoded:
                picture = to_uint8(on_cpu)
                moments = self.frozen.moments(image[None])
                self._encoded[index, flip] = (*moments, self.frozen.embed([picture], self.clip_input))
        return [self._encoded[key] for key in zip(batch["index"], batch["flip"], strict=True)]

    def start_run(self, run_dir: Path, *, resumed: bool) -> None:
        """Store the style picture, whose latent inference mixes in, and the signature of the base model."""
        assert self.style is not None
        if resumed:
            check_signature(self.frozen.parts(), run_dir / BASE_FILE, clip_input=self.clip_input)
            if not np.array_equal(self.style, read_image(run_dir / STYLE_FILE)):
                raise UserError(f"--style_image is another picture than {run_dir / STYLE_FILE}, which the run learns")
            return
        save_png(self.style, run_dir / STYLE_FILE)
        save_signature(self.frozen.parts(), run_dir / BASE_FILE, clip_input=self.clip_input)

    # --- inference ---------------------------------------------------------------------------------------------------
    def prepare_inference(
        self, run_dir: Path, training_pictures: TrainingPictures, *, weights: str, refresh: bool = False
    ) -> None:
        """Read the run's style picture; raises `UserError` if the run was made with another base model or CLIP."""
        check_signature(self.frozen.parts(), run_dir / BASE_FILE, clip_input=self.clip_input)
        self.style = read_image(run_dir / STYLE_FILE)

    @torch.no_grad()
    def stylise(
        self, contents: Sequence[np.ndarray], edges: Sequence[np.ndarray], seeds: Sequence[int], how: Coefficients
    ) -> list[np.ndarray]:
        """Return the stylised pictures (H, W, 3) uint8; raises `UserError` where a network gives NaN or infinity.

        Args:
            contents: pictures (H, W, 3) uint8, of one size that the VAE takes.
            edges: their edge maps, of the same size.
            seeds: of each picture's draws: posteriors of style, content and edges, then two noises.
        """
        assert self.style is not None
        height, width = contents[0].shape[:2]
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        style, content, edge = (
            sample(self.frozen.moments(torch.stack([to_tensor(picture) for picture in pictures])), draws)
            for pictures in ([resized(self.style, (width, height))], contents, edges)
        )
        if self.second_style is not None:  # drawn as if it were the only one, so that a share of 0 is a run of its own
            again = [torch.Generator().manual_seed(seed) for seed in seeds]
            moments = self.frozen.moments(to_tensor(resized(self.second_style, (width, height)))[None])
            style = how.style_mix * style + (1 - how.style_mix) * sample(moments, again)
        z = Latents(content, style, edge, draw_normal(content, draws), draw_normal(content, draws))
        conditional = asked = self._condition(contents, edges, how)
        if how.token == "style":
            asked = self._condition(contents, edges, replace(how, cond_mix=(0.0, 0.0, 1.0)))
        both = torch.cat([self.frozen.unconditional().expand_as(conditional), conditional])
        control = None if self.frozen.controlnet is None else canny_lines(contents).to(content.device)
        twice = None if control is None else torch.cat([control, control])

        def denoise(x: Tensor, t: int, guidance: float | None) -> Tensor:
            if guidance is None:
                return self.frozen.predict(x, t, asked, control).float()
            free, bound = self.frozen.predict(torch.cat([x, x]), t, both, twice).float().chunk(2)
            return free + guidance * (bound - free)

        painted = self.frozen.pictures(stylise(z, denoise, how)).cpu()
        if not painted.isfinite().all():
            raise UserError(
                "the stylised picture has NaN or infinite values, which would be saved as black: weights of "
                "--base_model are damaged, or overflow; name another copy, or try --precision fp32, a lower --guidance"
            )
        return list(truncated(painted).movedim(1, -1).numpy())

    def _condition(self, contents: Sequence[np.ndarray], edges: Sequence[np.ndarray], how: Coefficients) -> Tensor:
        """Return the conditionings of contents, edge maps and style, mixed by their shares."""
        total: Any = 0.0
        for share, pictures in zip(how.cond_mix, (contents, edges, [self._shown_style(how.style_mix)]), strict=True):
            if share:
                tokens = self.netE(self.frozen.embed(pictures, self.clip_input)[:, None])[:, 0]
                total = total + share * self.frozen.condition(tokens)
        return total.expand(len(contents), -1, -1)

    @torch.no_grad()
    def style_token(self) -> Tensor:
        """Return the token (D,) of the run's style picture, on the CPU: an embedding of textual inversion."""
        embedding = self.frozen.embed([self._shown_style(1.0)], self.clip_input)
        return self.netE(embedding[:, None])[0, 0].float().cpu()

    def _shown_style(self, share: float) -> np.ndarray:
        """Return the style picture as CLIP is shown it in training, squeezed to a square; two mixed by `share`."""
        assert self.style is not None
        side = (self.size, self.size)
        style = resized(self.style, side)
        if self.second_style is None:
            return style
        return (share * style + (1 - share) * resized(self.second_style, side)).round().astype(np.uint8)

    def preview_grid(self, batch: Batch, palette: np.ndarray) -> np.ndarray:
        """Return the style picture stylised by itself, which shows what the token has learnt."""
        pairs = zip(to_uint8(batch["image"]), to_uint8(self.preview(batch)), strict=True)
        return picture_grid([list(pair) for pair in pairs], titles=["style", "restyled"])

    def generate(self, batch: Batch, seeds: list[int]) -> Tensor:
        """Stylise the pictures of a batch with the release's coefficients."""
        pictures = list(to_uint8(batch["image"]))
        edges = [edge_picture(picture, EDGES[0]) for picture in pictures]
        done = self.stylise(pictures, edges, seeds, Coefficients())
        return torch.stack([to_tensor(picture) for picture in done]).to(batch["image"].device)


def canny_lines(pictures: Sequence[np.ndarray]) -> Tensor:
    """Return Canny's edges (B, 3, H, W) of pictures (H, W, 3) uint8 as a ControlNet takes them: 1 on 0."""
    return torch.stack([1 - (to_tensor(edge_picture(picture, "canny")) + 1) / 2 for picture in pictures])


def truncated(pictures: Tensor) -> Tensor:
    """Return uint8 of pictures in about [-1, 1], truncated as in the release; all else here is rounded."""
    return ((pictures.float() + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)
