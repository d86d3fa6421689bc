#!/usr/bin/env bash
# Imports this folder into Apache Airflow {{ airflow }}. Needs `airflow` on the PATH, configured for its database.
#   import.sh                 create the database; import pools, variables and connections
#   import.sh --first-user    also create the user admin, with ADMIN_PASSWORD
#   import.sh --unpause       also unpause the DAGs that were active in Leoflow
set -euo pipefail
cd "$(dirname "$0")"

airflow db migrate
# Existing entries are not changed.
{% for pool in pools -%}
airflow pools get {{ pool.name }} >/dev/null 2>&1 || airflow pools set {{ pool.name }} {{ pool.slots }} {{ pool.description }}{{ " --include-deferred" if pool.include_deferred }}
{% endfor -%}
if [ -f variables.json ]; then
    airflow variables import variables.json --action-on-existing-key skip
else
    echo "import.sh: variables.json does not exist yet; see README.md" >&2
fi
if [ -f connections.json ]; then
    airflow connections import connections.json
else
    echo "import.sh: connections.json does not exist yet; see README.md" >&2
fi
for argument in "$@"; do
    case "$argument" in
        --first-user)
            airflow users create --username admin --password "${ADMIN_PASSWORD:?}" --role Admin --firstname Admin --lastname Admin --email {{ email }}
            ;;
        --unpause)
            airflow dags reserialize
{%- for dag in active %}
            airflow dags unpause {{ dag }}
{%- endfor %}
            ;;
        *)
            echo "import.sh: unknown option $argument" >&2
            exit 2
            ;;
    esac
done
