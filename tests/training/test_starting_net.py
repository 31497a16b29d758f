"""Transfer learning by config: what a run starts from, and what is refused before it starts."""

import json
import math

import pytest
import torch

from cxr.errors import ConfigError, WeightsError
from cxr.inference.bundle import load_net
from cxr.models.build import build_net
from cxr.training.assemble import assemble
from cxr.training.config_rules import check_config
from cxr.training.fit import fit
from cxr.training.starting_net import build_starting_net, check_devices


@pytest.fixture(scope="module")
def source(compose_run, tmp_path_factory):
    """The folder of a finished run in two classes."""
    config = compose_run(
        tmp_path_factory.mktemp("source") / "run", "trainer.max_epochs=1", "callbacks.early_stopping=null"
    )
    return fit(config).run_dir


def start(compose_run, folder, *overrides, without=()):
    return assemble(compose_run(folder / "run", *overrides, without=without)).task.net


def same(net, other, prefix):
    states = [
        {name: one for name, one in each.state_dict().items() if name.startswith(prefix)} for each in (net, other)
    ]
    return states[0] != {} and all(torch.equal(one, states[1][name]) for name, one in states[0].items())


@pytest.mark.parametrize("folder", ["", "bundle"], ids=["run", "bundle"])
def test_a_run_starts_from_another_with_its_head_where_the_classes_are_the_same(
    compose_run, source, tmp_path, caplog, folder
):
    with caplog.at_level("INFO"):
        net = start(compose_run, tmp_path, f"transfer.init_from={source / folder}", "seed=5")
    before = load_net(source / "bundle").net
    assert same(net, before, "backbone.")
    assert same(net, before, "head.")
    told = [record.message for record in caplog.records if "starting from" in record.message]
    assert told == [f"starting from {source / 'bundle'}: its backbone and its head"]


def test_other_classes_have_another_head(compose_run, source, tmp_path, caplog):
    with caplog.at_level("INFO"):
        net = start(compose_run, tmp_path, f"transfer.init_from={source}", "data.scheme=4class")
    before = load_net(source / "bundle")
    assert same(net, before.net, "backbone.")
    assert net.head.output.out_features == 4
    assert (
        f"its backbone; the head starts at random, since its classes are {', '.join(before.class_names)} "
        in caplog.text
    )


def test_another_head_for_the_same_classes_starts_at_random(compose_run, source, tmp_path, caplog):
    with caplog.at_level("INFO"):
        net = start(compose_run, tmp_path, f"transfer.init_from={source}", "net.dense_units=9")
    assert same(net, load_net(source / "bundle").net, "backbone.")
    assert "the head has other layers and starts at random" in caplog.text


def test_weights_after_a_layer_are_drawn_by_the_seed(compose_run, source, tmp_path):
    wish = [f"transfer.init_from={source}", "transfer.pretrained_upto=block2"]
    nets = [start(compose_run, tmp_path, *wish, f"seed={seed}") for seed in (1, 1, 2)]
    before = load_net(source / "bundle").net
    for net in nets:
        assert same(net, before, "backbone.block1.")
        assert same(net, before, "backbone.block2.")
        assert not same(net, before, "backbone.block3.")
        assert not same(net, before, "head.")
    assert same(nets[0], nets[1], "")
    assert not same(nets[0], nets[2], "backbone.block3.")


def test_the_net_s_own_weights_can_be_kept_in_part(compose_run, tmp_path):
    torch.manual_seed(0)
    published = build_net("timm", 2, architecture="test_resnet", in_channels=3).backbone
    torch.save(published.state_dict(), tmp_path / "weights.pt")
    config = compose_run(
        tmp_path / "run", "net=timm", "net.architecture=test_resnet", f"net.weights_path={tmp_path}/weights.pt",
        "preprocess.channels=3", "preprocess.mean=weights", "preprocess.std=weights", "transfer.pretrained_upto=layer2",
        without=("net.",),
    )  # fmt: skip
    experiment = assemble(config)
    kept = {name for name, one in experiment.task.net.backbone.named_parameters()
            if torch.equal(one, published.get_parameter(name)) and one.std() > 0}  # fmt: skip
    weights = {name for name, one in published.named_parameters() if one.std() > 0}
    assert kept == {name for name in weights if not name.startswith(("layer3", "layer4"))}
    assert experiment.preprocess.mean is not None


