"""Reports: tables and pictures made from run folders, which are only read, without torch."""
