from ipaddress import ip_address

import pytest

from cxr.serving.addresses import is_public, parse_addresses
from cxr.serving.refusal import Refusal

CLOSED = {
    "loopback": "127.0.0.1", "all of loopback": "127.255.255.254", "this host": "0.0.0.0", "private 10": "10.1.2.3",
    "private 172": "172.31.255.255", "private 192": "192.168.0.1", "carrier": "100.64.0.1",
    "metadata": "169.254.169.254", "metadata of containers": "169.254.170.2", "metadata of Alibaba": "100.100.100.200",
    "metadata of Oracle": "192.0.0.192", "inside Azure": "168.63.129.16", "benchmarks": "198.19.255.255",
    "examples": "203.0.113.9", "multicast": "239.1.1.1", "reserved": "240.0.0.1", "broadcast": "255.255.255.255",
    "6to4 relay": "192.88.99.1", "IPv6 loopback": "::1", "IPv6 unspecified": "::", "IPv6 private": "fd00:ec2::254",
    "IPv6 link-local": "fe80::1", "IPv6 link-local with its interface": "fe80::1%eth0", "IPv6 site-local": "fec0::1",
    "IPv6 multicast": "ff0e::1", "IPv4-mapped": "::ffff:127.0.0.1", "IPv4-mapped public": "::ffff:1.1.1.1",
    "IPv4-compatible": "::127.0.0.1", "IPv4-translated": "::ffff:0:7f00:1", "NAT64": "64:ff9b::7f00:1",
    "NAT64 local": "64:ff9b:1::a00:1", "6to4": "2002:7f00:1::", "Teredo": "2001:0:7f00:1::", "ORCHID": "2001:20::1",
    "IPv6 examples": "2001:db8::1", "IPv6 discard": "100::1",
}  # fmt: skip
OPEN = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450:4001::1"]


@pytest.mark.parametrize("address", CLOSED.values(), ids=CLOSED.keys())
def test_an_address_that_is_not_public(address):
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", OPEN)
def test_a_public_address(address):
    assert is_public(ip_address(address))


@pytest.mark.parametrize("texts", [[], ["1.1.1.1", "localhost"], ["0177.0.0.1"]])
def test_an_answer_without_addresses(texts):
    with pytest.raises(Refusal, match="its name resolves to nothing"):
        parse_addresses(texts)
