"""``python -m elicitor`` is the ``elicitor`` command."""

from elicitor.cli import main

main()
