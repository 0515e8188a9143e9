"""Prefetching: make the next item while the current one is used."""

from collections.abc import Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def prefetch(threads: Executor, items: Iterator[T]) -> Iterator[T]:
    """The items, each made in another thread while the previous one is used.

    Args:
        threads: where items are made, one at a time. An iterator that itself comes from `prefetch` needs one more thread.
        items: what to make; the first is begun on demand.
    Raises:
        any exception from making an item, when that item is requested.
    """
    coming = threads.submit(list, islice(items, 1))
    while made := coming.result():
        coming = threads.submit(list, islice(items, 1))
        yield from made
