"""Splits from the Hugging Face hub, through `datasets` (extra `hub`). No remote code is run."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from enn_finetune.data.faults import DataError, FaultKind, Row, RowError, check_row, no_column
from enn_finetune.data.splits import Labels, Split, to_split

if TYPE_CHECKING:
    from datasets import Dataset


class HubSource(NamedTuple):
    """Where a task is on the hub, and its columns there."""

    id: str
    config: str
    text: str
    pair: str | None = None
    label: str = "label"


def read_hub(
    source: HubSource,
    split: str,
    labels: Labels,
    *,
    name: str,
    skip: tuple[FaultKind, ...] = (),
) -> Split:
    """A split of a hub data set, called `name` here and `split` there.

    Raises:
      DataError: the extra is not installed, the hub cannot be reached and nothing is cached, or
        the data set has other columns, classes or labels than expected.
    """
    where = f"hub data set {source.id} ({source.config}), split {split}"
    dataset = _load(source, split, where)
    named = Labels(
        labels.classes, labels.classes, labels.values
    )  # the hub has names, not spellings
    return to_split(
        _rows(dataset, source, labels, where),
        where,
        name=name,
        text=source.text,
        pair=source.pair,
        label=source.label,
        labels=named,
        skip=skip,
        unit="row",
    )


def _load(source: HubSource, split: str, where: str) -> "Dataset":
    try:
        import datasets  # noqa: PLC0415  # an extra: most runs neither have nor need it
    except ImportError as error:
        raise DataError(
            f"{where}: needs the package datasets ({error}); install the extra hub "
            "(pip install 'enn-finetune[hub]', uv run --extra hub ...), or name a folder of the "
            "original files in task.data"
        ) from error
    try:
        return datasets.load_dataset(source.id, source.config, split=split)
    except Exception as error:  # the hub's clients raise errors of many libraries
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        offline = isinstance(error, ConnectionError) or "Offline" in reason
        advice = (
            "the hub cannot be reached and nothing is cached; connect, or name a folder of the "
            "original files in task.data"
            if offline
            else "name a folder of the original files in task.data instead"
        )
        raise DataError(f"{where}: could not be loaded ({reason}); {advice}") from error


def _rows(
    dataset: "Dataset", source: HubSource, labels: Labels, where: str
) -> Iterator[Row | RowError]:
    texts = [source.text] if source.pair is None else [source.text, source.pair]
    needed = [*texts, source.label]
    for column in needed:
        if column not in dataset.column_names:
            missing = no_column(column, dataset.column_names, "the columns are")
            raise DataError(f"{where}: {missing}")
    names = labels.classes
    declared = getattr(dataset.features[source.label], "names", None)
    if labels.values is None and declared is not None:
        if sorted(declared) != sorted(names):
            raise DataError(f"{where}: expected the classes {list(names)}, found {list(declared)}")
        names = tuple(declared)
    columns = [dataset[column] for column in needed]
    for number, cells in enumerate(zip(*columns, strict=True), 1):
        row = Row(number, dict(zip(needed, cells, strict=True)))
        fault = check_row(row, texts, unit="row")
        code = cells[-1]
        if fault is None and labels.values is None and not isinstance(code, str):
            # -1 is how the hub writes the hidden labels of GLUE's test splits.
            if not isinstance(code, int) or not 0 <= code < len(names):
                message = f"found {code!r}; expected a class index from 0 to {len(names) - 1}"
                fault = RowError(number, source.label, "label", message, "row")
            else:
                row = Row(number, {**row.columns, source.label: names[code]})
        yield fault or row
