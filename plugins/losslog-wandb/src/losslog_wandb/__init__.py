"""Weights & Biases for losslog. Importing this imports no wandb."""

from losslog_wandb.plugin import WandbPlugin

__all__ = ["WandbPlugin"]
