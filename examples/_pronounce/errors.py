"""What the user can mend."""


class UserError(Exception):
    """A message for the person at the keyboard: it is shown without a traceback."""
