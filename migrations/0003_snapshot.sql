-- What a source without events of its own showed last (accounts, sessions, the homeserver itself): the next look is
-- compared with it. A cache of the records that it was made with, in their transaction.
CREATE TABLE snapshot (
    source text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (source, key)
);

-- As before, with the snapshots, which are the writer's alone.
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
END $$;
