"""The verbs of the command line, one per file: arguments, one call below, printing.

What a verb calls is imported where it is called, so that --help and refused arguments stay fast.
"""
