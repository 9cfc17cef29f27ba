"""The chains in gadget_configs/: well-formed, complete, and in agreement with the gadget."""

from __future__ import annotations

from pathlib import Path

import pytest

import recon_node.gadget
from recon_node.mrd.gadget_properties import MODES, TARGETS
from recon_node.mrd.request import check_properties, properties_from_xml
from recon_node.mrd.xml_tree import Node, parse_xml
from recon_node.online.properties import PROPERTIES
from recon_node.settings import peer_settings

FOLDER = Path(recon_node.gadget.__file__).parents[1] / "gadget_configs"
CHAINS = sorted(FOLDER.glob("*.xml"))
README = (FOLDER / "README.md").read_text()


@pytest.fixture(params=CHAINS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def chain(path: Path) -> Node:
    return parse_xml(path.read_bytes(), what="chain")


def test_there_is_a_chain_for_each_target_and_for_comparing_and_commissioning() -> None:
    named = {target for path in CHAINS for target in TARGETS if f'target="{target}"' in path.read_text()}
    assert named == set(TARGETS)
    text = "".join(path.read_text() for path in CHAINS)
    assert all(f'value="{mode}"' in text for mode in MODES if mode != "reconstruct")


def test_a_chain_has_the_version_readers_and_writers_that_gadgetron_needs(chain: Node) -> None:
    assert chain.name == "configuration"
    assert chain.value("version") == "2"
    readers = {node.value("classname") for node in chain.find_all("readers/reader")}
    writers = {node.value("classname") for node in chain.find_all("writers/writer")}
    assert readers == {"AcquisitionReader", "WaveformReader"}
    assert "ImageWriter" in writers


def test_the_module_and_target_of_a_chain_exist(chain: Node) -> None:
    if chain.find("stream/external/connect") is not None:
        assert chain.find("stream/external/connect").attributes == {"address": "gadget", "port": "18000"}
        return
    (execute,) = chain.find_all("stream/external/execute")
    assert execute.attributes["type"] == "python"
    assert execute.attributes["name"] == recon_node.gadget.__name__
    assert execute.attributes["target"] in TARGETS
    assert callable(getattr(recon_node.gadget, execute.attributes["target"]))


def test_the_gadgets_before_the_module_make_what_its_target_takes(chain: Node) -> None:
    (stream,) = chain.find_all("stream")
    names = [node.name for node in stream.children]
    before = [n.value("classname") for n in stream.children[: names.index("external")]]
    execute = chain.find("stream/external/execute")
    target = "acquisitions" if execute is None else execute.attributes["target"]
    last = {
        "acquisitions": {None, "RemoveROOversamplingGadget"},
        "buckets": {"AcquisitionAccumulateTriggerGadget"},
        "recon_data": {"BucketToBufferGadget"},
    }
    assert (before[-1] if before else None) in last[target]


def test_properties_of_a_chain_are_known_and_fit_what_was_done_before(path: Path, chain: Node) -> None:
    properties = properties_from_xml(path.read_text())
    check_properties(properties, PROPERTIES, where=path.name)
    whitened = "NoiseAdjustGadget" in path.read_text().split("<external>")[0]
    assert (properties.get("noise") == "unit-parts") is whitened


def test_the_readme_names_every_chain_and_every_property(path: Path) -> None:
    assert f"`{path.name}`" in README
    for name, meaning in PROPERTIES.items():
        assert f"| `{name}` | {meaning} |" in README


def test_a_chain_may_set_all_that_the_server_lets_a_client_set() -> None:
    assert set(peer_settings()) <= set(PROPERTIES)
