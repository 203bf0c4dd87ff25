"""Reports: tables and figures made from run folders, without torch and without writing to them."""
