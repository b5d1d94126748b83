// An operator's session: begun by password and second factor, renewed, ended.

import { CallError, callJson, send } from "./client.js";

const AUTH = "/operators/auth/v1";
const RENEWED_BEFORE_S = 60;

/** The session. Raises CallError, also when a second factor is asked for and `code` is empty. */
export async function signIn(email, password, code) {
  const session = await callJson("POST", `${AUTH}/token?grant_type=password`, {
    value: { email, password },
  });
  const factor = session.user.factors?.find((one) => one.status === "verified");
  if (!factor) return session;
  if (!code) {
    await endSession(session);
    throw new CallError("Enter the code of your second factor.", 403);
  }
  const token = session.access_token;
  const path = `${AUTH}/factors/${factor.id}`;
  const challenge = await callJson("POST", `${path}/challenge`, { token, value: {} });
  return callJson("POST", `${path}/verify`, {
    token,
    value: { challenge_id: challenge.id, code },
  });
}

/** The same session, or the next one where its access token is about to expire, or was refused. */
export async function renewed(session, isRefused) {
  if (!isRefused && Date.now() / 1000 < session.expires_at - RENEWED_BEFORE_S) return session;
  return callJson("POST", `${AUTH}/token?grant_type=refresh_token`, {
    value: { refresh_token: session.refresh_token },
  });
}

/** Whether or not the server can be reached: the page forgets the session in any case. */
export async function endSession(session) {
  const headers = { Authorization: `Bearer ${session.access_token}` };
  await send("POST", `${AUTH}/logout?scope=local`, { headers }).catch(() => undefined);
}
