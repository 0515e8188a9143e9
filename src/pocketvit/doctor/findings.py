"""What the doctor says about one thing."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    """What was looked at, in a word or two."""
    state: State
    found: str
    """What was seen, with the figures."""
    advice: str = ""
    """What to do about it."""

    def text(self) -> str:
        """As lines to print."""
        lines = [f"{self.state:<5} {self.check:<14} {self.found}"]
        return "\n".join([*lines, *([f"{'':<20} -> {self.advice}"] if self.advice else [])])
