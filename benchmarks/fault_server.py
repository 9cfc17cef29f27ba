"""What strangers and broken scanners say to the MRD port of a live node."""

from __future__ import annotations

import contextlib
import json
import random
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.fault_node import Live, attack, connected, holding, reset, say
from recon_node.core.acquisition import ACQUISITION_HEADER, AcquisitionFlag
from recon_node.core.scan import Readouts, Waveform
from recon_node.mrd.messages import (
    ConfigFile,
    ConfigText,
    HeaderXml,
    ImageMessage,
    Text,
    close_bytes,
    message_bytes,
)
from recon_node.mrd.wire import read_messages

_LONGEST = (1 << 31) - 1


def raw(message: object) -> bytes:
    return bytes(message_bytes(message))  # type: ignore[arg-type]


def lines(count: int, coils: int = 2, samples: int = 12, **head: object) -> bytes:
    heads = np.zeros(count, ACQUISITION_HEADER)
    heads["version"], heads["number_of_samples"], heads["active_channels"] = 1, samples, coils
    heads["idx"]["kspace_encode_step_1"] = np.arange(count) % 12
    for name, value in head.items():
        (heads["idx"] if name in (heads["idx"].dtype.names or ()) else heads)[name] = value
    return raw(Readouts(head=heads, samples=np.ones((count, coils, samples), np.complex64)))


def xml_of(node: Live) -> str:
    return node.header[6:].rstrip(b"\0").decode()


def header(xml: str | bytes) -> bytes:
    return raw(HeaderXml(xml=xml if isinstance(xml, bytes) else xml.encode()))


def subject(node: Live, *, name: str = "A^B", number: str = "1", more: str = "") -> str:
    """The good scan's header, of somebody."""
    who = f"<subjectInformation><patientName>{name}</patientName><patientID>{number}</patientID></subjectInformation>"
    return xml_of(node).replace("<experimentalConditions>", f"{who}{more}<experimentalConditions>", 1)


def scan(node: Live, xml: str | bytes, *, before: bytes = b"", after: bytes = b"") -> bytes:
    """A whole scan with another header."""
    return before + header(xml) + after + node.data + close_bytes()


def at_once(node: Live, count: int, act: Callable[[int], object], hands: int = 12) -> None:
    with ThreadPoolExecutor(hands) as pool:
        list(pool.map(act, range(count)))


# ---------------------------------------------------------------- nonsense

_RNG = random.Random(5)
NONSENSE: dict[str, list[bytes]] = {
    "noise": [_RNG.randbytes(_RNG.randrange(1, 4000)) for _ in range(60)],
    "noise behind a header": [b"HEADER" + _RNG.randbytes(_RNG.randrange(1, 4000)) for _ in range(60)],
    "other protocols": [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"SSH-2.0-OpenSSH_9.0\r\n",
        b"\x01\x00\x00\x00\x00\xcd\x00\x01\x00\x00" + b"ANY-SCP         " * 4,
        b"EHLO x\r\n",
        b"\x00\x00\x00\x85\xffSMBr\x00\x00\x00\x00",
    ],
    "lengths beyond all memory": [
        struct.pack("<HI", 2, n) + b"<configuration>" for n in (_LONGEST, 0xFFFFFFFF, 1 << 30)
    ]
    + [struct.pack("<HI", 3, n) + b"<" for n in (_LONGEST, 0xFFFFFFFF, 17 << 20)]
    + [struct.pack("<HI", 5, n) + b"{" for n in (_LONGEST, 0xFFFFFFFF, 0)],
    "every message id alone": [struct.pack("<H", n) for n in (*range(12), *range(1000, 1040), 65535)],
    "every message id with zeros": [
        struct.pack("<H", n) + bytes(600) for n in (*range(12), *range(1000, 1040))
    ],
    "every message id with ones": [
        struct.pack("<H", n) + b"\xff" * 600 for n in (*range(12), *range(1000, 1040))
    ],
}


def nonsense(name: str, words: list[bytes], *, behind: bool) -> None:
    def act(node: Live) -> None:
        start = node.header if behind else b""
        data = [start + (w.replace(b"HEADER", b"") if behind else w) for w in words]
        at_once(node, len(data), lambda n: hang_up(node, data[n]))

    attack(name, act, times=len(words))


def hang_up(node: Live, data: bytes) -> None:
    """Send, wait for a word, and go."""
    say(node.port, data, listen=0.3)


for _name, _words in NONSENSE.items():
    nonsense(_name, _words, behind=_name == "noise behind a header")
nonsense("every message id behind a header", NONSENSE["every message id with zeros"], behind=True)


