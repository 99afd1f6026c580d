-- one row per impression whose propensity is not in (0, 1], or whose supporters were not all eligible
-- remedy (fail): insert impressions only from m6.serve; delete rows that were written by hand
with

impressions as (select impression_id, propensity, supporters, eligible from m6.impressions),

wrong as (
    select *
    from impressions
    where
        propensity is null
        or isnan(propensity)
        or propensity <= 0
        or propensity > 1.0000001
        or (supporters & eligible) <> supporters
)

select * from wrong
order by impression_id
