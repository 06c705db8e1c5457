-- The console's own database: what is on its way into a trail that cannot be reached. Runs with search_path set to
-- the schema; all of it belongs to the one role that the console logs in as.

-- A trail that something waited for, and when it is tried again: one that cannot be reached holds up no other.
CREATE TABLE trail (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    due timestamptz NOT NULL DEFAULT now(),
    -- Until then a replica carries its messages.
    leased timestamptz NOT NULL DEFAULT '-infinity',
    tries integer NOT NULL DEFAULT 0,
    -- When there was such a bot, or something began to wait for it.
    seen timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, namespace, name)
);
CREATE INDEX trail_due ON trail (due);

CREATE TABLE waiting (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    trail bigint NOT NULL REFERENCES trail,
    -- SHA-256 of the trail and the record's source: the same record waits once.
    mark bytea NOT NULL UNIQUE CHECK (octet_length(mark) = 32),
    -- The message as the trail's inbox takes it.
    counter bigint NOT NULL CHECK (counter > 0),
    body bytea NOT NULL CHECK (octet_length(body) <= 4194304),
    -- Whether the one who reported it proved to be the API server.
    is_proven boolean NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX waiting_trail ON waiting (trail, id);
CREATE INDEX waiting_received ON waiting (received_at);
CREATE INDEX waiting_unproven ON waiting (id) WHERE NOT is_proven;

-- What was recorded last of things that are compared with what they were before.
CREATE TABLE known (
    name text COLLATE "C" PRIMARY KEY,
    value text NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now()
);