def test_what_the_weights_expect_of_images_comes_with_them(compose_run, source, tmp_path):
    description = json.loads((source / "bundle" / "bundle.json").read_text())
    for key in ("input_contract", "preprocess"):
        description[key] |= {"mean": [0.25], "std": [0.5]}
    copy = tmp_path / "bundle"
    copy.mkdir()
    (copy / "bundle.json").write_text(json.dumps(description))
    (copy / "model.safetensors").write_bytes((source / "bundle" / "model.safetensors").read_bytes())
    config = compose_run(
        tmp_path / "run", f"transfer.init_from={copy}", "preprocess.mean=weights", "preprocess.std=weights"
    )
    assert assemble(config).preprocess.mean == (0.25,)
    with pytest.raises(
        ConfigError, match=r"custom_cnn expects mean=\[0.25\], std=\[0.5\], but the preprocessing gives"
    ):
        start(compose_run, tmp_path, f"transfer.init_from={copy}")


def test_another_normaliser_is_told(compose_run, source, tmp_path, caplog):
    config = compose_run(tmp_path / "run", f"transfer.init_from={source}", "preprocess.normalizer=clahe")
    build_starting_net(config, ["normal", "abnormal"])
    assert "the weights are used to preprocess.normalizer=minmax, this run has clahe" in caplog.text


def test_a_frozen_encoder_is_counted_and_stays_as_it_was(compose_run, source, tmp_path):
    wish = [f"transfer.init_from={source}", "transfer.freeze_upto=backbone", "data.scheme=4class"]
    config = compose_run(tmp_path / "run", *wish, "logger=csv", "trainer.max_epochs=1")
    run = fit(config).run_dir
    after, before = load_net(run / "bundle").net, load_net(source / "bundle").net
    assert same(after, before, "backbone.")
    counted = next(run.rglob("hparams.yaml")).read_text()
    assert f"frozen: {sum(one.numel() for one in before.backbone.parameters())}" in counted


def test_the_stages_that_join_in_are_told_in_their_order(compose_run, tmp_path, caplog):
    with caplog.at_level("INFO"):
        start(compose_run, tmp_path, "transfer.freeze_upto=block1", "transfer.unfreeze_every=2")
    assert "stages that join in, one more every 2 epochs: head, block4, block3, block2" in caplog.text


def test_a_run_is_continued_with_the_transfer_that_it_was_started_with(compose_run, source, tmp_path):
    wish = ["transfer.unfreeze_every=1", f"transfer.init_from={source}"]
    last = fit(compose_run(tmp_path / "run", *wish, "trainer.max_epochs=1")).run_dir / "checkpoints" / "last.ckpt"
    longer = ["trainer.max_epochs=2", f"ckpt_path={last}"]
    with pytest.raises(ConfigError, match=r"transfer.unfreeze_every was 1 and is 2"):
        start(compose_run, tmp_path, wish[1], "transfer.unfreeze_every=2", *longer)
    fit(compose_run(tmp_path / "run", *wish, *longer))
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3


