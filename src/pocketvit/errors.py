"""The exception for users."""


class InputError(ValueError):
    """Invalid input.

    The message is one line that names the input, what is wrong with it and what would work; for several broken
    images, `pocketvit data check` gives one line each.
    The command line prints it and exits with code 2; library callers can catch it as a `ValueError`.
    """
