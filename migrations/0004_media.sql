-- What was attached to messages; see docs/adr/0008-attachments.md.

-- The content of attachments, each content once. Rows are added before the record that speaks of them.
CREATE TABLE media (
    sha256 bytea PRIMARY KEY CHECK (octet_length(sha256) = 32),
    size bigint NOT NULL CHECK (size >= 0),
    content bytea,
    -- Which bucket holds it; then there is no content here.
    bucket text COLLATE "C",
    stored_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((content IS NULL) <> (bucket IS NULL)),
    CHECK (octet_length(content) = size)
);
-- Images, archives and films do not get smaller by being compressed once more.
ALTER TABLE media ALTER COLUMN content SET STORAGE EXTERNAL;

-- Attachments whose content is still to be fetched. `seq` is the record that mentions them: erasing it erases this,
-- too. What a sender chose is in `wanted`, as bytes, where no value of it can be refused.
CREATE TABLE attachment (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq bigint NOT NULL,
    wanted bytea NOT NULL,
    tries integer NOT NULL DEFAULT 0,
    next_try timestamptz NOT NULL,
    queued_at timestamptz NOT NULL
);
-- What was never tried does not wait behind what fails.
CREATE INDEX attachment_first ON attachment (next_try, id) WHERE tries = 0;
CREATE INDEX attachment_again ON attachment (next_try, id) WHERE tries > 0;

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
END $$;
