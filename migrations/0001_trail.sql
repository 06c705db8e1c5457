-- The trail of one bot. Runs with search_path set to the bot's schema; see docs/adr/0003-trail-layout.md.

-- Key of the HMAC that turns source ids into `source.hash`. Only owner and writer may read it.
CREATE TABLE trail_key (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    source_key bytea NOT NULL CHECK (octet_length(source_key) = 32)
);
-- gen_random_uuid() draws on the server's cryptographic generator: 2 x 122 random bits.
INSERT INTO trail_key (source_key)
VALUES (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));

-- Which source ids were ever recorded. Survives erasure and retention.
CREATE TABLE source (
    hash uuid PRIMARY KEY,
    seq bigint NOT NULL
);

-- What is proven. Nothing personal; never deleted.
CREATE TABLE envelope (
    seq bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    category smallint NOT NULL,
    commitment bytea NOT NULL CHECK (octet_length(commitment) = 32)
);

-- What can be erased: the record itself, and the columns derived from it for searching.
CREATE TABLE content (
    seq bigint NOT NULL,
    category smallint NOT NULL,
    occurred_at timestamptz NOT NULL,
    salt bytea NOT NULL CHECK (octet_length(salt) = 32),
    content bytea NOT NULL,
    -- Version of the rules behind the columns below; 0: the database refused them.
    derived smallint NOT NULL,
    action text COLLATE "C",
    actor text COLLATE "C",
    room text COLLATE "C",
    relations text[],
    words tsvector,
    PRIMARY KEY (seq, category, occurred_at)
) PARTITION BY LIST (category);
CREATE INDEX content_room ON content (room, seq) WHERE room IS NOT NULL;
CREATE INDEX content_actor ON content (actor, seq);
CREATE INDEX content_action ON content (action, seq);
CREATE INDEX content_words ON content USING gin (words, relations);
CREATE INDEX content_opaque ON content (seq) WHERE derived = 0;

-- Everyone whose data a record contains.
CREATE TABLE subject (
    seq bigint NOT NULL,
    category smallint NOT NULL,
    occurred_at timestamptz NOT NULL,
    person text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL
) PARTITION BY LIST (category);
CREATE INDEX subject_person ON subject (person, seq);
CREATE INDEX subject_seq ON subject USING brin (seq);

DO $$
DECLARE
    number integer;
    base text;
BEGIN
    FOR number IN 1..5 LOOP
        FOREACH base IN ARRAY ARRAY['content', 'subject'] LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES IN (%s) PARTITION BY RANGE (occurred_at)',
                base || '_' || number, base, number);
            EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', base || '_' || number || '_default',
                base || '_' || number);
        END LOOP;
    END LOOP;
END $$;

-- Makes the partitions of these categories and months, and moves there what the default partition
-- holds of them. The writer may call it; it can make nothing but partitions of plausible months.
CREATE FUNCTION ensure_partitions(categories smallint[], months date[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    wanted record;
    base text;
    parent text;
    child text;
    made integer := 0;
BEGIN
    FOR wanted IN
        SELECT DISTINCT w.category, date_trunc('month', w.month::timestamp) AS first
        FROM unnest(categories, months) AS w (category, month)
        WHERE w.category BETWEEN 1 AND 5
          AND w.month >= DATE '2010-01-01' AND w.month < (now() + interval '13 months')::date
        ORDER BY 1, 2
    LOOP
        FOREACH base IN ARRAY ARRAY['content', 'subject'] LOOP
            parent := base || '_' || wanted.category;
            child := parent || '_' || to_char(wanted.first, 'YYYYMM');
            CONTINUE WHEN EXISTS (
                SELECT FROM pg_class
                WHERE relname = child
                  AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'content'::regclass));
            EXECUTE format('LOCK TABLE %I IN SHARE UPDATE EXCLUSIVE MODE', parent);
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
            EXECUTE format(
                'WITH moved AS (DELETE FROM %I WHERE occurred_at >= %L AND occurred_at < %L RETURNING *)
                 INSERT INTO %I SELECT * FROM moved',
                parent || '_default', wanted.first AT TIME ZONE 'UTC',
                (wanted.first + interval '1 month') AT TIME ZONE 'UTC', child);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child,
                wanted.first AT TIME ZONE 'UTC', (wanted.first + interval '1 month') AT TIME ZONE 'UTC');
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION ensure_partitions(smallint[], date[]) FROM PUBLIC;

