-- +goose Up
-- Creates new tables, functions and views: takes no lock that anybody could wait for.

-- The operator's own subscribers, for checks of type users. The token stands here as its
-- fingerprint under the cluster's key, the password as an argon2id hash.
CREATE TABLE usher.subscriber (
  realm      text        NOT NULL,
  user_id    text        NOT NULL,
  name       text        NOT NULL DEFAULT '',
  token      uuid,
  login      text,
  password   text,
  sessions   integer     NOT NULL DEFAULT 0 CHECK (sessions BETWEEN 0 AND 1000000),
  expires_at timestamptz,
  networks   cidr[]      NOT NULL DEFAULT '{}',
  blocked_at timestamptz,
  comment    text        NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (realm, user_id),
  CHECK (user_id <> '' AND octet_length(user_id) <= 256 AND octet_length(login) <= 256 AND octet_length(name) <= 256),
  CHECK (octet_length(password) <= 256 AND octet_length(comment) <= 2048 AND cardinality(networks) <= 64),
  CHECK (password IS NULL OR login IS NOT NULL)
);
CREATE UNIQUE INDEX subscriber_token ON usher.subscriber (realm, token);
CREATE UNIQUE INDEX subscriber_login ON usher.subscriber (realm, login);

-- What is sold together: patterns of streams, as in `match`.
CREATE TABLE usher.package (
  realm      text        NOT NULL,
  name       text        NOT NULL,
  streams    text[]      NOT NULL,
  comment    text        NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (realm, name),
  CHECK (name <> '' AND octet_length(name) <= 64 AND octet_length(comment) <= 2048)
);

CREATE TABLE usher.subscriber_package (
  realm   text NOT NULL,
  user_id text NOT NULL,
  package text NOT NULL,
  PRIMARY KEY (realm, user_id, package),
  FOREIGN KEY (realm, user_id) REFERENCES usher.subscriber ON DELETE CASCADE,
  FOREIGN KEY (realm, package) REFERENCES usher.package
);
CREATE INDEX subscriber_package_package ON usher.subscriber_package (realm, package);

-- What workers must forget. Each remembers the snapshot of its last look and asks for the rows
-- that are visible now and were not then, so that no order of commits hides one. A row without
-- arrays stands for too many subscribers to name.
CREATE TABLE usher.subscriber_change (
  xid      xid8        NOT NULL DEFAULT pg_current_xact_id(),
  at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  realms   text[],
  tokens   uuid[],
  logins   text[],
  packages boolean     NOT NULL DEFAULT false
);
CREATE INDEX subscriber_change_xid ON usher.subscriber_change (xid);

-- +goose StatementBegin
CREATE FUNCTION usher.note_subscribers(n bigint, realms text[], tokens uuid[], logins text[]) RETURNS void
LANGUAGE sql AS $$
  INSERT INTO usher.subscriber_change (realms, tokens, logins)
  SELECT CASE WHEN n <= 500 THEN realms END, CASE WHEN n <= 500 THEN tokens END, CASE WHEN n <= 500 THEN logins END
   WHERE n > 0;
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION usher.subscriber_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  n bigint; r text[]; t uuid[]; l text[];
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT count(*), array_agg(realm), array_agg(token), array_agg(login) INTO n, r, t, l
      FROM (SELECT realm, token, login FROM new_rows LIMIT 501) x;
  ELSIF TG_OP = 'DELETE' THEN
    SELECT count(*), array_agg(realm), array_agg(token), array_agg(login) INTO n, r, t, l
      FROM (SELECT realm, token, login FROM old_rows LIMIT 501) x;
  ELSE
    SELECT count(*), array_agg(realm), array_agg(token), array_agg(login) INTO n, r, t, l
      FROM (SELECT realm, token, login FROM old_rows UNION SELECT realm, token, login FROM new_rows LIMIT 501) x;
  END IF;
  PERFORM usher.note_subscribers(n, r, t, l);
  RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION usher.subscriber_package_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  n bigint; r text[]; t uuid[]; l text[];
BEGIN
  IF TG_OP = 'INSERT' THEN
    SELECT count(*), array_agg(s.realm), array_agg(s.token), array_agg(s.login) INTO n, r, t, l
      FROM (SELECT realm, user_id FROM new_rows LIMIT 501) x JOIN usher.subscriber s USING (realm, user_id);
  ELSIF TG_OP = 'DELETE' THEN
    SELECT count(*), array_agg(s.realm), array_agg(s.token), array_agg(s.login) INTO n, r, t, l
      FROM (SELECT realm, user_id FROM old_rows LIMIT 501) x JOIN usher.subscriber s USING (realm, user_id);
  ELSE
    SELECT count(*), array_agg(s.realm), array_agg(s.token), array_agg(s.login) INTO n, r, t, l
      FROM (SELECT realm, user_id FROM old_rows UNION SELECT realm, user_id FROM new_rows LIMIT 501) x
      JOIN usher.subscriber s USING (realm, user_id);
  END IF;
  PERFORM usher.note_subscribers(n, r, t, l);
  RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION usher.package_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO usher.subscriber_change (realms, tokens, logins, packages) VALUES ('{}', '{}', '{}', true);
  RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER subscriber_inserted AFTER INSERT ON usher.subscriber
  REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.subscriber_changed();
CREATE TRIGGER subscriber_updated AFTER UPDATE ON usher.subscriber
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.subscriber_changed();
CREATE TRIGGER subscriber_deleted AFTER DELETE ON usher.subscriber
  REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.subscriber_changed();
CREATE TRIGGER subscriber_package_inserted AFTER INSERT ON usher.subscriber_package
  REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.subscriber_package_changed();
CREATE TRIGGER subscriber_package_updated AFTER UPDATE ON usher.subscriber_package
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.subscriber_package_changed();
CREATE TRIGGER subscriber_package_deleted AFTER DELETE ON usher.subscriber_package
  REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION usher.subscriber_package_changed();
CREATE TRIGGER package_changed AFTER INSERT OR UPDATE OR DELETE ON usher.package
  FOR EACH STATEMENT EXECUTE FUNCTION usher.package_changed();

CREATE VIEW usher.subscribers AS
SELECT s.realm, s.user_id, s.name, s.login, s.token IS NOT NULL AS has_token, s.password IS NOT NULL AS has_password,
       ARRAY(SELECT p.package FROM usher.subscriber_package p
              WHERE p.realm = s.realm AND p.user_id = s.user_id ORDER BY p.package) AS packages,
       s.sessions, s.expires_at, s.networks, s.blocked_at, s.comment, s.created_at, s.updated_at
  FROM usher.subscriber s;

CREATE VIEW usher.packages AS
SELECT p.realm, p.name, p.streams, p.comment,
       (SELECT count(*) FROM usher.subscriber_package s WHERE s.realm = p.realm AND s.package = p.name) AS subscribers,
       p.created_at, p.updated_at
  FROM usher.package p;

GRANT SELECT ON usher.subscribers, usher.packages TO usher_reader;

-- +goose Down
DROP VIEW usher.packages, usher.subscribers;
DROP TABLE usher.subscriber_change, usher.subscriber_package, usher.package, usher.subscriber;
DROP FUNCTION usher.package_changed(), usher.subscriber_package_changed(), usher.subscriber_changed(),
              usher.note_subscribers(bigint, text[], uuid[], text[]);
