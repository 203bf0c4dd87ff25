"""Models in other programs' forms, written and compared."""
