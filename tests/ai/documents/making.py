"""Makes the files of tests/data/documents, and those that are too long or too bad to be kept:
`python -m tests.ai.documents.making` from the repository's root writes the former.
"""

import zipfile
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path

import docx
from docx.enum.text import WD_BREAK
from openpyxl import Workbook
from pptx import Presentation
from pptx.util import Inches
from reportlab.lib import pdfencrypt
from reportlab.pdfgen.canvas import Canvas

DATA = Path(__file__).resolve().parents[2] / "data" / "documents"

MARKDOWN = """# Harbour rules

Boats leave before noon.

## Mooring

Ropes are doubled at night.
"""
HTML = """<!doctype html><html><head><meta charset="utf-8"><title>Harbour rules</title>
<style>p { color: red }</style><script>alert("stolen")</script></head>
<body><nav>Home | About</nav><h1>Harbour rules</h1><p>Boats leave
before <b>noon</b>.</p><h2>Mooring</h2><ul><li>Ropes are doubled</li><li>Fenders out</li></ul>
<table><caption>Fees</caption><tr><th>Length</th><th>Fee</th></tr><tr><td>8 m</td><td>12 €</td></tr>
</table><p hidden>secret</p><footer>© harbour</footer></body></html>
"""
CSV = 'Boat;Length;Berth\nAlba;8,5;A1\nBrise;12;"B;2"\nCaña;7;C3\n'
JSON = (
    '[{"boat": "Alba", "berth": {"pier": "A", "number": 1}},'
    ' {"boat": "Brise", "crew": ["Ann", "Bo"]}]'
)
TEXT = "# not a heading\nBöen aus Südwest, später abflauend.\n"


ORDINALS = (
    "tenth", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
)  # fmt: skip


def pdf(page_count: int, *, has_outline: bool = False, password: str | None = None) -> bytes:
    """Each page has a running head, a chapter's title and its own words."""
    file = BytesIO()
    encrypt = None if password is None else pdfencrypt.StandardEncryption(password)
    canvas = Canvas(file, invariant=1, encrypt=encrypt)
    canvas.setTitle("Harbour handbook")
    canvas.setAuthor("Harbour master")
    for page in range(1, page_count + 1):
        canvas.setFont("Helvetica", 8)
        canvas.drawString(50, 810, f"Handbook, page {page}")
        canvas.setFont("Helvetica-Bold", 18)
        canvas.drawString(50, 770, f"Chapter {page}")
        if has_outline:
            canvas.bookmarkPage(f"c{page}")
            canvas.addOutlineEntry(f"Chapter {page}", f"c{page}", level=0)
        canvas.setFont("Helvetica", 11)
        for line in range(30):
            words = (
                f"Line {line} of chapter {page} tells of berth {page * 100 + line}, and how it is"
            )
            canvas.drawString(50, 740 - 20 * line, words)
        canvas.drawString(50, 140, "A word that is parted at the end of its line is hyphen-")
        canvas.drawString(50, 126, "ated, and read as one.")
        canvas.drawString(
            50, 112, f"So ends what there is to say of the {ORDINALS[page % 10]} boat."
        )
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def scanned_pdf() -> bytes:
    file = BytesIO()
    canvas = Canvas(file, invariant=1)
    canvas.rect(50, 50, 400, 400, fill=1)
    canvas.showPage()
    canvas.save()
    return file.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.core_properties.title = "Harbour handbook"
    document.core_properties.author = "Harbour master"
    document.add_heading("Arrival", 1)
    document.add_paragraph("Report on channel 9.")
    document.add_heading("Papers", 2)
    document.add_paragraph("Bring the ship's papers.", style="List Bullet")
    table = document.add_table(rows=0, cols=2)
    for name, value in (("Office", "Pier 3"), ("Opens", "08:00")):
        cells = table.add_row().cells
        cells[0].text, cells[1].text = name, value
    document.add_paragraph().add_run().add_break(WD_BREAK.PAGE)
    document.add_heading("Departure", 1)
    document.add_paragraph("Pay before you leave.")
    return _saved(document.save)


