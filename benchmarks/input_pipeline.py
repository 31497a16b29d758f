"""How fast images reach a net, beside three other ways: python benchmarks/input_pipeline.py

One table in one run, all on the same synthetic 12-bit radiographs of 2336 x 2836 pixels, to batches of float32 images
of 224 x 224 on the CPU. Each row is a process of its own, one after the other, so that the peak memory is its own.

- cold: the first epoch, in which every file is decoded; warm: an epoch after it.
- this project: its cache, its loader, its batch transform. Warm epochs run over a cache of many more images, so that
  they do not come from the processor's caches; the line below them is with augmentation.
- torchxrayvision: its DICOM reader, centre crop and resizer in a torch Dataset.
- MONAI: PersistentDataset with LoadImage, Resize and ScaleIntensity.
- plain: a torch Dataset that reads, scales and resizes each file in each epoch.

The others get one loader process per core, kept from epoch to epoch; this project needs none. The last lines say how
long a training step of the custom CNN waits for its batch, and where the time of decoding goes.
"""

import argparse
import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
import torch
from pydicom.dataset import Dataset as DicomDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from cxr.data.augment import AffineAugment
from cxr.data.cache import ImageCache
from cxr.data.decoding import decode_file
from cxr.errors import require_extra
from cxr.imaging.preprocess import Preprocess
from cxr.models.build import build_net
from cxr.training.datamodule import ChestDataModule

ROWS, COLUMNS, SIZE = 2836, 2336, 224
PREPROCESS = Preprocess(size=(SIZE, SIZE), normalizer="minmax")
AUGMENT = {"rotation": 10.0, "scale": 0.1, "translate": 0.05}
ENCODINGS = ("jpeg2000", "uncompressed")
PIPELINES = ("this project", "torchxrayvision", "MONAI", "plain")
CODEC_AND_RESAMPLER = ("Bitmap_GetBuffer", "method 'encode'", "resize", "method 'read'")  # gdcm, OpenCV, the file
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def main() -> None:
    """Make the files, measure every row in a process of its own, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=16, help="radiographs of each encoding")
    parser.add_argument("--warm-images", type=int, default=4000, help="images in the cache of the warm epochs")
    parser.add_argument("--batch", type=int, default=32, help="images per batch")
    arguments = parser.parse_args()
    require_extra("monai", "bench")
    with tempfile.TemporaryDirectory() as folder:
        for encoding in ENCODINGS:
            write_radiographs(Path(folder) / encoding, arguments.files, encoding)
        print_table({e: {name: run_row(name, folder, e, arguments) for name in PIPELINES} for e in ENCODINGS})
        print_wait(run_row("wait", folder, "uncompressed", arguments))
        print_profile({e: run_row("profile", folder, e, arguments) for e in ENCODINGS})


def run_row(name: str, folder: str, encoding: str, arguments: argparse.Namespace) -> dict[str, float]:
    """The numbers of one row, measured in a process of its own.

    That process runs a line of code and not this file, which every process that decodes would import again.
    """
    line = f"import input_pipeline; input_pipeline.measure({name!r}, {folder!r}, {encoding!r}, {vars(arguments)!r})"
    command = [sys.executable, "-c", line]
    done = subprocess.run(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(name: str, folder: str, encoding: str, options: dict[str, int]) -> None:
    """Measure one row and print it as JSON."""
    numbers = MEASUREMENTS[name](Path(folder), encoding, argparse.Namespace(**options))
    print(json.dumps(numbers | {"memory_mb": peak_memory_mb()}))


def print_table(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Images per second and peak memory, and how many times the plain way each warm epoch is."""
    table = Table(title=f"images/s on {CORES} cores, load average {os.getloadavg()[0]:.1f}", title_justify="left")
    for column in ("files", "pipeline", "cold", "warm", "warm / plain", "warm, augmented", "peak MB"):
        table.add_column(column, justify="left" if column in ("files", "pipeline") else "right")
    for encoding, rows in results.items():
        for name, row in rows.items():
            augmented = f"{row['augmented']:,.0f}" if "augmented" in row else ""
            ratio = row["warm"] / rows["plain"]["warm"]
            table.add_row(encoding, name, f"{row['cold']:,.2f}", f"{row['warm']:,.2f}", f"{ratio:,.1f}", augmented,
                          f"{row['memory_mb']:,.0f}")  # fmt: skip
    Console(width=120).print(table)


def print_wait(row: dict[str, float]) -> None:
    """How long a training step waits for its batch."""
    print(
        f"custom CNN at {SIZE} px: {row['step_ms']:.1f} ms a step, of which {row['wait_ms']:.2f} ms "
        f"({row['wait_ms'] / row['step_ms']:.1%}) wait for the batch"
    )


