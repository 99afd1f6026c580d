-- one row per item shown to the users of a list: the best lists of two rankers, joined by a team draft
-- (Radlinski, Kurup and Joachims 2008; Chapelle, Joachims, Radlinski and Yue 2012)
-- the team with fewer picks is next, a coin decides between equals; a pick is the team's best item not yet in the list
-- propensity: of this item here, given the picks above and their teams; supporters = 0: reweighting leaves it out
create or replace macro m6.interleave_lists(
    user_list,
    a := null,
    b := null,
    k := 10,
    in_domain := null,
    among := 'm6.available_items',
    boosts := 'm6.no_boosts',
    diversity := 0.0,
    calibrated := 0.0,
    exclude_seen := null,
    seed := null,
    request := null,
    moment := null
) as table
with recursive

rankers as materialized (
    select
        m6.ranker(a) as first_ranker,
        m6.ranker(b) as second_ranker,
        coalesce(cast(seed as bigint), cast(floor(random() * 9007199254740992) as bigint)) as drawn_seed,
        coalesce(cast(moment as timestamp), cast(now() at time zone 'UTC' as timestamp)) as new_shown_at
),

first_lists as materialized (
    select user_id, list(s order by s.rank, s.item_id) as items
    from m6.slates(
        user_list,
        k := k,
        in_domain := in_domain,
        among := among,
        boosts := boosts,
        diversity := diversity,
        calibrated := calibrated,
        exclude_seen := exclude_seen,
        version := (select first_ranker.of_version from rankers),
        policy := (select first_ranker.of_policy from rankers)
    ) as s
    group by user_id
),

second_lists as materialized (
    select user_id, list(s order by s.rank, s.item_id) as items
    from m6.slates(
        user_list,
        k := k,
        in_domain := in_domain,
        among := among,
        boosts := boosts,
        diversity := diversity,
        calibrated := calibrated,
        exclude_seen := exclude_seen,
        version := (select second_ranker.of_version from rankers),
        policy := (select second_ranker.of_policy from rankers)
    ) as s
    group by user_id
),

requests as materialized (
    select
        x.user_id,
        x.items as first_items,
        y.items as second_items,
        coalesce(cast(request as varchar) || '-' || x.user_id, cast(uuid() as varchar)) as new_request_id,
        r.drawn_seed,
        r.new_shown_at,
        'team_a:' || r.first_ranker.label || ':' || r.second_ranker.label as first_team,
        'team_b:' || r.first_ranker.label || ':' || r.second_ranker.label as second_team
    from first_lists as x
    inner join second_lists as y on x.user_id = y.user_id
    cross join rankers as r
),

draft as (
    select
        user_id,
        0 as place,
        cast([] as varchar []) as taken,
        0 as lead_of_first,
        cast(null as boolean) as is_first,
        cast(null as double) as chance
    from requests
    union all
    select
        user_id,
        place + 1,
        list_append(taken, case when is_picked_by_first then next_first else next_second end),
        lead_of_first + case when is_picked_by_first then 1 else -1 end,
        is_picked_by_first,
        case when is_picked_by_first or next_first = next_second then first_chance else 0.0 end
        + case when not is_picked_by_first or next_first = next_second then 1.0 - first_chance else 0.0 end
    from (
        select
            *,
            case
                when first_chance = 0.5
                    then substr(sha256(drawn_seed || '/' || place || '/' || user_id), 1, 1) < '8'
                else first_chance = 1.0
            end as is_picked_by_first
        from (
            select
                *,
                case
                    when next_second is null then 1.0
                    when next_first is null then 0.0
                    when lead_of_first = 0 then 0.5
                    when lead_of_first < 0 then 1.0
                    else 0.0
                end as first_chance
            from (
                select
                    d.user_id,
                    d.place,
                    d.taken,
                    d.lead_of_first,
                    q.drawn_seed,
                    list_filter(
                        q.first_items, lambda x: not list_contains(d.taken, x.item_id)
                    )[1].item_id as next_first,
                    list_filter(
                        q.second_items, lambda x: not list_contains(d.taken, x.item_id)
                    )[1].item_id as next_second
                from draft as d
                inner join requests as q on d.user_id = q.user_id
                where d.place < k
            )
            where next_first is not null or next_second is not null
        )
    )
),

picks as (
    select
        d.place,
        d.is_first,
        d.chance,
        q.*,
        list_filter(
            case when d.is_first then q.first_items else q.second_items end, lambda x: x.item_id = d.taken[-1]
        )[1] as pick
    from draft as d
    inner join requests as q on d.user_id = q.user_id
    where d.place > 0
)

select
    new_request_id || '-' || place as impression_id,
    new_request_id as request_id,
    user_id,
    pick.item_id as item_id,
    place as rank,
    case when is_first then first_team else second_team end as strategy,
    cast(0 as ubigint) as supporters,
    cast(0 as ubigint) as eligible,
    chance as propensity,
    drawn_seed as seed,
    pick.score as score,
    pick.satisfaction as satisfaction,
    pick.policy_version as policy_version,
    pick.model_version as model_version,
    pick.weights_domain as domain,
    pick.segment as segment,
    new_shown_at as shown_at
from picks;
comment on macro table m6.interleave_lists is 'The body of interleave and interleave_many: team drafts of two rankers';
