-- +goose Up
-- Creates functions, then the first partitions of empty tables: takes no lock that anybody could wait for.

-- +goose StatementBegin
-- make_partitions creates the daily partitions from p_back days ago to p_ahead days ahead; it returns how many were new.
CREATE FUNCTION usher.make_partitions(p_back integer, p_ahead integer) RETURNS integer
LANGUAGE plpgsql SET search_path = usher, pg_catalog SET timezone = 'UTC' AS $$
DECLARE
  v_parent text;
  v_day    date;
  v_made   integer := 0;
BEGIN
  -- Two recorders at once: one makes them, the other finds them made.
  PERFORM pg_advisory_xact_lock(hashtextextended('usher.make_partitions', 0));
  FOREACH v_parent IN ARRAY ARRAY['decision', 'decision_steps', 'session_history'] LOOP
    FOR v_day IN SELECT generate_series(current_date - p_back, current_date + p_ahead, interval '1 day')::date LOOP
      IF to_regclass(format('usher.%I', v_parent || to_char(v_day, '_YYYYMMDD'))) IS NULL THEN
        EXECUTE format('CREATE TABLE usher.%I PARTITION OF usher.%I FOR VALUES FROM (%L) TO (%L)',
                       v_parent || to_char(v_day, '_YYYYMMDD'), v_parent, v_day::timestamptz, (v_day + 1)::timestamptz);
        v_made := v_made + 1;
      END IF;
    END LOOP;
  END LOOP;
  RETURN v_made;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- old_partitions names the partitions of a table that hold nothing younger than p_keep.
CREATE FUNCTION usher.old_partitions(p_parent text, p_keep interval) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = usher, pg_catalog SET timezone = 'UTC' AS $$
  SELECT c.relname::text
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
   WHERE i.inhparent = to_regclass(format('usher.%I', p_parent))
     AND c.relname ~ ('^' || p_parent || '_[0-9]{8}$')
     AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1 <= (now() - p_keep)::date
   ORDER BY 1
$$;
-- +goose StatementEnd

SELECT usher.make_partitions(3, 7);

-- +goose Down
DROP FUNCTION usher.old_partitions(text, interval);
DROP FUNCTION usher.make_partitions(integer, integer);
