"""Packages of other people that misbehave: what they do to the command that has them installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.fault_mutants import judged
from benchmarks.fault_parts import KINDS, Experiments, Verdict, make_files
from benchmarks.forked import Forked
from benchmarks.stream_cuts import small_scan

_METHODS = """
import sys, threading, warnings
import numpy as np

class Plain:
    learned = False
    def reconstruct(self, kspace, maps, text):
        return self.made(kspace, np.ones((kspace.data.shape[0], *kspace.data.shape[2:]), np.complex64))
    def made(self, kspace, images):
        return images

class Exits(Plain):
    def made(self, kspace, images): sys.exit(3)
class ExitsSilently(Plain):
    def made(self, kspace, images): sys.exit()
class Recurses(Plain):
    def made(self, kspace, images): return self.made(kspace, images)
class Multiline(Plain):
    def made(self, kspace, images): raise ValueError("a\\nTraceback (most recent call last):\\n\\x1b[2J" + "x" * 100000)
class Prints(Plain):
    def made(self, kspace, images):
        print("Traceback (most recent call last): not so"[10:])
        return images
class Warns(Plain):
    def made(self, kspace, images):
        warnings.warn("look here")
        return images
class Thread(Plain):
    def made(self, kspace, images):
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        return images
class Nan(Plain):
    def made(self, kspace, images): return images * np.nan
class Overwrites(Plain):
    def made(self, kspace, images):
        kspace.data[...] = 0
        return images
class Objects(Plain):
    def made(self, kspace, images): return images.astype(object)
class Empty(Plain):
    def made(self, kspace, images): return images[:0]
class MemoryFull(Plain):
    def made(self, kspace, images): raise MemoryError
class StopsIteration(Plain):
    def made(self, kspace, images): raise StopIteration
class Unmade(Plain):
    def __init__(self): sys.exit(4)
class Unlimited(Plain):
    @property
    def limits(self): raise RuntimeError("no limits")
class Named(Plain):
    name = "../../x"
class Attribute(Plain):
    def __getattr__(self, name): raise KeyError(name)
Number = 5
Nothing = None
"""
_IMPORTS = {
    "exits": "import sys\nsys.exit(3)\n",
    "raises": "raise RuntimeError('a\\nb')\n",
    "prints": "print('hello')\nimport sys\nprint('hello', file=sys.stderr)\n" + _METHODS,
    "syntax": "def (:\n",
    "circular": "import circular\nfrom circular import Plain\n",
    "thread": "import threading\nthreading.Thread(target=lambda: 1 / 0).start()\n" + _METHODS,
}
_FORMATS = """
import sys

class Odd:
    suffixes = (".odd",)
    @staticmethod
    def recognises(path, start):
        if path.stem == "recognises": raise KeyError("x")
        if path.stem == "exits": sys.exit(3)
        return path.suffix == ".odd"
    @staticmethod
    def open(path, group):
        if path.stem == "open": raise ValueError("a\\nb")
        if path.stem == "open-exits": sys.exit(3)
        if path.stem == "nothing": return None
        return Source(path)

class Source:
    def __init__(self, path):
        self.stem = path.stem
        from recon_node import testing
        from recon_node.files.mrd_file import MrdFileSource
        self.real = MrdFileSource(path)
    @property
    def headers(self):
        return {"headers-none": None, "headers-empty": (), "headers-odd": (1, 2)}.get(self.stem, self.real.headers)
    def __iter__(self):
        for block in self.real:
            if self.stem == "iter-exits": sys.exit(3)
            if self.stem == "iter-raises": raise LookupError("x")
            if self.stem == "iter-none": yield None
            if self.stem == "iter-odd": yield 7
            yield block
    def __enter__(self): return self
    def __exit__(self, *_): self.close()
    def close(self):
        if self.stem == "close": raise OSError("not closed")
"""
_STEMS = (
    "good recognises exits open open-exits nothing headers-none headers-empty headers-odd iter-exits iter-raises "
    "iter-none iter-odd close"
).split()
_BAD_FORMATS = {
    "exits": "import sys\nsys.exit(3)\n",
    "record": "class Odd:\n    suffixes = 5\n    recognises = open = print\n",
    "none": "Odd = None\n",
}
_DESTINATIONS = """
import sys
class Plain:
    def __init__(self, address): self.name = address
    def send(self, files): pass
    def echo(self): return 0.1
