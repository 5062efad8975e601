-- The shop's own tables. Tasker's are in a schema of their own.

create table orders (
    order_id text primary key,
    customer text not null,
    email text not null,
    currency text not null,
    state text not null default 'placed' constraint orders_state_known check (state in ('placed', 'confirmed')),
    total numeric,
    task_id uuid,
    placed_at timestamptz not null default now(),
    confirmed_at timestamptz
);

create table stock (
    sku text primary key,
    name text not null,
    on_hand integer not null constraint stock_on_hand_positive check (on_hand >= 0)
);

create table reservation (
    order_id text not null,
    sku text not null references stock,
    quantity integer not null constraint reservation_quantity_positive check (quantity > 0),
    primary key (order_id, sku)
);

-- What the payment provider keeps. It stands here so that the example needs no other server.

create table provider_charge (
    charge_id bigint generated always as identity primary key,
    key text not null unique,
    token text not null,
    amount numeric not null,
    currency text not null
);

create table provider_call (
    key text primary key,
    calls integer not null
);
