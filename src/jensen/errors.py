"""Errors that are for the reader: what was given, what was expected, what to do."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line that says what was given, what was expected and what to do. It is raised where the
    input enters; the command line prints it and exits with status 2, never with a traceback.
    """
