from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile

import pytest

from stylemill.errors import NotAnImage
from stylemill.images.decode import decode
from stylemill.images.options import DecodeOptions

OPTIONS = DecodeOptions()


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a.jpg", "x")
    else:
        with tarfile.open(fileobj=buffer, mode="w") as file:
            file.addfile(tarfile.TarInfo("a.jpg"))
    return buffer.getvalue()


SKIPPED = [
    (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "Html"),
    (b"\n\n <HTML><HEAD>", "Html"),
    (b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0"><html>', "Html"),
    (b"<!-- saved -->\n<html>", "Html"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "Xml"),
    (b'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/">', "Sidecar"),
    (json.dumps({"message": "not found"}).encode(), "Json"),
    (b"[1, 2]", "Json"),
    (b"hello, world\n", "Text"),
    ("Grüße".encode(), "Text"),
    ("Viele Grüße aus Köln".encode("latin-1"), "Text"),
    ("\ufeffGrüße".encode("utf-16"), "Text"),
    (b"BMW is a car", "Text"),
    (b"P6 is no picture here" * 3, "Text"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Text"),
    (b"%PDF-1.7\n%\xe2\xe3", "Pdf"),
    (archive("zip"), "Archive"),
    (archive("tar"), "Archive"),
    (gzip.compress(b"x", mtime=0), "Archive"),
    (b"7z\xbc\xaf\x27\x1c\x00\x04", "Archive"),
    (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "Video"),
    (b"\x00\x00\x00\x14ftypqt  \x00\x00\x00\x00qt  ", "Video"),
    (b"\x1aE\xdf\xa3\x93B\x82\x88matroska", "Video"),
    (b"RIFF\x00\x00\x00\x00AVI LIST", "Video"),
    (b"RIFF\x00\x00\x00\x00WAVEfmt ", "Audio"),
    (b"ID3\x03\x00", "Audio"),
    (b"\x7fELF\x02\x01\x01", "Program"),
    (b"MZ\x90\x00\x03", "Program"),
    (b"SQLite format 3\x00", "Database"),
    (b"\x00\x00\x00\x01Bud1\x00", "Sidecar"),
    (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "Sidecar"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Document"),
    (bytes(1000), "UnknownContent"),
    (b"\x00", "UnknownContent"),
    (b"\xde\xad\xbe\xef", "UnknownContent"),
]


@pytest.mark.parametrize(("data", "error_type"), SKIPPED)
def test_files_that_are_not_images_are_skipped_with_a_reason(data: bytes, error_type: str) -> None:
    with pytest.raises(NotAnImage) as skipped:
        decode(data, OPTIONS)
    assert skipped.value.error_type == error_type
    assert len(skipped.value.message) > 15
