"""TensorBoard for losslog runs: every component, every evaluation, every alert, without torch and without a thread.

Importing this imports neither tensorboard nor protobuf.
"""

from losslog_tensorboard.plugin import TensorBoardPlugin

__all__ = ["TensorBoardPlugin"]
