"""CSV and its kin, RFC 4180: a line for each row, which names its columns."""

import csv
from collections.abc import Iterator
from io import StringIO
from itertools import islice

from butterbase.ai.documents.blocks import Found, Source
from butterbase.ai.documents.errors import DocumentMalformedError, DocumentTooLargeError
from butterbase.ai.documents.parsers.characters import decode
from butterbase.ai.documents.tables import table_blocks

ROW_COUNT_MAX = 200_000
FIELD_CHARS_MAX = 1_000_000
SAMPLE_LINE_COUNT = 50
DELIMITERS = ",;\t|"


def parse(data: bytes, source: Source) -> Iterator[Found]:
    text = decode(data, source.charset)
    csv.field_size_limit(FIELD_CHARS_MAX)
    reader = csv.reader(StringIO(text, newline=""), delimiter=_delimiter(text))
    rows: list[list[str]] = []
    try:
        for row in reader:
            if any(row):
                rows.append(row)
            if len(rows) > ROW_COUNT_MAX:
                raise DocumentTooLargeError(f"it has more than {ROW_COUNT_MAX} rows")
    except csv.Error as error:
        raise DocumentMalformedError(f"line {reader.line_num}: {error}") from error
    yield from table_blocks(rows)


def _delimiter(text: str) -> str:
    """The one that parts the first lines into the same number of fields, the more the better."""
    sample = "".join(islice(StringIO(text[:100_000], newline=""), SAMPLE_LINE_COUNT))
    best, best_score = ",", (0.0, 0.0)
    for delimiter in DELIMITERS:
        try:
            rows = csv.reader(StringIO(sample, newline=""), delimiter=delimiter)
            widths = [len(row) for row in rows if row]
        except csv.Error:
            continue
        usual = max(set(widths), key=widths.count, default=1)
        if usual > 1 and (score := (widths.count(usual) / len(widths), float(usual))) > best_score:
            best, best_score = delimiter, score
    return best
