"""Making the next thing while this one is used."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pocketvit.loading.chunks import prefetch


def test_every_item_comes_once_and_in_order():
    with ThreadPoolExecutor(1) as threads:
        assert list(prefetch(threads, iter(range(5)))) == [0, 1, 2, 3, 4]
        assert list(prefetch(threads, iter(()))) == []


def test_the_next_is_made_while_this_one_is_used_and_no_further():
    made, two = [], threading.Event()

    def items():
        for item in range(4):
            made.append(item)
            if item == 1:
                two.set()
            yield item

    with ThreadPoolExecutor(1) as threads:
        first = next(prefetch(threads, items()))
        assert first == 0 and two.wait(60)
    assert made == [0, 1]


def test_one_ahead_of_another_needs_two_threads():
    with ThreadPoolExecutor(2) as threads:
        plans = prefetch(threads, iter(range(3)))
        pairs = ((plan, chunk) for plan in plans for chunk in "ab")
        assert list(prefetch(threads, pairs)) == [(plan, chunk) for plan in range(3) for chunk in "ab"]


def test_what_fails_in_the_other_thread_is_raised_here():
    with ThreadPoolExecutor(1) as threads, pytest.raises(ZeroDivisionError):
        list(prefetch(threads, (1 // n for n in (1, 0))))
