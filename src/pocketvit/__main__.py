"""`python -m pocketvit`, for torchrun."""

import os
import sys

from pocketvit.cli import main

if int(os.environ.get("RANK", 0)) > 0:
    sys.stdout = open(os.devnull, "w")  # of torchrun's processes, only the first one prints
main()
