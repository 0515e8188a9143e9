"""Read YAML files written by hand, with errors in one line."""

from pathlib import Path
from typing import Any

import yaml

from pocketvit.errors import InputError
from pocketvit.files import read_text

MOST_BYTES = 2**18  # of such a file; reading so much takes a second or two
MOST_DEPTH = 20  # how deep lists and mappings may lie in one another
MOST_CHARACTERS = 10_000  # of one value
LARGEST = 2**64  # integers are smaller; Python does not print one of more than 4,300 digits


class _Loader(yaml.SafeLoader):
    """Refuses repeated keys, of which plain YAML silently keeps the last value, and aliases, by which a few lines can stand
    for billions."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, self.depth = self.peek_event(), self.depth + 1
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{where}: *{event.anchor} is an alias; write its content out")
        if self.depth > MOST_DEPTH:
            raise InputError(f"{where}: more than {MOST_DEPTH} nested lists or mappings")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MOST_CHARACTERS:
            raise InputError(f"{where}: a value of more than {MOST_CHARACTERS:,} characters")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # not a name; plain YAML refuses it
            if key.value in seen:
                raise InputError(f"{key.value!r} is set twice, again in line {key.start_mark.line + 1}; remove one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) >= LARGEST:
            raise InputError(f"line {node.start_mark.line + 1}: an integer of more than 64 bits")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(path: Path, kind: str) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: no such file or not a regular one, not YAML, too long or too deep, with aliases, or a repeated key.
    """
    try:
        return yaml.load(read_text(path, MOST_BYTES), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise InputError(f"cannot read {kind} {path}: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{kind} {path}: {error}") from error
    except Exception as error:  # a value that does not fit its tag fails with whatever Python says of it
        why = error if isinstance(error, yaml.YAMLError | ValueError) else repr(error)
        raise InputError(f"{kind} {path} is not YAML: {' '.join(str(why).split())}") from error
