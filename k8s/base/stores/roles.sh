# Run once, on an empty volume: a database for newfound's services and one for the pipelines' studies, and a role for each
# workload. The collector's owns the tables and gives the others what they need of them (monitoring/store/grants.py);
# retain and erase act as it, for what they delete must go from the files too. None is a superuser, and no role of one
# database may look into the other.
psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres \
  --set=services="$NEWFOUND_PASSWORD" --set=studies="$OPTUNA_PASSWORD" <<'SQL'
CREATE ROLE newfound LOGIN PASSWORD :'services';
CREATE ROLE optuna LOGIN PASSWORD :'studies';
CREATE DATABASE newfound OWNER newfound;
CREATE DATABASE optuna OWNER optuna;
REVOKE CONNECT ON DATABASE newfound, optuna, postgres, template1 FROM PUBLIC;
SQL
for workload in decide erase exporter import report retain verdict; do
  password="${workload^^}_PASSWORD"
  psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=newfound \
    --set=role="newfound_$workload" --set=password="${!password}" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
GRANT CONNECT ON DATABASE newfound TO :"role";
SQL
done
for workload in erase retain; do
  psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=newfound --set=role="newfound_$workload" <<'SQL'
GRANT newfound TO :"role";
ALTER ROLE :"role" IN DATABASE newfound SET role TO newfound;
SQL
done
