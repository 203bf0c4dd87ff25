"""Reports: run folders in, tables and pictures out. A pure reader, without torch."""
