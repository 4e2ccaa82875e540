"""A cache of its own for every test, and small real datasets."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data import building, cache
from data.config import DataConfig
from data.preparation import Prepared, prepare
from data.store import TokenStore
from data.tokenizer import ByteTokenizer, Tokenizer
from tests.data.shards import Texts


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("PODIUM_CACHE", str(path))
    return path


@pytest.fixture
def build_store(tmp_path: Path) -> Callable[..., TokenStore]:
    """build_store(["text", ...]) -> a token store of those documents, by default in bytes."""

    def build(texts: Sequence[str], tokenizer: Tokenizer | None = None) -> TokenStore:
        tokenizer = tokenizer or ByteTokenizer()
        path = tmp_path / "stores" / cache.key(v=tokenizer.vocab_size, texts="\0".join(texts))
        if path.is_dir():
            return TokenStore(path)
        return building.build(path, [Texts(texts)], tokenizer, {"split": "train"})

    return build


@pytest.fixture(scope="session")
def stdlib(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Prepared]]:
    """The default dataset, prepared once: (its cache, what `prepare` returned)."""
    path = tmp_path_factory.mktemp("stdlib_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PODIUM_CACHE", str(path))
        yield path, prepare(DataConfig(source="python_stdlib", sequence_length=256))


class Poems(tfds.core.GeneratorBasedBuilder):
    """A TFDS text dataset as a user would have one."""

    name = "poems"
    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="short"),)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"text": tfds.features.Text(), "lines": tfds.features.Scalar(np.int32)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: object) -> dict[str, object]:
        return {"train": self._generate_examples(40), "validation": self._generate_examples(8)}

    def _generate_examples(self, n: int) -> Iterator[tuple[int, dict[str, object]]]:
        for i in range(n):
            yield i, {"text": f"{n} roses, né {i}\n" * (i % 5 + 1), "lines": i % 5 + 1}


@pytest.fixture(scope="session")
def poems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data_dir of a prepared "tfds:poems/short"."""
    data_dir = tmp_path_factory.mktemp("tfds_data_dir")
    tfds.disable_progress_bar()
    Poems(
        data_dir=str(data_dir), config="short", file_format=tfds.core.FileFormat.ARRAY_RECORD
    ).download_and_prepare()
    return data_dir