def cut_everywhere(node: Live) -> None:
    """A good scan that ends anywhere, by FIN or RST."""

    def act(number: int) -> None:
        end = (number * 997) % len(node.whole)
        with contextlib.suppress(OSError):
            sock = connected(node.port)
            sock.sendall(node.whole[:end])
            reset(sock) if number % 2 else sock.close()

    at_once(node, 100, act)


attack("scan cut anywhere", cut_everywhere, times=100)


def mutated_scans(node: Live) -> None:
    rng = random.Random(time.monotonic_ns() % 1000)

    def act(number: int) -> None:
        data = bytearray(node.whole)
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        say(node.port, bytes(data), listen=1.0)

    at_once(node, 60, act)


attack("mutated scans", mutated_scans, times=60)

# ---------------------------------------------------------------- headers


def headers(name: str, make: Callable[[Live], list[str | bytes]]) -> None:
    def act(node: Live) -> None:
        for xml in make(node):
            say(node.port, scan(node, xml), listen=8.0)

    attack(f"header: {name}", act, times=8)


def _between(xml: str, put: str) -> str:
    return xml.replace("<encoding>", put + "<encoding>", 1)


_ENTITIES = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
headers(
    "entities",
    lambda node: [
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{_ENTITIES}]><x>&l11;</x>',
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        '<?xml version="1.0"?><!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x/>',
    ],
)
headers(
    "deep, wide and long",
    lambda node: [
        "<a>" * 100_000,
        _between(xml_of(node), "<x/>" * 99_000),
        _between(xml_of(node), f"<u>{'x' * (8 << 20)}" + "<x/>a" * 90_000 + "</u>"),
        _between(xml_of(node), "<u " + " ".join(f"a{n}='1'" for n in range(200_000)) + "/>"),
        _between(xml_of(node), "<!--" + "-x" * (7 << 20) + "-->"),
        xml_of(node) + " " * (15 << 20),
        xml_of(node).encode("utf-16"),
        b"\xff\xfe" + bytes(range(256)) * 100,
    ],
)
headers(
    "thousands of encodings, users' parameters, coils",
    lambda node: [
        (x := xml_of(node)).replace(
            "</encoding>", "</encoding>" + x[x.index("<encoding>") : x.index("</encoding>") + 11] * 4000
        ),
        _between(
            x,
            "<userParameters>"
            + "<userParameterLong><name>n</name><value>1</value></userParameterLong>" * 30_000
            + "</userParameters>",
        ),
        _between(x, "<sequenceParameters>" + "<TR>1</TR>" * 90_000 + "</sequenceParameters>"),
        _between(
            x,
            f"<acquisitionSystemInformation>{'<coilLabel><coilNumber>1</coilNumber><coilName>x</coilName></coilLabel>' * 30_000}</acquisitionSystemInformation>",
        ),
        _between(
            x,
            "<measurementInformation><initialSeriesNumber>99999999999</initialSeriesNumber></measurementInformation>",
        ),
        _between(
            x,
            "<measurementInformation><initialSeriesNumber>-99999999999</initialSeriesNumber></measurementInformation>",
        ),
    ],
)
headers(
    "matrices beyond all memory",
    lambda node: [
        re.sub(r"<x>12</x><y>12</y><z>1</z>", f"<x>{x}</x><y>{y}</y><z>{z}</z>", xml_of(node))
        for x, y, z in (
            (65535, 65535, 65535),
            (8192, 8192, 1),
            (12, 65535, 1),
            (2**31, 12, 1),
            (12, 12, 60000),
        )
    ],
)
headers(
    "limits beyond all memory",
    lambda node: [
        re.sub(f"(<{name}><minimum>)0(</minimum><maximum>)\\d+", rf"\g<1>0\g<2>{most}", xml_of(node))
        for name in ("slice", "kspace_encoding_step_1")
        for most in (65535, 2**31, -5)
    ],
)
EVIL = (
    "../../../../x",
    "/abs/x",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\"'&gt;&lt;img src=x onerror=alert(1)&gt;",
    "a&#10;time=2026 level=info message=forged",
    "&#27;[2J&#27;[31mred",
    '"} evil{a="1',
    "{{7*7}}${7*7}%s%n",
    "x" * 250_000,
    "\u202egnp.exe",
    "$(touch x)`touch x`",
    "C:\\x\\..\\y",
)
headers(
    "hostile names of patients, protocols and studies",
    lambda node: [
        subject(
            node,
            name=evil,
            number=evil,
            more=f"<studyInformation><studyInstanceUID>{evil}</studyInstanceUID><studyDescription>{evil}</studyDescription>"
            f"<accessionNumber>1</accessionNumber></studyInformation><measurementInformation><measurementID>{evil}</measurementID>"
            f"<protocolName>{evil}</protocolName><seriesDescription>{evil}</seriesDescription></measurementInformation>",
        )
        for evil in EVIL
    ],
)  # fmt: skip


