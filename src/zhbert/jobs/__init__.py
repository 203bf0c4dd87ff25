"""One file a verb: the wiring between the parts, and the only place that prints."""
