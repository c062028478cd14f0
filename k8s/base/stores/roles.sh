# A database for newfound's services and one for the pipelines' studies, and a role for each workload. The collector's owns
# the tables and gives the others what they need of them (monitoring/store/grants.py); retain and erase act as it, for what
# they delete must go from the files too. None is a superuser, and no role of one database may look into the other.
#
# The image runs it on an empty volume. On a server that is there already it makes what is missing, sets the passwords anew
# and hands over what others own: docs/operations.md says when. An administrator who is no superuser may run it too.
as() { psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username="$1" --dbname="$2" "${@:3}" >/dev/null; }

# The first installations had one role, `newfound`, which was the superuser. PostgreSQL keeps that one under whatever name.
if ! as "$POSTGRES_USER" postgres --command="SELECT 1" 2>/dev/null; then
  as newfound postgres --set=role="$POSTGRES_USER" --set=password="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE :"role" SUPERUSER LOGIN PASSWORD :'password';
SQL
  as "$POSTGRES_USER" postgres --command="ALTER ROLE newfound RENAME TO newfound_before"
  as "$POSTGRES_USER" postgres --command="ALTER ROLE newfound_before NOLOGIN"
fi

as "$POSTGRES_USER" postgres --set=services="$NEWFOUND_PASSWORD" --set=studies="$OPTUNA_PASSWORD" <<'SQL'
SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY['newfound', 'optuna']) AS name
WHERE name NOT IN (SELECT rolname FROM pg_roles) \gexec
ALTER ROLE newfound LOGIN PASSWORD :'services';
ALTER ROLE optuna LOGIN PASSWORD :'studies';
SELECT 'GRANT newfound, optuna TO CURRENT_USER' FROM pg_roles WHERE rolname = current_user AND NOT rolsuper \gexec
SELECT format('CREATE DATABASE %I', name) FROM unnest(ARRAY['newfound', 'optuna']) AS name
WHERE name NOT IN (SELECT datname FROM pg_database) \gexec
ALTER DATABASE newfound OWNER TO newfound;
ALTER DATABASE optuna OWNER TO optuna;
REVOKE CONNECT ON DATABASE newfound, optuna, postgres, template1 FROM PUBLIC;
SQL
for database in newfound optuna; do
  as "$POSTGRES_USER" "$database" --set=owner="$database" <<'SQL'
SELECT format('ALTER TABLE %s OWNER TO %I', oid::regclass, :'owner') FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND pg_get_userbyid(relowner) <> :'owner' \gexec
SELECT format('ALTER TYPE %s OWNER TO %I', oid::regtype, :'owner') FROM pg_type
WHERE typnamespace = 'public'::regnamespace AND typtype = 'e' AND pg_get_userbyid(typowner) <> :'owner' \gexec
SQL
done
for workload in decide erase exporter import report retain verdict; do
  password="${workload^^}_PASSWORD"
  as "$POSTGRES_USER" newfound --set=role="newfound_$workload" --set=password="${!password}" <<'SQL'
SELECT format('CREATE ROLE %I', :'role') WHERE :'role' NOT IN (SELECT rolname FROM pg_roles) \gexec
ALTER ROLE :"role" LOGIN PASSWORD :'password';
GRANT CONNECT ON DATABASE newfound TO :"role";
SQL
done
for workload in erase retain; do
  as "$POSTGRES_USER" newfound --set=role="newfound_$workload" <<'SQL'
GRANT newfound TO :"role";
ALTER ROLE :"role" IN DATABASE newfound SET role TO newfound;
SQL
done
