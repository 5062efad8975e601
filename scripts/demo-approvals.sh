#!/usr/bin/env bash
# Shows refunds that wait for a person, with examples/refund: one is approved from the command line, one refused, one forgotten until its
# time is over, and one that is paid and cannot be booked, so that it is undone. Exit code 0: each ended as it should. The database is
# thrown away.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/throwaway.sh
in_throwaway

ask() { # ask ORDER CENTS DAY: asks for a refund
  printf '\n$ tasker run refunds.refund --set order_id=%s --set amount_cents=%s --set requested_on=%s ...\n' "$1" "$2" "$3"
  tasker run refunds.refund --key "$1" --set order_id="$1" --set customer=zoe@example.org --set amount_cents="$2" \
    --set ordered_on=2026-01-02 --set requested_on="$3"
}

is_waiting() { tasker task events "$1" | grep approval | grep ready >/dev/null; }

ends() { # ends ORDER STATE: waits for the end of a refund, and shows it
  local status=0
  tasker task wait "$1" --timeout 1m >/dev/null 2>&1 || status=$?
  shown tasker task show "$1"
  case $2 in complete) [ "$status" -eq 0 ] ;; failed) [ "$status" -eq 6 ] ;; esac || fail "$1 did not end as $2: exit code $status"
}

has() { # has ORDER LINES: the gateway, the ledger and the mailer have this of an order, and nothing else
  shown example-refund show "$1"
  diff <(example-refund show "$1") <(printf '%s\n' "$2") || fail "it should be as on the right"
}

say "a worker; who is asked to approve a refund has three days"
start_worker example-refund
echo "worker $worker runs"
tasker workflow graph refunds.refund

say "R-1: 250.00 is more than the policy allows by itself, so it waits"
ask R-1 25000 2026-01-10
soon 10 "R-1 does not wait for its approval" is_waiting R-1
shown tasker task show R-1
has R-1 "nothing"
say "kim approves it"
shown tasker signal R-1 approval --payload '{"approved": true, "by": "kim"}'
ends R-1 complete
has R-1 "gateway refunded 25000
ledger -25000
mail your refund is on its way"

say "R-2: kim refuses; what is no answer is not taken"
ask R-2 90000 2026-01-10
soon 10 "R-2 does not wait for its approval" is_waiting R-2
if shown tasker signal R-2 approval --payload '{"approved": "maybe"}'; then fail "the signal should be refused"; fi
shown tasker signal R-2 approval --payload '{"approved": false, "by": "kim"}'
ends R-2 complete
has R-2 "mail there is no refund: it was refused by kim"

say "R-3: nobody answers; a worker with REFUND_APPROVAL_SECONDS=2 makes the time short"
stop_worker
export REFUND_APPROVAL_SECONDS=2
start_worker example-refund
ask R-3 25000 2026-01-10
ends R-3 complete
has R-3 "mail there is no refund: it was refused by the deadline"

say "R-4: small enough, so it is paid at once; but the books of that month are closed, so it is undone"
shown example-refund close 2026-01
ask R-4 4000 2026-01-31
ends R-4 failed
has R-4 "gateway reversed 4000"

say "R-5: the order is too old"
ask R-5 4000 2026-02-28
ends R-5 complete
has R-5 "mail there is no refund: the order is older than 30 days"

say "stopping"
stop_worker
say "all went as it should"
