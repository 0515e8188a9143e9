"""Unpickle values that can do nothing: what the readers of pickles from strangers are made of."""

import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pocketvit.errors import InputError


def _tuple(count: int | None) -> Callable[[Any], None]:
    """Puts so many values from the stack, or those after the mark, back as one list."""

    def load(unpickler: Any) -> None:  # whose stack has no type
        if count is None:
            values = unpickler.pop_mark()
        else:
            first = len(unpickler.stack) - count
            values = unpickler.stack[first:]
            del unpickler.stack[first:]
        unpickler.append(values)

    return load


class RestrictedUnpickler(pickle._Unpickler):
    """Unpickles plain values, and of all names in a pickle only those that have a stand-in.

    It is pickle's form in Python, as the one in C allocates by a number of four bytes. Tuples become lists, which cannot
    be hashed: of a tuple within a tuple, a million deep or each twice, hashing ends in a crash or never.
    """

    stand_ins: Mapping[tuple[str, str], object] = {}
    """What a name in a pickle, by its module, stands for: a function of ours that does no harm."""
    wanted: ClassVar[str] = "plain values"
    """What is allowed, for messages."""

    dispatch = pickle._Unpickler.dispatch | {
        pickle.TUPLE[0]: _tuple(None),
        **{
            code[0]: _tuple(n)
            for n, code in enumerate((pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3))
        },
    }
    del dispatch[pickle.BYTEARRAY8[0]]  # allocates by a number as well, and none of our readers needs it

    def find_class(self, module: str, name: str) -> object:
        """The stand-in for a name in the pickle.

        Raises:
            InputError: it has none.
        """
        if (module, name) not in self.stand_ins:
            raise InputError(f"its pickle asks for {module}.{name}, but only {self.wanted} are allowed: refused")
        return self.stand_ins[module, name]
