"""Whose mistake an error is.

:class:`UserError` and errors of the operating system are told in one line. Every other exception is a bug of ours and
keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """An option, a file or data that cannot be used. The message names it and says what is allowed."""


class DataError(UserError):
    """Data that cannot be used; the message names the file and the row."""
