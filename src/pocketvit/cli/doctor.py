"""`pocketvit doctor`: whether a run would work, before it is started."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from pocketvit.cli.parsing import flags_of, parse
from pocketvit.cli.train import parse_train
from pocketvit.terminal import say


@dataclass(frozen=True)
class DoctorArguments:
    """Check in under a minute whether a run would work, and say what to do if not; no run folder is made.

    Takes a recipe (default digits), --data, --config and any field of a run, as pocketvit train does. Exit codes: 0 nothing
    failed, 1 something did, 2 bad input.
    """

    out: Path = Path("doctor.png")
    """The picture of the learning-rate range test."""
    json: bool = False
    """Print a JSON array instead."""


def doctor_command(arguments: list[str]) -> int:
    """`pocketvit doctor [RECIPE] [--data SOURCE] [--FIELD VALUE ...] [--out FILE.png] [--json]`."""
    prog = "pocketvit doctor [RECIPE] [--FIELD VALUE ...]"
    given, rest = parse(DoctorArguments, arguments, prog, return_unknown_args=True)
    config = parse_train(rest, others=flags_of(DoctorArguments))
    from pocketvit.doctor.examine import examine

    found = []
    for finding in examine(config, given.out):
        found.append(finding)
        if not given.json:
            say(finding.text())
    if given.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=2))
    elif given.out.exists() and any(finding.check == "optim.lr" for finding in found):
        say(f"picture: {given.out}")
    return int(any(finding.state == "FAIL" for finding in found))
