-- Times are seconds since 1970 (UTC). Identifiers are the 16 bytes of a UUID. Digests are SHA-256.

CREATE TABLE users (
    id       BLOB   NOT NULL PRIMARY KEY,
    name     TEXT   NOT NULL UNIQUE,
    roles    TEXT   NOT NULL,
    disabled BIGINT NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    password TEXT,
    created  BIGINT NOT NULL
);

CREATE TABLE login_codes (
    digest  BLOB   NOT NULL PRIMARY KEY,
    user_id BLOB   NOT NULL REFERENCES users (id),
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    used    BIGINT
);
CREATE INDEX login_codes_by_user ON login_codes (user_id);
CREATE INDEX login_codes_by_expiry ON login_codes (expires);

CREATE TABLE tokens (
    digest       BLOB   NOT NULL PRIMARY KEY,
    created      BIGINT NOT NULL,
    created_by   BLOB   NOT NULL REFERENCES users (id),
    expires      BIGINT NOT NULL,
    uses_left    BIGINT NOT NULL CHECK (uses_left >= 0),
    name_pattern TEXT,
    labels       TEXT   NOT NULL
);
CREATE INDEX tokens_by_expiry ON tokens (expires);

CREATE TABLE devices (
    id               BLOB   NOT NULL PRIMARY KEY,
    name             TEXT   NOT NULL,
    status           TEXT   NOT NULL CHECK (status IN ('active', 'quarantined', 'decommissioned')),
    enrolled         BIGINT NOT NULL,
    token            BLOB   NOT NULL,
    key_digest       BLOB   NOT NULL UNIQUE,
    next_key_digest  BLOB   UNIQUE,
    ssh_host_key     TEXT   NOT NULL,
    hostname         TEXT   NOT NULL,
    platform         TEXT   NOT NULL,
    software         TEXT   NOT NULL,
    last_seen        BIGINT,
    last_end         TEXT,
    certificate_ends BIGINT NOT NULL
);
CREATE UNIQUE INDEX devices_by_live_name ON devices (name) WHERE status <> 'decommissioned';

CREATE TABLE device_labels (
    device_id BLOB NOT NULL REFERENCES devices (id),
    name      TEXT NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (device_id, name)
);

CREATE TABLE decisions (
    seq     INTEGER PRIMARY KEY,
    at      BIGINT NOT NULL,
    kind    TEXT   NOT NULL,
    user_id BLOB,
    device  BLOB,
    session BLOB,
    login   TEXT,
    code    TEXT,
    detail  TEXT,
    source  TEXT
);

CREATE TRIGGER decisions_are_not_changed BEFORE UPDATE ON decisions
BEGIN
    SELECT RAISE (ABORT, 'decisions are append-only');
END;

CREATE TRIGGER decisions_are_not_removed BEFORE DELETE ON decisions
BEGIN
    SELECT RAISE (ABORT, 'decisions are append-only');
END;