def slides() -> bytes:
    presentation = Presentation()
    first = presentation.slides.add_slide(presentation.slide_layouts[1])
    first.shapes.title.text = "Safety"
    first.placeholders[1].text = "Wear a vest\nKnow the exits"
    first.notes_slide.notes_text_frame.text = "Show the vest."
    second = presentation.slides.add_slide(presentation.slide_layouts[5])
    second.shapes.title.text = "Numbers"
    box = (Inches(1), Inches(2), Inches(4), Inches(1))
    table = second.shapes.add_table(2, 2, *box).table
    for row, values in enumerate((("Office", "Phone"), ("Harbour", "555-0100"))):
        for column, value in enumerate(values):
            table.cell(row, column).text = value
    return _saved(presentation.save)


def sheet(row_count: int = 3) -> bytes:
    book = Workbook()
    berths = book.active
    berths.title = "Berths"
    berths.append(["Boat", "Length", "Paid"])
    for row in range(row_count):
        berths.append([f"Boat {row}", 8 + row / 2, row % 2 == 0])
    hidden = book.create_sheet("Internal")
    hidden.append(["nobody reads this"])
    hidden.sheet_state = "hidden"
    return _saved(book.save)


def mail() -> bytes:
    message = EmailMessage()
    message["From"] = "Ann Müller <ann@example.com>"
    message["To"] = "harbour@example.com"
    message["Subject"] = "Berth für die Alba"
    message["Date"] = "Fri, 21 Nov 2025 09:55:06 +0000"
    message.set_content("May we stay until Sunday?\n")
    message.add_alternative("<p>May we stay until <b>Sunday</b>?</p>", subtype="html")
    message.add_attachment(CSV.encode(), maintype="text", subtype="csv", filename="boats.csv")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="boat.png")
    return message.as_bytes()


def zip_bomb(member: str = "word/document.xml", size: int = 500 * 1024**2) -> bytes:
    """Half a gigabyte of zeros in half a megabyte."""
    file = BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(member, "w", force_zip64=True) as entry,
    ):
        for _ in range(size // 2**20):
            entry.write(bytes(2**20))
    return file.getvalue()


def replaced(archive: bytes, member: str, content: bytes) -> bytes:
    """The archive with another content of that member."""
    file = BytesIO()
    with zipfile.ZipFile(BytesIO(archive)) as old, zipfile.ZipFile(file, "w", 8) as new:
        for info in old.infolist():
            new.writestr(info.filename, content if info.filename == member else old.read(info))
    return file.getvalue()


def xml_bomb() -> bytes:
    """A document of ten entities, each of ten of the one before."""
    lines = ['<!ENTITY e0 "lol">']
    lines += [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 11)]
    return (
        '<?xml version="1.0"?><!DOCTYPE w:document [' + "".join(lines) + "]>"
        '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        "<w:body><w:p><w:r><w:t>&e10;</w:t></w:r></w:p></w:body></w:document>"
    ).encode()


def reading_xml() -> bytes:
    """A document whose text is a file of the machine that reads it."""
    return (
        b'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
        b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        b"<w:body><w:p><w:r><w:t>stolen: &f;</w:t></w:r></w:p></w:body></w:document>"
    )


def _saved(save: object) -> bytes:
    file = BytesIO()
    assert callable(save)
    save(file)
    return file.getvalue()


def main() -> None:
    DATA.mkdir(parents=True, exist_ok=True)
    files = {
        "handbook.pdf": pdf(5),
        "outline.pdf": pdf(3, has_outline=True),
        "locked.pdf": pdf(1, password="secret"),
        "scanned.pdf": scanned_pdf(),
        "handbook.docx": word(),
        "safety.pptx": slides(),
        "berths.xlsx": sheet(),
        "rules.html": HTML.encode(),
        "rules.md": MARKDOWN.encode(),
        "boats.csv": CSV.encode("cp1252"),
        "boats.json": JSON.encode(),
        "weather.txt": TEXT.encode("cp1252"),
        "berth.eml": mail(),
    }
    for name, data in files.items():
        (DATA / name).write_bytes(data)


if __name__ == "__main__":
    main()
