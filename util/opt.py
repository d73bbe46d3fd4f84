"""The typed view of all options: the flags of train.py, test.py and scripts/edit.py for every method and data set.

mypy reads it, so that a misspelt `opt.<flag>` is an error. At run time there are the flags of the run's own method and
data set alone. Code outside this tree declares its own flags in a `class MyOpt(Opt)` and reads `cast(MyOpt, opt)`.
"""

from __future__ import annotations

from typing import Any


class Opt:
    """Values of flags by name."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    # --- flags, written by `make opt`
    accumulate: int
    add_from: tuple[str, int] | None
    add_object: str | None
    add_shape: str | None
    align_labels: bool
    art_inception: str | None
    attention_slicing: bool
    aug_flip: float
    aug_warp: float
    aug_zoom: float
    background_ngf: int
    background_run: str | None
    background_saspm: bool
    base_model: str
    batch_size: int
    beta1: float
    beta2: float
    blocks: int
    bootstrap: int
    box: tuple[int, int, int, int]
    cache: str
    cache_dir: str | None
    channels_last: bool | None
    checkpoint_activations: bool
    checkpoints_dir: str
    clip_input: str
    clip_loss_model: list[str] | None
    clip_model: str
    color_tolerance: float | None
    compared: str
    compile: str
    cond: str | None
    cond_mix: tuple[float, float, float] | None
    config: str | None
    content: str
    continue_train: bool
    controlnet: str | None
    crop_size: int
    dataroot: str
    dataset_mode: str
    decay_steps: int
    deterministic: bool
    device: str
    diffaug: str | None
    dilate: int | None
    discriminator: str
    dist_timeout: float
    dual_encoding: bool
    edge: str
    edge_input: bool
    edge_mix: float
    edge_side: str
    ema: float
    estimate: bool
    eval_args: str
    eval_every: int
    extend_labels: str | None
    foreground: str
    frozen_train: bool
    fusion: bool
    g_steps: int
    graph: list[str]
    guidance: float
    half: bool
    hole_entry: str
    ignore_label: int
    image: str
    image_every: int
    inception_weights: str | None
    inpaint_ngf: int
    inpaint_run: str | None
    inst: str | None
    inst_class_rule: str
    interpolate: int | None
    intervals: bool
    invert_mask: bool
    keep: int
    keep_aspect: bool
    label: str
    label_kind: str
    label_map: str | None
    label_nc: int
    label_tolerance: float
    lambda_align: float
    lambda_feat: float
    lambda_fixed: float
    lambda_gan: float
    lambda_l1: float
    lambda_patch: float
    lambda_rec: float
    lambda_scc: float
    lambda_vgg: float
    latent: str
    latent_mix: float
    list_objects: bool
    load_size: int
    log_every: int
    lpips_backbone: str | None
    lpips_net: str
    lpips_weights: str | None
    lr: float
    lr_D: float
    lr_G: float
    mask: str
    mask_boxes: float
    mask_classes: str | None
    mask_dir: str | None
    mask_schedule: str
    mask_threshold: int
    mask_types: str | None
    masks: str | None
    match_noise_level: bool
    max_steps: int
    metric_side: int | None
    metrics: str
    min_erased: float
    model: str
    modulation: str
    move: tuple[int, int, int] | None
    multi_scale: bool
    name: str
    ndf: int
    nef: int
    ngf: int
    nsf: int
    num_images: int | None
    num_samples: int
    num_workers: int
    object_classes: str | None
    object_gaps: str
    object_overlap: str
    object_size: int
    offload: bool
    outpaint: list[str] | None
    output: str
    palette: str | None
    panorama: int | None
    patch_loss: str
    per_class: bool
    perceptual: str
    perceptual_input: str
    perceptual_order: str
    precision: str
    push_to_hub: str | None
    r1_every: int
    r1_gamma: float
    ratio_input: str
    ratio_limit: float
    raw_modulation: bool
    raw_weights: bool
    rec_every: int
    removal: str
    remove: int | None
    replace_class: tuple[str, str] | None
    resize: float
    resize_mask: bool
    results_dir: str
    saspm: bool
    save_every: int
    scc_target: str
    second_style: str | None
    seed: int
    segmenter: str
    segmenter_classes: str | None
    segmenter_rename: str | None
    segmenter_weights: str | None
    semantic_alignment: str
    separation: bool
    size: int
    split: str
    spm_hidden: int
    stable_steps: int
    step: int | str | None
    steps: int
    streets_seed: int
    streets_test_size: int
    streets_train_size: int
    stuff_instances: str
    style_bank_pictures: int | None
    style_bank_seed: int
    style_bank_size: int
    style_class: str
    style_code: dict[str, int] | None
    style_dim: int
    style_encoding: bool
    style_guidance: float
    style_image: str
    style_inst: str | None
    style_label: str | None
    style_mix: float | None
    style_ngf: int
    style_pool: str
    style_run: str | None
    style_set: str | None
    style_source: str
    styles: str | None
    task: str
    tensorboard: bool
    test_cuts: str
    things: str
    token: str
    trust: str | None
    valid_ratio: bool
    vgg_weights: str | None
