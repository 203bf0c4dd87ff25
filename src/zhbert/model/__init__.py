"""The encoder, its heads, and the reading and writing of model folders."""
