DROP INDEX dag_version_environment;
ALTER TABLE dag_version DROP COLUMN environment;
DROP TABLE environment_choice;
DROP TABLE environment;
