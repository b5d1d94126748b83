// Types of what functions are given: `import type { Context } from "butterbase"`. The code behind
// them is guest_context.js.

/** Tables, views and functions by their names, as Supabase's clients and `supabase gen types` say them. */
export interface AnyDatabase {
  // deno-lint-ignore no-explicit-any
  public: { Tables: Record<string, any>; Views: Record<string, any>; Functions: Record<string, any> };
}

export interface Context<Database extends { public: object } = AnyDatabase> {
  readonly env: Readonly<Record<string, string>>;
  /** The claims of the user who calls; null for keys and triggers. */
  readonly user: Claims | null;
  readonly app: { readonly id: string; readonly url: string };
  readonly function: { readonly name: string; readonly revision: number };
  readonly request: {
    readonly id: string;
    readonly invocationId: string;
    readonly trigger: "http" | "database" | "cron" | "queue";
    /** 1 is the first. */
    readonly attempt: number;
    readonly ip: string | null;
  };
  /** Aborted when the caller leaves or the time is over. */
  readonly signal: AbortSignal;
  /** Resolved when the answer has been sent. */
  readonly completed: Promise<void>;
  readonly log: Record<"debug" | "info" | "warn" | "error", (...values: unknown[]) => void>;
  /** REST as the caller; `asService` with the function's own token. */
  readonly db: Db<Database>;
  readonly ai: Ai;
  readonly storage: Storage;
  readonly queue: {
    /** `delay` in seconds; messages with the same `key` are worked on in order. */
    send(queue: string, body?: unknown, options?: { delay?: number; key?: string }): Promise<unknown>;
  };
  readonly idempotency: {
    /** Whether the key is this call's; `ttl` in seconds. */
    claim(key: string | number, options?: { ttl?: number }): Promise<boolean>;
  };
  /** Another function's answer, as JSON where it is JSON. Throws ApiError. */
  // deno-lint-ignore no-explicit-any
  invoke<Answer = any>(
    name: string, body?: unknown, options?: { method?: string; headers?: HeadersInit },
  ): Promise<Answer>;
  /** Goes on after the answer, within the time limit. */
  waitUntil(promise: PromiseLike<unknown>): void;
}

export type Handler<Database extends { public: object } = AnyDatabase> = (
  req: Request, ctx: Context<Database>,
) => Response | Promise<Response>;

export interface Claims {
  sub: string;
  role: string;
  email?: string;
  phone?: string;
  app_metadata?: Record<string, unknown>;
  user_metadata?: Record<string, unknown>;
  [claim: string]: unknown;
}

/** What is wrong, as the platform tells it. */
export interface Problem {
  code: string;
  message: string;
  details: unknown;
  hint: string | null;
}

/** What `ctx.invoke`, `ctx.ai`, `ctx.storage` and `throwOnError` throw. */
export interface ApiError extends Error {
  name: "ApiError";
  status: number;
  code?: string;
  hint?: string | null;
  details?: unknown;
}

// ---- events ----

/** What a trigger on a table sends. Of `old_record` there is the key, or all with `replica identity full`. */
// deno-lint-ignore no-explicit-any
export type DatabaseEvent<Row = any> =
  & { schema: string; table: string; commit_timestamp: string; position: string }
  & (
    | { type: "INSERT"; record: Row; old_record: null }
    | { type: "UPDATE"; record: Row; old_record: Partial<Row> }
    | { type: "DELETE"; record: null; old_record: Partial<Row> }
  );

export interface CronEvent<Payload = unknown> {
  type: "cron";
  tick: string;
  payload: Payload;
}

// deno-lint-ignore no-explicit-any
export interface QueueEvent<Body = any> {
  type: "queue";
  queue: string;
  body: Body;
}

// ---- ctx.db ----

type Named<Database extends { public: object }, Kind extends string> = Database["public"] extends
  Record<Kind, infer Found> ? Found : Record<string, never>;
// deno-lint-ignore no-explicit-any
type Of<Thing, Name extends string> = Thing extends Record<Name, infer Found> ? Found : any;

export interface Db<Database extends { public: object } = AnyDatabase> {
  from<Name extends string & (keyof Named<Database, "Tables"> | keyof Named<Database, "Views">)>(
    table: Name,
  ): Name extends keyof Named<Database, "Tables"> ? Table<Named<Database, "Tables">[Name]>
    : Name extends keyof Named<Database, "Views"> ? Table<Named<Database, "Views">[Name]>
    : never;
  rpc<Name extends string & keyof Named<Database, "Functions">>(
    name: Name,
    args?: Of<Named<Database, "Functions">[Name], "Args">,
    options?: { get?: boolean },
  ): Query<unknown, Of<Named<Database, "Functions">[Name], "Returns">>;
  /** A request to REST that is put together by hand: what follows `/rest/v1/`. */
  fetch(path: string, options?: RequestOptions): Promise<Response>;
  asService(): Db<Database>;
}

export interface RequestOptions {
  method?: string;
  headers?: HeadersInit;
  /** A plain object or array is sent as JSON. */
  body?: unknown;
  signal?: AbortSignal;
}

type Count = "exact" | "planned" | "estimated";

