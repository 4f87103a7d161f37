"""What is said in one line of input that could have meant something else, where asking would be too much."""

import warnings


class Remark(UserWarning):
    """How input was understood that could have meant something else.

    The command line prints it. In Python it is a warning like any other: `warnings.filterwarnings("error", category=Remark)`
    makes an error of it.

    Args:
        text: the line.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)


def remark(text):
    """Say a line; the same line once, by Python's default filter."""
    warnings.warn(text, Remark, stacklevel=3)
