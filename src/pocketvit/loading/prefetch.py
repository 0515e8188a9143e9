"""Making the next thing while this one is used."""

from collections.abc import Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def prefetch(threads: Executor, items: Iterator[T]) -> Iterator[T]:
    """The items, each made in another thread while the one before it is used.

    Args:
        threads: where items are made, one at a time. An iterator that itself comes from `prefetch` needs a thread more.
        items: what to make; the first is begun when it is asked for.
    Raises:
        whatever making an item raised, when that item is asked for.
    """
    coming = threads.submit(list, islice(items, 1))
    while made := coming.result():
        coming = threads.submit(list, islice(items, 1))
        yield from made
