"""The root of every error a person can act on.

It lives in the lowest package because every other one raises it: main -> agent -> tools -> memory.
"""


class SelfPrunerError(Exception):
    """One sentence that says what was wrong and what is allowed.

    The command line prints it and exits with `exit_code`; a tool hands the same sentence to the brain.
    """

    exit_code = 2
