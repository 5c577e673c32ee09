"""Microcontrollers and NPUs: a network of integers as a flatbuffer, and what TensorFlow Lite Micro and Vela say of it.

What decides there is not timed but reported: an arena in bytes, cycles of an accelerator. Nothing here imports torch.
"""
