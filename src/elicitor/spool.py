"""Many values, one at a time: a temporary file from which each is read by its number.

Memory holds eight bytes a value. The file has no name, so nothing is left of it after any kind of end.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Iterator
from typing import Any


class Spool:
    """A list of JSON values on disk that can only grow.

    Reading never moves the file's position, so it may be read while it is being iterated over.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="elicitor-")  # noqa: SIM115 (closed with this object)
        self._starts = array("Q", [0])
        weakref.finalize(self, self._file.close)

    def append(self, value: Any) -> None:
        """Add a JSON value at the end."""
        line = json.dumps(value).encode()
        self._file.write(line)
        self._starts.append(self._starts[-1] + len(line))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> Any:
        """The value that was added as this number.

        Raises:
            IndexError: If there is none.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        start, end = self._starts[number], self._starts[number + 1]
        self._file.flush()
        return json.loads(os.pread(self._file.fileno(), end - start, start))

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self)):
            yield self[number]
