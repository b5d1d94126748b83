// What the clients' tests call: it answers as it is asked to.

export default async function handler(req: Request, ctx): Promise<Response> {
  const url = new URL(req.url);
  const cors = { "access-control-allow-origin": "https://app.example", "access-control-allow-headers": "*" };
  if (req.method === "OPTIONS") return new Response("ok", { headers: cors });
  switch (url.searchParams.get("as") ?? url.pathname.split("/")[2]) {
    case "bytes":
      return new Response(await req.arrayBuffer(), { headers: { "content-type": "application/octet-stream" } });
    case "text":
      return new Response((await req.text()).toUpperCase(), { headers: cors });
    case "form": {
      const form = await req.formData();
      return Response.json({ name: form.get("name"), file: await (form.get("file") as File).text() });
    }
    case "events": {
      const lines = ["data: 1\n\n", "data: 2\n\n"].map((line) => new TextEncoder().encode(line));
      const body = new ReadableStream({ pull(c) { const next = lines.shift(); next ? c.enqueue(next) : c.close(); } });
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    }
    case "refusal":
      return Response.json({ message: "not today" }, { status: 418, headers: { "x-why": "tea" } });
    case "throw":
      throw new Error("secret reason");
    case "crash":
      Deno.exit(3);
  }
  const body = await req.text();
  return Response.json({
    method: req.method, path: url.pathname, query: url.search, body: body ? JSON.parse(body) : null,
    user: ctx.user?.email ?? null, region: req.headers.get("x-region"), env: ctx.env.GREETING,
    rows: ctx.user ? (await ctx.db.from("notes").select("body")).data : null,
  });
}
