"""The encoder, its heads, and reading and writing model folders."""
