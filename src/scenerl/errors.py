"""The errors that are the user's to mend, and how messages write numbers of things.

The command line prints :class:`UserError` and errors of the operating system in one line. Every other exception is a
bug and keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """An option, a file or data that cannot be used. The message names it and says what is allowed."""


class DataError(UserError):
    """Data that cannot be used; the message names the file and the row."""


def counted(number: int, noun: str) -> str:
    """A number of things in words.

    >>> counted(1, "row"), counted(0, "row"), counted(2, "box")
    ('1 row', '0 rows', '2 boxes')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith(('x', 's', 'ch')) else 's'}"
