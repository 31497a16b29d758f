"""Which addresses the server may connect to on behalf of a client: public ones alone. Knows nothing of names or HTTP.

The tables are those of IANA (IPv4 and IPv6 Special-Purpose Address Registry, RFC 6890), written down here because what
Python's `ipaddress` calls global changes with its version, and counts addresses that carry an IPv4 address inside.
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from cxr.serving.refusal import Refusal

_CLOSED = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' own; metadata of Alibaba
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # public by number, but a service inside each machine at Azure
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols; metadata of Oracle
        "192.0.2.0/24",  # examples
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # examples
        "203.0.113.0/24",  # examples
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocols, Teredo among them
        "2001:db8::/32",  # examples
        "2002::/16",  # 6to4: an IPv4 address inside
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # examples
    )
)
_UNICAST = IPv6Network("2000::/3")
"""All of IPv6 that is given out; outside it lie loopback, private, link-local, IPv4-mapped and NAT64 addresses."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether anybody on the internet reaches the same machine under this address."""
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return not any(address in block for block in _CLOSED)


def parse_addresses(texts: list[str]) -> list[IPv4Address | IPv6Address]:
    """The addresses that a resolver gave.

    Raises:
        Refusal: There are none, or one is no address.
    """
    try:
        addresses = [ip_address(text) for text in texts]
    except ValueError:
        addresses = []
    if not addresses:
        raise Refusal(
            422, "url_failed", "expected a host that can be found, but its name resolves to nothing; check it"
        )
    return addresses
