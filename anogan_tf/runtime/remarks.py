"""What is said in one line of input that could have meant something else, where asking would be too much."""

import warnings


class Remark(UserWarning):
    """How input was understood. The command line prints it; in Python it is a warning like any other."""


def remark(text):
    """Say a line; the same line once, by Python's default filter."""
    warnings.warn(text, Remark, stacklevel=3)
