create table ledger_entry (
    entry_id bigint generated always as identity primary key,
    order_id text not null,
    amount_cents bigint not null,
    booked_on date not null
);

-- Months in which nothing is booked any more, by their first day.
create table closed_month (
    month date primary key
);

-- What the mailer sends.
create table mail (
    mail_id bigint generated always as identity primary key,
    order_id text not null,
    customer text not null,
    body text not null
);

-- What the payment gateway keeps. It stands here so that the example needs no other server.
create table gateway_refund (
    refund_id bigint generated always as identity primary key,
    key text not null unique,
    order_id text not null,
    amount_cents bigint not null,
    is_reversed boolean not null default false
);
