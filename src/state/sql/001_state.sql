-- What Crossfade keeps in the target database. Applied once, in one transaction; never edited after a
-- release: a change is the next number.

CREATE TABLE crossfade.migration (
    name          text PRIMARY KEY,
    config_digest text NOT NULL,
    slot_seen     text,           -- the connector's slot that was there: its absence is a gap
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Who may write the target columns. Raising the epoch waits for every transaction that checked it.
CREATE TABLE crossfade.ownership (
    migration  text PRIMARY KEY REFERENCES crossfade.migration (name),
    mode       text NOT NULL CHECK (mode IN ('derive', 'fill_only', 'off', 'reverse')),
    epoch      bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- How far each share of each partition is accounted for. Positions are inclusive: the last record that
-- is done. The free space keeps the many updates of few rows inside their page.
CREATE TABLE crossfade.progress (
    migration  text NOT NULL REFERENCES crossfade.migration (name),
    topic      text NOT NULL,
    partition  integer NOT NULL,
    lane       integer NOT NULL,
    lanes      integer NOT NULL,
    source     text NOT NULL,     -- identity of database and cluster: positions of another mean nothing
    epoch      bigint NOT NULL,   -- raised by each take-over: fences the former owner
    position   bigint NOT NULL,
    mark_lsn   pg_lsn,            -- names the record at position, to recognise it when it is read again
    mark_digest bigint NOT NULL,
    foreign_before bigint NOT NULL DEFAULT 0,   -- records before this offset are another server's
    owner      text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (migration, topic, partition, lanes, lane)
) WITH (fillfactor = 10);

-- Records and rows that could not be applied: where they are and why, never what they hold.
CREATE TABLE crossfade.dead_letter (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration   text NOT NULL REFERENCES crossfade.migration (name),
    topic       text NOT NULL,
    partition   integer NOT NULL,
    position    bigint NOT NULL,
    key_hash    text,             -- of the row's key, where the record had one
    reason      text NOT NULL,
    detail      text NOT NULL,    -- SQLSTATE, table, column, constraint: no values
    found_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz,
    resolution  text,
    UNIQUE (migration, topic, partition, position)
);
CREATE INDEX dead_letter_open ON crossfade.dead_letter (migration) WHERE resolved_at IS NULL;

-- Times at which the source may have lost something. Sticky until a sweep that began later ends clean.
CREATE TABLE crossfade.source_gap (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL REFERENCES crossfade.migration (name),
    topic     text NOT NULL,
    partition integer,
    reason    text NOT NULL,
    detail    text NOT NULL,
    found_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    healed_at timestamptz
);
CREATE INDEX source_gap_open ON crossfade.source_gap (migration) WHERE healed_at IS NULL;

-- Raises CF003 unless each of the transactions has ended as far as a new snapshot can see.
--
-- A commit is streamed before it becomes visible, for as long as a synchronous standby is silent. A
-- statement that runs after this function in READ COMMITTED sees at least what it saw. The ids are the
-- low 32 bits; each is taken for the transaction nearest to the present. Returns the oldest transaction
-- that still runs: what is older need not be asked for again.
CREATE FUNCTION crossfade.require_visible(p_xids bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    snapshot pg_snapshot := pg_current_snapshot();
    xmax     bigint := pg_snapshot_xmax(snapshot)::text::bigint;
    xid      bigint;
    distance bigint;
BEGIN
    FOREACH xid IN ARRAY p_xids LOOP
        distance := (xid - xmax) & 4294967295;
        IF distance >= 2147483648 THEN
            distance := distance - 4294967296;
        END IF;
        IF NOT pg_visible_in_snapshot((xmax + distance)::text::xid8, snapshot) THEN
            RAISE EXCEPTION 'a transaction is not visible yet' USING ERRCODE = 'CF003';
        END IF;
    END LOOP;
    RETURN pg_snapshot_xmin(snapshot)::text::bigint;
END $$;

-- Checks ownership and moves progress, inside the transaction that wrote the rows. Raises, since a fence
-- that merely matches no row cannot stop a COMMIT that is already sent: CF001 where the ownership is
-- another one, CF002 where the progress row is not where the batch began, CF004 outside of a transaction
-- that began with SET LOCAL crossfade.batch = 'open'.
--
-- p_from = p_to is a slice that accounts for nothing yet: it checks the same and moves nothing.
-- Returns the database's clock in microseconds since the Unix epoch.
CREATE FUNCTION crossfade.advance(
    p_migration text, p_mode text, p_ownership bigint,
    p_topic text, p_partition integer, p_lane integer, p_lanes integer, p_epoch bigint,
    p_from bigint, p_to bigint, p_mark_lsn pg_lsn, p_mark_digest bigint
) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- A cancel can hit the BEGIN alone; what follows would then commit statement by statement.
    IF current_setting('crossfade.batch', true) IS DISTINCT FROM 'open' THEN
        RAISE EXCEPTION 'the batch has no transaction' USING ERRCODE = 'CF004';
    END IF;
    -- Whoever raises the epoch takes this lock exclusively, so it waits for us, and we for it. Cheaper
    -- than FOR SHARE on the row: no multixact and no WAL a batch.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('crossfade.ownership ' || p_migration, 0));
    PERFORM FROM crossfade.ownership o
      WHERE o.migration = p_migration AND o.mode = p_mode AND o.epoch = p_ownership;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the ownership of the columns has changed' USING ERRCODE = 'CF001';
    END IF;

    IF p_from = p_to THEN
        PERFORM FROM crossfade.progress p
          WHERE p.migration = p_migration AND p.topic = p_topic AND p.partition = p_partition
            AND p.lanes = p_lanes AND p.lane = p_lane AND p.epoch = p_epoch AND p.position = p_from
          FOR SHARE;
    ELSE
        UPDATE crossfade.progress p
           SET position = p_to, mark_lsn = p_mark_lsn, mark_digest = p_mark_digest,
               updated_at = clock_timestamp()
         WHERE p.migration = p_migration AND p.topic = p_topic AND p.partition = p_partition
           AND p.lanes = p_lanes AND p.lane = p_lane AND p.epoch = p_epoch AND p.position = p_from;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'progress is not where the batch began' USING ERRCODE = 'CF002';
    END IF;
    RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $$;
