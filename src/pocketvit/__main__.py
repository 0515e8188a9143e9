"""`python -m pocketvit`, the form that torchrun starts."""

import os
import sys

from pocketvit.cli import main

if int(os.environ.get("RANK", 0)) > 0:
    sys.stdout = open(os.devnull, "w")  # of the processes that torchrun starts, the first speaks for all
main()
