DROP TABLE connection;
DROP TABLE variable;
DROP TABLE instance_fact;
