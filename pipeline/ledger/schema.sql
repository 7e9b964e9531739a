-- The ledger: the queue, all results and all costs. Times are seconds since 1970 (UTC), money is US dollars.

CREATE TABLE job (
    pk           INTEGER PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE COLLATE NOCASE CHECK (name != ''),
    file         TEXT,                                      -- the job file that the name belongs to
    provider     TEXT NOT NULL,
    rehearsal    INTEGER NOT NULL CHECK (rehearsal IN (0, 1)), -- 1: served by the sandbox, nothing is billed
    budget_usd   REAL CHECK (budget_usd >= 0),
    revision     INTEGER NOT NULL DEFAULT 0,                -- of the job file as it was last submitted completely
    submitted_at REAL NOT NULL
) STRICT;

-- A request counts while stated = the job's revision. With stated < revision it is superseded; with stated > revision
-- its submit is still in progress, or was interrupted.
CREATE TABLE request (
    pk          INTEGER PRIMARY KEY,
    job         INTEGER NOT NULL REFERENCES job (pk),
    key         TEXT NOT NULL CHECK (length(key) = 64),
    stated      INTEGER NOT NULL CHECK (stated >= 1),       -- the newest revision of the job file that has it
    position    INTEGER NOT NULL,
    id          TEXT NOT NULL CHECK (id != ''),
    stem        TEXT,                                       -- how the worker that processes it names its files
    operation   TEXT NOT NULL CHECK (operation IN ('generation', 'edit', 'variation')),
    served_by   TEXT NOT NULL CHECK (served_by IN ('generation', 'edit', 'variation')),  -- whose endpoint is called
    prompt      TEXT,
    params      TEXT NOT NULL CHECK (json_valid(params)),
    variables   TEXT NOT NULL CHECK (json_valid(variables)),
    inputs      TEXT NOT NULL CHECK (json_valid(inputs)),
    n           INTEGER NOT NULL CHECK (n >= 1),            -- images wanted
    received    INTEGER NOT NULL DEFAULT 0 CHECK (received >= 0),   -- images on disk
    moderated   INTEGER NOT NULL DEFAULT 0 CHECK (moderated >= 0),  -- images refused by the service, not requested again
    status      TEXT NOT NULL DEFAULT 'pending'
                CHECK (status IN ('pending', 'running', 'succeeded', 'partial', 'failed', 'cancelled')),
    attempts    INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    maybe_paid  INTEGER NOT NULL DEFAULT 0 CHECK (maybe_paid >= 0), -- attempts whose outcome is unknown
    cost_usd    REAL,
    estimate_usd REAL,                                      -- of all n images, as the plan had it
    error       TEXT CHECK (error IS NULL OR json_valid(error)),
    endpoint    TEXT,
    created_at  REAL NOT NULL,
    finished_at REAL,
    UNIQUE (job, key)
) STRICT;

CREATE INDEX request_pending ON request (job, stated, position) WHERE status = 'pending';
CREATE INDEX request_running ON request (job, stem COLLATE NOCASE) WHERE status = 'running';

-- One HTTP call. It is recorded before it is sent; without an outcome it is in flight, or its process was killed.
CREATE TABLE attempt (
    pk           INTEGER PRIMARY KEY,
    request      INTEGER NOT NULL REFERENCES request (pk),
    provider     TEXT NOT NULL,
    n            INTEGER NOT NULL CHECK (n >= 1),           -- images requested
    estimate_usd REAL,
    sent_at      REAL NOT NULL,
    ended_at     REAL,
    outcome      TEXT CHECK (outcome IN ('not_sent', 'refused', 'answered', 'unknown')),
    http_status  INTEGER,
    error        TEXT CHECK (error IS NULL OR json_valid(error)),
    request_id   TEXT,
    usage        TEXT CHECK (usage IS NULL OR json_valid(usage)),
    settings     TEXT CHECK (settings IS NULL OR json_valid(settings)), -- that the server reports it used
    cost_usd     REAL,
    CHECK ((outcome IS NULL) = (ended_at IS NULL))
) STRICT;

CREATE INDEX attempt_request ON attempt (request);
CREATE INDEX attempt_open ON attempt (pk) WHERE outcome IS NULL;
CREATE INDEX attempt_sent ON attempt (provider, sent_at);

-- One image of a response: paid (its URL is known), stored (its file is whole on disk), or lost (its URL expired, its
-- bytes were not valid, or its file was removed).
CREATE TABLE image (
    pk             INTEGER PRIMARY KEY,
    request        INTEGER NOT NULL REFERENCES request (pk),
    attempt        INTEGER NOT NULL REFERENCES attempt (pk),
    job            INTEGER NOT NULL REFERENCES job (pk),
    number         INTEGER NOT NULL CHECK (number >= 1),
    state          TEXT NOT NULL CHECK (state IN ('paid', 'stored', 'lost')),
    url            TEXT,
    expires_at     REAL,
    revised_prompt TEXT,
    file           TEXT,                                    -- relative to the job's folder
    sha256         TEXT CHECK (length(sha256) = 64),
    bytes          INTEGER CHECK (bytes > 0),
    width          INTEGER CHECK (width > 0),
    height         INTEGER CHECK (height > 0),
    format         TEXT,
    CHECK ((state = 'paid') = (url IS NOT NULL)),
    CHECK ((state = 'stored') = (file IS NOT NULL AND sha256 IS NOT NULL AND bytes IS NOT NULL))
) STRICT;

CREATE INDEX image_request ON image (request);
CREATE INDEX image_paid ON image (expires_at) WHERE state = 'paid';
CREATE UNIQUE INDEX image_file ON image (job, file COLLATE NOCASE) WHERE file IS NOT NULL;

-- What a provider last requested; it holds across runs.
CREATE TABLE provider (
    name         TEXT PRIMARY KEY,
    paused_until REAL NOT NULL
) STRICT;

-- The process that holds, or held last, the lock of this output folder; whether it still does, the lock file says.
CREATE TABLE holder (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    pid        INTEGER NOT NULL,
    host       TEXT NOT NULL,
    started_at REAL NOT NULL
) STRICT;
