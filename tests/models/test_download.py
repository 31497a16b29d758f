import hashlib

import pytest

from cxr.errors import WeightsError
from cxr.models.download import fetch

CONTENT = b"numbers" * 1000


def test_downloads_once_and_leaves_no_part(file_server, tmp_path):
    file_server.files["/a.pt"] = CONTENT
    target = tmp_path / "cache" / "a.pt"
    for _ in range(2):
        assert fetch(f"{file_server.address}/a.pt", target, "or else") == target
    assert target.read_bytes() == CONTENT
    assert file_server.requests == ["/a.pt"]
    assert not list(tmp_path.rglob("*.part"))


def test_a_broken_connection_leaves_no_file_and_the_next_call_starts_again(file_server, tmp_path):
    file_server.files["/a.pt"] = CONTENT
    file_server.short.add("/a.pt")
    target = tmp_path / "a.pt"
    with pytest.raises(WeightsError, match="the connection ended after 3500 of 7000 bytes"):
        fetch(f"{file_server.address}/a.pt", target, "or else")
    assert not target.exists()
    file_server.short.clear()
    assert fetch(f"{file_server.address}/a.pt", target, "or else").read_bytes() == CONTENT


def test_a_hash_in_the_name_is_verified(file_server, tmp_path):
    right = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
    file_server.files |= {f"/{right}": CONTENT, "/net-00000000.pth": CONTENT}
    assert fetch(f"{file_server.address}/{right}", tmp_path / right, "or else").is_file()
    with pytest.raises(WeightsError, match=r"SHA-256 begins .* where its name states 00000000"):
        fetch(f"{file_server.address}/net-00000000.pth", tmp_path / "net-00000000.pth", "or else")
    assert not (tmp_path / "net-00000000.pth").exists()


def test_an_absent_page_names_file_address_place_and_remedy(file_server, tmp_path):
    url, target = f"{file_server.address}/b.pt", tmp_path / "b.pt"
    with pytest.raises(WeightsError, match=f"{target}.*{url}.*404.*put the file there by hand, or else"):
        fetch(url, target, "or else")


def test_no_network_is_the_same_error(tmp_path):
    with pytest.raises(WeightsError, match=r"cannot be downloaded .*refused"):
        fetch("http://127.0.0.1:9/c.pt", tmp_path / "c.pt", "or else")


def test_a_folder_that_cannot_be_made_is_the_same_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        fetch("http://127.0.0.1:9/c.pt", tmp_path / "file" / "c.pt", "or else")
