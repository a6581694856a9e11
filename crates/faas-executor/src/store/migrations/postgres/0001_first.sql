-- Ids are compared byte by byte, as SQLite does, whatever the locale of the database.
-- The gateway whose store this is: one row.
CREATE TABLE gateway (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    id TEXT COLLATE "C" NOT NULL
);

CREATE TABLE instances (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    name TEXT,
    status TEXT NOT NULL,
    status_reason TEXT,
    runtime TEXT NOT NULL,
    image TEXT NOT NULL,
    spec TEXT NOT NULL,
    record TEXT,
    labels TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    last_active_at_ms BIGINT NOT NULL,
    parent_id TEXT,
    snapshot_id TEXT,
    revision BIGINT NOT NULL
);
-- Of rows without a name there may be many.
CREATE UNIQUE INDEX instances_name ON instances (tenant, name);
CREATE INDEX instances_newest ON instances (tenant, created_at_ms DESC, id DESC);

CREATE TABLE instance_labels (
    instance_id TEXT COLLATE "C" NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (instance_id, label)
);

CREATE TABLE tombstones (
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    deleted_at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE executions (
    id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    instance_id TEXT COLLATE "C" REFERENCES instances (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    spec TEXT NOT NULL,
    result TEXT,
    created_at_ms BIGINT NOT NULL,
    ended_at_ms BIGINT
);
CREATE INDEX executions_of_instance ON executions (instance_id, created_at_ms DESC, id DESC);
CREATE INDEX executions_ended ON executions (ended_at_ms);

CREATE TABLE event_counter (newest BIGINT NOT NULL);
INSERT INTO event_counter (newest) VALUES (0);

CREATE TABLE events (
    seq BIGINT PRIMARY KEY NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    at_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    data TEXT NOT NULL
);

CREATE TABLE idempotency_keys (
    tenant TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    route TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'interrupted')),
    -- The process of the server that took it.
    owner TEXT NOT NULL,
    status BIGINT,
    headers TEXT,
    body BYTEA,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at_ms);
