-- one row per impression of the window: reward, and its deviation from the mean of (domain, segment, rank)
with

reactions as (
    select
        impression_id,
        bool_or(kind = 'click') as is_clicked,
        coalesce(max(value) filter (where kind = 'click'), 0.0) as click_value,
        cast(coalesce(sum(cast(value as decimal(38, 12))) filter (where kind = 'late' and not is_clicked), 0) as double)
            as direct_value,
        coalesce(min(value) filter (where kind = 'negative'), 0.0) as negative_value
    from fb_reactions
    group by impression_id
),

late as (
    select strategy, cast(sum(cast(value as decimal(38, 12))) as double) as value
    from fb_late_values
    group by strategy
),

rewards as (
    select
        i.*,
        coalesce(r.is_clicked, false) as is_clicked,
        r.impression_id is not null as is_answered,
        coalesce(r.click_value + r.direct_value + r.negative_value, 0.0)
        + case when r.is_clicked then coalesce(l.value, 0.0) else 0.0 end as reward
    from fb_impressions as i
    left join reactions as r on i.impression_id = r.impression_id
    left join late as l on i.strategy = l.strategy
),

baselines as (
    select domain, segment, rank, cast(sum(cast(reward as decimal(38, 12))) as double) / count(*) as baseline
    from rewards
    group by domain, segment, rank
),

log as (
    select r.*, r.reward - b.baseline as advantage
    from rewards as r
    inner join baselines as b on r.domain = b.domain and r.segment = b.segment and r.rank = b.rank
)

select * from log
