"""Office's files are ZIP archives of XML. What one unpacks to is known before it is unpacked.

Python's reader gives out no more of a member than the directory says, so the directory's sum bounds
it. https://ecma-international.org/publications-and-standards/standards/ecma-376/
"""

import zipfile
from io import BytesIO

from butterbase.ai.documents.errors import (
    DocumentMalformedError,
    DocumentTooComplexError,
    DocumentTypeMismatchError,
)

UNPACKED_BYTES_MAX = 400 * 1024**2
MEMBER_COUNT_MAX = 10_000


def check_archive(data: bytes, member: str) -> None:
    """Raises DocumentMalformedError, DocumentTooComplexError, and DocumentTypeMismatchError where
    there is no such member.
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
        raise DocumentMalformedError("the file is not an archive that can be opened") from error
    if len(found) > MEMBER_COUNT_MAX:
        raise DocumentTooComplexError(f"it has more than {MEMBER_COUNT_MAX} parts")
    if sum(info.file_size for info in found) > UNPACKED_BYTES_MAX:
        raise DocumentTooComplexError(f"it unpacks to more than {UNPACKED_BYTES_MAX} bytes")
    if not any(info.filename == member for info in found):
        raise DocumentTypeMismatchError(
            f"the archive has no {member}", hint="send it with the content type that it is of"
        )
