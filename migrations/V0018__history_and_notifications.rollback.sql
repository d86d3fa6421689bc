-- loses: table notification, table notification_delivery, table notification_episode
DROP INDEX dag_run_version;
DROP INDEX asset_partition_event_of;
DROP INDEX dag_run_asset_event_of;
DROP TABLE notification_delivery, notification, notification_episode;
