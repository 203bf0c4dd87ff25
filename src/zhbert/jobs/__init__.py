"""The verbs of the command line, one per file: arguments, one call below, printing."""
