from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_node.core.errors import DataError, ReconNodeError, SourceError
from recon_node.mrd.header import parse_header

ENCODING = """<encoding><encodedSpace><matrixSize><x>256</x><y>192</y><z>1</z></matrixSize>
<fieldOfView_mm><x>720</x><y>360</y><z>8</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>128</x><y>160</y><z>1</z></matrixSize>
<fieldOfView_mm><x>360</x><y>300</y><z>8</z></fieldOfView_mm></reconSpace>{limits}</encoding>"""


def document(body: str = "", encoding: str = ENCODING.format(limits="")) -> str:
    return f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">{body}{encoding}</ismrmrdHeader>'


def test_every_field_of_a_full_header_arrives_with_its_origin() -> None:
    body = """<version>8</version>
    <subjectInformation><patientName>Doe^J</patientName><patientID>P1</patientID>
    <patientWeight_kg>71.5</patientWeight_kg><patientGender>F</patientGender></subjectInformation>
    <studyInformation><studyInstanceUID>1.2.3</studyInstanceUID><studyDate>2026-01-02</studyDate>
    </studyInformation>
    <measurementInformation><measurementID>m7</measurementID><patientPosition>HFS</patientPosition>
    <protocolName>cine_sax</protocolName><initialSeriesNumber>4</initialSeriesNumber></measurementInformation>
    <acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor><systemModel>Vida</systemModel>
    <systemFieldStrength_T>2.89362</systemFieldStrength_T>
    <relativeReceiverNoiseBandwidth>0.793</relativeReceiverNoiseBandwidth>
    <receiverChannels>24</receiverChannels>
    <coilLabel><coilNumber>0</coilNumber><coilName>BO1</coilName></coilLabel></acquisitionSystemInformation>
    <sequenceParameters><TR>3.1</TR><TE>1.4</TE><flipAngle_deg>50</flipAngle_deg></sequenceParameters>
    <userParameters><userParameterLong><name>EmbeddedRefLinesE1</name><value>24</value></userParameterLong>
    </userParameters>"""
    (header,) = parse_header(document(body))
    assert header.vendor == "SIEMENS"
    assert header.field_strength_t == pytest.approx(2.89362)
    assert header.noise_bandwidth_ratio == pytest.approx(0.793)
    assert (header.te_ms, header.tr_ms, header.flip_deg) == ((1.4,), (3.1,), (50.0,))
    assert header.patient.patient_id == "P1"
    assert header.patient.weight_kg == 71.5
    assert header.study.study_instance_uid == "1.2.3"
    assert header.study.initial_series_number == 4
    assert header.coil_names == ("BO1",)
    assert header.user["EmbeddedRefLinesE1"] == 24
    assert header.encoded_matrix == (256, 192, 1)
    assert header.recon_fov_mm == (360.0, 300.0, 8.0)
    assert header.origin["vendor"] == "acquisitionSystemInformation/systemVendor"


@pytest.mark.parametrize("number", [-1, 2_000_001, 99_999_999_999])
def test_a_series_number_that_dicom_could_not_hold_is_left_out_and_told(number: int) -> None:
    series = f"<initialSeriesNumber>{number}</initialSeriesNumber>"
    body = f"<measurementInformation>{series}</measurementInformation>"
    (header,) = parse_header(document(body))
    assert header.study.initial_series_number is None
    assert header.remarks == (f"initialSeriesNumber is {number}, expected 0 to 2000000: left out",)


def test_a_bare_header_gets_named_fallbacks_and_leaves_the_rest_absent() -> None:
    encoding = """<encoding><encodedSpace><matrixSize><x>64</x><y>64</y></matrixSize>
    <fieldOfView_mm><x>300</x><y>300</y></fieldOfView_mm></encodedSpace></encoding>"""
    frequency = "<H1resonanceFrequency_Hz>63870000</H1resonanceFrequency_Hz>"
    body = f"<experimentalConditions>{frequency}</experimentalConditions>"
    (header,) = parse_header(document(body, encoding))
    assert header.recon_matrix == (64, 64, 1)
    assert header.field_strength_t == pytest.approx(1.5, abs=0.01)
    assert header.vendor is None
    assert header.study.study_instance_uid is None
    fallbacks = {name for name, origin in header.origin.items() if origin.startswith("fallback")}
    assert fallbacks >= {"recon_matrix", "field_strength_t", "trajectory", "thickness"}


def test_times_that_can_only_be_seconds_are_read_as_seconds_and_said() -> None:
    (header,) = parse_header(
        document("<sequenceParameters><TR>0.003</TR><TE>0.0014</TE></sequenceParameters>")
    )
    assert header.tr_ms == pytest.approx((3.0,))
    assert header.te_ms == pytest.approx((1.4,))
    assert "seconds" in header.origin["te_ms"]


def test_times_in_milliseconds_stay_as_they_are() -> None:
    (header,) = parse_header(document("<sequenceParameters><TR>2.0</TR><TE>0.07</TE></sequenceParameters>"))
    assert (header.tr_ms, header.te_ms) == ((2.0,), (0.07,))


def test_two_encodings_become_two_headers() -> None:
    headers = parse_header(document(encoding=ENCODING.format(limits="") * 2))
    assert [header.encoding for header in headers] == [0, 1]


def test_limits_without_centre_get_the_middle() -> None:
    limits = """<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>191</maximum>
    </kspace_encoding_step_1><phase><minimum>0</minimum><maximum>24</maximum><center>0</center></phase>
    </encodingLimits>"""
    (header,) = parse_header(document(encoding=ENCODING.format(limits=limits)))
    assert header.limits["kspace_encoding_step_1"].center == 96
    assert header.limits["phase"].size == 25


@pytest.mark.parametrize("xml", ["", "not xml", "<a>", b"\xff\xfe\x00", "<other/>", document(encoding="")])
def test_what_is_no_header_is_one_clear_error(xml: str | bytes) -> None:
    with pytest.raises(SourceError, match="header"):
        parse_header(xml)


@pytest.mark.parametrize("size", ["0", "-3", "many", "70000", "8193", ""])
def test_an_impossible_matrix_is_one_clear_error(size: str) -> None:
    with pytest.raises(DataError, match="matrixSize"):
        parse_header(document(encoding=ENCODING.format(limits="").replace("256", size)))


def test_entities_are_refused_before_they_expand() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + document(
        "<version>&b;</version>"
    )
    with pytest.raises(SourceError, match="document type"):
        parse_header(bomb)


def test_trailing_nul_bytes_and_prefixes_are_tolerated() -> None:
    xml = document().replace("<", "<m:").replace("<m:/", "</m:").replace('xmlns="', 'xmlns:m="')
    assert parse_header(xml.encode() + b"\0\0")[0].encoded_matrix == (256, 192, 1)


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="0123456789.-eExnaif ", max_size=12))
def test_any_number_text_gives_a_header_or_a_clear_error(text: str) -> None:
    body = f"<sequenceParameters><TE>{text}</TE></sequenceParameters>"
    try:
        headers = parse_header(document(body, ENCODING.format(limits="").replace("256", text)))
    except ReconNodeError:
        return
    assert headers[0].encoded_matrix[0] > 0
