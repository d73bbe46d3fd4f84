"""The one training loop and what it stands on: sampling, checkpoints, logging, several processes."""