-- One row per decision to go on after the database was behind or different; the first at creation.
CREATE TABLE epochs (
    epoch bigint PRIMARY KEY,
    nonce uuid NOT NULL DEFAULT gen_random_uuid(),
    start_size bigint NOT NULL,
    start_hash bytea NOT NULL CHECK (octet_length(start_hash) = 32),
    -- The point that was promised and given up, where there was one.
    abandoned_epoch bigint,
    abandoned_size bigint,
    abandoned_hash bytea,
    started_at timestamptz NOT NULL DEFAULT now(),
    decided_by text,
    reason text
);
-- The hash of the empty trail differs from trail to trail, so that two empty databases differ.
WITH first AS (SELECT gen_random_uuid() AS nonce)
INSERT INTO epochs (epoch, nonce, start_size, start_hash)
SELECT 1, nonce, 0, sha256('ems-bots/trail/v1/empty'::bytea || uuid_send(nonce)) FROM first;

-- Where the trail stands, and who may advance it.
CREATE TABLE head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch bigint NOT NULL,
    size bigint NOT NULL CHECK (size >= 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    writer uuid NOT NULL,
    recorded_at timestamptz NOT NULL
) WITH (fillfactor = 10);
INSERT INTO head (epoch, size, hash, writer, recorded_at)
SELECT epoch, start_size, start_hash, gen_random_uuid(), timestamptz 'epoch' FROM epochs;

-- The point after each batch, so that every point ever reported can be found again.
CREATE TABLE checkpoint (
    epoch bigint NOT NULL,
    size bigint NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (epoch, size)
);
INSERT INTO checkpoint (epoch, size, hash, recorded_at)
SELECT epoch, start_size, start_hash, started_at FROM epochs;

-- What other processes want recorded. `mac` covers writer, counter and body under a key that is not here.
CREATE TABLE inbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    writer text COLLATE "C" NOT NULL CHECK (octet_length(writer) BETWEEN 1 AND 200),
    counter bigint NOT NULL CHECK (counter > 0),
    received_at timestamptz NOT NULL DEFAULT now(),
    body bytea NOT NULL CHECK (octet_length(body) <= 4194304),
    mac bytea NOT NULL CHECK (octet_length(mac) = 32),
    UNIQUE (writer, counter)
);

-- How far each source was read; moves in the transaction of the records that it accounts for.
CREATE TABLE cursor (
    name text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);

-- Encrypted events whose key is missing.
CREATE TABLE pending (
    event_id text COLLATE "C" PRIMARY KEY,
    room_id text COLLATE "C" NOT NULL,
    raw bytea NOT NULL,
    reason text COLLATE "C" NOT NULL,
    added bigint GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX pending_added ON pending (added);
CREATE INDEX pending_room ON pending (room_id, added);

-- Gives the roles exactly their rights; the migrator calls it after each run.
CREATE FUNCTION grant_rights(writer text, reader text, inbox text) RETURNS void
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
    EXECUTE format('GRANT SELECT ON trail_key, source, inbox, cursor, pending TO %I', writer);
    EXECUTE format('GRANT INSERT ON source, envelope, content, subject, checkpoint, cursor, pending TO %I', writer);
    EXECUTE format('GRANT UPDATE ON head, cursor, pending TO %I', writer);
    EXECUTE format('GRANT DELETE ON pending, inbox TO %I', writer);
    EXECUTE format('GRANT EXECUTE ON FUNCTION ensure_partitions(smallint[], date[]) TO %I', writer);
    EXECUTE format('GRANT INSERT (writer, counter, body, mac) ON inbox TO %I', inbox);
END $$;
REVOKE ALL ON FUNCTION grant_rights(text, text, text) FROM PUBLIC;
