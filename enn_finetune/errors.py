"""The one kind of error that is the input's fault, not the program's."""


class InputError(ValueError):
    """Input that cannot be used; the message says what was found, where, and what to do."""
