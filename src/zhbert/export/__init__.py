"""Export: conversion to the formats of other programs, and comparison of models."""

# The formats and dtypes of `zhbert.export.convert.convert`.
FORMATS = ("tensorflow", "safetensors", "pytorch", "paddle")
DTYPES = ("float32", "float16", "bfloat16")
# The libraries that can run the second model of a comparison (`zhbert.export.parity.RUNNERS`).
PROGRAMS = ("zhbert", "transformers", "onnxruntime")
# The versions of ONNX's operations that `zhbert.export.onnx` can write. The first one, the default,
# is the one that the oldest programs open.
ONNX_OPSETS = range(18, 24)
