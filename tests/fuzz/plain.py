"""Change bytes, text and JSON. All randomness is the given generator's."""

import json
import re
import struct
from random import Random
from typing import Any

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf"), 2**31,
    2**53, 2**63, -(2**63) - 1, 2**64, 10**400, 1_000_000, "", "0", "a", "NaN", "1e999", "\x1b[2J\x07\r",
    "\u202eabc", "\ud800", "é", "\0", "/dev/zero", "../../x", "x" * 5_000, "x\ny", "file.py:name", [], {},
    [[]], [0], ["a"], [None], [1e999], {"a": 1}, {"": []}, [0] * 5_000, ["a"] * 300, "digits", "test", "auto",
]  # fmt: skip
"""What a field of a JSON file may be made."""
TOKENS = [
    "&a [1]", "*a", "&a [*a]", "<<: *a", "!!python/object/apply:os.system ['id']", "!!binary x",
    "!!timestamp 2001-13-45", "!!set {a}", "!!int x", "!!float .inf", "!x y", "? [a]\n: b", "? {a: b}",
    "[" * 500, "{a: " * 200, "- " * 300, ".nan", "-.inf", "1e400", "0x", "1_000", "9" * 5_000, "1:30:00",
    "2001-12-14t21:59:43.10-05:00", "null", "~", "yes", "\t", "\x85", "\u2028", "\ufeff", "%YAML 9.9", "---",
    "...", "|", ">", "@", "`", '"', "'", "\x1b[31m", "\ud7ff", "x" * 20_000, "-1", "0", "1.5", "100000", "",
    ",", ";", "\n", "\r", '"a""b"', "model.width", "seeds: 100000", "grid: {optim.lr: [1, 2]}", "rows:",
    "file.py:x", "__import__('os')", "é", "../../etc", "{}",
]  # fmt: skip
"""What a piece of YAML or CSV may become."""
NUMBERS = [0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]


def change_bytes(content: bytes, random: Random) -> bytes:
    """Some bytes changed, inserted, removed, repeated or cut off, often near the begin or the end."""
    data = bytearray(content or b"\0")
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        size = len(data)
        at = random.choice(
            (random.randrange(size), random.randrange(min(size, 64)), size - 1 - random.randrange(min(size, 600)))
        )
        length = random.choice((1, 2, 4, 16, 200))
        match random.randrange(8):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                data[at] = random.choice((0, 1, 127, 128, 255))
            case 2:
                width, order = random.choice("HIQ"), random.choice("<>")
                number = struct.pack(f"{order}{width}", random.choice(NUMBERS) % 256 ** struct.calcsize(width))
                data[at : at + len(number)] = number
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = random.randbytes(length)
            case 5:
                data[at:at] = data[at : at + length] * random.choice((1, 2, 50))
            case 6:
                other = random.randrange(size)
                data[at : at + length] = data[other : other + length]
            case 7 if random.random() < 0.3:
                del data[at:]
        data = data or bytearray(b"\0")
    return bytes(data)


def change_text(content: bytes, random: Random) -> bytes:
    """A token or a line replaced, repeated, moved or removed."""
    text = content.decode("utf-8", "surrogateescape")
    parts = re.findall(r"\w+|[^\w\n]|\n", text) if random.random() < 0.7 else text.splitlines(keepends=True)
    at = random.randrange(len(parts))
    match random.randrange(5):
        case 0 | 1:
            parts[at] = random.choice(TOKENS)
        case 2:
            parts.insert(at, random.choice(TOKENS))
        case 3:
            parts[at] *= random.choice((0, 2, 1_000))
        case 4:
            parts.insert(random.randrange(len(parts)), parts[at])
    return "".join(parts).encode("utf-8", "surrogateescape")


def change_json(content: bytes, random: Random) -> bytes:
    """A value in one of the lines of JSON replaced, removed, nested or renamed; often many are right."""
    lines = content.splitlines() if content.count(b"\n{") else [content]
    at = random.randrange(len(lines))
    held = json.loads(lines[at])
    lines[at] = json.dumps(change_value(held, random)).encode("utf-8", "surrogateescape")
    if random.random() < 0.05:
        depth = random.choice((50, 900, 5_000, 100_000))
        lines[at] = lines[at].replace(b"null", b"[" * depth + b"]" * depth, 1)
    return b"\n".join(lines) + b"\n"


def change_value(held: Any, random: Random) -> Any:
    """A value as JSON knows them, with one that is somewhere inside changed."""
    if isinstance(held, str) and held[:1] in ("{", "["):  # JSON in JSON, as in a model's file
        try:
            return json.dumps(change_value(json.loads(held), random))
        except ValueError:
            pass
    if not isinstance(held, dict | list) or not held or random.random() < 0.1:
        return random.choice(VALUES)
    key = random.choice(list(held)) if isinstance(held, dict) else random.randrange(len(held))
    match random.randrange(10):
        case 0:
            del held[key]
        case 1 if isinstance(held, dict):
            held[str(random.choice(VALUES))[:300]] = held.pop(key)
        case 1 | 2 if isinstance(held, list):
            held *= random.choice((2, 50))
        case 3:
            held[key] = [held[key]]
        case _:
            held[key] = change_value(held[key], random)
    return held