def print_profile(results: dict[str, dict[str, float]]) -> None:
    """Where the time of decoding goes."""
    for encoding, row in results.items():
        share = f"{row['share']:.1%} of them in the codec, the resampler and reading the file"
        print(f"decoding {encoding}: {row['file_ms']:.0f} ms a file, {share}")


def write_radiographs(folder: Path, count: int, encoding: str) -> None:
    """Smooth random films with grain as DICOM files; nothing in them looks like a chest."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(count):
        smooth = cv2.resize(draws.random((36, 30)).astype(np.float32), (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC)
        film = np.clip(smooth * 3600 + draws.normal(200, 12, smooth.shape), 0, 4095).astype(np.uint16)
        write_dicom(film, folder / f"{number}.dcm", encoding)


def write_dicom(film: np.ndarray, path: Path, encoding: str) -> None:
    """One DX file, (ROWS, COLUMNS) of 12 bits."""
    file = DicomDataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = JPEG2000Lossless if encoding == "jpeg2000" else ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    file.Modality, file.PhotometricInterpretation, file.SamplesPerPixel = "DX", "MONOCHROME2", 1
    file.Rows, file.Columns = film.shape
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.WindowCenter, file.WindowWidth = 2048, 4096
    file.PixelData = encapsulate([to_jpeg2000(film)]) if encoding == "jpeg2000" else film.tobytes()
    file["PixelData"].VR = "OB" if encoding == "jpeg2000" else "OW"
    file["PixelData"].is_undefined_length = encoding == "jpeg2000"
    file.save_as(path, enforce_file_format=True)


def to_jpeg2000(film: np.ndarray) -> bytes:
    """A lossless codestream."""
    import openjpeg

    encoded = openjpeg.encode_pixel_data(
        film.tobytes(), rows=film.shape[0], columns=film.shape[1], samples_per_pixel=1, bits_stored=12,
        pixel_representation=0, photometric_interpretation="MONOCHROME2",
    )  # fmt: skip
    return bytes(encoded)


def find_files(folder: Path, encoding: str) -> list[str]:
    """The radiographs of one encoding."""
    return sorted(str(path) for path in (folder / encoding).iterdir())


def time_epoch(batches: Iterable[Any]) -> float:
    """Images per second of one epoch."""
    started = time.perf_counter()
    count = sum(len(batch) for batch in batches)
    return count / (time.perf_counter() - started)


def peak_memory_mb() -> float:
    """Largest memory of this process and of its largest child together."""
    kilobytes = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return kilobytes / 1e3


def measure_this_project(folder: Path, encoding: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Decode into a new cache and read it once; then warm epochs over a larger cache."""
    paths = find_files(folder, encoding)
    images = ImageCache(Path(tempfile.mkdtemp(dir=folder)), PREPROCESS, workers=CORES)
    started = time.perf_counter()
    images.build(paths, paths)
    count = sum(len(batch) for batch in epoch(make_data(images, paths, arguments.batch, None)))
    cold = count / (time.perf_counter() - started)
    many, names = make_warm_cache(folder, arguments.warm_images)
    rates = {"cold": cold}
    for name, augment in (("warm", None), ("augmented", AffineAugment(**AUGMENT, seed=0))):
        data = make_data(many, names, arguments.batch, augment)
        time_epoch(epoch(data))
        rates[name] = time_epoch(epoch(data))
    return rates


def make_warm_cache(folder: Path, count: int) -> tuple[ImageCache, list[str]]:
    """A cache of `count` different images, made from small files to save time."""
    source = Path(tempfile.mkdtemp(dir=folder))
    draws = np.random.default_rng(0)
    names = [str(source / f"{number}.png") for number in range(count)]
    for name in names:
        cv2.imwrite(name, cv2.resize(draws.integers(0, 256, (8, 8), dtype=np.uint8), (SIZE, SIZE)))
    cache = ImageCache(source / "cache", PREPROCESS, workers=CORES)
    cache.build(names, names)
    return cache, names


def make_data(images: ImageCache, paths: list[str], batch: int, augment: AffineAugment | None) -> ChestDataModule:
    """The datamodule of training, over these images; augments as in training when `augment` is given."""
    table = pd.DataFrame({"image_path": paths, "content_hash": paths, "label": 0, "split": "train"})
    identity = AffineAugment(seed=0) if augment is None else augment
    data = ChestDataModule(table, images, PREPROCESS, identity, "none", batch, 0, seed=0)
    data.setup("fit")
    return data


