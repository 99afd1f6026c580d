-- one row per slot of a logged list: what was shown, and what another build or other weights would have shown
-- moment, history, seed, length and domain are those of the log; among, boosts, diversity, exclude_seen are given again
create or replace macro m6.what_if(
    for_request,
    version := null,
    policy := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    calibrated := 0.0,
    exclude_seen := null
) as table
with

shown as materialized (
    select
        i.user_id,
        i.item_id,
        i.rank,
        i.satisfaction,
        i.seed,
        i.shown_at,
        i.domain,
        i.model_version,
        i.policy_version,
        starts_with(i.strategy, 'team_') as is_interleaved,
        row_number() over (order by i.rank, i.impression_id) as place
    from m6.impressions as i
    where i.request_id = cast(for_request as varchar) and i.strategy <> 'pinned'
),

asked as materialized (
    select
        case
            when count(*) = 0
                then cast(
                    error(
                        'there is no request ' || coalesce(cast(for_request as varchar), 'NULL')
                        || ' in m6.impressions, expected a request_id of it' || chr(10)
                        || 'Hint: select distinct request_id from m6.impressions'
                    ) as varchar []
                )
            else list(distinct user_id)
        end as people,
        count(*) as places,
        max(shown_at) as moment,
        case when max(domain) <> '*' then max(domain) end as own_domain,
        case when not bool_or(is_interleaved) then max(seed) end as own_seed,
        case
            when version is not null then m6.model_number(version)
            when min(model_version) is distinct from max(model_version)
                then cast(
                    error('this list was interleaved from two builds' || chr(10) || 'Hint: name one: version := 1')
                    as bigint
                )
            else m6.model_number(max(model_version))
        end as of_version,
        case
            when policy is not null then m6.policy_number(policy)
            when min(policy_version) is distinct from max(policy_version)
                then cast(
                    error('this list was interleaved from two policies' || chr(10) || 'Hint: name one: policy := 1')
                    as bigint
                )
            else max(policy_version)
        end as of_policy
    from shown
),

listed as materialized (
    select item_id, satisfaction, strategy, row_number() over (order by rank, item_id) as place
    from m6.slates(
        (select people from asked),
        k := (select places from asked),
        in_domain := (select own_domain from asked),
        among := among,
        boosts := boosts,
        diversity := diversity,
        calibrated := calibrated,
        exclude_seen := exclude_seen,
        until := (select moment from asked),
        version := (select of_version from asked),
        draw_seed := (select own_seed from asked),
        policy := (select of_policy from asked)
    )
),

beside as (
    select
        s.rank,
        s.item_id as shown_item_id,
        shown_item.title as shown_title,
        l.item_id as what_if_item_id,
        what_if_item.title as what_if_title,
        before.rank - s.rank as moved,
        s.satisfaction as shown_satisfaction,
        l.satisfaction as what_if_satisfaction,
        l.strategy as what_if_strategy
    from shown as s
    left join listed as l on s.place = l.place
    left join shown as before on l.item_id = before.item_id
    left join m6.items as shown_item on s.item_id = shown_item.item_id
    left join m6.items as what_if_item on l.item_id = what_if_item.item_id
)

select * from beside order by rank;
comment on macro table m6.what_if is 'a logged list beside the list of another build or other weights: from m6.what_if(''request'', policy := 4)';
