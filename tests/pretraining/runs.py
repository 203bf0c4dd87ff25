"""As a script: one rank of several runs, one after the other; each is a list of arguments."""

from __future__ import annotations

import json
import os
import sys
import warnings

from zhbert.cli import leave
from zhbert.errors import ZhbertError
from zhbert.pretraining.run import pretrain

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    try:
        for port, corpus, out, overrides, options in json.loads(sys.argv[1]):
            os.environ["MASTER_PORT"] = str(port)  # the former run's is not free at once
            pretrain("tiny", corpus, out, overrides, **options)
    except ZhbertError as error:
        sys.stderr.write(f"{error}\n")
        leave(2, at_once=True)
    leave(0, at_once=True)
