"""Every recipe of a reference system, and what is recommended beside it, trains on phantoms without any download."""

from pathlib import Path

import pytest

from cxr.training.fit import fit

RECIPES = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "experiment").glob("reference_*.yaml"))
FROM_SCRATCH = {"timm": ["net.pretrained=false"], "xrv_densenet121": ["net.weights=null"], "custom_cnn": []}
SMALL = [
    "data=phantom", "data.scheme=binary", "data.limit=null", "data.view_filter=frontal", "data.batch_size=4",
    "transfer.init_from=null", "transfer.pretrained_upto=null", "logger=none", "debug=fast", "report=false",
]  # fmt: skip
OF_THE_DEMO = ("experiment=", "net.", "preprocess.", "trainer.max_epochs", "data.fractions")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the test part has", "ignore:horizontal_flip", "ignore:vertical_flip")
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_on_phantoms(name, compose_run, tmp_path):
    recipe = [f"experiment={name}", *SMALL]
    net = compose_run(tmp_path, *recipe, without=OF_THE_DEMO).net.name
    size = [] if net == "xrv_densenet121" else ["preprocess.size=[64,64]"]
    config = compose_run(tmp_path, *recipe, *FROM_SCRATCH[net], *size, without=OF_THE_DEMO)
    result = fit(config)
    assert (result.run_dir / "config.yaml").exists()
    assert (result.run_dir / "split.csv").exists()


def test_each_system_has_its_recipes():
    expected = {
        "reference_a_cnn", "reference_a_automl", "reference_b_cnn", "reference_b_ovr", "reference_c_resnet50v2",
        "reference_c_coatnet", "reference_d_vgg16", "reference_d_mobilenet", "reference_m_binary", "reference_m_4class",
    }  # fmt: skip
    assert expected <= set(RECIPES)