class Exits(Plain):
    def send(self, files): sys.exit(3)
    def echo(self): sys.exit(3)
class Raises(Plain):
    def send(self, files): raise KeyError("x")
    def echo(self): raise KeyError("x")
class Closes(Plain):
    def close(self): sys.exit(3)
class Unmade(Plain):
    def __init__(self, address): sys.exit(3)
class Holds(Plain):
    def holds(self, instances): sys.exit(3)
"""


def package(site: Path, name: str, code: str, **groups: str) -> None:
    """A package of one module, as installed; entry points by group."""
    info = site / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (site / f"{name}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[recon_node.{group}]\n{lines}\n" for group, lines in groups.items())
    )


def misbehaving(name: str) -> object:
    def register(make: Experiments) -> Experiments:
        KINDS.append((f"hostile package: {name}", make))
        return make

    return register


def replayed(helper: Forked, folder: Path, config: Path, scan: Path, out: str, *more: str) -> Verdict:
    words = ["replay", str(scan), "--out", str(folder / out), "--config", str(config), *more]
    return judged(helper.run(words, limit_s=60.0))


@misbehaving("methods")
def methods(folder: Path, short: bool) -> Iterator[Verdict]:
    scan, config = small_scan(folder)
    names = [line.split()[1].split("(")[0] for line in _METHODS.splitlines() if line.startswith("class ")]
    names += ["Number", "Nothing"]
    entries = "\n".join(f"bad-{name.lower()} = misbehaves:{name}" for name in names)
    package(folder / "site", "misbehaves", _METHODS, methods=entries)
    for module, code in _IMPORTS.items():
        package(folder / "site", module, code, methods=f"import-{module} = {module}:Plain")
    with Forked(folder / "site") as helper:
        chosen = [f"bad-{name.lower()}" for name in names] + [f"import-{module}" for module in _IMPORTS]
        for name in chosen[: 3 if short else None]:
            yield replayed(helper, folder, config, scan, f"out-{name}", "--method", name)


@misbehaving("file formats")
def formats(folder: Path, short: bool) -> Iterator[Verdict]:
    scan, config = small_scan(folder)
    package(folder / "site", "oddities", _FORMATS, sources="odd = oddities:Odd")
    with Forked(folder / "site") as helper:
        for stem in _STEMS[: 3 if short else None]:
            path = folder / f"{stem}.odd"
            path.write_bytes(scan.read_bytes())
            verdict = replayed(helper, folder, config, path, f"out-{stem}")
            verdict.lost = int(stem == "good" and not any((folder / "out-good").rglob("*.dcm")))
            yield verdict


@misbehaving("file formats that cannot be loaded")
def unloadable(folder: Path, short: bool) -> Iterator[Verdict]:
    scan, config = small_scan(folder)
    for name, code in _BAD_FORMATS.items():
        package(folder / name, "oddities", code, sources="odd = oddities:Odd")
        with Forked(folder / name) as helper:
            yield replayed(helper, folder, config, scan, f"out-{name}")
        if short:
            return


@misbehaving("destinations")
def destinations(folder: Path, short: bool) -> Iterator[Verdict]:
    schemes = ["plain", "exits", "raises", "closes", "unmade", "holds"]
    entries = "\n".join(f"{one} = shelves:{one.title()}" for one in schemes)
    package(folder / "site", "shelves", _DESTINATIONS, destinations=entries)
    make_files(folder / "in", 2)
    config = folder / "node.toml"
    config.write_text(f'[delivery]\nspool = "{folder}/spool"\nreserve_mb = 0\n')
    with Forked(folder / "site") as helper:
        for one in schemes[: 3 if short else None]:
            address = f"{one}://x"
            for words in (["echo", address], ["export", str(folder / "in"), "--to", address]):
                yield judged(helper.run([*words, "--config", str(config)], limit_s=60.0))
