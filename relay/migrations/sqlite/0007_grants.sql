-- Grants as their devices were sent them, for evidence: each is named in the audit log by its SHA-256
-- ("grant-issued"), in the same transaction. A session has one for each time it was handed over.

CREATE TABLE grants (
    id      INTEGER PRIMARY KEY,
    session BLOB    NOT NULL REFERENCES sessions (id),
    signed  BLOB    NOT NULL
);
CREATE INDEX grants_by_session ON grants (session);
