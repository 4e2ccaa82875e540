"""The standard library as a TFDS dataset: splits `train` and `validation`, in array_record.

Importing this module imports TFDS (not TensorFlow), which takes a second: only a build does.
"""

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from data import cache, python_stdlib

NAME = "python_stdlib"
VERSION = "1.0.0"


class PythonStdlib(tfds.core.GeneratorBasedBuilder):
    """One document a file: {"id": path, "text": source}."""

    name = NAME
    VERSION = tfds.core.Version(VERSION)

    def __init__(self, files: python_stdlib.Files, **kwargs: Any) -> None:
        self._files = files
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                f"The standard library of Python {self._files.python}, without its tests "
                f"({self._files.undecodable} files left out that are not UTF-8)."
            ),
            features=tfds.features.FeaturesDict(
                {"id": tfds.features.Text(), "text": tfds.features.Text()}
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        held_out = python_stdlib.held_out(self._files.texts)
        names = set(self._files.texts)
        return {
            "train": self._generate_examples(names - held_out),
            "validation": self._generate_examples(held_out),
        }

    def _generate_examples(self, names: set[str]) -> Iterator[tuple[str, dict[str, str]]]:
        for name in sorted(names):
            yield name, {"id": name, "text": self._files.texts[name]}


def build(files: python_stdlib.Files, data_dir: Path) -> None:
    """Builds the dataset and publishes it as the TFDS data_dir `data_dir`, whole or not at all."""
    with cache.publish(data_dir) as building, _quiet():
        builder = PythonStdlib(
            files, data_dir=str(building), file_format=tfds.core.FileFormat.ARRAY_RECORD
        )
        offline = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_config=offline)
        shutil.rmtree(building / "downloads", ignore_errors=True)  # TFDS makes it, empty


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS's progress bars, banners and notices off the terminal."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        tfds.enable_progress_bar()
