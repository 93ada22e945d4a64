"""Left and right in the text of a report, for images that are mirrored."""

import re

_PAIRS = (
    ("left", "right"),
    ("leftward", "rightward"),
    ("leftwards", "rightwards"),
    ("lt", "rt"),
    ("lul", "rul"),
    ("lll", "rll"),
    ("levoscoliosis", "dextroscoliosis"),
    ("levoconvex", "dextroconvex"),
)
_OTHER = dict(_PAIRS) | {right: left for left, right in _PAIRS}
_WORD = re.compile(rf"\b(?:{'|'.join(_OTHER)})\b", re.IGNORECASE)


def exchange_sides(text: str) -> str:
    """Exchanges left and right in a text, as a mirrored image shows them.

    Args:
      text: sentence in English. Whole words are exchanged: left and right, also in "left-sided",
        leftward(s), lt, levoscoliosis, levoconvex, and the upper and lower lobes LUL and LLL, with
        their counterparts. The right middle lobe as RML has none and stays, as does what names a
        side without such a word, such as the aortic arch. A "left" that is no side is exchanged,
        too ("was left in place").

    Returns:
      The text, with each word in capitals where the original was; applied twice it gives the
      original.

    Source: the horizontal flip of MDETR (datasets/transforms.py of ashkamath/mdetr), which
      exchanges "left" and "right" in a caption. Differs: whole words, capitals, abbreviations.
    """
    return _WORD.sub(_exchanged, text)


def _exchanged(match: re.Match[str]) -> str:
    word = match.group()
    other = _OTHER[word.lower()]
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
