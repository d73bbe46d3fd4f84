"""The one training loop and what it needs: sampling, checkpoints, logging, several processes."""
