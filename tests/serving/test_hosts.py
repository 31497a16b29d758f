import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr.errors import ConfigError
from cxr.serving.hosts import AllowedHost, Place, check_url, parse_hosts
from cxr.serving.refusal import Refusal

ALLOWED = parse_hosts(
    ["images.example.org", "*.pacs.example.org", "http://old.example.org:8080", "odd.example.org:8443"]
)

FORM, ASCII, NUMERIC = "https://host/path", "plain ASCII", "the name of a host, got a numeric address"
LIST, SHAPE, USER, SCHEME = (
    "list of image hosts",
    "letters, digits, hyphens and dots",
    "with @ before",
    "begins with https",
)

REFUSED = {
    "another host": ("https://evil.example/", LIST),
    "allowed name in front": ("https://images.example.org.evil.example/", LIST),
    "allowed name behind": ("https://evilimages.example.org/", LIST),
    "suffix without a dot": ("https://evilpacs.example.org/", LIST),
    "suffix itself": ("https://pacs.example.org/", LIST),
    "localhost": ("https://localhost/", LIST),
    "metadata by name": ("https://metadata.google.internal/", LIST),
    "http where https is listed": ("http://images.example.org/", LIST),
    "https where http is listed": ("https://old.example.org:8080/", LIST),
    "http port over https": ("https://images.example.org:80/", LIST),
    "another port": ("https://images.example.org:22/", LIST),
    "usual port where another is listed": ("https://odd.example.org/", LIST),
    "port 0": ("https://images.example.org:0/", SHAPE),
    "port too large": ("https://images.example.org:65979/", SHAPE),
    "empty port": ("https://images.example.org:/", SHAPE),
    "two ports": ("https://images.example.org:443:80/", SHAPE),
    "trailing dot": ("https://images.example.org./", SHAPE),
    "user": ("https://user@images.example.org/", USER),
    "user and password": ("https://images.example.org:pass@evil.example/", USER),
    "user that looks like the host": ("https://images.example.org@evil.example/", USER),
    "escaped user": ("https://images.example.org%40evil.example/", SHAPE),
    "backslash": ("https://images.example.org\\@evil.example/", FORM),
    "backslashes for slashes": ("https:\\\\images.example.org/", FORM),
    "fragment": ("https://images.example.org#@evil.example/", FORM),
    "fragment behind the path": ("https://images.example.org/a#b", FORM),
    "loopback": ("https://127.0.0.1/", NUMERIC),
    "short loopback": ("https://127.1/", NUMERIC),
    "zero": ("https://0/", NUMERIC),
    "decimal": ("https://2130706433/", NUMERIC),
    "octal": ("https://0177.0.0.1/", NUMERIC),
    "hexadecimal": ("https://0x7f000001/", NUMERIC),
    "hexadecimal parts": ("https://0x7f.0x0.0x0.0X1/", NUMERIC),
    "mixed notation": ("https://127.0.0x1/", NUMERIC),
    "overlong octal": ("https://00000000177.1/", NUMERIC),
    "numeric last label": ("https://images.example.org.1/", NUMERIC),
    "numeric with a dot behind": ("https://127.0.0.1./", SHAPE),
    "IPv6": ("https://[::1]/", NUMERIC),
    "IPv4-mapped": ("https://[::ffff:127.0.0.1]/", NUMERIC),
    "NAT64": ("https://[64:ff9b::7f00:1]/", NUMERIC),
    "IPv6 with a zone": ("https://[fe80::1%25eth0]/", NUMERIC),
    "IPv6 without brackets": ("https://::1/", SHAPE),
    "escaped digits": ("https://%31%32%37.0.0.1/", NUMERIC),
    "escaped dot": ("https://images%2eexample.org/", SHAPE),
    "full-width dots": ("https://images。example.org/", ASCII),
    "full-width digits": ("https://１２７.0.0.1/", ASCII),
    "circled digits": ("https://①②⑦.0.0.1/", ASCII),
    "zero-width space": ("https://images\u200b.example.org/", ASCII),
    "soft hyphen": ("https://ima\u00adges.example.org/", ASCII),
    "cyrillic letter": ("https://im\u0430ges.example.org/", ASCII),
    "right-to-left override": ("https://images.example.org/\u202egpj", ASCII),
    "IDNA": ("https://xn--imges-zva.example.org/", LIST),
    "space": ("https://images.example.org /", ASCII),
    "leading space": (" https://images.example.org/", ASCII),
    "line end": ("https://images.example.org/\r\nHost: evil.example", ASCII),
    "line end at the end": ("https://images.example.org/\n", ASCII),
    "tab": ("https://images.example\t.org/", ASCII),
    "null byte": ("https://images.example.org\0.evil.example/", ASCII),
    "file": ("file:///etc/passwd", SCHEME),
    "file on the host": ("file://images.example.org/etc/passwd", SCHEME),
    "gopher": ("gopher://images.example.org:443/_x", SCHEME),
    "ftp": ("ftp://images.example.org/", SCHEME),
    "jar": ("jar:https://images.example.org/!/a", FORM),
    "data": ("data:image/png;base64,AAAA", FORM),
    "no scheme": ("//images.example.org/", FORM),
    "one slash": ("https:/images.example.org/", FORM),
    "three slashes": ("https:///images.example.org/", SHAPE),
    "no host": ("https://", SHAPE),
    "empty": ("", ASCII),
    "double dot": ("https://images..example.org/", SHAPE),
    "underscores of a header": ("https://images.example.org,evil.example/", SHAPE),
    "semicolon": ("https://images.example.org;evil.example/", SHAPE),
    "too long": ("https://images.example.org/" + "a" * 2048, "at most 2048 characters"),
}  # fmt: skip


