"""The one exception a user is meant to see."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the thing, what is wrong with it and what would work; of several broken
    images `pocketvit data check` gives a line each.
    The command line prints it and exits with code 2; library callers can catch it as a `ValueError`.
    """
