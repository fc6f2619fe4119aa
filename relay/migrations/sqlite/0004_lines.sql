-- Two machines were seen alive with one device's key. Which run of the agent holds the line, which
-- was refused, from where and since when; all empty while nothing is suspected. A person decides.

ALTER TABLE devices ADD COLUMN clone_since BIGINT;
ALTER TABLE devices ADD COLUMN clone_source TEXT;
ALTER TABLE devices ADD COLUMN clone_kept BLOB;
ALTER TABLE devices ADD COLUMN clone_refused BLOB;

-- Lines over QUIC that are up: where the device is, and the id that the relay gave the connection.
-- A relay that was killed tells them so when it starts again.

CREATE TABLE lines (
    device  BLOB NOT NULL PRIMARY KEY REFERENCES devices (id),
    address TEXT NOT NULL,
    id      BLOB NOT NULL
);
