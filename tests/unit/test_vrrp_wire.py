# SPDX-License-Identifier: Apache-2.0
"""VRRP frames byte by byte. Both golden adverts were decoded by tshark, which agrees with their checksums."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from cores import FOREIGN
from hypothesis import given
from hypothesis import strategies as st

from flexha.core import checksum, garp, vrrp_wire
from flexha.core.errors import RemoteProtocolError
from flexha.core.vrrp_wire import Advert, ChecksumForm

VIP = IPv4Address("203.0.113.3")
ADVERT = Advert(vrid=52, priority=150, adver_int_cs=100, vips=(VIP,), source=IPv4Address("203.0.113.4"))
VMAC = bytes.fromhex("00005e000134")
IP = 14
VRRP = IP + 20

GOLDEN = {
    ChecksumForm.RFC5798: bytes.fromhex(
        "01005e000012"
        "00005e000134"
        "0800"
        "45c0002000004000ff705e96cb007104e0000012"
        "313496010064dfcdcb007103"
        "0000000000000000000000000000"
    ),
    ChecksumForm.RFC9568: bytes.fromhex(
        "01005e000012"
        "00005e000134"
        "0800"
        "45c0002000004000ff705e96cb007104e0000012"
        "313496010064fc61cb007103"
        "0000000000000000000000000000"
    ),
}
GOLDEN_GARP = bytes.fromhex(
    "ffffffffffff"
    "00005e000134"
    "0806"
    "0001080006040001"
    "00005e000134cb007103"
    "00005e000134cb007103"
    "000000000000000000000000000000000000"
)


@pytest.mark.parametrize("form", ChecksumForm)
def test_golden_advert(form: ChecksumForm) -> None:
    """Spec: R2; RFC 9568 §5.1, §5.2, §7.2."""
    frame = vrrp_wire.build(ADVERT, VMAC, form)
    assert frame == GOLDEN[form]
    assert vrrp_wire.parse(frame, 52) == ADVERT


def test_golden_gratuitous_arp() -> None:
    """Spec: RFC 9568 §6.4.2."""
    assert garp.build(VMAC, VIP) == GOLDEN_GARP


# RFC 3768 §5.3: authentication type 0, 2 s, the checksum of 20 bytes, an address, no authentication data.
GOLDEN_2 = bytes.fromhex(
    "01005e000012"
    "00005e000134"
    "0800"
    "45c0002800004000ff705e8ecb007104e0000012"
    "213496010002"
    "0cc4"
    "cb007103"
    "0000000000000000"
    "000000000000"
)
ADVERT_2 = replace(ADVERT, adver_int_cs=200)


def test_golden_advert_of_version_2() -> None:
    """Spec: R2; RFC 3768 §5.2, §5.3, §7.2."""
    for form in ChecksumForm:
        assert vrrp_wire.build(ADVERT_2, VMAC, form, 2) == GOLDEN_2
    assert vrrp_wire.parse(GOLDEN_2, 52, 2) == ADVERT_2


@given(
    st.builds(
        Advert,
        vrid=st.integers(1, 255),
        priority=st.integers(0, 255),
        adver_int_cs=st.integers(1, 255).map(lambda seconds: seconds * 100),
        vips=st.lists(st.ip_addresses(v=4), min_size=1, max_size=20).map(tuple),
        source=st.ip_addresses(v=4),
    )
)
def test_what_is_built_of_version_2_is_parsed(advert: Advert) -> None:
    """Spec: R2; RFC 3768 §5.3. The other version discards it before it looks at anything else."""
    frame = vrrp_wire.build(advert, VMAC, ChecksumForm.RFC5798, 2)
    assert vrrp_wire.parse(frame, advert.vrid, 2) == advert
    with pytest.raises(RemoteProtocolError, match="bad_version"):
        vrrp_wire.parse(frame, advert.vrid, 3)


@given(
    st.builds(
        Advert,
        vrid=st.integers(1, 255),
        priority=st.integers(0, 255),
        adver_int_cs=st.integers(1, 4095),
        vips=st.lists(st.ip_addresses(v=4), min_size=1, max_size=20).map(tuple),
        source=st.ip_addresses(v=4),
    ),
    st.sampled_from(ChecksumForm),
)
def test_what_is_built_is_parsed(advert: Advert, form: ChecksumForm) -> None:
    assert vrrp_wire.parse(vrrp_wire.build(advert, VMAC, form), advert.vrid) == advert


def patched(
    at: int, value: bytes, *, fix: bool = True, golden: bytes = GOLDEN[ChecksumForm.RFC9568]
) -> bytes:
    """The golden advert with other bytes at an offset, checksums made right again."""
    frame = bytearray(golden)
    frame[at : at + len(value)] = value
    if fix:
        frame[IP + 10 : IP + 12] = b"\0\0"
        frame[IP + 10 : IP + 12] = checksum.internet_checksum(bytes(frame[IP:VRRP])).to_bytes(2, "big")
        end = IP + int.from_bytes(frame[IP + 2 : IP + 4], "big")
        frame[VRRP + 6 : VRRP + 8] = b"\0\0"
        frame[VRRP + 6 : VRRP + 8] = checksum.internet_checksum(bytes(frame[VRRP:end])).to_bytes(2, "big")
    return bytes(frame)


BAD = {
    "bad_ttl": [patched(IP + 8, b"\xfe"), patched(IP + 8, b"\x01")],
    "bad_version": [patched(VRRP, b"\x21"), patched(VRRP, b"\x41")],
    "bad_type": [patched(VRRP, b"\x32"), patched(VRRP, b"\x30")],
    "count_zero": [patched(VRRP + 3, b"\0")],
    "interval_zero": [patched(VRRP + 4, b"\0\0"), patched(VRRP + 4, b"\xf0\0")],
    "bad_vrid": [patched(VRRP + 1, b"\x33")],
    "bad_checksum": [
        patched(VRRP + 6, b"\x12\x34", fix=False),
        patched(VRRP + 2, b"\x01", fix=False),
        patched(IP + 12, b"\xcb\x00\x71\x05")[: VRRP + 6]
        + b"\xdf\xcd"
        + GOLDEN[ChecksumForm.RFC9568][VRRP + 8 :],
    ],
    "bad_ip_checksum": [patched(IP + 10, b"\0\0", fix=False)],
    "bad_length": [
        patched(VRRP + 3, b"\x02"),  # two addresses announced, one there
        patched(VRRP + 3, b"\xff"),
        patched(IP + 2, b"\x00\x1b"),  # the IP packet ends within the message
        patched(IP + 2, b"\x00\x13"),
        patched(IP + 2, b"\xff\xff"),
        patched(IP, b"\x4f"),  # options beyond the packet
        patched(IP, b"\x44"),
        GOLDEN[ChecksumForm.RFC9568][: VRRP + 11],
        GOLDEN[ChecksumForm.RFC9568][: IP + 19],
        b"",
    ],
    "fragment": [patched(IP + 6, b"\x20\x00"), patched(IP + 6, b"\x00\x01")],
    "not_vrrp": [patched(IP + 9, b"\x11"), patched(12, b"\x86\xdd"), patched(IP, b"\x65")],
}


@pytest.mark.parametrize(
    ("reason", "frame"),
    [(reason, frame) for reason, frames in BAD.items() for frame in frames],
    ids=[f"{reason}-{i}" for reason, frames in BAD.items() for i in range(len(frames))],
)
def test_bad_advert(reason: str, frame: bytes) -> None:
    """Spec: RFC 9568 §7.1."""
    with pytest.raises(RemoteProtocolError) as caught:
        vrrp_wire.parse(frame, 52)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("reason", "at", "value"),
    [
        ("bad_ttl", IP + 8, b"\xfe"),
        ("bad_version", VRRP, b"\x31"),
        ("bad_version", VRRP, b"\x11"),
        ("bad_type", VRRP, b"\x22"),
        ("bad_vrid", VRRP + 1, b"\x33"),
        ("count_zero", VRRP + 3, b"\0"),
        ("bad_auth", VRRP + 4, b"\x01"),  # a simple text password
        ("interval_zero", VRRP + 5, b"\0"),
        ("bad_length", VRRP + 3, b"\x02"),  # the second address is where the authentication data should be
        ("bad_length", IP + 2, b"\0\x20"),  # no authentication data
    ],
)
def test_bad_advert_of_version_2(reason: str, at: int, value: bytes) -> None:
    """Spec: R2; RFC 3768 §7.1."""
    with pytest.raises(RemoteProtocolError) as caught:
        vrrp_wire.parse(patched(at, value, golden=GOLDEN_2), 52, 2)
    assert caught.value.reason == reason


@given(st.integers(12, IP + 39), st.integers(0, 7))
def test_no_flipped_bit_of_version_2_goes_unseen(byte: int, bit: int) -> None:
    """Spec: R2; RFC 3768 §5.3.8. Each bit behind the Ethernet addresses."""
    frame = bytearray(GOLDEN_2)
    frame[byte] ^= 1 << bit
    with pytest.raises(RemoteProtocolError):
        vrrp_wire.parse(bytes(frame), 52, 2)


@given(st.binary(max_size=120))
def test_no_frame_breaks_the_parser_of_version_2(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        vrrp_wire.parse(frame, 52, 2)


def test_ip_options_are_skipped() -> None:
    """RFC 9568 says nothing against them."""
    frame = bytearray(GOLDEN[ChecksumForm.RFC9568][:46])
    frame[IP] = 0x46
    frame[IP + 2 : IP + 4] = (36).to_bytes(2, "big")
    frame[VRRP:VRRP] = b"\x01\x01\x01\x00"
    frame[IP + 10 : IP + 12] = b"\0\0"
    frame[IP + 10 : IP + 12] = checksum.internet_checksum(bytes(frame[IP : VRRP + 4])).to_bytes(2, "big")
    assert vrrp_wire.parse(bytes(frame), 52) == ADVERT


def test_the_reserve_field_is_ignored() -> None:
    """RFC 9568 §5.2.6."""
    assert vrrp_wire.parse(patched(VRRP + 4, b"\xf0\x64"), 52) == ADVERT


@given(st.binary(max_size=120))
def test_no_frame_breaks_the_parser(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        vrrp_wire.parse(frame, 52)


@given(st.integers(0, 45), st.integers(0, 7))
def test_no_flipped_bit_goes_unseen(byte: int, bit: int) -> None:
    """Except in what no check covers: the MAC addresses."""
    frame = bytearray(GOLDEN[ChecksumForm.RFC5798])
    frame[byte] ^= 1 << bit
    if byte < 12:
        assert vrrp_wire.parse(bytes(frame), 52) == ADVERT
    else:
        with pytest.raises(RemoteProtocolError):
            vrrp_wire.parse(bytes(frame), 52)


def test_addresses_of_the_pseudo_header_count() -> None:
    """The RFC 5798 form is bound to its sender: another source address makes it wrong."""
    frame = bytearray(GOLDEN[ChecksumForm.RFC5798])
    frame[IP + 12 : IP + 16] = IPv4Address(FOREIGN["wan"]).packed
    frame[IP + 10 : IP + 12] = b"\0\0"
    frame[IP + 10 : IP + 12] = checksum.internet_checksum(bytes(frame[IP:VRRP])).to_bytes(2, "big")
    with pytest.raises(RemoteProtocolError, match="bad_checksum"):
        vrrp_wire.parse(bytes(frame), 52)
