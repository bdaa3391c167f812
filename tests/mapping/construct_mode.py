"""Objects that pynwb reads from older files but refuses to make anew."""

from typing import Any


def constructed[T](kind: type[T], **arguments: Any) -> T:
    """Make an object as pynwb does when it reads one: deprecated types and arguments are let through.

    Parameters
    ----------
    kind
        A class of pynwb.
    arguments
        What its constructor takes.
    """
    new: Any = kind.__new__
    made = new(kind, in_construct_mode=True)
    made.__init__(**arguments)
    # It is written like any other from here on.
    made._in_construct_mode = False
    return made  # type: ignore[no-any-return]