# ---------------------------------------------------------------- configurations and parameters


def wanted(name: str, messages: list[bytes]) -> None:
    def act(node: Live) -> None:
        at_once(
            node,
            len(messages),
            lambda n: say(node.port, scan(node, xml_of(node), before=messages[n]), listen=5.0),
            4,
        )

    attack(name, act, times=len(messages))


wanted(
    "configurations by hostile names",
    [
        raw(ConfigFile(name=name))
        for name in (
            "../../../etc/passwd",
            "/dev/zero",
            "a\nb level=info",
            "\x1b[2J",
            "%s%n",
            "x" * 1000,
            "os:system",
            "<script>",
        )
    ]
    + [struct.pack("<H", 1) + bytes([n]) * 1024 for n in (0, 0xFF, 0x80, 0xC0)],
)
wanted(
    "chains that are hostile",
    [
        raw(ConfigText(text=text))
        for text in (
            "<configuration>" * 5000,
            "<configuration>" + '<property name="a" value="b"/>' * 90_000 + "</configuration>",
            '<configuration><property name="method" value="os:system"/></configuration>',
            '<configuration><property name="weights" value="../../x.safetensors"/></configuration>',
            '<configuration><property name="weights" value="/dev/zero"/></configuration>',
            '<configuration><property name="destination" value="dicom://X@127.0.0.1:1"/></configuration>',
            "{" * 100_000,
            '{"parameters":' * 50_000,
        )
    ],
)
PARAMETERS = [
    '{"parameters": {"method": "os:system"}}',
    '{"parameters": {"weights": "../../../etc/passwd"}}',
    '{"config": "\\ud800", "x": "\\udfff"}',
    '{"method": "\\ud800"}',
    '{"method": "a\\u0000b"}',
    '{"method": "\\u001b[2J\\n level=info"}',
    '{"priority": 1e400}',
    '{"priority": NaN}',
    '{"priority": ' + "9" * 4000 + "}",
    '{"priority": ' + "9" * 400_000 + "}",
    '{"a": ' + "[" * 100_000,
    '{"parameters": [1]}',
    '{"parameters": {"parameters": {}}}',
    '{"": ""}',
    "{" + ",".join(f'"k{n}": 1' for n in range(60_000)) + "}",
    json.dumps({"method": "x" * (1 << 20)}),
    "{\x00}",
]


def parameters(node: Live) -> None:
    for text in PARAMETERS:
        say(node.port, scan(node, xml_of(node), after=raw(Text(text=text))), listen=5.0)


attack("parameters that are hostile", parameters, times=len(PARAMETERS))


# ---------------------------------------------------------------- bombs


def bombs(name: str, make: Callable[[Live], Iterator[bytes]], *, config: str = "default") -> None:
    """One connection that sends what `make` gives until it is cut off."""

    def act(node: Live) -> None:
        with contextlib.suppress(OSError), connected(node.port) as sock:
            sock.settimeout(5.0)
            sock.sendall(raw(ConfigFile(name=config)) + node.header)
            with contextlib.suppress(OSError):
                for part in make(node):
                    sock.sendall(part)
            with contextlib.suppress(OSError):
                while sock.recv(1 << 16):
                    pass

    attack(f"bomb: {name}", act)


_ONES = b"\x01" * (1 << 20)


def _huge_line(node: Live) -> Iterator[bytes]:
    head = np.zeros(1, ACQUISITION_HEADER)
    head["number_of_samples"], head["active_channels"], head["trajectory_dimensions"] = 65535, 512, 65535
    yield struct.pack("<H", 1008) + head.tobytes()
    yield from [_ONES] * 600


def _many_slices(node: Live) -> Iterator[bytes]:
    for number in range(300):
        yield lines(200, slice=(np.arange(200) + 200 * number) % 65536)


def _many_of(counter: str) -> Callable[[Live], Iterator[bytes]]:
    def make(node: Live) -> Iterator[bytes]:
        for number in range(100):
            yield lines(200, **{counter: np.arange(200) * 331 + number})

    return make


def _waveforms(node: Live) -> Iterator[bytes]:
    wave = Waveform(waveform_id=0, time_stamp=5, sample_time_us=100.0, data=np.ones((4, 60_000), np.uint32))
    yield from [raw(wave)] * 700


def _noise_scan(node: Live) -> Iterator[bytes]:
    flags = int(AcquisitionFlag.IS_NOISE_MEASUREMENT)
    yield from [lines(4, coils=512, samples=4096, flags=flags)] * 20


