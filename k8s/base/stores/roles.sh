# Run once, on an empty volume: a role and a database for newfound's services, and for the pipelines' studies. Neither
# is a superuser, and neither may look into the other's.
psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres \
  --set=services="$NEWFOUND_PASSWORD" --set=studies="$OPTUNA_PASSWORD" <<'SQL'
CREATE ROLE newfound LOGIN PASSWORD :'services';
CREATE ROLE optuna LOGIN PASSWORD :'studies';
CREATE DATABASE newfound OWNER newfound;
CREATE DATABASE optuna OWNER optuna;
REVOKE CONNECT ON DATABASE newfound, optuna, postgres, template1 FROM PUBLIC;
SQL