export interface Table<Shape> {
  select<Result = Of<Shape, "Row">>(
    columns?: string, options?: { count?: Count; head?: boolean },
  ): Query<Of<Shape, "Row">, Result[]>;
  insert(
    rows: Of<Shape, "Insert"> | Of<Shape, "Insert">[], options?: { count?: Count },
  ): Query<Of<Shape, "Row">, null>;
  upsert(
    rows: Of<Shape, "Insert"> | Of<Shape, "Insert">[],
    options?: { onConflict?: string; ignoreDuplicates?: boolean; count?: Count },
  ): Query<Of<Shape, "Row">, null>;
  update(values: Of<Shape, "Update">, options?: { count?: Count }): Query<Of<Shape, "Row">, null>;
  delete(options?: { count?: Count }): Query<Of<Shape, "Row">, null>;
}

export type Success<Result> = { data: Result; error: null; count: number | null; status: number };
export type Failure = { data: null; error: Problem; count: number | null; status: number };

type One<Result> = Result extends (infer Row)[] ? Row : Result;
type Column<Row> = (string & keyof Row) | (string & {});

/** A request to REST as it is being put together; `await` sends it. */
export interface Query<Row, Result, Refusal = Failure> extends PromiseLike<Success<Result> | Refusal> {
  /** What a write returns of its rows. */
  select<Returned = Row>(columns?: string): Query<Row, Returned[], Refusal>;
  eq(column: Column<Row>, value: unknown): this;
  neq(column: Column<Row>, value: unknown): this;
  gt(column: Column<Row>, value: unknown): this;
  gte(column: Column<Row>, value: unknown): this;
  lt(column: Column<Row>, value: unknown): this;
  lte(column: Column<Row>, value: unknown): this;
  like(column: Column<Row>, pattern: string): this;
  ilike(column: Column<Row>, pattern: string): this;
  is(column: Column<Row>, value: boolean | null): this;
  in(column: Column<Row>, values: readonly unknown[]): this;
  contains(column: Column<Row>, value: unknown): this;
  containedBy(column: Column<Row>, value: unknown): this;
  overlaps(column: Column<Row>, value: unknown): this;
  textSearch(column: Column<Row>, words: string): this;
  cs(column: Column<Row>, value: unknown): this;
  cd(column: Column<Row>, value: unknown): this;
  ov(column: Column<Row>, value: unknown): this;
  fts(column: Column<Row>, words: string): this;
  plfts(column: Column<Row>, words: string): this;
  phfts(column: Column<Row>, words: string): this;
  wfts(column: Column<Row>, words: string): this;
  filter(column: Column<Row>, operator: string, value: unknown): this;
  not(column: Column<Row>, operator: string, value: unknown): this;
  match(values: Partial<Row>): this;
  or(filters: string, options?: { referencedTable?: string }): this;
  order(
    column: Column<Row>,
    options?: { ascending?: boolean; nullsFirst?: boolean; referencedTable?: string },
  ): this;
  limit(count: number): this;
  range(from: number, to: number): this;
  single(): Query<Row, One<Result>, Refusal>;
  maybeSingle(): Query<Row, One<Result> | null, Refusal>;
  schema(name: string): this;
  /** What is written happens once: a later write with the same key changes nothing, and is no error. */
  idempotent(key: string | number): this;
  abortSignal(signal: AbortSignal): this;
  /** Throws ApiError in place of telling it. */
  throwOnError(): Query<Row, Result, never>;
}

// ---- ctx.ai and ctx.storage ----

/** The wire is OpenAI's; what is not named here goes through as it is. */
export interface Chat {
  model?: string;
  messages: { role: string; content?: unknown; [member: string]: unknown }[];
  stream?: boolean;
  [member: string]: unknown;
}

export interface Message {
  role: "assistant";
  content: string | null;
  tool_calls?: { id: string; type: "function"; function: { name: string; arguments: string } }[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

export interface Completion {
  id: string;
  model: string;
  choices: { index: number; message: Message; finish_reason: string | null }[];
  usage?: Usage;
}

export interface Chunk {
  id: string;
  model: string;
  choices: { index: number; delta: Partial<Message>; finish_reason: string | null }[];
  usage?: Usage | null;
}

type CallOptions = { headers?: HeadersInit; signal?: AbortSignal };

/** Throws ApiError. */
export interface Ai {
  chat(body: Chat & { stream: true }, options?: CallOptions): Promise<AsyncGenerator<Chunk, void>>;
  chat(body: Chat & { stream?: false }, options?: CallOptions): Promise<Completion>;
  embeddings(
    body: { model?: string; input: string | string[]; [member: string]: unknown },
    options?: CallOptions,
  ): Promise<{ data: { index: number; embedding: number[] }[]; model: string; usage: Usage }>;
  models(): Promise<{ data: { id: string; [member: string]: unknown }[] }>;
  asService(): Ai;
}

/** Throws ApiError. */
export interface Storage {
  from(bucket: string): {
    upload(
      name: string, body: BodyInit, options?: { contentType?: string; upsert?: boolean },
    ): Promise<unknown>;
    download(name: string): Promise<Blob>;
    remove(names: string[]): Promise<unknown>;
    list(prefix?: string, options?: Record<string, unknown>): Promise<unknown>;
    createSignedUrl(name: string, expiresIn: number): Promise<unknown>;
  };
  asService(): Storage;
}
