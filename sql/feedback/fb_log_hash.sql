-- one row: an order-free fingerprint of everything a reweighting reads from the log
select
    (select sum(cast(hash(i) as hugeint)) from fb_impressions as i) as impressions,
    (select count(*) from fb_impressions) as impression_count,
    (select sum(cast(hash(m) as hugeint)) from fb_matches as m) as matches,
    (select count(*) from fb_matches) as match_count,
    (select sum(cast(hash(t) as hugeint)) from m6.event_types as t) as event_types,
    (
        select sum(cast(hash(s.strategy, s.bit, s.is_enabled) as hugeint))
        from m6.strategies as s
    ) as strategies