@pytest.mark.parametrize(("url", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_url_that_is_refused(url, reason):
    with pytest.raises(Refusal, match=reason) as caught:
        check_url(url, ALLOWED)
    assert (caught.value.status, caught.value.code) == (403, "url_not_allowed")
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://images.example.org", Place("https", "images.example.org", 443, "/")),
        ("HTTPS://Images.Example.ORG:443/a/b.dcm?c=d@e", Place("https", "images.example.org", 443, "/a/b.dcm?c=d@e")),
        ("https://images.example.org?x", Place("https", "images.example.org", 443, "/?x")),
        ("https://a.b.pacs.example.org/", Place("https", "a.b.pacs.example.org", 443, "/")),
        ("http://old.example.org:8080/%20", Place("http", "old.example.org", 8080, "/%20")),
        ("https://odd.example.org:8443/", Place("https", "odd.example.org", 8443, "/")),
    ],
)
def test_a_url_that_is_taken(url, place):
    assert check_url(url, ALLOWED) == place
    assert check_url(place.url, ALLOWED) == place


def test_without_a_list_no_url_is_taken():
    with pytest.raises(Refusal, match=LIST):
        check_url("https://images.example.org/", parse_hosts([]))


@given(st.text(max_size=80) | st.from_regex(r"https?://[ -~]{0,40}", fullmatch=True))
def test_any_text_is_an_allowed_place_or_refused(text):
    try:
        place = check_url(text, ALLOWED)
    except Refusal:
        return
    assert any(host.matches(place) for host in ALLOWED)


def test_entries_of_the_list():
    assert parse_hosts(["Images.example.org", "http://*.example.org", "a:8443"]) == (
        AllowedHost("https", "images.example.org", 443, below=False),
        AllowedHost("http", "example.org", 80, below=True),
        AllowedHost("https", "a", 8443, below=False),
    )


@pytest.mark.parametrize(
    "entry",
    ["*", "*.com", "", "10.0.0.1", "[::1]", "a/b", "https://", "ftp://a.org", "a.org:0", "a.org:70000", "*a.org",
     "ä.org", "user@a.org", "a..org"],
)  # fmt: skip
def test_an_entry_that_names_no_host(entry):
    with pytest.raises(ConfigError, match="image hosts as host, host:port or"):
        parse_hosts([entry])
