-- Makes many tasks in one statement, 256 at a time: submit_v1 compares the tasks of one call with each other, so that the cost of ten
-- thousand at once would be that of a hundred million pairs (27 s measured, where this takes 1).
-- Only the first slice is handed off to the caller. Locks and indexes: those of submit_v1.
select s.*
from generate_series(1, cardinality($1::uuid[]), 256) as c(at)
cross join lateral {schema}.submit_v1(
  ($1::uuid[])[c.at:c.at + 255], ($2::int[])[c.at:c.at + 255], ($3::text[])[c.at:c.at + 255], ($4::text[])[c.at:c.at + 255],
  ($5::timestamptz[])[c.at:c.at + 255], ($6::smallint[])[c.at:c.at + 255], ($7::timestamptz[])[c.at:c.at + 255],
  ($8::text[])[c.at:c.at + 255], ($9::text[])[c.at:c.at + 255], ($10::text[])[c.at:c.at + 255], ($11::text[])[c.at:c.at + 255],
  $12, $13, $14, $15, $16, case when c.at = 1 then $17 else 0 end, $18) s
