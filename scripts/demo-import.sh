#!/usr/bin/env bash
# Imports 50,000 rows with examples/import, kills the worker with -9 half-way, goes on with another one, and counts: each row is there
# exactly once. Exit code 0: table, result and an independent count of the file agree. The database is thrown away.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/throwaway.sh
in_throwaway

readonly ROWS=50000 HALF_WAY=20000
export TASKER_LEASE_SECONDS=2 # so that what the dead worker had in hand is free again after two seconds, not thirty

rows_in_table() { # how many rows of the file are in the application's tables, good and bad ones
  example-import summary | awk '$1 == "total" || $1 == "rejected" { rows += $2 } END { print rows + 0 }'
}

is_half_way() { [ "$(rows_in_table)" -ge "$HALF_WAY" ]; }

say "a file of $ROWS rows, and a worker"
example-import generate "$work/sales.csv" "$ROWS"
ls -l "$work/sales.csv" | awk '{ print $5 " bytes" }'
head -n 4 "$work/sales.csv"
start_worker example-import
echo "worker $worker runs"

say "the import begins: ranges of 2,500 rows, four at a time, each in slices of 250"
task=$(tasker run sales.import --set path="$work/sales.csv" --set pace_ms=25 --key the-import)
echo "task $task"
soon 60 "the import is not half-way after a minute" is_half_way

say "kill -9 $worker"
kill_worker
killed_at=$(rows_in_table)
[ "$killed_at" -lt "$ROWS" ] || fail "the worker was killed too late"
echo "the worker is dead; $killed_at of $ROWS rows are in the table"
shown tasker task show the-import
tasker task list --key the-import --output json | grep '"running"' >/dev/null || fail "the task does not run any more"

say "another worker goes on"
start_worker example-import
echo "worker $worker runs"
began=$SECONDS
tasker task wait the-import --timeout 2m >/dev/null || fail "the import did not complete"
echo "complete, $((SECONDS - began)) s after the new worker was there"
tasker task show the-import

say "counting"
# Worked out from the text of the file alone, by other code than the import's.
tail -n +2 "$work/sales.csv" | awk -F, '
  NF == 3 && $2 ~ /^[0-9]+\.[0-9][0-9]$/ && $3 != "2026-02-30" {
    split($2, amount, "."); cents = amount[1] * 100 + amount[2]
    days[$3]++; sums[$3] += cents; rows++; sum += cents; next
  }
  { rejected++ }
  END {
    for (day in days) printf "%s %d %.0f\n", day, days[day], sums[day] | "sort"
    close("sort")
    printf "total %d %.0f\nrejected %d\n", rows, sum, rejected
  }' >"$work/file"
example-import summary >"$work/table"
example-import result "$task" >"$work/result"
for part in file table result; do
  printf '%-7s %s\n' "$part" "$(tail -n 2 "$work/$part" | tr '\n' ' ')"
done
diff "$work/file" "$work/table" || fail "the table differs from the file"
diff "$work/file" "$work/result" || fail "the task's result differs from the file"
echo "each row is there exactly once: days, sums and rejected rows agree"

say "stopping"
stop_worker
say "all went as it should"
