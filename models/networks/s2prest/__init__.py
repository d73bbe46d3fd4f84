"""S2PreST: Stable Diffusion, CLIP and the style's token."""
