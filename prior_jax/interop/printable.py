"""Text from files of unknown origin in messages of one line."""


def printable(text: str, most: int = 200) -> str:
    """Returns the beginning of a text, with line breaks and control characters escaped.

    Args:
      text: e.g. the name of a tensor in a file.
      most: number of characters after which the text is cut.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:most])
