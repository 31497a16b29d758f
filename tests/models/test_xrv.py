import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from cxr.errors import ConfigError, MissingExtraError, WeightsError
from cxr.models import xrv
from cxr.models.build import build_net
from cxr.models.xrv import WEIGHTS

SHORT_NAMES = ["rsna", "nih", "padchest", "chexpert", "mimic_nb", "mimic_ch", "all"]


@pytest.fixture
def library():
    return xrv._import_torchxrayvision()


@pytest.mark.parametrize("weights", SHORT_NAMES)
def test_each_set_gives_exactly_k_plain_logits(weights, xrv_file, xrv_module):
    net = build_net("xrv_densenet121", 4, weights=weights, weights_path=str(xrv_file)).eval()
    images = torch.rand(2, 1, 64, 64) * 2048 - 1024
    with torch.no_grad():
        features = xrv_module.features2(images)
        logits = net(images)
    assert logits.shape == (2, 4)
    torch.testing.assert_close(logits, features @ net.head.output.weight.T + net.head.output.bias)
    assert not any("op_threshs" in name for name, _ in net.named_buffers())
    assert not any(hasattr(module, "op_threshs") for module in net.modules())


def test_the_contract_is_one_channel_of_hounsfield_like_range(xrv_file):
    contract = build_net("xrv_densenet121", 2, weights="all", weights_path=str(xrv_file)).input_contract
    assert (contract.channels, contract.size, contract.low, contract.high) == (1, (224, 224), -1024.0, 1024.0)
    assert (contract.mean, contract.std) == (None, None)
    assert build_net("xrv_densenet121", 2).input_contract.size is None


def test_dropout_reaches_every_dense_layer():
    net = build_net("xrv_densenet121", 2, drop_rate=0.25)
    rates = [module.drop_rate for module in net.modules() if hasattr(module, "drop_rate")]
    assert rates == [0.25] * (6 + 12 + 24 + 16)


def test_the_file_is_found_in_the_library_s_own_cache(library, xrv_file, xrv_module, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = Path(library.models.model_urls["pc"]["weights_url"]).name
    cache = Path(library.utils.get_cache_dir())
    cache.mkdir(parents=True)
    (cache / name).write_bytes(xrv_file.read_bytes())
    for _ in range(2):
        net = build_net("xrv_densenet121", 2, weights="padchest")
        assert torch.equal(net.backbone.features.conv0.weight, xrv_module.features.conv0.weight)
        (cache / name).unlink(missing_ok=True)  # the converted copy is enough


def test_an_absent_file_is_downloaded_into_the_cache(library, xrv_file, file_server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file_server.files["/v1/set.pt"] = xrv_file.read_bytes()
    monkeypatch.setitem(library.models.model_urls["rsna"], "weights_url", f"{file_server.address}/v1/set.pt")
    build_net("xrv_densenet121", 2, weights="rsna")
    assert (Path(library.utils.get_cache_dir()) / "set.pt").is_file()
    assert file_server.requests == ["/v1/set.pt"]


@pytest.mark.parametrize(
    ("weights", "start"),
    [
        ("rsna", "kaggle-densenet121"),
        ("nih", "nih-densenet121"),
        ("padchest", "pc-densenet121"),
        ("chexpert", "chex-densenet121"),
        ("mimic_nb", "mimic_nb-densenet121"),
        ("mimic_ch", "mimic_ch-densenet121"),
        ("all", "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121"),
    ],
)
def test_without_network_the_error_names_file_address_place_and_remedy(weights, start, library, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    entry = library.models.model_urls[WEIGHTS[weights]]
    name = Path(entry["weights_url"]).name
    monkeypatch.setitem(entry, "weights_url", f"http://127.0.0.1:9/{name}")
    place = tmp_path / ".torchxrayvision" / "models_data" / name
    assert name.startswith(start)
    message = rf"{place}, found none, and http://127.0.0.1:9/{name} .*net\.weights_path=.*net\.weights=null"
    with pytest.raises(WeightsError, match=message):
        build_net("xrv_densenet121", 2, weights=weights)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match=r"one of all, rsna, nih, padchest, .*null, got 'imagenet'"):
        build_net("xrv_densenet121", 2, weights="imagenet")


def test_a_path_without_a_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"expected net\.weights to name the set in net\.weights_path, got null"):
        build_net("xrv_densenet121", 2, weights_path=str(tmp_path / "a.pt"))


def test_a_file_of_another_net_is_refused(tmp_path):
    torch.save({"features.conv0.weight": torch.ones(64, 3, 7, 7)}, tmp_path / "a.pt")
    with pytest.raises(
        WeightsError, match=r"of another shape: conv0.weight \(64, 3, 7, 7\) instead of \(64, 1, 7, 7\)"
    ):
        build_net("xrv_densenet121", 2, weights="all", weights_path=str(tmp_path / "a.pt"))


def test_an_absent_library_gives_its_install_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cxr-lab\[xrv\]'"):
        build_net("xrv_densenet121", 2)


def test_importing_the_library_leaves_the_warning_filters_alone(library, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchxrayvision"]:
        monkeypatch.delitem(sys.modules, name)
    before = list(warnings.filters)
    assert xrv._import_torchxrayvision() is not library
    assert warnings.filters == before


@pytest.mark.slow
def test_it_can_learn_eight_images_by_heart():
    torch.manual_seed(0)
    net = build_net("xrv_densenet121", 4)
    images, labels = torch.rand(8, 1, 64, 64) * 2048 - 1024, torch.arange(8) % 4
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
