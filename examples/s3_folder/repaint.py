"""Repaint a folder on S3, look at what came of it, and repaint only what is new since.

    python examples/s3_folder/repaint.py s3://BUCKET/photos s3://BUCKET/painted      # a bucket of yours
    python examples/s3_folder/repaint.py                                             # an S3 service on this machine

Credentials, endpoint and region come from the environment (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` ...) or from the
machine's role. The script reads the bucket, and writes below the output only.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

import stylemill
from stylemill.storage import Storage

ROOT = Path(__file__).parents[2]
MODEL = "builtin#woodcut"
"""A style that comes with stylemill; a location on S3 does as well."""
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
SERVICE = [sys.executable, str(ROOT / "tests/tools/s3-server")]


def main(arguments: list[str]) -> None:
    """Repaint the first location into the second, or a bucket of a service on this machine."""
    if len(arguments) == 2:
        repaint(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder, local_service(Path(folder)):
        source, out = "s3://example/photos", "s3://example/painted"
        upload(source, PHOTOS[:3])
        repaint(source, out)
        print("\none more photo arrives")
        upload(source, PHOTOS[3:])
        repaint(source, out, incremental=True)
        download(out, Path.cwd() / "painted.jpg")


def repaint(source: str, out: str, *, incremental: bool = False) -> None:
    """Repaint one location into another; the same call resumes a run that was interrupted."""
    run = stylemill.stylize(model=MODEL, input=source, out=out, num_actors=1, incremental=incremental)
    print(f"run {run.run_id}: {dict(run.counts)}")
    rows = stylemill.Manifest.open(run.manifest)
    for row in rows.to_arrow().select(["key", "status", "width_px", "height_px", "output_bytes"]).to_pylist():
        print("  {key:<16} {status:<7} {width_px} x {height_px} px, {output_bytes:,} bytes".format(**row))
    verified = rows.verify()
    print(f"  {verified.num_objects} objects verified, {len(verified.problems)} problems")


def upload(folder: str, names: tuple[str, ...]) -> None:
    """Put photographs that come with scikit-image into a folder, as JPEG."""
    from skimage import data

    for name in names:
        photo = Image.fromarray(getattr(data, name)())
        photo.thumbnail((320, 320))
        jpeg = io.BytesIO()
        photo.save(jpeg, "JPEG", quality=90)
        Storage().write_bytes(f"{folder}/{name}.jpg", jpeg.getvalue())


def download(out: str, path: Path) -> None:
    """Put the repainted photographs side by side into one file."""
    images = [
        Image.open(io.BytesIO(Storage().read_bytes(f"{out}/images/woodcut/{name}.jpg"))).resize((240, 200))
        for name in PHOTOS
    ]
    sheet = Image.new("RGB", (240 * len(images), 200))
    for index, image in enumerate(images):
        sheet.paste(image, (240 * index, 0))
    sheet.save(path, quality=88)
    print(f"\n{path.name}: all of them")


@contextlib.contextmanager
def local_service(folder: Path) -> Iterator[None]:
    """Run the S3 service of the tests, with one bucket; this process's environment leads to it."""
    import botocore.session

    os.environ.setdefault("SWIFT_VENV", str(ROOT / ".venv-s3"))
    started = subprocess.run([*SERVICE, "start", str(folder), "0"], capture_output=True, text=True, check=False)
    if started.returncode:
        sys.exit(f"{started.stderr.strip()}\n`make setup` installs the service")
    said = dict(line.split("=", 1) for line in started.stdout.split())
    os.environ |= {
        "AWS_ENDPOINT_URL": said["endpoint"],
        "AWS_ACCESS_KEY_ID": said["access_key"],
        "AWS_SECRET_ACCESS_KEY": said["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        botocore.session.get_session().create_client("s3").create_bucket(Bucket="example")
        yield
    finally:
        subprocess.run([*SERVICE, "stop", str(folder)], capture_output=True, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
