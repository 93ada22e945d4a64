"""Reads the headers of compressed pixels: JPEG, JPEG-LS and JPEG 2000.

A decoder that receives other sizes than those of the header may write outside its memory, show
noise or terminate the process. The sizes are therefore compared with the file's own header before
any pixel is decoded.
"""

import dataclasses
import struct

_JPEG = b"\xff\xd8"
_JPEG_2000 = b"\xff\x4f\xff\x51"  # SOC and SIZ, which always follow one another
_JP2 = b"\0\0\0\x0cjP  "  # boxes around the codestream
# ITU-T T.81, table B.1: every start of a frame; C4, C8 and CC in this range are other markers. F7
# is the start of a frame in JPEG-LS (ITU-T T.87, C.1.1).
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_PIXELS_BEGIN, _END = 0xDA, 0xD9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codestream:
    """The header of compressed pixels.

    Attributes:
      jpeg_2000: whether the format is JPEG 2000, and not JPEG or JPEG-LS.
      channels: number of samples per pixel.
      width: width in pixels.
      height: height in pixels; 0 where a JPEG stores it after its pixels.
      precision: number of bits per sample; the largest of all channels.
    """

    jpeg_2000: bool
    channels: int
    width: int
    height: int
    precision: int


def read_header(frame: bytes) -> Codestream:
    """Reads the header of one compressed image, without its pixels.

    Raises:
      ValueError: if the data begins like none of the three formats, or its header is cut off or
        damaged.
    """
    try:
        if frame.startswith(_JPEG):
            return _jpeg(frame)
        begin = frame.find(_JPEG_2000) if frame.startswith(_JP2) else 0
        if begin >= 0 and frame.startswith(_JPEG_2000, begin):
            return _jpeg_2000(frame, begin + len(_JPEG_2000))
    except (struct.error, IndexError):
        raise ValueError("The header of the compressed pixels is cut off.") from None
    raise ValueError("The compressed pixels begin neither as JPEG or JPEG-LS nor as JPEG 2000.")


def _jpeg(frame: bytes) -> Codestream:
    """Reads marker after marker up to the start of the frame (ITU-T T.81, B.2.2)."""
    place = len(_JPEG)
    while True:
        if frame[place] != 0xFF:
            raise ValueError("The header of the compressed pixels is damaged.")
        while frame[place] == 0xFF:  # a marker may follow fill bytes
            place += 1
        marker = frame[place]
        place += 1
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in (_PIXELS_BEGIN, _END):
            raise ValueError("The header of the compressed pixels does not say their size.")
        if marker in _FRAMES:
            precision, height, width, channels = struct.unpack_from(">BHHB", frame, place + 2)
            return Codestream(
                jpeg_2000=False, channels=channels, width=width, height=height, precision=precision
            )
        place += struct.unpack_from(">H", frame, place)[0]


def _jpeg_2000(frame: bytes, place: int) -> Codestream:
    """Reads the segment SIZ (ITU-T T.800, A.5.1); `place` is the position of its length."""
    right, bottom, left, top = struct.unpack_from(">4I", frame, place + 4)
    (channels,) = struct.unpack_from(">H", frame, place + 36)
    # The highest bit of each byte tells whether the samples are signed.
    bits = [(frame[place + 38 + 3 * channel] & 0x7F) + 1 for channel in range(channels)]
    return Codestream(
        jpeg_2000=True,
        channels=channels,
        width=right - left,
        height=bottom - top,
        precision=max(bits, default=0),
    )
