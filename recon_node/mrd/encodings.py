"""Bytes of a header to text: the encoding that they declare, or a clear word that they declare none."""

from __future__ import annotations

import codecs
import re

from recon_node.core.errors import SourceError

_DECLARED = re.compile(rb"""\A<\?xml[^>]{0,200}?\sencoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
"""Byte order marks, and how a document without one begins (XML 1.0, appendix F)."""
_WIDE = ("utf-16", "utf-32")
_KNOWN = re.compile(
    r"utf-8|utf-16(-[lb]e)?|utf-32(-[lb]e)?|ascii|iso8859-\d+|cp\d+|gb2312|gbk|gb18030|big5|big5hkscs|shift_jis"
    r"|shift_jis_2004|euc_jp|euc_kr|iso2022_jp|iso2022_kr|koi8-[ru]|mac-roman|johab|tis-620"
)


def decoded(data: bytes, *, what: str = "header") -> str:
    """The text of an XML document.

    Parameters
    ----------
    data : bytes
        As a file or a connection gave it; zero bytes and blanks around it are left out.
    what : str
        Its name in error messages.

    Raises
    ------
    SourceError
        An encoding that is not known, or bytes that are not of the encoding declared (UTF-8 where none is).
    """
    start = data.lstrip(b" \t\r\n")
    for mark, name in _MARKS:
        if start.startswith(mark):
            return _wide(start.removeprefix(mark) if mark[:1] not in b"<\0" else start, name, what)
    declared = _DECLARED.match(start)
    name = _codec(declared[1].decode(), what) if declared else "utf-8"
    if name.startswith(_WIDE):  # eight-bit text cannot be what it declares: it was converted on its way
        name = "utf-8"
    try:
        return start.rstrip(b"\0 \t\r\n").decode(name)
    except UnicodeDecodeError as error:
        said = f"declares {declared[1].decode()}" if declared else "declares no encoding, and is not UTF-8"
        raise SourceError(
            f"{what}: byte {error.start} of {len(start)} is no text of its encoding (it {said}); expected "
            'the encoding it is written in, for example <?xml version="1.0" encoding="ISO-8859-1"?>'
        ) from error


def _wide(data: bytes, name: str, what: str) -> str:
    unit = 4 if "32" in name else 2 if "16" in name else 1
    try:
        return (data + b"\0" * (-len(data) % unit)).decode(name).rstrip("\0 \t\r\n")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{what}: begins as {name}, but byte {error.start} of {len(data)} is none"
        ) from error


def _codec(name: str, what: str) -> str:
    try:
        known = codecs.lookup(name).name
    except LookupError:
        known = ""
    if not _KNOWN.fullmatch(known):
        raise SourceError(f"{what}: declares encoding {name}, which is not known; expected UTF-8")
    return known
