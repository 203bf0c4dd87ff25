"""``python -m zhbert`` is ``zhbert``."""

import sys

from zhbert.cli import main

sys.exit(main())
