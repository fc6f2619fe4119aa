-- A session that joins a terminal of another one: which session, which of its terminals (NULL: the only
-- one), and whether it only looks on.

ALTER TABLE sessions ADD COLUMN joins BLOB;
ALTER TABLE sessions ADD COLUMN joins_terminal BIGINT;
ALTER TABLE sessions ADD COLUMN joins_read_only BIGINT;
CREATE INDEX sessions_open_that_join ON sessions (joins) WHERE closed IS NULL AND joins IS NOT NULL;
