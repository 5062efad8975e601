-- No unique key on purpose: a row that were imported twice would be there twice.
create table sale (
    customer text not null,
    amount_cents bigint not null,
    day date not null
);

-- The rows of a file that are no sales, for somebody to look at.
create table rejected_row (
    line bigint not null,
    reason text not null
);

create table import_report (
    path text not null,
    rows bigint not null,
    rejected bigint not null,
    amount_cents bigint not null,
    reported_at timestamptz not null default now()
);