def _texts(node: Live) -> Iterator[bytes]:
    yield from [raw(Text(text="x" * 100)) * 5000] * 40


def _images(node: Live) -> Iterator[bytes]:
    head = bytearray(198)
    struct.pack_into("<HH", head, 0, 1, 5)
    struct.pack_into("<HHH", head, 16, 65535, 65535, 1)
    yield struct.pack("<H", 1022) + bytes(head) + struct.pack("<Q", 1 << 62)
    yield from [_ONES] * 50


bombs("one line of 65535 samples, 512 channels and a trajectory as long", _huge_line)
bombs("60,000 slices", _many_slices)
bombs("60,000 slices, gated", _many_slices, config="gated")
for _counter in ("repetition", "phase", "set", "contrast", "average", "segment", "kspace_encode_step_2"):
    bombs(f"20,000 lines, each of another {_counter}", _many_of(_counter))
bombs("waveforms under retrospective gating", _waveforms, config="gated")
bombs("a noise scan of 1.3 GB", _noise_scan)
bombs("200,000 texts", _texts)
bombs("an image with attributes beyond all memory", _images)


def shared_budget(node: Live) -> object:
    """24 connections, each with half of a long message."""
    start = struct.pack("<HI", 3, 15 << 20) + b"<x>" + b"y" * (14 << 20)
    return holding(node.port, 24, [start])


attack("24 headers of 15 MB that never end", shared_budget, times=24)


def strange_numbers(node: Live) -> None:
    for value in (np.nan, np.inf, 3e38, 1e-45):
        head = np.zeros(24, ACQUISITION_HEADER)
        head["version"], head["number_of_samples"], head["active_channels"] = 1, 12, 2
        head["idx"]["kspace_encode_step_1"], head["idx"]["slice"] = np.arange(24) % 12, np.arange(24) // 12
        for name in (
            "position",
            "read_dir",
            "phase_dir",
            "slice_dir",
            "sample_time_us",
            "patient_table_position",
        ):
            head[name] = value
        data = np.full((24, 2, 12), complex(value, value), np.complex64)
        say(node.port, node.header, raw(Readouts(head=head, samples=data)), close_bytes(), listen=5.0)


attack("samples and places that are no numbers", strange_numbers, times=4)

# ---------------------------------------------------------------- places and time


def flood(node: Live) -> None:
    at_once(node, 60, lambda n: say(node.port, node.whole, listen=10.0), 30)


def drips(node: Live) -> object:
    """Whoever sends a byte of his header at a time, all the while the good scan wants in."""
    stack = contextlib.ExitStack()
    stop = threading.Event()
    socks = [stack.enter_context(connected(node.port)) for _ in range(28)]

    def drip() -> None:
        for byte in node.header:
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.sendall(bytes([byte]))
            if stop.wait(0.1):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    stack.callback(thread.join)
    stack.callback(stop.set)
    return stack


def deaf(node: Live) -> object:
    """Peers that send scans and take none of the images."""
    return holding(node.port, 12, [node.whole])


attack("300 connections that say nothing", lambda node: holding(node.port, 300), times=300)
attack("28 that drip their header", drips, times=28)
attack("28 with a header and no data", lambda node: holding(node.port, 28, [node.header]), times=28)
attack("28 that stop within a line", lambda node: holding(node.port, 28, [node.whole[:2000]]), times=28)
attack("28 without CLOSE", lambda node: holding(node.port, 28, [node.header + node.data]), times=28)
attack("12 that take no images", deaf, times=12)
attack("60 good scans at once", flood, times=60)
attack(
    "200 connections that are reset at once",
    lambda node: at_once(node, 200, lambda n: reset(connected(node.port))),
    times=200,
)


# ---------------------------------------------------------------- somebody else's images


def guesses(node: Live) -> int:
    """A deferred scan, and 200 tries to fetch it with a guessed number and ticket; how many images they got."""
    own = subject(
        node,
        number="4711",
        more="<studyInformation><studyInstanceUID>1.2.3.4.5</studyInstanceUID></studyInformation>",
    )
    say(node.port, scan(node, own, before=raw(ConfigFile(name="later"))), listen=8.0)
    taken: list[ImageMessage] = []

    def act(number: int) -> None:
        xml = subject(node, number=str(4700 + number % 20))
        ticket = raw(Text(text=json.dumps({"ticket": f"{number:020x}"})))
        data = raw(ConfigFile(name="fetch")) + header(xml) + ticket + close_bytes()
        answer = read_messages(memoryview(say(node.port, data, listen=5.0)), close_optional=True)
        taken.extend(message for message in answer if isinstance(message, ImageMessage))

    at_once(node, 200, act)
    return len(taken)


attack("200 guesses at a deferred scan", guesses, times=200)
