-- one row per (user, item): what the user did with the item up to $as_of
with

events as (select * from stg_events),

per_pair as (
    select
        user_idx,
        item_idx,
        count(*) as events,
        max(interest) as interest,
        min(interest) as lowest_interest,
        max(satisfaction) as satisfaction,
        max(happened_at) as last_at,
        min(age_days) as last_days,
        max(age_days) as first_days
    from events
    group by user_idx, item_idx
),

recent_first as (
    select
        *,
        row_number() over (partition by user_idx order by last_at desc, item_idx) as recency_rank
    from per_pair
),

weighted as (
    select
        *,
        case
            when lowest_interest < 0 then lowest_interest
            else interest * pow(0.5, last_days / (0.5 * $span_days))
        end as long_weight,
        case when interest > 0 and recency_rank <= 20 then pow(0.9, recency_rank - 1) else 0.0 end as short_weight
    from recent_first
)

select * from weighted
