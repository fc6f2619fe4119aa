-- Legal holds. One of "session", "device" and "user_id" says what is held. A hold is never removed: it
-- is released.

CREATE TABLE holds (
    id             INTEGER PRIMARY KEY,
    session        BLOB,
    device         BLOB,
    user_id        BLOB,
    reason         TEXT   NOT NULL,
    placed         BIGINT NOT NULL,
    placed_by      BLOB   NOT NULL,
    released       BIGINT,
    released_by    BLOB,
    release_reason TEXT,
    CHECK ((session IS NOT NULL) + (device IS NOT NULL) + (user_id IS NOT NULL) = 1)
);
CREATE INDEX holds_in_force ON holds (id) WHERE released IS NULL;

-- Recordings that are deleted, each written with its entry of the audit log, before the file goes.
-- "gone" is empty until the file is. "late" is set when its device brought more of it after that.

CREATE TABLE deleted_recordings (
    session BLOB   NOT NULL PRIMARY KEY,
    at      BIGINT NOT NULL,
    last    BIGINT,
    head    BLOB,
    bytes   BIGINT NOT NULL,
    state   TEXT   NOT NULL,
    why     TEXT   NOT NULL,
    gone    BIGINT,
    late    BIGINT
);
CREATE INDEX deleted_recordings_not_gone ON deleted_recordings (session) WHERE gone IS NULL;

-- Up to which entry of the audit log texts may be missing, and since when. Entries lose their text only
-- up to there, and nothing else of a row ever changes.

CREATE TABLE audit_prunings (
    upto BIGINT NOT NULL PRIMARY KEY,
    at   BIGINT NOT NULL
);

DROP TRIGGER decisions_are_not_changed;

CREATE TRIGGER decisions_are_not_changed BEFORE UPDATE ON decisions
WHEN NEW.seq <> OLD.seq OR NEW.at <> OLD.at OR NEW.kind <> OLD.kind OR NEW.entry IS NOT NULL
    OR coalesce (NEW.user_id, NEW.device, NEW.session, NEW.login, NEW.code, NEW.detail, NEW.source)
        IS NOT NULL
    OR OLD.seq > (SELECT coalesce (max (upto), 0) FROM audit_prunings)
BEGIN
    SELECT RAISE (ABORT, 'decisions are append-only');
END;

-- How far each export of the audit log has come: the last entry its receiver has acknowledged, the
-- last one of a batch that is under way (0 when none is), and whether its being behind is on record.

CREATE TABLE export_cursors (
    name   TEXT   NOT NULL PRIMARY KEY,
    seq    BIGINT NOT NULL,
    upto   BIGINT NOT NULL,
    behind BIGINT NOT NULL
);

-- Checkpoints with the signatures of witnesses below the relay's. Kept are the newest, and the last one
-- in each tile of entries.

CREATE TABLE audit_cosigned (
    size BIGINT NOT NULL PRIMARY KEY,
    note TEXT   NOT NULL
);
