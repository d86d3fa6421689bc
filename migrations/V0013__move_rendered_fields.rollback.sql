-- carried back: data_migration
DELETE FROM data_migration WHERE version = 13;
