-- Where the bot stands in every room of the homeserver, as its worker saw it last: written when that changes, beside the
-- trail and no part of it. A room that is gone from the homeserver is gone from here.
CREATE TABLE room (
    room_id text COLLATE "C" PRIMARY KEY,
    -- Not of rooms that the selection leaves out.
    name text COLLATE "C",
    state text COLLATE "C" NOT NULL CHECK (state IN ('pending', 'covered', 'limited', 'excluded', 'blocked')),
    reason text COLLATE "C",
    since timestamptz NOT NULL,
    -- For the next process of the worker: the bot has said what it is, and was seen among the functional members.
    is_greeted boolean NOT NULL,
    was_functional_member boolean NOT NULL
);

CREATE OR REPLACE FUNCTION grant_rights(writer text, reader text, inbox text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    role text;
    here text := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.oid = 'content'::regclass);
BEGIN
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', here);
    FOREACH role IN ARRAY ARRAY[writer, reader, inbox] LOOP
        IF NOT has_database_privilege(role, current_database(), 'CONNECT') THEN
            EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
        END IF;
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', here, role);
        EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA %I FROM %I', here, role);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', here, role);
    END LOOP;
    EXECUTE format('GRANT SELECT ON _sqlx_migrations, envelope, content, subject, head, checkpoint, epochs TO %I, %I',
        writer, reader);
    EXECUTE format('GRANT SELECT ON trail_key, source, inbox, cursor, pending, snapshot TO %I', writer);
    EXECUTE format('GRANT INSERT ON source, envelope, content, subject, checkpoint, cursor, pending, snapshot TO %I',
        writer);
    EXECUTE format('GRANT UPDATE ON head, cursor, pending, snapshot TO %I', writer);
    EXECUTE format('GRANT DELETE ON pending, inbox, snapshot TO %I', writer);
    EXECUTE format('GRANT EXECUTE ON FUNCTION ensure_partitions(smallint[], date[]) TO %I', writer);
    EXECUTE format('GRANT INSERT (writer, counter, body, mac) ON inbox TO %I', inbox);
    -- Content is added and never changed or removed; which there is, the writer may know, what it is, it need not.
    EXECUTE format('GRANT SELECT (sha256, size, bucket), INSERT ON media TO %I', writer);
    EXECUTE format('GRANT SELECT ON media TO %I', reader);
    EXECUTE format('GRANT SELECT, INSERT, DELETE, UPDATE (tries, next_try) ON attachment TO %I', writer);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON room TO %I', writer);
    EXECUTE format('GRANT SELECT ON room TO %I', reader);
END $$;
