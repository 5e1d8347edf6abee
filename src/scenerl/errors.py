"""The errors that are the user's to mend.

The command line prints :class:`UserError` and errors of the operating system in one line. Every other exception is a
bug and keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """An option, a file or data that cannot be used. The message names it and says what is allowed."""


class DataError(UserError):
    """Data that cannot be used; the message names the file and the row."""
