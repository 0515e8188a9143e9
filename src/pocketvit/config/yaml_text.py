"""YAML that people write by hand: what is wrong with it is said in one line."""

from pathlib import Path
from typing import Any

import yaml

from pocketvit.errors import InputError


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, where plain YAML silently keeps the last: the other would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # no name at all; plain YAML refuses it
            if key.value in seen:
                raise InputError(f"{key.value!r} stands twice, again in line {key.start_mark.line + 1}; keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, kind: str) -> Any:
    """What a YAML file holds.

    Raises:
        InputError: no such file, not YAML, or a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise InputError(f"cannot read {kind} {path}: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{kind} {path}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # a number of thousands of digits is a ValueError
        raise InputError(f"{kind} {path} is not YAML: {' '.join(str(error).split())}") from error
