"""Replace headers that do not state the number of samples, and recognise files that are no audio.

- WAV: written to a pipe (a data size of 0, an RF64 without sizes), chunks in another order or without their padding.
- MP3 without a length, which libsndfile guesses from the first frame: after too low a guess the end is not read.

Sources: Multimedia Programming Interface (IBM and Microsoft, 1991); EBU Tech 3306 (RF64); ISO/IEC 11172-3 (MP3).
"""

import re
from typing import BinaryIO

MOST_FRAMES = 2**40  # libsndfile gives more for a header that tells no length
XING_FRAMES = 2**31 - 1  # in the header of an MP3: gives more than MOST_FRAMES
MPEG_HEAD_BYTES = 256  # of the first frame; the length is within these
LAYER_3_RATES = ((11025, 12000, 8000), (0, 0, 0), (22050, 24000, 16000), (44100, 48000, 32000))  # Hz, by version
FOREIGN_CONTENT = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), description)
    for pattern, description in (
        (rb"version https://git-lfs", "a Git LFS pointer; fetch the file with: git lfs pull"),
        (rb"(\.\./)*(/annex/objects|\.git/annex)", "a git-annex pointer; fetch the file with: git annex get"),
        (rb"(\xef\xbb\xbf)?\s*<(!|html|head|body|\?xml)", "a web page; download the file again"),
        (rb"(\xff\xfe\s?\0?<\0|\xfe\xff\0<)", "a web page; download the file again"),
        (rb"(\xef\xbb\xbf)?\s*[{\[]\s*[\"{\]}]", "JSON, such as a server's error; download the file again"),
        (rb".{4}ftyp|caff.{12}.{8}(aac|alac|mp4a)", "MPEG-4 audio; convert it: {convert}"),
        (rb"\x1a\x45\xdf\xa3", "WebM or Matroska; convert it: {convert}"),
        (rb"#!AMR", "AMR, as telephones record; convert it: {convert}"),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media; convert it: {convert}"),
        (rb"(ADIF|\xff[\xf0\xf1\xf8\xf9])", "AAC; convert it: {convert}"),
        (rb"RIFF.{4}AVI ", "a video; convert it: {convert}"),
        (rb"RIFF.{4}WAVE.*fmt .{4}[\x50\x55\xff]\0", "a WAV with MPEG audio within; convert it: {convert}"),
        (rb"(ajkg|MAC |wvpk|OggS.{24}(\x80theora|Speex)|DSD )", "a codec that is not read; convert it: {convert}"),
        (rb"(PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|.{257}ustar)", "an archive; extract it"),
        (rb"(%PDF|\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}WEBP|MThd)", "a document, a picture or notes; give a recording"),
        (rb"\0+\Z", "only zero bytes; copy the file again"),
        (rb"\Z", "empty: no bytes"),
        (rb"(\xef\xbb\xbf)?[\t\n\r -~]+\Z", "text; give a recording"),
    )
)
CONVERT = "ffmpeg -i FILE -ac 1 -ar 16000 FILE.wav"
FOREIGN_HEAD_BYTES = 512


def foreign_content(head: bytes) -> str:
    """Return what the first FOREIGN_HEAD_BYTES of a file that is not readable audio show it to be; empty if unknown."""
    found = next((description for pattern, description in FOREIGN_CONTENT if pattern.match(head)), "")
    return found.format(convert=CONVERT)


def repaired_wav(content: bytes) -> bytes | None:
    """Return a WAV with the format and the samples of ``content``; None without these."""
    if content[:4] not in (b"RIFF", b"RF64") or content[8:12] != b"WAVE":
        return None
    chunks: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= len(content):
        name, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8
        if name == b"data" and (not size or size > len(content) - place):  # a pipe's
            size = len(content) - place
        chunks.setdefault(name, content[place : place + size])
        place += size
        if size % 2 and not content[place : place + 1].isalpha():  # some writers leave out the padding
            place += 1
    if not (chunks.get(b"fmt ") and chunks.get(b"data")):
        return None
    body = b"".join(name + _size(chunks[name]) + chunks[name] for name in (b"fmt ", b"data"))
    return b"RIFF" + _size(body, 4) + b"WAVE" + body


def _size(content: bytes, more: int = 0) -> bytes:
    """Return the size of a chunk; the largest possible one, which is read to the end, for 4 GiB and more."""
    return min(len(content) + more, 0xFFFFFFFF).to_bytes(4, "little")


def mp3_without_guess(file: BinaryIO) -> bytes | None:
    """Return an MP3 whose header says that it is longer than any file; None if it has a length, or is no MP3.

    A decoder then reads to the end.
    """
    start, head = 0, b"ID3"
    while head.startswith(b"ID3"):  # tags before the first frame
        file.seek(start)
        head = file.read(MPEG_HEAD_BYTES)
        if head.startswith(b"ID3") and len(head) > 9:
            start += 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    frame = _silent_frame(head)
    if frame is None or re.search(rb"Xing|Info|VBRI", head):
        return None
    file.seek(start)
    return frame + file.read()


def _silent_frame(head: bytes) -> bytes | None:
    """Return a frame like that at ``head``, with the length XING_FRAMES; None for other than MPEG layer 3."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[2] & 0x0C == 0x0C:
        return None
    version, is_mono = head[1] >> 3 & 3, head[3] >> 6 == 3  # version 3: MPEG-1
    rate = LAYER_3_RATES[version][head[2] >> 2 & 3]
    if not rate:
        return None
    size = (144 * 112_000 if version == 3 else 72 * 64_000) // rate  # bit rate number 8
    side = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    header = bytes([0xFF, head[1] | 1, 8 << 4 | head[2] & 0x0C, head[3]])
    return (header + bytes(side) + b"Xing\0\0\0\x01" + XING_FRAMES.to_bytes(4, "big")).ljust(size, b"\0")