def test_everything_at_once_trains(compose_run, source, tmp_path):
    config = compose_run(tmp_path / "run", f"transfer.init_from={source}", "transfer.pretrained_upto=block3",
                         "transfer.freeze_upto=block1", "transfer.unfreeze_every=1", "transfer.layer_decay=0.4",
                         "scheduler=one_cycle", "test=false")  # fmt: skip
    after, before = load_net(fit(config).run_dir / "bundle").net, load_net(source / "bundle").net
    assert same(after, before, "backbone.block1.")
    assert not same(after, before, "backbone.block4.")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["transfer.pretrained_upto=block2"], ConfigError, "expected loaded weights with transfer.pretrained"),
        (["transfer.freeze_upto=blok1"], ConfigError, "transfer.freeze_upto to name a layer .*near it are block1"),
        (["transfer.init_from=nowhere"], WeightsError, "expected a bundle with nowhere/bundle.json, found none"),
        (["transfer.init_from=SOURCE", "net.filters_2=5"], WeightsError,
         r"the backbone of .* of another shape: block2.convolution.weight \(4, 4, 3, 3\) instead of \(5, 4, 3, 3\)"),
        (["transfer.init_from=SOURCE", "transfer.pretrained_upto=blok2"], ConfigError,
         "transfer.pretrained_upto to name a layer .*near it are block2"),
        (["transfer.unfreeze_every=1", "trainer=ddp_sim"], ConfigError,
         "expected one device with transfer.unfreeze_every, got 2; set trainer.devices=1, or use transfer.layer_decay"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_before_training(compose_run, source, tmp_path, overrides, error, message):
    with pytest.raises(error, match=message):
        start(compose_run, tmp_path, *(line.replace("SOURCE", str(source)) for line in overrides))


def test_several_devices_may_have_frozen_layers(compose_run, tmp_path):
    check_devices(compose_run(tmp_path / "run", "transfer.freeze_upto=block1"), 2)
    check_devices(compose_run(tmp_path / "run", "transfer.unfreeze_every=1"), 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("transfer.unfreeze_every=0", "transfer.unfreeze_every must be null or a whole number >= 1, but got 0"),
        ("transfer.layer_decay=0", "transfer.layer_decay must be null or a number above 0 and up to 1, but got 0"),
        ("transfer.layer_decay=1.5", "transfer.layer_decay must be null or a number above 0 and up to 1, but got 1.5"),
        ("transfer.freeze_upto=3", "transfer.freeze_upto must be null or a text, but got 3"),
        ("transfer.pretrained_upto=[a]", "transfer.pretrained_upto must be null or a text"),
        ("transfer.init_from=5", "transfer.init_from must be null or a text, but got 5"),
    ],
)
def test_values_that_cannot_be_are_told(compose_run, tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        check_config(compose_run(tmp_path / "run", override))


NETS = {
    "vgg16": ["net.architecture=vgg11"],
    "mobilenet": ["net.architecture=mobilenetv3_small_050", "net.drop_path_rate=0.1"],
    "resnetv2_50": [],
    "coatnet": ["net.architecture=coatnet_pico_rw_224", "net.drop_path_rate=0.1"],
    "efficientnet": ["net.drop_path_rate=0.1"],
    "convnext": ["net.architecture=convnext_atto", "net.drop_path_rate=0.1"],
    "rad_dino": ["preprocess.size=[28,28]", "preprocess.mean=null", "preprocess.std=null"],
}


def test_the_optimiser_has_the_rate_of_each_stage(compose_run, tmp_path):
    words = ["transfer.layer_decay=0.5", "transfer.freeze_upto=block1", "scheduler=none", "optimizer.lr=0.008"]
    task = assemble(compose_run(tmp_path / "run", *words)).task
    groups = task.configure_optimizers().param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.008, 0.004, 0.002, 0.001])
    of_head = {id(one) for one in task.net.head.parameters()}
    assert {id(one) for one in groups[0]["params"]} == of_head


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_every_net_trains(compose_run, tmp_path, net):
    config = compose_run(tmp_path / "run", f"net={net}", "net.pretrained=false", "debug=fast", *NETS[net],
                         without=("net.",))  # fmt: skip
    assert math.isnan(fit(config).best_score)  # debug=fast evaluates nothing


HEADS = {"resnetv2_50": (128, 0.0), "coatnet": (128, 0.2), "vgg16": (None, 0.0), "efficientnet": (None, 0.0)}


@pytest.fixture
def choose(compose_run, tmp_path):
    """The config of a net with the preprocessing that it chooses."""

    def chosen(*overrides):
        return compose_run(tmp_path / "run", "data=phantom", *overrides,
                           without=("net.", "preprocess.", "experiment=", "data."))  # fmt: skip

    return chosen


@pytest.mark.parametrize("net", HEADS)
def test_the_heads_of_the_reference_systems(choose, net):
    config = choose(f"net={net}")
    assert (config.net.head.hidden, config.net.head.dropout, config.net.head.activation) == (*HEADS[net], "relu")
    assert config.net.pretrained
    assert (config.preprocess.mean, config.preprocess.std) == ("weights", "weights")


def test_the_encoder_of_chest_films_is_fixed_unless_the_user_says_otherwise(choose):
    config = choose("net=rad_dino")
    assert config.transfer.freeze_upto == "backbone"
    assert config.net.img_size == config.preprocess.size == [518, 518]
    assert set(choose("net=rad_dino", "transfer.freeze_upto=null").transfer.values()) == {None}


def test_without_its_weights_file_the_encoder_is_refused(compose_run, tmp_path):
    with pytest.raises(WeightsError, match=r"expected the weights of RAD-DINO, got net.weights_path=null; download"):
        start(compose_run, tmp_path, "net=rad_dino", without=("net.",))
