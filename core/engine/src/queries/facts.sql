-- Facts about the server and the installation, for `doctor`.
select current_setting('server_version') as server_version,
  current_setting('server_version_num')::int as server_version_number,
  current_setting('max_connections')::bigint as max_connections,
  (select count(*) from pg_stat_activity a where a.backend_type = 'client backend') as connections,
  (select count(*) from generate_series(1, 52) as w(week)
    where to_regclass(format('{schema}.%I',
      'event_' || to_char(({schema}.now() + w.week * interval '7 days') at time zone 'utc', 'IYYY"w"IW'))) is not null) as partitions_ahead,
  exists (select from {schema}.event_default) as default_partition_used,
  exists (select from {schema}.setting s where s.key = 'test_mode' and s.value = 'on') as test_mode
