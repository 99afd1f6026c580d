-- one row per (method, user_id): ranking metrics of the first $k items; a user without a list scores 0
-- Rounded to 12 places: the order in which threads add must not show.
with

users as (
    select user_id, n_targets, slice
    from eval_users
),

lists as (
    select method, user_id, item_id, rank
    from eval_lists
    where rank <= $k
),

targets as (
    select user_id, item_id
    from eval_targets
),

catalogue as (
    select item_id, user_share
    from eval_catalogue
),

ideal as (
    select position, sum(1 / log2(position + 1)) over (order by position) as dcg
    from (select unnest(range(1, $k + 1)) as position)
),

hits as (
    select
        lists.method,
        lists.user_id,
        lists.rank,
        row_number() over (partition by lists.method, lists.user_id order by lists.rank) as hit_number
    from lists
    inner join targets on lists.user_id = targets.user_id and lists.item_id = targets.item_id
),

gains as (
    select
        method,
        user_id,
        count(*) as n_hits,
        sum(1 / log2(rank + 1)) as dcg,
        sum(hit_number / rank) as precision_sum,
        min(rank) as first_rank
    from hits
    group by method, user_id
),

-- self-information of the items shown (Zhou et al., PNAS 2010): bits, high for what few users know
novelty as (
    select
        lists.method,
        lists.user_id,
        avg(-log2(coalesce(catalogue.user_share, rarest.user_share))) as novelty
    from lists
    cross join (select min(user_share) as user_share from catalogue) as rarest
    left join catalogue on lists.item_id = catalogue.item_id
    group by lists.method, lists.user_id
),

methods as (
    select distinct method
    from eval_lists
),

metrics as (
    select
        methods.method,
        users.user_id,
        users.slice,
        round(coalesce(gains.dcg, 0) / ideal.dcg, 12) as ndcg,
        coalesce(gains.n_hits, 0) / users.n_targets as recall,
        coalesce(gains.n_hits, 0) / $k as "precision",
        round(coalesce(gains.precision_sum, 0) / least(users.n_targets, $k), 12) as map,
        coalesce(1 / gains.first_rank, 0) as mrr,
        cast(gains.n_hits is not null as double) as hit_rate,
        round(coalesce(novelty.novelty, 0), 12) as novelty
    from methods
    cross join users
    inner join ideal on ideal.position = least(users.n_targets, $k)
    left join gains on methods.method = gains.method and users.user_id = gains.user_id
    left join novelty on methods.method = novelty.method and users.user_id = novelty.user_id
)

select * from metrics
