from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.auth.errors import EmailInvalidError
from butterbase.api.auth.mail.message import Letter, Mail, Sender, address_of, build
from butterbase.api.auth.mail.templates import Rendered, Template, render

SENDER = Sender("no-reply@app.example", "Bütter, the app")


def built(recipient: str, content: Rendered, sender: Sender = SENDER) -> EmailMessage:
    mail = Mail("main.7", recipient, Letter("id", content, {}))
    sent = build(mail, sender, now_s=1_800_000_000).as_bytes()
    message = message_from_bytes(sent, policy=SMTP)
    assert isinstance(message, EmailMessage)
    return message


def test_a_mail_has_text_and_html_and_says_that_a_machine_wrote_it() -> None:
    message = built("ana@example.com", Rendered("Grüße", "text ü", "<b>html ü</b>"))
    assert message["To"] == "ana@example.com"
    assert message["From"].addresses[0].display_name == "Bütter, the app"
    assert message["Subject"] == "Grüße"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == "<main.7@app.example>"
    assert message["Date"].datetime.timestamp() == 1_800_000_000
    text, html = message.iter_parts()
    assert (text.get_content_type(), text.get_content().strip()) == ("text/plain", "text ü")
    assert (html.get_content_type(), html.get_content().strip()) == ("text/html", "<b>html ü</b>")


def test_a_domain_in_another_script_is_written_in_ascii() -> None:
    message = built("ana@exämple.com", Rendered("s", "t", None))
    assert message["To"] == "ana@xn--exmple-cua.com"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "@",
        "ana",
        "ana@",
        "@x.yz",
        "a b@x.yz",
        "ana@x.yz\r\nBcc: eva@x.yz",
        "ana@x.yz\nBcc: eva@x.yz",
        "ana@x.yz\rX: y",
        '"a\r\nBcc: b"@x.yz',
        "ana@x.yz, eva@x.yz",
        "ana@x.yz eva@x.yz",
        "Ana <ana@x.yz>",
        "<ana@x.yz>",
        "ana(x)@x.yz",
        "ana@[127.0.0.1]",
        "ana@x..yz",
        "a@b@x.yz",
        "ana@x.yz\0",
        "änä@x.yz",
        "=?utf-8?q?ana?=@x.yz",
        "ana@" + "x" * 300,
        "undisclosed:;",
    ],
)
def test_what_is_not_one_address_gets_no_mail(address: str) -> None:
    with pytest.raises(EmailInvalidError):
        built(address, Rendered("s", "t", None))


@given(st.text())
def test_an_accepted_address_is_one_line_of_ascii(text: str) -> None:
    try:
        address = address_of(text)
    except EmailInvalidError:
        return
    assert address.addr_spec.isascii()
    assert address.addr_spec.isprintable()


@given(st.text(max_size=400), st.text(max_size=200))
def test_no_user_data_makes_another_header(name: str, text: str) -> None:
    template = Template("Hi {{ .Data.name }}", "{{ .Data.text }}", "<p>{{ .Data.text }}</p>")
    message = built("ana@x.yz", render(template, {"Data": {"name": name, "text": text}}))
    assert set(message.keys()) == {
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
    }


def test_a_letter_does_not_show_itself() -> None:
    assert "secret" not in repr(Letter("id", Rendered("s", "secret", None), {"token": "secret"}))
