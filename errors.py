"""The user's mistakes, apart from Podium's own."""


class UserError(Exception):
    """A mistake that its user can put right.

    The message is one line: what is wrong, where, what to do. Commands print it alone, without a
    traceback, and exit with code 2.
    """
