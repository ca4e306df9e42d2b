# SPDX-License-Identifier: GPL-2.0-only
"""The one error that every command shows its user."""

from collections.abc import Iterable


class IorecError(Exception):
    """A failure whose cause is known: `message` names thing and cause, `hint` the next step.

    `place` is what was typed, and where in it the mistake is.
    """

    def __init__(
        self, message: str, hint: str, exit_code: int = 1, place: tuple[str, int] | None = None
    ) -> None:
        super().__init__(message)
        self.add_note(f"hint: {hint}")  # where Python shows the error, as in a notebook
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        self.place = place


def unknown_name(what: str, name: str, known: Iterable[str]) -> IorecError:
    """The usage error for a name that is none of those known; a similar one comes first."""
    from difflib import get_close_matches  # of regular expressions that no start should wait for

    names = [*known]
    similar = "".join(f"did you mean {close}? " for close in get_close_matches(name, names, n=1))
    return IorecError(f"cannot {what} {name!r}", f"{similar}choose from: {', '.join(names)}", 2)
