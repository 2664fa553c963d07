-- The tables that capture-golden records.

CREATE TABLE users (
    id uuid PRIMARY KEY,
    name text,
    email text,
    updated_at timestamptz,
    first_name text,
    last_name text
);
CREATE PUBLICATION golden FOR TABLE users;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'very "happy"');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);

CREATE TABLE every_type (
    id integer PRIMARY KEY,
    a_bool boolean,
    a_int2 smallint,
    a_int4 integer,
    a_int8 bigint,
    a_float4 real,
    a_float8 double precision,
    a_numeric numeric,
    a_numeric_10_2 numeric(10, 2),
    a_text text,
    a_varchar varchar(20),
    a_char char(5),
    a_bytea bytea,
    a_uuid uuid,
    a_json json,
    a_jsonb jsonb,
    a_date date,
    a_time time,
    a_time_3 time(3),
    a_timestamp timestamp,
    a_timestamp_3 timestamp(3),
    a_timestamptz timestamptz,
    a_interval interval,
    a_inet inet,
    a_cidr cidr,
    a_macaddr macaddr,
    a_enum mood,
    a_domain positive,
    a_bit_1 bit(1),
    a_bit_8 bit(8),
    an_oid oid,
    a_range int4range,
    a_text_array text[],
    an_int4_array integer[],
    a_numeric_array numeric[],
    a_default text DEFAULT 'the default',
    a_not_null text NOT NULL DEFAULT 'never null'
);
CREATE PUBLICATION golden_types FOR TABLE every_type;

INSERT INTO every_type VALUES
    (1, true, 7, 70000, 9007199254740993, 3.3, 4.44, 10.1100, 123.45, 'text', 'varchar', 'ch', '\x00ff10',
     '7b0c0000-0000-4000-8000-000000000000', '{"b": 1,  "a": "x"}', '{"b": 1, "a": "x"}',
     '2024-02-29', '12:34:56.789012', '12:34:56.789', '2024-05-06 07:08:09.123456', '2024-05-06 07:08:09.123',
     '2024-05-06 07:08:09.123456+02', '1 year 2 months 3 days 04:05:06.78', '192.168.2.1/24', '192.168.2.0/24',
     '08:00:2b:01:02:03', 'very "happy"', 5, '1', '10100000', 4294967295, '[1,10)',
     ARRAY['one', 'two, "three"', NULL], '{1,2,NULL}', '{1.10,2}', NULL, 'given'),
    (2, false, -32768, -2147483648, -9223372036854775808, 'NaN', '-Infinity', 'NaN', -0.01, '', '', '', '',
     '00000000-0000-0000-0000-000000000000', 'null', 'null',
     '0001-01-01', '24:00:00', '00:00:00', '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59.999',
     'infinity', '-1 day +00:00:01', '::1', '::/0', 'ff:ff:ff:ff:ff:ff', 'sad', 1, '0', '00000001', 0, 'empty',
     '{}', '{}', '{}', '', '');
INSERT INTO every_type (id, a_default) VALUES (3, NULL);
