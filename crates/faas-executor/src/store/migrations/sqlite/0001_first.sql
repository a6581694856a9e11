-- The gateway whose store this is: one row.
CREATE TABLE gateway (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    id TEXT NOT NULL
) STRICT;

CREATE TABLE instances (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT,
    status TEXT NOT NULL,
    status_reason TEXT,
    runtime TEXT NOT NULL,
    image TEXT NOT NULL,
    spec TEXT NOT NULL,
    record TEXT,
    labels TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    last_active_at_ms INTEGER NOT NULL,
    parent_id TEXT,
    snapshot_id TEXT,
    revision INTEGER NOT NULL
) STRICT;
-- Of rows without a name there may be many.
CREATE UNIQUE INDEX instances_name ON instances (tenant, name);
CREATE INDEX instances_newest ON instances (tenant, created_at_ms DESC, id DESC);

CREATE TABLE instance_labels (
    instance_id TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (instance_id, label)
) STRICT, WITHOUT ROWID;

CREATE TABLE tombstones (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    deleted_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE executions (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    instance_id TEXT REFERENCES instances (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    spec TEXT NOT NULL,
    result TEXT,
    created_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER
) STRICT;
CREATE INDEX executions_of_instance ON executions (instance_id, created_at_ms DESC, id DESC);
CREATE INDEX executions_ended ON executions (ended_at_ms);

CREATE TABLE event_counter (newest INTEGER NOT NULL) STRICT;
INSERT INTO event_counter (newest) VALUES (0);

CREATE TABLE events (
    seq INTEGER PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;

CREATE TABLE idempotency_keys (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    route TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'interrupted')),
    -- The process of the server that took it.
    owner TEXT NOT NULL,
    status INTEGER,
    headers TEXT,
    body BLOB,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT;
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at_ms);
