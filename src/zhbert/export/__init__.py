"""Models in other programs' formats, written and compared."""

# What `zhbert.export.convert.convert` writes.
FORMATS = ("tensorflow", "safetensors", "pytorch")
DTYPES = ("float32", "float16", "bfloat16")
# What can run the second model of a comparison: `zhbert.export.parity.RUNNERS` says how.
PROGRAMS = ("zhbert", "transformers")
