"""What to do about a dataset that is not there. Knows nothing of files."""


def download_remedy(dataset: str) -> str:
    """The end of an error message: how to fetch `dataset`, a name of the download catalogue, and what to do without."""
    return (
        f"download it with `python scripts/download_data.py --dataset {dataset}` and point data.root at its folder; or "
        "run the same recipe on phantoms, without any download: "
        "`python train.py experiment=template data=phantom net=custom_cnn`"
    )
