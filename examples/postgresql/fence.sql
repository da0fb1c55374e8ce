-- Fences for PostgreSQL: tables that take no write but from a holder of a lock of Ringfence, and none from a former holder.
--
-- Load it once into the schema of your tables, then fence each table with the lock that its writers hold:
--
--   CREATE TRIGGER fenced BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON account
--     FOR EACH STATEMENT EXECUTE FUNCTION ringfence_demand('lock:jobs');
--
-- A writer says in its transaction which token it holds (RINGFENCE_SCOPE and RINGFENCE_TOKEN under `ringfence lock run`):
--
--   BEGIN;
--   SELECT ringfence_present('lock:jobs', 33);
--   UPDATE account SET balance = balance - 10 WHERE id = 1;
--   COMMIT;
--
-- A token smaller than the largest one seen of its scope is refused with SQLSTATE RF001, a write without one with RF002; the
-- transaction is undone then.

-- The largest token seen of each scope. Rows are never deleted: a scope that is forgotten takes any token again.
CREATE TABLE ringfence_fence (
  scope text PRIMARY KEY,
  token bigint NOT NULL CHECK (token > 0)
);

-- Judges a token, and remembers it if it is larger than any before. From here to the end of the transaction this scope's row is
-- locked, so nobody's token comes between this check and the writes that follow. Another holder waits for that long: keep
-- such transactions short, and set idle_in_transaction_session_timeout to less than the locks' TTL, or a holder that is
-- paused in the middle of one keeps its successor waiting.
CREATE FUNCTION ringfence_pass(presented_scope text, presented bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  largest bigint;
BEGIN
  INSERT INTO ringfence_fence AS seen VALUES (presented_scope, presented)
    ON CONFLICT (scope) DO UPDATE SET token = excluded.token WHERE seen.token <= excluded.token;
  IF NOT FOUND THEN
    SELECT token INTO largest FROM ringfence_fence WHERE scope = presented_scope;
    RAISE EXCEPTION 'stale fence: token % of % came after token %', presented, presented_scope, largest
      USING ERRCODE = 'RF001';
  END IF;
END
$$;

-- Says for the rest of the transaction which token the writes carry, and judges it at once. One scope at a time.
CREATE FUNCTION ringfence_present(presented_scope text, presented bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM ringfence_pass(presented_scope, presented);
  PERFORM set_config('ringfence.scope', presented_scope, true);
  PERFORM set_config('ringfence.token', presented::text, true);
END
$$;

-- The trigger of a fenced table; its argument is the scope that writers must hold.
CREATE FUNCTION ringfence_demand() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  presented_scope text := current_setting('ringfence.scope', true);
  presented text := current_setting('ringfence.token', true);
BEGIN
  IF presented_scope IS DISTINCT FROM TG_ARGV[0] OR coalesce(presented, '') = '' THEN
    RAISE EXCEPTION 'the table % is fenced: a write of it needs a token of %', TG_TABLE_NAME, TG_ARGV[0]
      USING ERRCODE = 'RF002';
  END IF;
  PERFORM ringfence_pass(presented_scope, presented::bigint);
  RETURN NULL;
END
$$;
