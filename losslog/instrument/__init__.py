"""Seeing the losses of loops that were written without us: hooks on a model, its optimizer, its loaders.

Imports nothing heavy: `losslog.attach` and ``losslog run`` import what they need when they need it. Contract:

- Nothing in here raises into training, but for `losslog.StopTraining` and the user's own Ctrl-C.
- Values are read when the model gives them, so that what the loop does to its tensors afterwards does not matter.
- What is put on modules, optimizers and classes is taken off again when the run closes.
"""
