"""What the group of a row is called, so that a row which names no group never falls into another's.

Examples of one group are bound by logic; they are recognised by the group's name alone.
"""

from __future__ import annotations


class GroupNames:
    """Names groups as rows come: a group by its own name, a row without one by its id.

    Ids and groups are often both numbers. Where a name is taken by the other kind, whichever comes second is told apart
    by primes, and keeps that name.
    """

    def __init__(self) -> None:
        self._named: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, group: str | None, example_id: str) -> str:
        """The group of a row.

        Args:
            group: What the row names as its group; None if it is alone.
            example_id: Its id, unique.

        Returns:
            A name that all rows of the group get, and no others.
        """
        if group in self._named:
            return self._named[group]
        name = example_id if group is None else group
        while name in self._taken:
            name += "'"
        self._taken.add(name)
        if group is not None:
            self._named[group] = name
        return name
