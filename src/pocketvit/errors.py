"""The exception for users."""


class InputError(ValueError):
    """Invalid input.

    The message is one line that names the input, what is wrong with it and what would work; for several broken
    images, there are more `lines`, one each. The command line prints them and exits with code 2; library callers can
    catch it as a `ValueError`.

    Args:
        *lines: of the message.
    """

    def __init__(self, *lines: object) -> None:
        super().__init__("\n".join(map(str, lines)))
        self.lines = lines  # whose own breaks, such as those in a file's name, are none