def epoch(data: ChestDataModule) -> Iterable[torch.Tensor]:
    """Finished images batch by batch, as the training step gets them."""
    for batch in data.train_dataloader():
        yield data.transform(batch["image"], batch["key"], 0, training=True)


class Files(Dataset[Any]):
    """Files read one by one by a function."""

    def __init__(self, paths: list[str], read: Callable[[str], Any]) -> None:
        self.paths = paths
        self.read = read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        return self.read(self.paths[row])


def time_two_epochs(dataset: Dataset[Any], batch: int) -> dict[str, float]:
    """Cold and warm epoch of a map-style dataset; the processes are there before the clock starts for neither."""
    loader = DataLoader(dataset, batch_size=batch, num_workers=CORES, persistent_workers=True)
    return {"cold": time_epoch(loader), "warm": time_epoch(loader)}


def measure_plain(folder: Path, encoding: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Every file decoded in every epoch."""
    return time_two_epochs(Files(find_files(folder, encoding), read_plain), fair_batch(arguments))


def read_plain(path: str) -> torch.Tensor:
    """Pixels scaled to their range, resized, as a tensor (1, SIZE, SIZE)."""
    pixels = pydicom.dcmread(path).pixel_array.astype(np.float32)
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    return torch.from_numpy(cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA))[None]


def measure_torchxrayvision(folder: Path, encoding: str, arguments: argparse.Namespace) -> dict[str, float]:
    """torchxrayvision's DICOM reader and transforms."""
    return time_two_epochs(Files(find_files(folder, encoding), read_torchxrayvision), fair_batch(arguments))


def read_torchxrayvision(path: str) -> torch.Tensor:
    """As its documentation reads a DICOM file: (1, SIZE, SIZE) in [-1024, 1024]."""
    import torchxrayvision as xrv

    pixels = xrv.utils.read_xray_dcm(path)[None]
    return torch.from_numpy(xrv.datasets.XRayResizer(SIZE)(xrv.datasets.XRayCenterCrop()(pixels)))


def measure_monai(folder: Path, encoding: str, arguments: argparse.Namespace) -> dict[str, float]:
    """MONAI's PersistentDataset."""
    from monai.data import PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize, ScaleIntensity

    steps = [LoadImage("PydicomReader", image_only=True), EnsureChannelFirst(), Resize((SIZE, SIZE)), ScaleIntensity()]
    cache = tempfile.mkdtemp(dir=folder)
    dataset = PersistentDataset(find_files(folder, encoding), Compose(steps), cache_dir=cache)
    return time_two_epochs(dataset, fair_batch(arguments))


def fair_batch(arguments: argparse.Namespace) -> int:
    """A batch size that gives every loader process work."""
    return max(1, min(arguments.batch, arguments.files // CORES))


def measure_wait(folder: Path, encoding: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a training step of the custom CNN, and of these the wait for its batch."""
    del encoding
    images, names = make_warm_cache(folder, 20 * arguments.batch)
    net = build_net("custom_cnn", 2).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.train().parameters())
    data = make_data(images, names, arguments.batch, None)
    waits, steps = [], []
    batches, ended = iter(epoch(data)), time.perf_counter()
    for image in batches:
        fetched = time.perf_counter()
        optimizer.zero_grad()
        target = torch.arange(len(image)) % 2
        logits = net(image.contiguous(memory_format=torch.channels_last))
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits, target))
        optimizer.step()
        waits.append(fetched - ended)
        steps.append(time.perf_counter() - ended)
        ended = time.perf_counter()
    return {"wait_ms": 1e3 * float(np.median(waits[2:])), "step_ms": 1e3 * float(np.median(steps[2:]))}


def measure_profile(folder: Path, encoding: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Share of decoding spent in compiled codec, resampler and file reading, by the profiler, in one process."""
    del arguments
    paths = find_files(folder, encoding)
    decode_file(paths[0], PREPROCESS)
    with cProfile.Profile() as profile:
        for path in paths:
            decode_file(path, PREPROCESS)
    spent = {name: entry[2] for (_, _, name), entry in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    inside = sum(seconds for name, seconds in spent.items() if any(word in name for word in CODEC_AND_RESAMPLER))
    return {"share": inside / sum(spent.values()), "file_ms": 1e3 * sum(spent.values()) / len(paths)}


MEASUREMENTS = {
    "this project": measure_this_project,
    "torchxrayvision": measure_torchxrayvision,
    "MONAI": measure_monai,
    "plain": measure_plain,
    "wait": measure_wait,
    "profile": measure_profile,
}


if __name__ == "__main__":
    main()
