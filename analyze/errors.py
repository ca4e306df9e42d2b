# SPDX-License-Identifier: GPL-2.0-only
"""The one error that every command shows its user."""


class IorecError(Exception):
    """A failure whose cause is known: `message` names thing and cause, `hint` the next step."""

    def __init__(self, message: str, hint: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
