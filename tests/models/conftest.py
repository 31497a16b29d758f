"""A weights file of the published form, and a server of files on this machine."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from cxr.models.xrv import _import_torchxrayvision


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The nets of these tests are too small for more than one thread to help."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class FileServer:
    """Serves `files` (path -> bytes); `short` are the paths whose connection ends after half of the bytes."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.short: set[str] = set()
        self.requests: list[str] = []


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            content = served.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if self.path in served.short else content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = FileServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def xrv_module() -> nn.Module:
    """A torchxrayvision DenseNet121 as the published ones: 18 outputs, and statistics that are not the initial ones."""
    torch.manual_seed(0)
    net = _import_torchxrayvision().models.DenseNet()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.fixture(scope="session")
def xrv_file(xrv_module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole module, pickled."""
    path = tmp_path_factory.mktemp("xrv") / "published-best.pt"
    torch.save(xrv_module, path)
    return path


@pytest.fixture(scope="session")
def old_xrv_file(xrv_module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole module, pickled in the format of torch before 1.6."""
    path = tmp_path_factory.mktemp("xrv") / "published-old-best.pt"
    torch.save(xrv_module, path, _use_new_zipfile_serialization=False)
    return path
