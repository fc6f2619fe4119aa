-- The audit log. "entry" is the line of the log, whose bytes are a leaf of its tree; the other columns
-- of "decisions" are copies for questions asked here. A tile has up to 256 hashes of 32 bytes, side by
-- side. Of the checkpoints the newest is kept, and the last one in each tile of entries.

ALTER TABLE decisions ADD COLUMN entry TEXT;

CREATE TABLE audit_tiles (
    level  BIGINT NOT NULL,
    place  BIGINT NOT NULL,
    hashes BLOB   NOT NULL,
    PRIMARY KEY (level, place)
);

CREATE TABLE audit_checkpoints (
    size BIGINT NOT NULL PRIMARY KEY,
    note TEXT   NOT NULL
);
