"""Names and identity: the same whatever encoding a header has and whatever way a scan came."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import pydicom
import pytest
from field_scans import Lines, axial, header, kspace_of, one_slice, phantom, replay, write

from recon_node.core.identity import ScanIdentity
from recon_node.core.scan import Readouts
from recon_node.files.open import open_source
from recon_node.mrd.messages import Close, HeaderXml, message_bytes
from recon_node.offline.send import send_scan
from recon_node.online.serve import Running, serving
from recon_node.settings import Settings

Capture = pytest.CaptureFixture[str]
SUBJECT = "<subjectInformation><patientName>{}</patientName><patientID>{}</patientID></subjectInformation>"
UNDECLARED = header(subject=SUBJECT.format("Müller", "1"))
NAMES = {
    "ISO-8859-1": ("Müller^Jürgen", "ä1", "ISO_IR 100"),
    "windows-1250": ("Dvořák^Šárka", "č2", "ISO_IR 192"),
    "GB18030": ("王^小明", "号3", "ISO_IR 192"),
    "Shift_JIS": ("山田^太郎", "番4", "ISO_IR 192"),
    "UTF-8": ("Łukasz^Żak", "5", "ISO_IR 192"),
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Running]:
    folders = {"out": str(tmp_path / "served"), "deferred": str(tmp_path / "deferred")}
    settings = Settings().replace("recon", method="sense").replace("server", port=0, **folders)
    with serving(settings) as running:
        yield running


def declared(xml: str, encoding: str) -> bytes:
    return xml.replace('version="1.0"', f'version="1.0" encoding="{encoding}"').encode(encoding)


def named(encoding: str) -> bytes:
    name, number, _ = NAMES[encoding]
    return declared(header(subject=SUBJECT.format(name, number)), encoding)


def stream(path: Path, xml: bytes, source: Path) -> Path:
    """The readouts of a file behind another header, as an MRD stream."""
    with open_source(source) as raw, path.open("wb") as file:
        file.write(message_bytes(HeaderXml(xml=xml)))
        for block in raw:
            file.write(message_bytes(block))
        file.write(message_bytes(Close()))
    return path


@pytest.mark.parametrize("encoding", NAMES)
def test_names_arrive_unchanged_from_a_file_and_over_the_network(
    encoding: str, node: Running, tmp_path: Path, capsys: Capture
) -> None:
    raw = one_slice(tmp_path / "a.h5", named(encoding))
    found = replay(raw, tmp_path / "out", capsys)
    assert send_scan(raw, port=node.server.port).ok
    sent = [pydicom.dcmread(path) for path in (tmp_path / "served").rglob("*.dcm")]
    name, number, characters = NAMES[encoding]
    for ds in (*found.instances, *sent):
        assert (str(ds.PatientName), ds.PatientID) == (name, number)
        assert ds.SpecificCharacterSet == characters
    assert [ds.SOPInstanceUID for ds in sent] == [ds.SOPInstanceUID for ds in found.instances]


@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-16LE", "UTF-16BE"])
def test_wide_encodings_arrive_in_streams(encoding: str, tmp_path: Path, capsys: Capture) -> None:
    text = header(subject=SUBJECT.format("王^小明", "3")).replace("1.0", '1.0" encoding="UTF-16', 1)
    raw = stream(tmp_path / "a.mrd", text.encode(encoding), one_slice(tmp_path / "a.h5"))
    assert str(replay(raw, tmp_path / "out", capsys).instances[0].PatientName) == "王^小明"


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (UNDECLARED.encode("latin-1"), "declares no encoding"),
        (UNDECLARED.replace("1.0", '1.0" encoding="UTF-8', 1).encode("cp1252"), "declares UTF-8"),
        (header().replace("1.0", '1.0" encoding="rot13', 1).encode(), "rot13"),
        (header().replace("1.0", '1.0" encoding="unicode_escape', 1).encode(), "not known"),
    ],
)  # fmt: skip
def test_bytes_of_an_encoding_that_is_not_declared_are_one_clear_error(
    xml: bytes, said: str, tmp_path: Path, capsys: Capture
) -> None:
    found = replay(one_slice(tmp_path / "a.h5", xml), tmp_path / "out", capsys)
    assert (found.code, found.series) == (1, [])
    assert said in found.errors
    assert "Müller" not in found.errors


def test_a_scan_is_the_same_however_its_header_was_written(tmp_path: Path, capsys: Capture) -> None:
    values = {
        "sequence": "<sequenceParameters><TR>3.4</TR><TE>1.7</TE><flipAngle_deg>52</flipAngle_deg>"
        "</sequenceParameters>",
        "field": 2.89362, "frequency": 123203122,
    }  # fmt: skip
    xml = header(**values)
    again = (
        header(**values | {"field": 2.89362001}).replace(">3.4<", ">3.4000001<").replace(">320<", ">320.0<")
    )
    again = re.sub(r">\s*<", ">\n\t<", again).replace("<ismrmrdHeader ", "<ismrmrdHeader xmlns:x='y' ")
    first = replay(one_slice(tmp_path / "a.h5", xml, **axial()), tmp_path / "one", capsys)
    other = replay(one_slice(tmp_path / "b.h5", again, **axial()), tmp_path / "two", capsys)
    assert [ds.SOPInstanceUID for ds in first.instances] == [ds.SOPInstanceUID for ds in other.instances]
    for ds in (*first.instances, *other.instances):
        assert str(ds.RepetitionTime) == "3.4"
        assert str(ds.MagneticFieldStrength) == "2.89362"


def test_another_measurement_with_the_same_header_is_another_scan(tmp_path: Path, capsys: Capture) -> None:
    first = replay(one_slice(tmp_path / "a.h5"), tmp_path / "one", capsys)
    lines = Lines().add(kspace_of(phantom(), seed=5))
    other = replay(write(tmp_path / "b.h5", header(), lines), tmp_path / "two", capsys)
    assert first.instances[0].SOPInstanceUID != other.instances[0].SOPInstanceUID


SHARED = Path(__file__).parents[2] / ".." / "shared" / "gadgetron_wire"


@pytest.mark.skipif(not (SHARED / "input.h5").exists(), reason="recorded session not here")
def test_a_real_gadgetron_chain_leaves_a_scan_the_same(tmp_path: Path) -> None:
    raw = Path(shutil.copy(SHARED / "raw_acquisitions_to_module.bin", tmp_path / "session.mrd"))
    identities = []
    for path in (SHARED / "input.h5", raw):
        with open_source(path) as source:
            identity = ScanIdentity(source.headers)
            for block in source:
                if isinstance(block, Readouts):
                    identity.see(block)
        identities.append(identity.hex)
    assert identities[0] == identities[1]


def test_a_header_of_fixed_length_text_is_read(tmp_path: Path, capsys: Capture) -> None:
    raw = one_slice(tmp_path / "a.h5")
    with h5py.File(raw, "r+") as file:
        xml = file["dataset/xml"][0]
        del file["dataset/xml"]
        file["dataset"].create_dataset("xml", data=[xml], dtype=f"S{len(xml) + 10}")
    assert replay(raw, tmp_path / "out", capsys).code == 0
