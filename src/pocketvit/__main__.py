"""`python -m pocketvit`, the form that torchrun starts."""

from pocketvit.cli import main

main()
