"""One split of a dataset as a random-access sequence of documents.

Reading goes through TFDS's `as_data_source` over array_record files, which needs no TensorFlow.
"""

from collections.abc import Sequence
from typing import Any, TypedDict, overload

from data.config import DataConfig
from data.source import Source
from errors import UserError


class Document(TypedDict):
    """A text and the name it has in its dataset."""

    id: str
    text: str


class Documents(Sequence[Document]):
    """The documents of a split, in the dataset's own order. Threads may read it together."""

    def __init__(
        self, records: Any, where: str, split: str, text_key: str, id_key: str | None
    ) -> None:
        self._records = records
        self._where = where
        self._split = split
        self._text_key = text_key
        self._id_key = id_key

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        try:
            record = self._records[index]
            name = _text(record[self._id_key]) if self._id_key else f"{self._split}:{index}"
            return {"id": name, "text": _text(record[self._text_key])}
        except Exception as error:  # whatever the reader of the file format raises
            raise UserError(
                f"document {index} of split {self._split!r} of {self._where} cannot be read as "
                f"text ({_line(error)}): prepare the dataset again"
            ) from error


def open_documents(config: DataConfig, source: Source, split: str) -> Documents:
    """Opens a split, building the dataset first if it is the standard library.

    A document's id is the feature "id" where there is one, else "split:index".

    Raises:
      UserError: the data cannot be read as text; one line says why and what to do.
    """
    if source.stdlib and not source.directory.is_dir():
        from data import python_stdlib_builder

        python_stdlib_builder.build(source.stdlib, source.directory.parent.parent)

    import tensorflow_datasets as tfds

    where = f"{source.name} in {source.directory}"
    try:
        builder = tfds.builder_from_directory(str(source.directory))
        available = sorted(f.value for f in builder.info.available_file_formats())
    except Exception as error:
        raise UserError(
            f"{where} is not a readable TFDS dataset ({_line(error)}): delete it and prepare it "
            "again"
        ) from error
    if "array_record" not in available:
        raise UserError(
            f"{where} is prepared as {', '.join(available)}: prepare it with "
            "--file_format=array_record, or convert it (docs/data.md)"
        )
    features = builder.info.features
    if config.text_key not in features:
        raise UserError(
            f"{source.name} has no feature {config.text_key!r}: set data.text_key to one of "
            + ", ".join(sorted(features))
        )
    if not isinstance(features[config.text_key], tfds.features.Text):
        raise UserError(
            f"feature {config.text_key!r} of {source.name} is not text: set data.text_key to one "
            "of "
            + ", ".join(sorted(k for k in features if isinstance(features[k], tfds.features.Text)))
        )
    try:
        records = builder.as_data_source(split=split, file_format="array_record")
        len(records)
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{source.name} has no documents for split {split!r} ({_line(error)}): its splits are "
            + ", ".join(builder.info.splits)
        ) from error
    except Exception as error:
        raise UserError(
            f"the data files of {where} cannot be read ({_line(error)}): prepare the dataset again"
        ) from error
    has_id = "id" in features and isinstance(features["id"], tfds.features.Text)
    return Documents(records, where, split, config.text_key, "id" if has_id else None)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _line(error: Exception) -> str:
    """The first line of an error's message, short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
