"""Every config composes, alone and as users combine them, and every key it names exists where it is used."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import OmegaConf

from cxr.data.download.catalogue import DATASETS
from cxr.data.readers.merge import FOR_ALL
from cxr.data.samples import make_samples
from cxr.entry import prepare_environment
from cxr.errors import ConfigError
from cxr.training.building import build
from cxr.training.config_rules import RULES, check_config

CONFIGS = Path(__file__).parents[1] / "configs"
OWN = {"hydra", "paths", "hparams_search", "plan"}
OPTIONS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(CONFIGS.glob("*/*.yaml"))
    if not path.stem.startswith("_") and path.parent.name not in OWN
]
NEEDS = {
    "net=timm": ["net.architecture=resnet18"],
    "data=image_folder": ["data.root=somewhere"],
    "data=table": ["data.path=somewhere"],
    "data=npz": ["data.path=somewhere"],
    "data=merge": ["+data@data.sources.children=chest_xray", "+data@data.sources.mixed=covidx"],
}
RUNTIME = ["hydra.runtime.output_dir=somewhere"]


def composed(*overrides):
    prepare_environment()
    with initialize_config_dir(str(CONFIGS)):
        config = compose("train", overrides=["paths.output_dir=somewhere", "run_name=name", *overrides])
    OmegaConf.resolve(config)
    return config


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_keeps_the_rules(option):
    config = composed(option, *NEEDS.get(option, []))
    check_config(config)
    assert OmegaConf.missing_keys(config) == set()


@pytest.mark.parametrize("net", ["custom_cnn", "xrv_densenet121", "densenet121"])
@pytest.mark.parametrize("experiment", ["template", "demo", "chest_xray"])
def test_every_experiment_takes_every_net(experiment, net):
    config = composed(f"experiment={experiment}", f"net={net}")
    assert config.net.name in {"custom_cnn", "xrv_densenet121", "torchvision_densenet"}


def test_a_net_chooses_its_preprocessing_unless_the_user_does():
    assert composed("experiment=demo", "net=custom_cnn").preprocess.size == [96, 96]
    assert composed("experiment=template").preprocess.low == -1024
    assert composed("experiment=template", "net=custom_cnn").preprocess.low == 0
    assert composed("experiment=template", "preprocess=unit_256").preprocess.size == [256, 256]


def test_a_bare_call_is_the_template():
    assert composed() == composed("experiment=template")


def test_the_template_is_the_reference_default():
    config = composed()
    assert (config.net.name, config.net.weights, config.net.drop_rate) == ("xrv_densenet121", "all", 0.0)
    assert config.optimizer._target_ == "torch.optim.Adam"
    assert (config.optimizer.lr, config.optimizer.amsgrad) == (0.003, True)
    assert (config.data.batch_size, config.data.limit, config.data.fractions) == (32, 640, [0.6, 0.2, 0.2])
    assert config.sampler.balance_all
    assert config.trainer.max_epochs == 20
    assert "early_stopping" in config.callbacks
    assert config.preprocess.normalizer == "minmax"
    assert config.data.scheme == "binary"
    assert set(config.augment.values()) == {0.0}


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.startswith(("net=", "experiment="))])
def test_only_recipes_that_replay_a_reference_flip_images(option):
    config = composed(option, *NEEDS.get(option, []))
    flips = (config.augment.horizontal_flip, config.augment.vertical_flip)
    assert flips == (0.0, 0.0) or "reference_m" in option


def targets(node, path=""):
    """(path, node) of every node with a target."""
    if OmegaConf.is_dict(node):
        if node.get("_target_") is not None:
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))


@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in ("logger=comet", "logger=neptune")])
def test_every_target_takes_the_arguments_it_is_given(option):
    for path, node in targets(composed(option, *NEEDS.get(option, []))):
        parameters = inspect.signature(get_object(node._target_)).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            continue
        unknown = {key for key in node if not str(key).startswith("_")} - parameters.keys()
        assert unknown == set(), path


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_is_looked_for_where_the_download_puts_it(name):
    assert composed(f"data={name}", "paths.data_dir=there").data.root == f"there/{DATASETS[name].folder}"


@pytest.mark.parametrize(("scheme", "names"), [
    ("2class", ["normal", "covid"]),
    ("3class", ["normal", "viral_pneumonia", "covid"]),
    ("4class", ["normal", "viral_pneumonia", "lung_opacity", "covid"]),
])  # fmt: skip
def test_schemes_of_the_radiography_database(scheme, names):
    classes = composed("data=radiography", f"data.scheme={scheme}").data.classes
    assert set(classes) == {"Normal", "COVID", "Lung_Opacity", "Viral Pneumonia"}
    assert [name for name in classes.values() if name is not None] == names


def test_merged_datasets_keep_their_own_settings():
    merged = composed(
        "data=merge", "+data@data.sources.a=chest_xray", "+data@data.sources.b=chest_xray",
        "data.sources.b.root=elsewhere", "data.sources.b.scheme=3class", "paths.data_dir=there",
    ).data  # fmt: skip
    assert [source.reader.root for source in merged.reader.sources.values()] == ["there/chest_xray", "elsewhere"]
    assert merged.reader.sources.a.classes == {"normal": "normal", "bacteria": "pneumonia", "virus": "pneumonia"}
    assert merged.reader.sources.b.classes.virus == "virus"


def test_no_dataset_has_a_setting_that_a_merge_refuses():
    for option in (option for option in OPTIONS if option.startswith("data=") and option != "data=merge"):
        data = composed(option, *NEEDS.get(option, []), "data.limit=null").data
        assert {key: data[key] for key in FOR_ALL} == FOR_ALL


def test_merged_datasets_are_read_from_the_config_and_their_readers_are_checked(tmp_path):
    for name, classes in (("one", "ab"), ("two", "bc")):
        for finding in classes:
            (tmp_path / name / finding).mkdir(parents=True)
            (tmp_path / name / finding / "1.png").write_bytes(b"not read by the reader")
    lines = [f"+data@data.sources.{name}=image_folder" for name in ("one", "two")]
    lines += [f"data.sources.{name}.root={tmp_path / name}" for name in ("one", "two")]
    lines.append("data.sources.two.classes={b: a, c: c}")
    samples = build(composed("data=merge", *lines).data.reader, "data.reader")()
    assert dict(zip(samples["sample_id"], samples["finding"], strict=True)) == {
        "one/a/1": "a", "one/b/1": "b", "two/b/1": "a", "two/c/1": "c",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="the config group data.reader cannot be built: .*os.system"):
        build(composed("data=merge", *lines, "data.sources.one.reader._target_=os.system").data.reader, "data.reader")


def test_merged_datasets_may_have_different_targets(tmp_path):
    for name in ("NORMAL/IM-1-1.jpeg", "PNEUMONIA/person1_virus_6.jpeg"):
        (tmp_path / "train" / name).parent.mkdir(parents=True)
        (tmp_path / "train" / name).write_bytes(b"not read by the reader")
    (tmp_path / "table.csv").write_text("file,edema\n1.png,1\n2.png,0\n")
    reader = composed(
        "data=merge", "+data@data.sources.children=chest_xray", f"data.sources.children.root={tmp_path}",
        "data.sources.children.classes=null",
        "+data.sources.children.finding_targets={normal: [], bacteria: [pneumonia], virus: [pneumonia]}",
        "+data@data.sources.own=table", f"data.sources.own.path={tmp_path}/table.csv",
        "data.sources.own.columns.image_path=file", "data.sources.own.targets=[edema]",
    ).data.reader  # fmt: skip
    samples, class_names = make_samples(build(reader, "data.reader")(), None)
    assert class_names == ["pneumonia", "edema"]
    assert samples["target_pneumonia"].fillna(-1).tolist() == [0, 1, -1, -1]
    assert samples["target_edema"].fillna(-1).tolist() == [-1, -1, 1, 0]


def data_commands():
    """The words of each training command in data/README.md."""
    text = (CONFIGS.parent / "data" / "README.md").read_text().replace("\\\n", "")
    return [line.split()[2:] for line in text.splitlines() if line.strip().startswith("python train.py")]


@pytest.mark.parametrize("words", data_commands(), ids=" ".join)
def test_the_commands_of_the_data_readme_take_no_more_images_than_there_are(words):
    config = composed(*words)
    check_config(config)
    if "data=covid19" in words:
        assert config.data.limit is None
        assert not config.sampler.balance_all


def test_an_unknown_key_is_refused():
    with pytest.raises(ConfigCompositionException, match="Could not override 'optimizer.lrr'"):
        composed("optimizer.lrr=1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed must be a whole number >= 0, but got -1"),
        ("trainer.max_epochs=many", "trainer.max_epochs must be a whole number >= 1, but got 'many'"),
        ("monitor.mode=best", "monitor.mode must be one of max, min, but got 'best'"),
        ("data.batch_size=0", "data.batch_size must be a whole number >= 1, but got 0"),
        ("optimizer.lr=0", "optimizer.lr must be a number > 0, but got 0"),
        ("test=maybe", "test must be true or false, but got 'maybe'"),
        ("data.root=5", "data.root must be null or a text, but got 5"),
        ("data.limit=10.5", "data.limit must be null or a whole number >= 1, but got 10.5"),
        ("data.limit=abc", "data.limit must be null or a whole number >= 1, but got 'abc'"),
        ("ckpt_path=3", "ckpt_path must be null or a text, but got 3"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(override, message):
    with pytest.raises(ConfigError, match=message):
        check_config(composed(override))


def test_images_on_the_device_and_loader_processes_do_not_go_together():
    with pytest.raises(ConfigError, match="num_workers must be 0 with data.device_cache=true.*, but got 2; set it"):
        check_config(composed("data.device_cache=true", "data.num_workers=2"))
    check_config(composed("data.num_workers=2"))


def test_every_rule_names_a_key_that_exists():
    config = composed()
    for key in RULES:
        parent, _, leaf = key.rpartition(".")
        assert leaf in (OmegaConf.select(config, parent) if parent else config), key
