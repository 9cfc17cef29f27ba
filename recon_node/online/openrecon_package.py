"""What a scanner installs: the OpenRecon image's archive and a page about it, in one zip.

Names and contents after the public checks of OpenRecon recipes: ``OpenRecon_<vendor>_<name>_V<version>`` for
the saved image (``.tar``) and the page (``.pdf``), both in a zip by Deflate; the image is linux/amd64, has a
lower-case tag, runs as root and carries the label.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from recon_node.core import durable
from recon_node.core.errors import ConfigError, SourceError
from recon_node.online.openrecon import dockerfile_line

_PAGE = (1240, 1754)
"""A4 at 150 dpi."""
_MARGIN = 110
_DOCKERFILE = """\
# OpenRecon image of recon-node. Not for clinical use until validated. Build for the scanner's host:
#   docker build --platform linux/amd64 -t {tag} .
# TORCH_INDEX: package index with torch's CPU builds, or those for CUDA 11.8 (at most) for the host's GPU.
FROM --platform=linux/amd64 python:3.11-slim-bookworm
ARG TORCH_INDEX=
ARG TORCH=torch
COPY . /package
RUN pip install --no-cache-dir ${{TORCH_INDEX:+--index-url "$TORCH_INDEX"}} "$TORCH" \\
 && pip install --no-cache-dir {requirement} \\
 && rm -rf /package
ENV OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive \\
    RECON_NODE__SERVER__OUT=/tmp/images \\
    RECON_NODE__SERVER__DEFERRED=/tmp/deferred \\
    RECON_NODE__DELIVERY__SPOOL=/tmp/spool
USER root
WORKDIR /tmp
EXPOSE {port}
CMD ["recon-node", "serve", "--host", "0.0.0.0", "--port", "{port}"]
{label}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """Files of a package."""

    folder: Path
    dockerfile: Path
    label: Path
    page: Path
    archive: Path | None
    """The zip to install; None where no image could be made here."""
    tag: str


def write_package(
    folder: Path, label: Mapping[str, Any], *, wheel: Path | None = None, image: Path | None = None
) -> Package:
    """Write label, Dockerfile and page; build and zip the image where docker is at hand.

    Parameters
    ----------
    folder : Path
        Made if absent.
    label : mapping
        From `recon_node.online.openrecon.openrecon_label`.
    wheel : Path, optional
        This package as a wheel that goes into the image; by default pip finds the released version.
    image : Path, optional
        The image, saved elsewhere by ``docker save``: then nothing is built here.

    Raises
    ------
    SourceError
        Wheel or image are not there.
    ConfigError
        docker is there and fails; the message has its last line.
    """
    general = label["general"]
    name, version = general["name"]["en"], general["version"]
    stem = f"OpenRecon_{general['vendor']}_{name}_V{version}"
    tag = f"openrecon_{name}:v{version}".lower()
    folder.mkdir(parents=True, exist_ok=True)
    requirement = f"recon-node=={version}"
    for given in filter(None, (wheel, image)):
        if not given.is_file():
            raise SourceError(f"{given}: no such file")
    if wheel is not None:
        shutil.copy(wheel, folder / wheel.name)
        requirement = f"/package/{wheel.name}"
    text = _DOCKERFILE.format(
        tag=tag, requirement=requirement, port=label["reconstruction"]["port"], label=dockerfile_line(label)
    )
    dockerfile, page = folder / "Dockerfile", folder / f"{stem}.pdf"
    durable.write_text(dockerfile, text, sync=False)
    durable.write_text(folder / "label.json", json.dumps(label, indent=2), sync=False)
    _write_page(page, label)
    tar = folder / f"{stem}.tar"
    if image is not None:
        shutil.copy(image, tar)
    elif _docker_answers():
        _docker("build", "--platform", "linux/amd64", "-t", tag, str(folder))
        _docker("save", "-o", str(tar), tag)
    archive = _zipped(folder / f"{stem}.zip", (tar, page)) if tar.is_file() else None
    return Package(
        folder=folder,
        dockerfile=dockerfile,
        label=folder / "label.json",
        page=page,
        archive=archive,
        tag=tag,
    )


def _docker_answers() -> bool:
    """Whether docker is here, with a daemon that answers."""
    if shutil.which("docker") is None:
        return False
    command = ["docker", "version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


def _docker(*arguments: str) -> None:
    command = ["docker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"docker {arguments[0]} failed: {last[:200]}")


def _zipped(archive: Path, files: tuple[Path, ...]) -> Path:
    with durable.writing(archive, sync=False) as stream, zipfile.ZipFile(stream, "w") as packed:
        for file in files:
            packed.write(file, file.name, compress_type=zipfile.ZIP_DEFLATED)
    return archive


def _write_page(path: Path, label: Mapping[str, Any]) -> None:
    """A page that tells what is installed, as a picture in a PDF."""
    general = label["general"]
    sheet = Image.new("L", _PAGE, 255)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(44), ImageFont.load_default(24)
    pen.text((_MARGIN, _MARGIN), f"{general['name']['en']} {general['version']}", fill=0, font=large)
    lines = ["NOT FOR CLINICAL USE UNTIL VALIDATED.", general["information"]["en"], "", "Parameters:"]
    for parameter in label["parameters"]:
        lines.append(f"  {parameter['label']['en']} ({parameter['id']}), {parameter['default']} by default")
        lines += [f"      {part}" for part in _wrapped(parameter.get("information", {}).get("en", ""))]
    for number, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN + 90 + 32 * number), line, fill=0, font=small)
    with durable.writing(path, sync=False) as stream:
        sheet.save(stream, "PDF", resolution=150)


def _wrapped(text: str, width: int = 80) -> list[str]:
    lines: list[str] = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [line for line in lines if line][:2]
