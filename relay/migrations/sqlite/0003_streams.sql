-- Which of a session's streams is the present one: 0 the first, one more each time another client
-- takes the session over. Who still has an earlier one does not get it back.

ALTER TABLE sessions ADD COLUMN stream BIGINT NOT NULL DEFAULT 0 CHECK (stream >= 0);
