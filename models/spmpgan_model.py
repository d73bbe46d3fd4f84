"""SPMPGAN: Context-Consistent Semantic Image Editing with Style-Preserved Modulation (ECCV 2022, arXiv 2207.06252)."""

from __future__ import annotations

from pathlib import Path

from models import MODELS
from models.base_cascade_gan import CascadeGAN


@MODELS.register("spmpgan")
class SPMPGANModel(CascadeGAN):
    """The baseline: three cascaded U-Nets of style-preserved modulation. Deterministic."""

    summary = "SPMPGAN (ECCV 2022): style-preserved modulation, progressive cascade"

    @classmethod
    def tiny(cls, tmp_path: Path) -> list[str]:
        flags = "--model spmpgan --dataset_mode streets --streets_train_size 8 --streets_test_size 4 --crop_size 64"
        return [*flags.split(), *"--ngf 4 --ndf 4 --spm_hidden 8 --lambda_vgg 0 --batch_size 2".split()]
