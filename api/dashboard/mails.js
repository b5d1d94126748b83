// The app's outbox: where mails are to be read while there is no mail server.

import { callJson } from "./client.js";
import { setRows, setText } from "./dom.js";

const MAIL_COUNT = 20;

export async function showMails(key, signal) {
  try {
    const path = `/auth/v1/admin/outbox?limit=${MAIL_COUNT}`;
    const { mails } = await callJson("GET", path, { key, signal });
    setText("mails-error", "");
    setRows("mails", mails.map(mailRow), { empty: "No mail yet." });
  } catch (error) {
    if (!signal.aborted) setText("mails-error", error.message);
  }
}

function mailRow(mail) {
  return [
    new Date(mail.created_at).toLocaleString(),
    mail.recipient,
    { text: mail.subject ?? mail.kind, more: mail.text },
    state(mail),
  ];
}

function state({ sent_at: sentAt, error, attempts }) {
  if (sentAt) return { text: "sent", state: "good" };
  if (error) return { text: error, state: "bad" };
  return attempts > 0 ? "being sent" : "kept here";
}
