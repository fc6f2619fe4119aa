-- Why its user broke the glass: one line. Such a session is granted as one that is recorded as well as it
-- can be, for as long as it is open, whatever the relay's policy is for others.

ALTER TABLE sessions ADD COLUMN break_glass TEXT;
