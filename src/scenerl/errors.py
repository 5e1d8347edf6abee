"""The errors that are the user's to mend, and how messages write numbers of things.

The command line prints :class:`UserError` and errors of the operating system in one line. Every other exception is a
bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from itertools import islice
from pathlib import Path

_LOOKED_AT = 2000
"""Names in a folder that are compared with a mistyped one, at most: some folders hold every image of a data set."""


class UserError(ValueError):
    """An option, a file or data that cannot be used. The message names it and says what is allowed."""


class DataError(UserError):
    """Data that cannot be used; the message names the file and the row."""


def near_files(path: Path | str) -> str:
    """The tail of an error line about a path that is not there: `` (did you mean test.jsonl?)``, or nothing.

    Where its folder is not there either, the folder's name is looked at.
    """
    path = Path(path)
    if not path.parent.is_dir():
        return near_files(path.parent)
    try:
        beside = list(islice(path.parent.iterdir(), _LOOKED_AT))
    except OSError:
        return ""
    stems = difflib.get_close_matches(path.stem, {other.stem for other in beside}, n=3)
    close = sorted((other for other in beside if other.stem in stems), key=lambda other: stems.index(other.stem))
    return f" (did you mean {', '.join(map(str, close[:3]))}?)" if close else ""


def counted(number: int, noun: str) -> str:
    """A number of things in words.

    >>> counted(1, "row"), counted(0, "row"), counted(2, "box")
    ('1 row', '0 rows', '2 boxes')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith(('x', 's', 'ch')) else 's'}"
