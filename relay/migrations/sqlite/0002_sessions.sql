-- A session from its grant to its end, over every stream it had. Actions are words with a space
-- between them. It is open while "closed" is empty.

CREATE TABLE sessions (
    id          BLOB   NOT NULL PRIMARY KEY,
    user_id     BLOB   NOT NULL REFERENCES users (id),
    device      BLOB   NOT NULL REFERENCES devices (id),
    login       TEXT   NOT NULL,
    kind        TEXT   NOT NULL,
    actions     TEXT   NOT NULL,
    opened      BIGINT NOT NULL,
    ends        BIGINT NOT NULL,
    closed      BIGINT,
    why         TEXT,
    attachments BIGINT NOT NULL DEFAULT 1 CHECK (attachments > 0),
    bytes_up    BIGINT NOT NULL DEFAULT 0,
    bytes_down  BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX sessions_open_by_device ON sessions (device) WHERE closed IS NULL;
CREATE INDEX sessions_open_by_user ON sessions (user_id) WHERE closed IS NULL;
CREATE INDEX sessions_open_by_end ON sessions (ends) WHERE closed IS NULL;

CREATE INDEX decisions_by_session ON decisions (session) WHERE session IS NOT NULL;
CREATE INDEX decisions_by_device ON decisions (device, at) WHERE device IS NOT NULL;
CREATE INDEX decisions_by_user ON decisions (user_id, at) WHERE user_id IS NOT NULL;
