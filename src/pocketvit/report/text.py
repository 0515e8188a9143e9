"""Number formats of reports and tables. A no-break space joins numbers and units."""

from collections.abc import Sequence

NBSP = "\N{NO-BREAK SPACE}"


def count(number: float) -> str:
    """A whole number with thousands separators: 2,697,610."""
    return f"{round(number):,}"


def counted(number: int, noun: str) -> str:
    """A number with a noun in the singular or plural: 1 run, 1,437 passes."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def listed(parts: Sequence[str]) -> str:
    """Parts of a sentence: a, b and c."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def short_count(number: float) -> str:
    """A number for the axis of a plot: 500 k, 1.5 M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{NBSP}{suffix}"
    return f"{number:g}"


def percent(fraction: float, decimals: int = 1) -> str:
    """A fraction as a percentage: 0.972 is 97.2 %."""
    return f"{100 * fraction:.{decimals}f}{NBSP}%"


def axis_percent(fraction: float) -> str:
    """A fraction as a percentage along the axis of a plot: 0.925 is 92.5 %."""
    return f"{100 * fraction:.4g}{NBSP}%"


def points(fraction: float, *, signed: bool = False) -> str:
    """A fraction in percentage points: two decimals; of a size (not `signed`), its first digit if these would be 0."""
    value = round(100 * fraction, 9)  # the rounding error between two equal means becomes 0
    if not round(value, 2) and signed:
        value = 0.0
    text = f"{abs(value):.2f}" if round(abs(value), 2) or not value else f"{abs(value):.1g}"
    sign = "−" if value < 0 else "+" if value > 0 and signed else ""
    return sign + text


def percent_decimals(total: int) -> int:
    """The decimals of a percentage of `total` images: one image of 1,000 is 0.1 points."""
    return 2 if total >= 1000 else 1


def duration(seconds: float) -> str:
    """A time span in at most two units: 0.91 s, 45.2 s, 4 min 32 s, 1 h 18 min."""
    if seconds < 10:
        return f"{seconds:.2f}{NBSP}s"
    if seconds < 120:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest}{NBSP}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{NBSP}h {minutes}{NBSP}min"
