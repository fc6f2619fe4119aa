-- What is told of a session that somebody ended: who and why, one line. It stands there before anything
-- is ended, so that a relay that was killed meanwhile still ends it. Past sessions are read newest
-- first, by their ids, which begin with their time.

ALTER TABLE sessions ADD COLUMN killed TEXT;

CREATE INDEX sessions_by_user ON sessions (user_id, id);
CREATE INDEX sessions_by_device ON sessions (device, id);
