"""Records of several sequences: their fields, and which of them share a length.

A plain sequence is treated as a record with one nameless field.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
from jax.typing import DTypeLike

from jaxmask import _check
from jaxmask._host.flatten import Rows, is_ordered, joined, listed, read_rows, read_values
from jaxmask._host.ragged import Ragged, arrow_values, is_arrow
from jaxmask._host.rectangle import Side

Path: TypeAlias = tuple[str, ...]
TIME = "time"  # the length of all fields for which the caller names no other
OUTER = "outer"  # how many sentences documents have


class Options(NamedTuple):
    """What the caller asked for: one value for all fields, or dicts of them."""

    value: Any = 0
    dtype: Any = None
    padding: Any = "post"
    truncating: Any = "post"
    lengths: Any = None
    axes: Any = 1


class Field(NamedTuple):
    """One field of the records.

    Attributes:
      path: its keys, from the outermost dict; () where the sequences are not records.
      length: the name of its length; None where each record has one value, which is not padded.
      axes: how many axes are ragged; 2 for documents of sentences.
    """

    path: Path
    length: str | None = TIME
    value: Any = 0
    dtype: DTypeLike | None = None
    padding: Side = "post"
    truncating: Side = "post"
    axes: int = 1

    @property
    def name(self) -> str:
        """For error texts."""
        return repr(".".join(map(str, self.path)))

    def where(self, where: str) -> str:
        """The function of an error, and the field."""
        return f"{where}: field {self.name}" if self.path else where


BARE = (Field(()),)


class Documents(NamedTuple):
    """Documents of sentences: the sentences of all, and `[batch + 1]` offsets into them."""

    sentences: Rows | Ragged
    offsets: np.ndarray


Part: TypeAlias = Rows | Ragged | Documents


class Columns(NamedTuple):
    """All records, field by field; `lengths` maps the name of each length to `[records]`."""

    fields: tuple[Field, ...]
    parts: tuple[Part, ...]
    lengths: dict[str, np.ndarray]

    @property
    def flat(self) -> tuple[Ragged, ...]:
        """The parts, each back to back."""
        return tuple(joined(part) for part in self.parts if not isinstance(part, Documents))

    @property
    def steps(self) -> np.ndarray:
        """`[records, lengths]`, int64."""
        count = len(self.parts[0].offsets) - 1
        return np.stack([*self.lengths.values()], 1) if self.lengths else np.zeros((count, 0), int)


def tree(fields: Sequence[Field], leaves: Iterable[Any]) -> Any:
    """The leaves in nested dicts, as the records have them; a nameless field is its leaf."""
    made: dict[str, Any] = {}
    for field, leaf in zip(fields, leaves, strict=True):
        if not field.path:
            return leaf
        inner = made
        for key in field.path[:-1]:
            inner = inner.setdefault(key, {})
        inner[field.path[-1]] = leaf
    return made


def leaves_of(record: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The path and the value of each entry of nested dicts."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from leaves_of(value, (*path, key))
        else:
            yield (*path, key), value


def read_columns(sequences: Any, options: Options, where: str) -> Columns:
    """All sequences, or all records: a list of dicts, or a dict of their columns."""
    columns = columns_of(sequences, where)
    is_scalar = {path: has_one_value(column) for path, column in columns.items()}
    fields = find_fields(is_scalar, options, where)
    parts = tuple(_read(columns[field.path], field, field.where(where)) for field in fields)
    return Columns(fields, parts, _agreed(fields, parts, where))


def _read(column: Any, field: Field, where: str) -> Part:
    if field.length is None:
        return read_values(column, field.dtype, where)
    if field.axes == 1:
        return read_rows(column, field.dtype, where)
    if not is_ordered(column):
        raise TypeError(f"{where}: documents must be an iterable, got {type(column).__name__}.")
    documents = []
    for index, document in enumerate(column):
        if not is_ordered(document):
            raise TypeError(
                f"{where}: document {index} must be an iterable of sentences, got "
                f"{type(document).__name__}."
            )
        documents.append(listed(document, f"in document {index}, after {{}} sentences", where))
    offsets = np.cumsum([0, *map(len, documents)])
    try:
        sentences = read_rows([*itertools.chain(*documents)], field.dtype, where)
    except Exception:
        for index, document in enumerate(documents):  # read one by one, to name the culprit
            read_rows(document, field.dtype, f"{where}: document {index}")
        raise
    return Documents(sentences, offsets)


def columns_of(sequences: Any, where: str) -> dict[Path, Any]:
    """The column of each field; of the path () where the sequences are not records."""
    if isinstance(sequences, Mapping):
        columns = dict(leaves_of(sequences))
        if not columns:
            raise ValueError(f"{where}: `sequences` is a dict without a field.")
        return {
            path: _readable(column, Field(path).where(where)) for path, column in columns.items()
        }
    if isinstance(sequences, Ragged) or is_arrow(sequences) or hasattr(sequences, "__array__"):
        return {(): sequences}
    if not is_ordered(sequences):
        return {(): sequences}  # refused where rows are read
    records = listed(sequences, "after {} rows of `sequences`", where)
    if not records or not isinstance(records[0], Mapping):
        return {(): records}
    paths = [path for path, _ in leaves_of(records[0])]
    if not paths:
        raise ValueError(f"{where}: record 0 is a dict without a field.")
    rows = [entries(record, paths, index, where) for index, record in enumerate(records)]
    return {path: [row[k] for row in rows] for k, path in enumerate(paths)}


def entries(record: Any, paths: Sequence[Path], index: int, where: str) -> list[Any]:
    """The values of a record in the order of the paths, which are exactly its own."""
    if not isinstance(record, Mapping):
        raise TypeError(
            f"{where}: record {index} must be a dict with the fields of the first record, "
            f"{_names(paths)}, got {type(record).__name__}."
        )
    found = dict(leaves_of(record))
    lacking = [path for path in paths if path not in found]
    if lacking or len(found) != len(paths):
        added = [path for path in found if path not in paths]
        wrong = f"is missing {_names(lacking)}" if lacking else f"has the extra {_names(added)}"
        raise ValueError(
            f"{where}: record {index} {wrong}; expected {_names(paths)}, the fields of the first "
            "record. An empty sequence is `[]`."
        )
    return [found[path] for path in paths]


def _readable(column: Any, where: str) -> Any:
    """A column of a dict: one of Arrow that holds one value for each record as an array."""
    if isinstance(column, Ragged):
        return column
    if is_arrow(column):
        return arrow_values(column, where)
    if hasattr(column, "__array__"):
        return list(column) if np.asarray(column).dtype == np.object_ else column
    if not is_ordered(column):
        raise TypeError(
            f"{where} must be a column, an iterable with one entry for each record, got "
            f"{type(column).__name__}. One record alone is a list of it: `[record]`."
        )
    return listed(column, "after {} rows of the column", where)


def has_one_value(column: Any) -> bool:
    """Whether the entries of a column are numbers or strings, and not sequences."""
    if isinstance(column, Ragged) or is_arrow(column):
        return False
    if hasattr(column, "__array__"):
        return np.ndim(column) == 1
    return bool(isinstance(column, list) and column and not is_ordered(column[0]))


# ----------------------------------------------------------------------------- options


def find_fields(is_scalar: Mapping[Path, bool], options: Options, where: str) -> tuple[Field, ...]:
    """The fields and what is asked of each; `is_scalar`: which have one value per record."""
    for key in itertools.chain(*is_scalar):
        if not isinstance(key, str):
            raise TypeError(
                f"{where}: `sequences` must be an iterable of rows, or records whose fields are "
                f"named by strings, got dict with the key {key!r}."
            )
    if () in is_scalar:
        for name in ("lengths", "dtype", "padding", "truncating", "axes"):
            given = getattr(options, name)
            if isinstance(given, Mapping) or (name == "lengths" and given is not None):
                raise ValueError(
                    f"{where}: `{name}` names fields, but the sequences are plain rows, not "
                    "records. Give a dict of sequences, or a list of dicts."
                )
        return (_checked(Field((), TIME, *options[:4], options.axes), where),)
    lengths = options.lengths
    if isinstance(lengths, str):
        raise TypeError(f"{where}: `lengths` must be a dict or a list of fields, got {lengths!r}.")
    if lengths is not None and not isinstance(lengths, Mapping):
        lengths = {name: name for name in lengths}
    options = options._replace(lengths=lengths if lengths is not None else TIME)
    for name, given in options._asdict().items():
        _check_names(given, [*is_scalar], where, name)
    default = Options(lengths=TIME)

    def field(path: Path) -> Field:
        asked = {
            name: _asked(given, getattr(default, name), path)
            for name, given in options._asdict().items()
        }
        length = asked.pop("lengths")
        return _checked(Field(path, None if is_scalar[path] else length, **asked), where)

    return tuple(map(field, is_scalar))


def _checked(field: Field, where: str) -> Field:
    for name in ("padding", "truncating"):
        _check.choice(getattr(field, name), ("pre", "post"), field.where(where), name)
    _check.choice(field.axes, (1, 2), field.where(where), "axes")
    return field


def _asked(given: Any, default: Any, path: Path) -> Any:
    """What is asked of one field: an entry of an outer dict applies to all below it."""
    for key in path:
        if not isinstance(given, Mapping):
            return given
        if key not in given:
            return default
        given = given[key]
    return given


def _check_names(given: Any, paths: Sequence[Path], where: str, name: str) -> None:
    if not isinstance(given, Mapping):
        return
    for path, _ in leaves_of(given):
        if not any(known[: len(path)] == path for known in paths):
            raise ValueError(
                f"{where}: `{name}` names an unknown field {'.'.join(map(str, path))!r}; the "
                f"fields are {_names(paths)}."
            )


def by_length(given: Any, names: Sequence[str], where: str, option: str) -> list[Any]:
    """An option that each length has: one value for all, or a dict with the names of lengths."""
    if not isinstance(given, Mapping):
        return [given] * len(names)
    if set(given) != set(names):
        raise ValueError(
            f"{where}: `{option}` must be given for the lengths {_listed_names(names)}, got it for "
            f"{_listed_names(given)}. `lengths=` says which field has which; "
            f"the others share {TIME!r}."
        )
    return [given[name] for name in names]


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(Field(path).name for path in paths)


def _listed_names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


# ----------------------------------------------------------------------------- lengths


def _agreed(fields: Sequence[Field], parts: Sequence[Part], where: str) -> dict[str, np.ndarray]:
    """The lengths, in the order of their first fields; all fields of one must agree."""
    count = len(parts[0].offsets) - 1
    for field, part in zip(fields, parts, strict=True):
        if len(part.offsets) - 1 != count:
            raise ValueError(
                f"{where}: field {field.name} has {len(part.offsets) - 1} records, but "
                f"{fields[0].name} has {count}."
            )
    first: dict[str, tuple[Field, np.ndarray]] = {}
    for field, part in zip(fields, parts, strict=True):
        for name, own in _lengths_of(field, part):
            known, lengths = first.setdefault(name, (field, own))
            if known.axes != field.axes and name != OUTER:
                raise ValueError(
                    f"{where}: {known.name} and {field.name} share the length {name!r}, but only "
                    "one holds documents of sentences (`axes=2`). Give one another name with "
                    "`lengths=`."
                )
            if len(lengths) == len(own) and np.any(differ := lengths != own):
                index = int(np.argmax(differ))
                pair = (known, lengths[index], field, own[index])
                refuse_lengths(index, *pair, name, where)
    return {name: lengths for name, (_, lengths) in first.items()}


def _lengths_of(field: Field, part: Part) -> Iterator[tuple[str, np.ndarray]]:
    """The lengths of a field by name: of documents in sentences first, and then in steps."""
    if isinstance(part, Documents):
        yield OUTER, np.diff(part.offsets)
        part = part.sentences
    if field.length is not None:
        yield field.length, part.lengths


def refuse_lengths(
    index: int, one: Field, steps: int, other: Field, others: int, length: str, where: str
) -> NoReturn:
    """Refuse a record whose fields should agree in length, and do not."""
    what = "record" if length == OUTER or one.axes == 1 else "sentence"
    raise ValueError(
        f"{where}: {what} {index} has {steps} steps of {one.name} and {others} of {other.name}, "
        f"which share the length {length!r}. Fields that share a length are not truncated or "
        "padded to match. Fix the record; give the field its own length, "
        f"`lengths={{{other.path[0]!r}: {other.path[0]!r}}}`; or, if it holds one value per "
        f"record, `lengths={{{other.path[0]!r}: None}}`."
    )


def require_lengths(names: Sequence[str], where: str) -> None:
    """Refuse records that hold no sequence."""
    if not names:
        raise ValueError(f"{where}: no field of the records is a sequence.")
