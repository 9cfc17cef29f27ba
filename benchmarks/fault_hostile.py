"""Files that somebody made on purpose, for every command that takes any: programs in them, bombs, ways out.

Each command has to end by itself, within its time and memory, with what it found or with one line; no file's own
program runs, and nothing is written but where it was asked to be.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.fault_mutants import in_a_fork, judged
from benchmarks.fault_parts import KINDS, Verdict
from benchmarks.stream_cuts import small_scan

Make = Callable[[Path], Iterator[tuple[Path, list[str]]]]
"""Writes one hostile file or folder after the other into a folder of its own, with the command that reads it."""
_GIB = 1 << 30


class _Payload:
    """What runs where a pickle is believed."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.mark),))


def hostile(name: str) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        def experiments(folder: Path, short: bool) -> Iterator[Verdict]:
            inside = folder / "inside"
            inside.mkdir()
            for _, words in make(inside):
                verdict = judged(in_a_fork(words))
                verdict.outside = sum(path != inside for path in folder.iterdir())
                yield verdict
                if short:
                    return

        KINDS.append((f"hostile file: {name}", experiments))
        return make

    return register


def npy(shape: tuple[int, ...], kind: str = "<f4", data: bytes = b"") -> bytes:
    """An array's file that claims a shape."""
    head = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def bomb(path: Path, name: str, head: bytes, size: int) -> Path:
    """A member of `size` zeros behind its head, a thousandth of that on the disk."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open(name, "w", force_zip64=True) as member,
    ):
        member.write(head)
        for _ in range(size >> 24):
            member.write(bytes(1 << 24))
    return path


def gzip_bomb(path: Path, head: bytes, size: int) -> Path:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packer.compress(head))
        for _ in range(size >> 24):
            file.write(packer.compress(bytes(1 << 24)))
        file.write(packer.flush())
    return path


@hostile("cines in npz")
def cines_npz(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    mark = folder.parent / "pickle-ran"
    good = {"pixel_mm.npy": npy((2,), data=struct.pack("<2f", 1.5, 1.5))}
    made = {
        "pickle": {"cine.npy": npy((1,), "|O", pickle.dumps(_Payload(mark))), **good},
        "claims": {"cine.npy": npy((100_000, 100_000, 1000)), **good},
        "negative": {"cine.npy": npy((-1, 8, 8)), **good},
        "nested": {"cine.npy": npy((2, 8, 8), "[" * 5000), **good},
        "paths": {"../../cine.npy": npy((2, 8, 8), data=bytes(512)), **good},
        "nan": {"cine.npy": npy((4, 8, 8), data=b"\xff" * 1024), **good},
        "text": {"cine.npy": b"\x93NUMPY\x01\x00\x10\x00__import__('os')", **good},
        "zero": {"cine.npy": npy((2, 0, 8)), **good},
    }
    for name, members in made.items():
        yield evaluated(folder, name, zipped(_in(folder, name) / "a.npz", members))
    one = _in(folder, "bomb") / "a.npz"
    yield evaluated(folder, "bomb", bomb(one, "cine.npy", npy((3 * 1024, 1024, 256)), 3 * _GIB))


@hostile("cines in NIfTI")
def cines_nifti(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for name, dims in (
        ("claims", (4, 32767, 32767, 100, 100)),
        ("negative", (4, -5, 8, 8, 8)),
        ("none", (0,) * 5),
    ):
        (_in(folder, name) / "a.nii").write_bytes(nifti(dims) + bytes(4096))
        yield evaluated(folder, name, folder / name / "a.nii")
    one = _in(folder, "bomb") / "a.nii.gz"
    yield evaluated(folder, "bomb", gzip_bomb(one, nifti((4, 1024, 1024, 1, 512)), _GIB))


def nifti(dims: tuple[int, ...]) -> bytes:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into(f"<{len(dims)}h", head, 40, *dims)
    struct.pack_into("<hh", head, 70, 4, 16)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    head[344:348] = b"n+1\0"
    return bytes(head)


@hostile("cines in DICOM")
def cines_dicom(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    from delivery_parts import make_instance

    tags: dict[str, dict[str, object]] = {
        "claims": {"Rows": 65535, "Columns": 65535},
        "frames": {"NumberOfFrames": 2**31 - 1},
        "places": {"ImagePositionPatient": ["1e308", "-1e308", "0"], "PixelSpacing": ["0", "1e-300"]},
        "evil": {"PatientName": "<script>\x1b[2J", "SeriesDescription": "../../x"},
    }
    for name, values in tags.items():
        make_instance(_in(folder, name) / "a.dcm", 1, **values)
        make_instance(folder / name / "b.dcm", 2, **values)
        yield evaluated(folder, name, folder / name / "a.dcm")
        yield folder, ["compare", str(folder / name), str(folder / name)]


def _in(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def evaluated(folder: Path, name: str, path: Path) -> tuple[Path, list[str]]:
    words = ["evaluate", "--hearts", str(folder / name), "--methods", "zero-filled", "--patterns", "uniform"]
    return path, [*words, "--accelerations", "4", "--scans", "1", "--coils", "2"]


@hostile("weights")
def weights(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    mark = folder.parent / "pickle-ran"
    head = {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    described = {
        "__metadata__": {
            "recon-node": json.dumps({"format": "recon-node-cardiomm-1", "config": {"cascades": 10**6}})
        }
    }
    made = {
        "length": struct.pack("<Q", (1 << 63) - 1) + b"{}",
        "long": struct.pack("<Q", 1 << 33) + b"{" * 100,
        "deep": _safetensors(b'{"a":' * 200_000),
        "claims": _safetensors(json.dumps(head).encode()),
        "cascades": _safetensors(json.dumps(described).encode()),
        "noise": os.urandom(5000),
        "pickle": pickle.dumps(_Payload(mark)),
        "empty": b"",
    }
    for name, data in made.items():
        path = folder / f"{name}.safetensors"
        path.write_bytes(data)
        yield path, ["weights", "verify", str(path)]
    for name, members in {
        "checkpoint": {"archive/data.pkl": pickle.dumps(_Payload(mark)), "archive/version": b"3"},
        "empty": {},
    }.items():
        path = zipped(folder / f"{name}.ckpt", members)
        yield path, ["weights", "import", str(path), "--out", str(folder / "w.safetensors")]
    (folder / "plain.ckpt").write_bytes(pickle.dumps(_Payload(mark)))
    yield folder, ["weights", "import", str(folder / "plain.ckpt"), "--out", str(folder / "w.safetensors")]


def _safetensors(head: bytes) -> bytes:
    return struct.pack("<Q", len(head)) + head


@hostile("settings")
def settings(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    made = {
        "deep": "a = " + "[" * 100_000,
        "deep table": "[" + ".".join("a" * 50_000) + "]",
        "long": "[server]\nport = " + "9" * 100_000,
        "wide": "[server]\n" + "".join(f"k{n} = 1\n" for n in range(50_000)),
        "out": '[dicom]\nfolders = "../../{patient}"\n',
        "absolute": '[dicom]\nfolders = "/{patient}"\n',
        "format": '[dicom]\nfolders = "{patient.__class__}"\n',
        "index": '[dicom]\nfolders = "{patient[0]!r:>999999999}"\n',
        "nul": "[server]\nhost = 'a\\u0000b'\n",
        "bytes": "\udcff\udcfe",
        "method": '[recon]\nmethod = "os:system"\n',
        "escapes": '[server]\n"\\u001b[2J\\nforged" = 1\n',
    }
    for name, text in made.items():
        path = folder / f"{name}.toml"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        yield path, ["settings", "check", str(path)]


@hostile("folders of raw data with links, pipes and odd names")
def folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    root = _in(folder, "in")
    scan, config = small_scan(root)
    (root / "round").symlink_to(root)
    (root / "nowhere.h5").symlink_to(folder / "absent")
    (root / "passwd.mrd").symlink_to("/etc/passwd")
    (root / "zero.mrd").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe.mrd")
    (root / "pipe.h5").symlink_to(root / "pipe.mrd")
    for name in (
        b"\xff\xfe.mrd",
        b"a\nb.mrd",
        b"\x1b[2J.mrd",
        b"<script>.mrd",
        b"-rf.mrd",
        b"%s%n.mrd",
        b"x" * 250 + b".mrd",
    ):
        Path(os.fsdecode(bytes(root) + b"/" + name)).write_bytes(scan.read_bytes())
    yield (
        root,
        ["replay", str(scan), "--out", str(folder / "one"), "--config", str(config), "--report", "--nifti"],
    )
    for number, path in enumerate([*sorted(root.glob("*.mrd")), root / "pipe.h5", root / "nowhere.h5"]):
        yield path, ["replay", str(path), "--out", str(folder / f"o{number}"), "--config", str(config), "-q"]
        yield path, ["inspect", str(path)]
    yield root, ["export", str(root), "--to", str(folder / "share")]


@hostile("questions to the ledger")
def questions(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    scan, config = small_scan(folder)
    out = folder / "out"
    yield scan, ["replay", str(scan), "--out", str(out), "--config", str(config), "-q"]
    outside = folder.parent / "attached.sqlite"
    for where in (
        "1; DROP TABLE slices",
        f"1) UNION SELECT writefile('{outside}', 'x')--",
        f"1; ATTACH '{outside}' AS x; CREATE TABLE x.y(z)",
        "load_extension('x')",
        "randomblob(9000000000)",
        "zeroblob(2000000000) = 1",
        "x" * 200_000,
        "(" * 5000,
    ):
        yield out, ["ledger", "query", where, "--out", str(out)]
