#!/usr/bin/env bash
# Takes what is in this folder into Apache Airflow {{ airflow }}. Needs `airflow` on the PATH, configured for its database.
#   import.sh                 database, pools, variables, connections
#   import.sh --first-user    and the user admin, with ADMIN_PASSWORD
#   import.sh --unpause       and lets those DAGs begin that were active in Leoflow
set -euo pipefail
cd "$(dirname "$0")"

airflow db migrate
airflow pools import pools.json
{% for kind in ["variables", "connections"] -%}
if [ -f {{ kind }}.json ]; then
    airflow {{ kind }} import {{ kind }}.json{{ " --overwrite" if kind == "connections" }}
else
    echo "import.sh: {{ kind }}.json is not there yet: README.md says how it is made" >&2
fi
{% endfor -%}
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
            echo "import.sh: there is no option $argument" >&2
            exit 2
            ;;
    esac
done
