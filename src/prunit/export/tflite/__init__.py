"""Integers for microcontrollers: an exported float network as one of TensorFlow Lite, calibrated on images."""

from prunit.export.tflite.lowering import integer_network
from prunit.export.tflite.making import Twin, integer_twin
from prunit.export.tflite.spans import stand_in_spans

__all__ = ["Twin", "integer_network", "integer_twin", "stand_in_spans"]
