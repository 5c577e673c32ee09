"""Weights from the checkpoints of other tools, found by what fits the model: `read_weights`. Nothing is unpickled.

reading.py   a file as tensors and the places where they lie, through all dicts and lists in it
fitting.py   which of these places hold the model's tensors, by names and shapes
weights.py   `read_weights`: the one that fits, or one line about what is there
"""

from prunit.checkpoints.weights import Weights, read_weights

__all__ = ["Weights", "read_weights"]
